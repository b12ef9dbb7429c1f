//! Sections 6 and 8 of docs/PROTOCOL.md: the handshake and the records, over a
//! TCP connection. ChaCha20-Poly1305 records are snow's own transport messages;
//! AES-256-GCM records come from the aes-gcm crate.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use aes_gcm::aead::{Aead, KeyInit};
use aes_gcm::Aes256Gcm;
use chacha20::cipher::StreamCipher;
use snow::{Builder, HandshakeState, TransportState};

use crate::frame::{self, Header, Hello, Result};
use crate::keys::{self, blake2b_256, Identity, Network};

pub const NOISE: &str = "Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b";
const REKEY: u64 = 1 << 16;

/// Who we are in a handshake, and what we say there.
#[derive(Clone)]
pub struct Us {
    pub identity: Identity,
    pub network: Network,
    pub hello: Hello,
}

impl Us {
    pub fn new(identity: Identity, network: &str, aes: bool) -> Us {
        let hello = Hello {
            version: 1,
            peer: identity.id(),
            app_id: b"interop".to_vec(),
            role: 0,
            instance: u64::from_be_bytes(keys::random()),
            ciphers: if aes { 3 } else { 1 },
            lost_after: 120_000,
            resume: 30_000,
            unacked: 8 << 20,
            flags: 0,
        };
        Us { identity, network: Network::new(network.as_bytes()), hello }
    }

    pub fn noise(&self, initiator: bool, ephemeral: Option<&[u8]>) -> Result<HandshakeState> {
        self.noise_over(b"libcrust/1", initiator, ephemeral)
    }

    pub fn noise_over(&self, prologue: &[u8], initiator: bool, ephemeral: Option<&[u8]>) -> Result<HandshakeState> {
        let secret = self.identity.secret();
        let mut b = Builder::new(NOISE.parse().map_err(|e| format!("{e:?}"))?)
            .prologue(prologue)
            .psk(0, &self.network.psk)
            .local_private_key(&secret);
        if let Some(e) = ephemeral {
            b = b.fixed_ephemeral_key_for_testing_only(e);
        }
        if initiator { b.build_initiator() } else { b.build_responder() }.map_err(|e| format!("{e:?}"))
    }
}

