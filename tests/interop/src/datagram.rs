//! Section 19 of docs/PROTOCOL.md: the handshake in datagrams, and the seal.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use aes::cipher::{BlockDecrypt, BlockEncrypt};
use aes::Aes128;
use aes_gcm::Aes256Gcm;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, XChaCha20Poly1305};

use crate::frame::{self, Hello, Result};
use crate::keys::{self, blake2b_256, Network};
use crate::link::{check, read, write, Us};

pub const PROLOGUE: &[u8] = b"libcrust/1 datagram";
pub const OFFER: u8 = 1;
pub const ANSWER: u8 = 2;
pub const FINISH: u8 = 3;
pub const COOKIE: u8 = 4;

#[derive(Clone, Debug, PartialEq)]
pub struct Flight {
    pub kind: u8,
    pub id: [u8; 8],
    pub cookie: [u8; 16],
    pub noise: Vec<u8>,
}

impl Flight {
    pub fn new(kind: u8, id: [u8; 8], noise: &[u8]) -> Flight {
        Flight { kind, id, cookie: [0; 16], noise: noise.to_vec() }
    }

    /// The plaintext, without padding.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind];
        out.extend(self.id);
        out.extend(self.cookie);
        out.extend((self.noise.len() as u16).to_be_bytes());
        out.extend(&self.noise);
        out
    }

    pub fn seal(&self, key: &[u8; 32], nonce: &[u8; 24], padding: usize) -> Vec<u8> {
        let mut plain = self.encode();
        plain.resize(plain.len() + padding, 0);
        let mut out = nonce.to_vec();
        out.extend(XChaCha20Poly1305::new(key.into()).encrypt(nonce.into(), &plain[..]).expect("it fits"));
        out
    }

    pub fn open(key: &[u8; 32], datagram: &[u8]) -> Option<Flight> {
        if datagram.len() < 67 || datagram.len() > 1200 {
            return None;
        }
        let (nonce, sealed) = datagram.split_at(24);
        let plain = XChaCha20Poly1305::new(key.into()).decrypt(nonce.into(), sealed).ok()?;
        let n = u16::from_be_bytes([plain[25], plain[26]]) as usize;
        Some(Flight {
            kind: plain[0],
            id: plain[1..9].try_into().unwrap(),
            cookie: plain[9..25].try_into().unwrap(),
            noise: plain.get(27..27 + n)?.to_vec(),
        })
    }

    /// A datagram of a random length, as long as `least` and `most` allow.
    fn dress(&self, network: &Network, least: usize, most: usize) -> Vec<u8> {
        let bare = 40 + 27 + self.noise.len();
        let least = least.max(bare);
        let length = least + u16::from_be_bytes(keys::random()) as usize % (most.max(least) - least + 1);
        self.seal(&network.datagram, &keys::random(), length - bare)
    }

    pub fn offer(&self, network: &Network) -> Vec<u8> {
        self.dress(network, 640, 1200)
    }
}

/// Where a side wants its datagrams.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Binding {
    pub cid: [u8; 8],
    pub header_key: [u8; 16],
}

impl Binding {
    pub fn random() -> Binding {
        Binding { cid: keys::random(), header_key: keys::random() }
    }

    /// The hello with this.
    pub fn hello(&self, hello: &Hello) -> Vec<u8> {
        let mut out = hello.encode();
        frame::field(&mut out, 16, &[&self.cid[..], &self.header_key].concat());
        out
    }

    pub fn decode(mut payload: &[u8]) -> Result<Binding> {
        while payload.len() >= 3 {
            let end = 3 + u16::from_be_bytes([payload[1], payload[2]]) as usize;
            if payload[0] == 16 && end == 3 + 24 {
                return Ok(Binding { cid: payload[3..11].try_into().unwrap(), header_key: payload[11..27].try_into().unwrap() });
            }
            payload = payload.get(end..).ok_or("a field goes past the end")?;
        }
        Err("a hello without a binding".into())
    }
}

/// The keys of one direction.
#[derive(Clone)]
pub struct Chain {
    pub aes: bool,
    pub chain: [u8; 32],
    epoch: u64,
}

impl Chain {
    pub fn new(split: &[u8; 32], aes: bool) -> Chain {
        let name: &[u8] = if aes { b"AES-256-GCM" } else { b"ChaCha20-Poly1305" };
        Chain { aes, chain: blake2b_256(split, &[b"libcrust/1 datagrams ", name].concat()), epoch: 0 }
    }