/// The noise message for a payload.
pub fn write(state: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>> {
    let mut out = vec![0; 2048];
    let n = state.write_message(payload, &mut out).map_err(|e| format!("{e:?}"))?;
    out.truncate(n);
    Ok(out)
}

/// The payload of a noise message.
pub fn read(state: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>> {
    let mut out = vec![0; 2048];
    let n = state.read_message(message, &mut out).map_err(|e| format!("{e:?}"))?;
    out.truncate(n);
    Ok(out)
}

/// Checks a hello against the static key that Noise has authenticated.
pub fn check(state: &HandshakeState, payload: &[u8]) -> Result<Hello> {
    let hello = Hello::decode(payload)?;
    let claimed = keys::montgomery(&hello.peer).ok_or("the peer id is no key")?;
    if state.get_remote_static() != Some(&claimed) {
        return Err("the peer claims an identity that it does not hold".into());
    }
    Ok(hello)
}

fn random_flight(network: &Network, noise: &[u8]) -> Vec<u8> {
    let [padding] = keys::random();
    network.flight(&keys::random(), padding as u16, noise)
}

/// The conversation's bytes, with what has been read and not yet used.
pub struct Wire {
    pub conn: TcpStream,
    /// The first bytes that were sent.
    pub tape: Vec<u8>,
    rest: Vec<u8>,
}

impl Wire {
    pub fn new(conn: TcpStream) -> Wire {
        conn.set_nodelay(true).expect("a socket");
        let mut wire = Wire { conn, tape: Vec::new(), rest: Vec::new() };
        wire.patience(Duration::from_secs(20));
        wire
    }

    /// Sets how long to wait for bytes.
    pub fn patience(&mut self, d: Duration) {
        self.conn.set_read_timeout(Some(d)).expect("a socket");
    }

    /// Closes the connection at once, whatever is unread or was about to be sent.
    pub fn cut(&mut self) -> Result<()> {
        let nobody = TcpListener::bind("127.0.0.1:0").and_then(|l| TcpStream::connect(l.local_addr()?));
        self.conn = nobody.map_err(|e| format!("cannot cut: {e}"))?;
        Ok(())
    }

    pub fn send(&mut self, b: &[u8]) -> Result<()> {
        self.tape.extend(&b[..b.len().min((1 << 16) - self.tape.len())]);
        self.conn.write_all(b).map_err(|e| format!("cannot write: {e}"))
    }

    pub fn take(&mut self, n: usize) -> Result<Vec<u8>> {
        let mut part = [0; 65536];
        while self.rest.len() < n {
            match self.conn.read(&mut part) {
                Ok(0) => return Err(format!("the connection ended with {} bytes unread", self.rest.len())),
                Ok(m) => self.rest.extend(&part[..m]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(format!("cannot read: {e}")),
            }
        }
        let tail = self.rest.split_off(n);
        Ok(std::mem::replace(&mut self.rest, tail))
    }

    /// How many bytes come until the other side closes or stays silent.
    pub fn drain(&mut self, patience: Duration) -> usize {
        self.conn.set_read_timeout(Some(patience)).expect("a socket");
        let mut part = [0; 4096];
        let mut n = self.rest.len();
        while let Ok(m) = self.conn.read(&mut part) {
            if m == 0 {
                break;
            }
            n += m;
        }
        n
    }

    /// Whether the other side has closed, by an end or a reset, before time is up.
    pub fn closed(&mut self, patience: Duration) -> bool {
        self.conn.set_read_timeout(Some(patience)).expect("a socket");
        let mut part = [0; 4096];
        loop {
            match self.conn.read(&mut part) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) => return !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
            }
        }
    }

    pub fn flight(&mut self, network: &Network) -> Result<Vec<u8>> {
        let nonce: [u8; 24] = self.take(24)?.try_into().unwrap();
        let mut stream = network.stream(&nonce);
        let mut head = self.take(4)?;
        stream.apply_keystream(&mut head);
        let (n, padding) = (u16::from_be_bytes([head[0], head[1]]), u16::from_be_bytes([head[2], head[3]]));
        if n == 0 || n > 1024 || padding > 1024 {
            return Err(format!("a flight of {n} and {padding} bytes: another network name, or no libcrust"));
        }
        let mut noise = self.take(n as usize)?;
        stream.apply_keystream(&mut noise);
        self.take(padding as usize)?;
        Ok(noise)
    }
}

/// One direction of a link in AES-256-GCM.
struct Gcm {
    key: [u8; 32],
    aead: Aes256Gcm,
}

impl Gcm {
    fn new(key: [u8; 32]) -> Gcm {
        Gcm { key, aead: Aes256Gcm::new(&key.into()) }
    }

    fn nonce(n: u64) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&n.to_be_bytes());
        nonce
    }

    fn seal(&self, n: u64, plain: &[u8]) -> Vec<u8> {
        self.aead.encrypt(&Gcm::nonce(n).into(), plain).expect("it fits")
    }

    fn rekey(&mut self) {
        let sealed = self.seal(u64::MAX, &[0; 32]);
        *self = Gcm::new(sealed[..32].try_into().unwrap());
    }
}

enum Cipher {
    Snow(Box<TransportState>),
    Aes {
        out: Box<Gcm>,
        inward: Box<Gcm>,
    },
    /// Inside sealed datagrams: in clear, with tags of zeros.
    Plain,
}

/// The records of both directions.
pub struct Records {
    cipher: Cipher,
    pub sent: u64,
    pub received: u64,
}

impl Records {
    pub fn new(mut state: HandshakeState, aes: bool) -> Result<Records> {
        let initiator = state.is_initiator();
        let (forth, back) = state.dangerously_get_raw_split();
        let cipher = if aes {
            let (out, inward) = if initiator { (forth, back) } else { (back, forth) };
            let derive = |key| Box::new(Gcm::new(blake2b_256(&key, b"libcrust/1 AES-256-GCM")));
            Cipher::Aes { out: derive(out), inward: derive(inward) }
        } else {
            Cipher::Snow(Box::new(state.into_transport_mode().map_err(|e| format!("{e:?}"))?))
        };
        Ok(Records { cipher, sent: 0, received: 0 })
    }

    /// The key of what we send, where the cipher shows it.
    pub fn out_key(&self) -> Option<[u8; 32]> {
        match &self.cipher {
            Cipher::Aes { out, .. } => Some(out.key),
            Cipher::Snow(_) | Cipher::Plain => None,
        }
    }

    fn seal_part(&mut self, plain: &[u8]) -> Result<Vec<u8>> {
        let due = self.sent > 0 && self.sent.is_multiple_of(REKEY);
        let n = self.sent;
        self.sent += 1;
        match &mut self.cipher {
            Cipher::Snow(t) => {
                if due {
                    t.rekey_outgoing();
                }
                let mut out = vec![0; plain.len() + 16];
                t.write_message(plain, &mut out).map_err(|e| format!("{e:?}"))?;
                Ok(out)
            }
            Cipher::Aes { out, .. } => {
                if due {
                    out.rekey();
                }
                Ok(out.seal(n, plain))
            }
            Cipher::Plain => Ok([plain, &[0; 16]].concat()),
        }
    }

    pub fn open_part(&mut self, sealed: &[u8]) -> Result<Vec<u8>> {
        let due = self.received > 0 && self.received.is_multiple_of(REKEY);
        let n = self.received;
        self.received += 1;
        match &mut self.cipher {
            Cipher::Snow(t) => {
                if due {
                    t.rekey_incoming();
                }
                let mut out = vec![0; sealed.len()];
                let m = t.read_message(sealed, &mut out).map_err(|e| format!("a record does not authenticate: {e:?}"))?;
                out.truncate(m);
                Ok(out)
            }
            Cipher::Aes { inward, .. } => {
                if due {
                    inward.rekey();
                }
                let nonce = Gcm::nonce(n).into();
                inward.aead.decrypt(&nonce, sealed).map_err(|_| "a record does not authenticate".into())
            }
            Cipher::Plain => {
                let plain = sealed.strip_suffix(&[0; 16]).ok_or("a tag that is not zero")?;
                Ok(plain.to_vec())
            }
        }
    }

    pub fn seal(&mut self, header: Header, body: &[u8]) -> Result<Vec<u8>> {
        let mut out = self.seal_part(&header.encode())?;
        out.extend(self.seal_part(body)?);
        Ok(out)
    }
}

/// A connection whose other end has proved its identity.
pub struct Link {
    pub wire: Wire,
    pub records: Records,
    pub them: Hello,
    pub us: Us,
    pub aes: bool,
    pub initiator: bool,
}

impl Link {
    pub fn initiate(conn: TcpStream, us: &Us) -> Result<Link> {
        let mut wire = Wire::new(conn);
        let mut state = us.noise(true, None)?;
        let m = write(&mut state, &frame::offer())?;
        wire.send(&random_flight(&us.network, &m))?;
        let m = wire.flight(&us.network)?;
        let payload = read(&mut state, &m)?;
        let them = check(&state, &payload)?;
        let m = write(&mut state, &us.hello.encode())?;
        wire.send(&random_flight(&us.network, &m))?;
        Link::finish(wire, state, us, them)
    }

    pub fn respond(conn: TcpStream, us: &Us) -> Result<Link> {
        let mut wire = Wire::new(conn);
        let mut state = us.noise(false, None)?;
        let m = wire.flight(&us.network)?;
        read(&mut state, &m)?;
        let m = write(&mut state, &us.hello.encode())?;
        wire.send(&random_flight(&us.network, &m))?;
        let m = wire.flight(&us.network)?;
        let payload = read(&mut state, &m)?;
        let them = check(&state, &payload)?;
        Link::finish(wire, state, us, them)
    }

    fn finish(wire: Wire, state: HandshakeState, us: &Us, them: Hello) -> Result<Link> {
        let aes = us.hello.ciphers & them.ciphers & 2 != 0;
        let initiator = state.is_initiator();
        Ok(Link { wire, records: Records::new(state, aes)?, them, us: us.clone(), aes, initiator })
    }

    /// A link on a stream inside sealed datagrams.
    pub fn inside(conn: TcpStream, us: &Us, them: Hello, aes: bool, initiator: bool) -> Link {
        let records = Records { cipher: Cipher::Plain, sent: 0, received: 0 };
        Link { wire: Wire::new(conn), records, them, us: us.clone(), aes, initiator }
    }

    /// Whether the choice between links is ours.
    pub fn decider(&self) -> bool {
        self.us.hello.peer > self.them.peer
    }

    /// Sends a record of control frames.
    pub fn send_control(&mut self, frames: &[u8]) -> Result<()> {
        self.send_record(frame::control(frames), frames)
    }

    /// Sends several records of control frames in one write.
    pub fn send_control_in_records(&mut self, records: &[&[u8]]) -> Result<()> {
        let mut out = Vec::new();
        for frames in records {
            out.extend(self.records.seal(frame::control(frames), frames)?);
        }
        self.wire.send(&out)
    }

    pub fn send_record(&mut self, header: Header, body: &[u8]) -> Result<()> {
        let record = self.records.seal(header, body)?;
        self.wire.send(&record)
    }

    pub fn record(&mut self) -> Result<(Header, Vec<u8>)> {
        let sealed = self.wire.take(24)?;
        let header = Header::decode(&self.records.open_part(&sealed)?)?;
        let sealed = self.wire.take(header.len as usize + 16)?;
        let body = self.records.open_part(&sealed)?;
        Ok((header, body))
    }
}