    pub fn key(&self) -> [u8; 32] {
        blake2b_256(&self.chain, b"key")
    }

    /// The chain of a later epoch.
    pub fn at(&self, number: u64) -> Chain {
        let mut c = self.clone();
        while c.epoch < number >> 22 {
            c.chain = blake2b_256(&c.chain, b"next");
            c.epoch += 1;
        }
        c
    }

    pub fn seal(&self, to: &Binding, number: u64, plain: &[u8]) -> Vec<u8> {
        let mut block = [&to.cid[..], &number.to_be_bytes()].concat();
        Aes128::new((&to.header_key).into()).encrypt_block((&mut block[..]).into());
        let payload = Payload { msg: plain, aad: &block };
        let key = self.at(number).key();
        let sealed = if self.aes {
            Aes256Gcm::new(&key.into()).encrypt(&nonce(number.to_be_bytes()).into(), payload)
        } else {
            ChaCha20Poly1305::new(&key.into()).encrypt(&nonce(number.to_le_bytes()).into(), payload)
        };
        [block, sealed.expect("it fits")].concat()
    }

    /// The number and the plaintext of a datagram to `us`.
    pub fn open(&self, us: &Binding, datagram: &[u8]) -> Option<(u64, Vec<u8>)> {
        if datagram.len() < 32 {
            return None;
        }
        let (aad, msg) = datagram.split_at(16);
        let mut block = aad.to_vec();
        Aes128::new((&us.header_key).into()).decrypt_block((&mut block[..]).into());
        if block[..8] != us.cid {
            return None;
        }
        let number = u64::from_be_bytes(block[8..].try_into().unwrap());
        let payload = Payload { msg, aad };
        let key = self.at(number.min(1 << 24)).key();
        let plain = if self.aes {
            Aes256Gcm::new(&key.into()).decrypt(&nonce(number.to_be_bytes()).into(), payload)
        } else {
            ChaCha20Poly1305::new(&key.into()).decrypt(&nonce(number.to_le_bytes()).into(), payload)
        };
        Some((number, plain.ok()?))
    }
}

fn nonce(number: [u8; 8]) -> [u8; 12] {
    let mut out = [0; 12];
    out[4..].copy_from_slice(&number);
    out
}

/// One association: a handshake in datagrams that is complete.
pub struct Association {
    pub socket: UdpSocket,
    pub address: SocketAddr,
    pub initiator: bool,
    pub them: Hello,
    pub aes: bool,
    pub ours: Binding,
    pub theirs: Binding,
    pub out: Chain,
    pub inward: Chain,
    /// What to send when the last flight comes or must go again.
    pub last: Flight,
}

pub fn socket() -> Result<UdpSocket> {
    UdpSocket::bind("127.0.0.1:0").map_err(|e| format!("cannot open a socket: {e}"))
}

/// The next datagram, unless none comes in time.
pub fn receive(socket: &UdpSocket, patience: Duration) -> Result<Option<(Vec<u8>, SocketAddr)>> {
    let mut buf = vec![0; 65536];
    socket.set_read_timeout(Some(patience.max(Duration::from_millis(1)))).map_err(|e| e.to_string())?;
    match socket.recv_from(&mut buf) {
        Ok((n, from)) => {
            buf.truncate(n);
            Ok(Some((buf, from)))
        }
        Err(e) if matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => Ok(None),
        Err(e) => Err(format!("cannot receive: {e}")),
    }
}

/// The next flight of this kind, dropping everything else.
pub fn flight(socket: &UdpSocket, us: &Us, kind: u8, patience: Duration) -> Result<Option<(Flight, usize, SocketAddr)>> {
    let end = Instant::now() + patience;
    while let Some((datagram, from)) = receive(socket, end.saturating_duration_since(Instant::now()))? {
        match Flight::open(&us.network.datagram, &datagram) {
            Some(f) if f.kind == kind => return Ok(Some((f, datagram.len(), from))),
            _ => {}
        }
    }
    Ok(None)
}

impl Association {
    /// Makes an association of the keys of a handshake.
    fn new(
        mut state: snow::HandshakeState,
        us: &Us,
        them: Hello,
        bindings: [Binding; 2],
        last: Flight,
        socket: UdpSocket,
        address: SocketAddr,
    ) -> Association {
        let initiator = state.is_initiator();
        let aes = us.hello.ciphers & them.ciphers & 2 != 0;
        let (forth, back) = state.dangerously_get_raw_split();
        let (out, inward) = if initiator { (forth, back) } else { (back, forth) };
        let [ours, theirs] = bindings;
        let (out, inward) = (Chain::new(&out, aes), Chain::new(&inward, aes));
        Association { socket, address, initiator, them, aes, ours, theirs, out, inward, last }
    }

    /// The part of the initiator, up to the finish, which is not sent yet.
    pub fn initiate(socket: UdpSocket, address: SocketAddr, us: &Us) -> Result<Association> {
        let mut state = us.noise_over(PROLOGUE, true, None)?;
        let m = write(&mut state, &frame::offer())?;
        let offer = Flight::new(OFFER, keys::random(), &m);
        // An offer that is too short gets no answer; one that is repeated gets the same again.
        let short = offer.seal(&us.network.datagram, &keys::random(), 100);
        socket.send_to(&short, address).map_err(|e| e.to_string())?;
        if flight(&socket, us, ANSWER, Duration::from_millis(200))?.is_some() {
            return Err("an offer of less than 640 bytes was answered".into());
        }
        let mut answers = Vec::new();
        for _ in 0..2 {
            let datagram = offer.offer(&us.network);
            socket.send_to(&datagram, address).map_err(|e| e.to_string())?;
            let (answer, length, from) = flight(&socket, us, ANSWER, Duration::from_secs(10))?.ok_or("no answer to an offer")?;
            if answer.id != offer.id || length > datagram.len() || from != address {
                return Err(format!("{length} bytes from {from} answer {} bytes", datagram.len()));
            }
            answers.push(answer);
        }
        if answers[0] != answers[1] {
            return Err("the second answer is another".into());
        }
        let payload = read(&mut state, &answers[0].noise)?;
        let (them, theirs, ours) = (check(&state, &payload)?, Binding::decode(&payload)?, Binding::random());
        let m = write(&mut state, &ours.hello(&us.hello))?;
        Ok(Association::new(state, us, them, [ours, theirs], Flight::new(FINISH, offer.id, &m), socket, address))
    }

    /// The part of the responder, who asks for a cookie first.
    pub fn respond(socket: UdpSocket, us: &Us) -> Result<Association> {
        let patience = Duration::from_secs(20);
        let (first, length, address) = flight(&socket, us, OFFER, patience)?.ok_or("no offer")?;
        let mut demand = Flight::new(COOKIE, first.id, &[]);
        demand.cookie = keys::random();
        let send = |datagram: Vec<u8>| socket.send_to(&datagram, address).map_err(|e| e.to_string());
        send(demand.dress(&us.network, 67, length.min(300)))?;
        let (offer, length) = loop {
            let (offer, length, from) = flight(&socket, us, OFFER, patience)?.ok_or("no offer with the cookie")?;
            if from != address || offer.noise != first.noise || offer.id != first.id {
                return Err("the offer with the cookie is another one".into());
            }
            if !(640..=1200).contains(&length) {
                return Err(format!("an offer of {length} bytes"));
            }
            if offer.cookie == demand.cookie {
                break (offer, length);
            }
        };
        let mut state = us.noise_over(PROLOGUE, false, None)?;
        read(&mut state, &offer.noise)?;
        let ours = Binding::random();
        let m = write(&mut state, &ours.hello(&us.hello))?;
        let answer = Flight::new(ANSWER, offer.id, &m);
        send(answer.dress(&us.network, 0, length))?;
        let (finish, _, _) = flight(&socket, us, FINISH, patience)?.ok_or("no finish")?;
        if finish.id != offer.id {
            return Err("a finish of another handshake".into());
        }
        let payload = read(&mut state, &finish.noise)?;
        let (them, theirs) = (check(&state, &payload)?, Binding::decode(&payload)?);
        Ok(Association::new(state, us, them, [ours, theirs], answer, socket, address))
    }

    /// Sends the finish.
    pub fn commit(&self, us: &Us) -> Result<()> {
        let datagram = self.last.dress(&us.network, 0, 700);
        self.socket.send_to(&datagram, self.address).map(|_| ()).map_err(|e| e.to_string())
    }
}
