//! Computes the test vectors of docs/PROTOCOL.md again, with this program's
//! libraries, and a vector of the Noise pattern in the form the Noise projects
//! share.

use std::collections::HashMap;

use crate::datagram::{Binding, Chain, Flight, ANSWER, COOKIE, FINISH, OFFER, PROLOGUE};
use crate::frame::{self, Hello, Info, Result};
use crate::keys::{blake2b_256, montgomery, Identity, Network};
use crate::link::{check, read, write, Records, Us};

type Vectors = HashMap<String, Vec<u8>>;

fn parse(doc: &str, what: &str) -> Result<Vectors> {
    let block = doc
        .split_once(&format!("<!-- {what}: begin -->\n```\n"))
        .and_then(|(_, rest)| rest.split_once(&format!("```\n<!-- {what}: end -->")))
        .ok_or(format!("the document has no {what}"))?
        .0;
    let mut texts: Vec<(String, String)> = Vec::new();
    for line in block.lines().filter(|l| !l.starts_with('#')) {
        match (line.strip_prefix("  "), line.split_once(':')) {
            (Some(more), _) => texts.last_mut().ok_or("an indented line comes first")?.1.push_str(more),
            (None, Some((name, text))) => texts.push((name.into(), text.trim().into())),
            _ => return Err(format!("a line that is not understood: {line}")),
        }
    }
    texts.into_iter().map(|(k, v)| hex::decode(&v).map(|b| (k, b)).map_err(|e| e.to_string())).collect()
}

/// Compares, and remembers what was compared.
struct Checker {
    vectors: Vectors,
    checked: usize,
}

impl Checker {
    fn get(&self, name: &str) -> Result<Vec<u8>> {
        self.vectors.get(name).cloned().ok_or(format!("no vector {name}"))
    }

    fn same(&mut self, name: &str, ours: &[u8]) -> Result<()> {
        let theirs = self.get(name)?;
        self.checked += 1;
        if ours != theirs {
            return Err(format!("{name}\n   ours {}\n theirs {}", hex::encode(ours), hex::encode(theirs)));
        }
        Ok(())
    }

    fn side(&mut self, name: &str, network: &Network) -> Result<Us> {
        let field = |c: &Checker, what: &str| c.get(&format!("{name} {what}"));
        let seed: [u8; 32] = field(self, "seed")?.try_into().map_err(|_| "a seed of another length")?;
        let identity = Identity::from_seed(&seed);
        self.same(&format!("{name} peer id"), &identity.id())?;
        self.same(&format!("{name} static secret"), &identity.secret())?;
        self.same(&format!("{name} static public"), &montgomery(&identity.id()).ok_or("no key")?)?;
        let hello = Hello {
            version: 1,
            peer: identity.id(),
            app_id: field(self, "app id")?,
            role: field(self, "role")?[0],
            instance: u64::from_be_bytes(field(self, "instance")?.try_into().map_err(|_| "an instance of another length")?),
            ciphers: 1,
            lost_after: 120_000,
            resume: 30_000,
            unacked: 0,
            flags: 0,
        };
        Ok(Us { identity, network: network.clone(), hello })
    }

    fn flight(&mut self, i: u8, network: &Network, noise: &[u8]) -> Result<()> {
        self.same(&format!("noise {i}"), noise)?;
        let nonce: [u8; 24] = self.get(&format!("nonce {i}"))?.try_into().map_err(|_| "a nonce of another length")?;
        let padding = self.get(&format!("padding {i}"))?;
        let flight = network.flight(&nonce, u16::from_be_bytes([padding[0], padding[1]]), noise);
        self.same(&format!("flight {i}"), &flight)
    }
}

/// Checks every vector of the document. Returns how many there were.
pub fn check_document(doc: &str) -> Result<usize> {
    let mut c = Checker { vectors: parse(doc, "vectors")?, checked: 0 };
    let network = Network::new(&c.get("network name")?);
    c.same("root", &network.root)?;
    c.same("psk", &network.psk)?;
    c.same("mask", &network.mask)?;
    let (initiator, responder) = (c.side("initiator", &network)?, c.side("responder", &network)?);

    let conversation = |c: &mut Checker| -> Result<_> {
        let mut a = initiator.noise(true, Some(&c.get("initiator ephemeral secret")?))?;
        let mut b = responder.noise(false, Some(&c.get("responder ephemeral secret")?))?;
        c.same("payload 1", &frame::offer())?;
        let m = write(&mut a, &frame::offer())?;
        c.same("initiator ephemeral public", &m[..32])?;
        c.flight(1, &network, &m)?;
        read(&mut b, &m)?;
        c.same("payload 2", &responder.hello.encode())?;
        let m = write(&mut b, &responder.hello.encode())?;
        c.same("responder ephemeral public", &m[..32])?;
        c.flight(2, &network, &m)?;
        let payload = read(&mut a, &m)?;
        if check(&a, &payload)? != responder.hello {
            return Err("the initiator read another hello".into());
        }
        c.same("payload 3", &initiator.hello.encode())?;
        let m = write(&mut a, &initiator.hello.encode())?;
        c.flight(3, &network, &m)?;
        let payload = read(&mut b, &m)?;
        if check(&b, &payload)? != initiator.hello {
            return Err("the responder read another hello".into());
        }
        c.same("handshake hash", a.get_handshake_hash())?;
        let (forth, back) = a.dangerously_get_raw_split();
        c.same("key to responder", &forth)?;
        c.same("key to initiator", &back)?;
        Ok((a, b))
    };
    let (a, b) = conversation(&mut c)?;
    records(&mut c, "cha", Records::new(a, false)?, Records::new(b, false)?)?;
    let (a, b) = conversation(&mut c)?;
    records(&mut c, "aes", Records::new(a, true)?, Records::new(b, true)?)?;

    let info = c.get("connection info")?;
    let want = Info {
        peer: initiator.identity.id(),
        expires: 0x7000_0000,
        tcp: vec![(vec![203, 0, 113, 5], 5483), (hex::decode("20010db8000000000000000000000001").unwrap(), 5483)],
    };
    if Info::decode(&info)? != want {
        return Err("the connection info says something else".into());
    }
    c.checked += 1;
    c.vectors.extend(parse(doc, "datagram vectors")?);
    datagrams(&mut c, &initiator, &responder)?;
    Ok(c.checked)
}

/// The vectors of section 19.
fn datagrams(c: &mut Checker, initiator: &Us, responder: &Us) -> Result<()> {
    fn array<const N: usize>(c: &Checker, name: &str) -> Result<[u8; N]> {
        c.get(name)?.try_into().map_err(|_| format!("{name} has another length"))
    }
    let binding = |c: &Checker, side: &str| -> Result<Binding> {
        Ok(Binding { cid: array(c, &format!("{side} CID"))?, header_key: array(c, &format!("{side} header key"))? })
    };
    let key = initiator.network.datagram;
    c.same("datagram", &key)?;
    let (at_a, at_b) = (binding(c, "initiator")?, binding(c, "responder")?);
    let id: [u8; 8] = array(c, "handshake id")?;
    let flight = |c: &mut Checker, name: &str, f: Flight| -> Result<()> {
        c.same(&format!("{name}, plaintext without padding"), &f.encode())?;
        let datagram = c.get(&format!("{name}, datagram"))?;
        let nonce: [u8; 24] = datagram[..24].try_into().map_err(|_| "a datagram cut short")?;
        let padding: [u8; 2] = array(c, &format!("{name}, padding"))?;
        c.same(&format!("{name}, datagram"), &f.seal(&key, &nonce, u16::from_be_bytes(padding) as usize))?;
        match Flight::open(&key, &datagram) {
            Some(same) if same == f => Ok(()),
            other => Err(format!("{name} was read as {other:?}")),
        }
    };
    let mut a = initiator.noise_over(PROLOGUE, true, Some(&c.get("initiator ephemeral secret")?))?;
    let mut b = responder.noise_over(PROLOGUE, false, Some(&c.get("responder ephemeral secret")?))?;
    let m = write(&mut a, &frame::offer())?;
    let mut offer = Flight::new(OFFER, id, &m);
    flight(c, "first offer", offer.clone())?;
    // The secret and the address of the text before the vectors.
    let address = [&[0; 10][..], &[0xff, 0xff, 192, 0, 2, 1], &4000u16.to_be_bytes(), &m[..32]].concat();
    offer.cookie = blake2b_256(&[0xc0; 32], &address)[..16].try_into().unwrap();
    flight(c, "cookie", Flight { cookie: offer.cookie, ..Flight::new(COOKIE, id, &[]) })?;
    flight(c, "second offer", offer)?;
    read(&mut b, &m)?;
    let m = write(&mut b, &at_b.hello(&responder.hello))?;
    flight(c, "answer", Flight::new(ANSWER, id, &m))?;
    let payload = read(&mut a, &m)?;
    if check(&a, &payload)? != responder.hello || Binding::decode(&payload)? != at_b {
        return Err("the initiator read another hello".into());
    }
    let m = write(&mut a, &at_a.hello(&initiator.hello))?;
    flight(c, "finish", Flight::new(FINISH, id, &m))?;
    read(&mut b, &m)?;
    c.same("handshake hash", b.get_handshake_hash())?;
    let (forth, back) = a.dangerously_get_raw_split();
    c.same("key to responder", &forth)?;
    c.same("key to initiator", &back)?;
    let plain = c.get("plaintext")?;
    for (name, aes) in [("cha", false), ("aes", true)] {
        let (to_b, to_a) = (Chain::new(&forth, aes), Chain::new(&back, aes));
        c.same(&format!("{name} chain of epoch 0 to responder"), &to_b.chain)?;
        for (epoch, number) in [(0, 0), (1, 1 << 22)] {
            c.same(&format!("{name} key of epoch {epoch} to responder"), &to_b.at(number).key())?;
            let sealed = to_b.seal(&at_b, number, &plain);
            c.same(&format!("{name} to responder, number {number}"), &sealed)?;
            if to_b.open(&at_b, &sealed) != Some((number, plain.clone())) {
                return Err(format!("number {number} was not opened"));
            }
        }
        c.same(&format!("{name} to initiator, number 1"), &to_a.seal(&at_a, 1, &plain))?;
    }
    Ok(())
}

fn records(c: &mut Checker, cipher: &str, mut a: Records, mut b: Records) -> Result<()> {
    let claim = frame::Claim::new(1, &[]).encode();
    c.same("header A", &frame::control(&claim).encode())?;
    c.same("body A (claim)", &claim)?;
    if let Some(key) = a.out_key() {
        c.same(&format!("{cipher} key to responder"), &key)?;
    }
    if let Some(key) = b.out_key() {
        c.same(&format!("{cipher} key to initiator"), &key)?;
    }
    c.same(&format!("{cipher} to responder, nonces 0 and 1, record A"), &a.seal(frame::control(&claim), &claim)?)?;
    let chosen = frame::Chosen { session: [0x77; 16], received: 0, order: 0, past: 0 }.encode();
    c.same("header B", &frame::control(&chosen).encode())?;
    c.same("body B (chosen)", &chosen)?;
    c.same(&format!("{cipher} to initiator, nonces 0 and 1, record B"), &b.seal(frame::control(&chosen), &chosen)?)?;
    while a.sent < 1 << 16 {
        a.seal(frame::content(&[]), &[])?;
    }
    let piece = [0x5a; 20];
    let header = frame::piece(3, &piece, 20000);
    c.same("header C", &header.encode())?;
    c.same("body C (piece)", &piece)?;
    c.same(&format!("{cipher} to responder, nonces 65536 and 65537, record C"), &a.seal(header, &piece)?)?;
    if let Some(key) = a.out_key() {
        c.same(&format!("{cipher} key to responder after the rekey"), &key)?;
    }
    Ok(())
}

/// Two conversations of Noise_XXpsk0_25519_ChaChaPoly_BLAKE2b, as JSON: one with
/// the fixed keys below, which are repeated bytes, and one with empty payloads.
pub fn noise_vectors() -> Result<String> {
    let name = crate::link::NOISE;
    let mut all = Vec::new();
    for (k, payloads) in
        [["offer", "hello of the responder", "hello of the initiator", "there", "back"], [""; 5]].iter().enumerate()
    {
        let k = k as u8;
        let key = |i: u8| [i + 16 * k; 32];
        let make = |initiator: bool, secret: &[u8], ephemeral: &[u8]| {
            let b = snow::Builder::new(name.parse().unwrap())
                .prologue(b"independent")
                .psk(0, &[0x77; 32])
                .local_private_key(secret)
                .fixed_ephemeral_key_for_testing_only(ephemeral);
            if initiator { b.build_initiator() } else { b.build_responder() }.map_err(|e| format!("{e:?}"))
        };
        let (mut a, mut b) = (make(true, &key(1), &key(2))?, make(false, &key(3), &key(4))?);
        let mut messages = Vec::new();
        for (i, p) in payloads[..3].iter().enumerate() {
            let (from, to) = if i % 2 == 0 { (&mut a, &mut b) } else { (&mut b, &mut a) };
            let m = write(from, p.as_bytes())?;
            read(to, &m)?;
            messages.push((p, m));
        }
        let hash = hex::encode(a.get_handshake_hash());
        let mut a = a.into_transport_mode().map_err(|e| format!("{e:?}"))?;
        let mut b = b.into_transport_mode().map_err(|e| format!("{e:?}"))?;
        for (i, p) in payloads[3..].iter().enumerate() {
            let mut m = vec![0; p.len() + 16];
            let from = if i % 2 == 1 { &mut a } else { &mut b };
            from.write_message(p.as_bytes(), &mut m).map_err(|e| format!("{e:?}"))?;
            messages.push((p, m));
        }
        let messages: Vec<String> = messages
            .iter()
            .map(|(p, m)| format!("    {{\"payload\": \"{}\", \"ciphertext\": \"{}\"}}", hex::encode(p), hex::encode(m)))
            .collect();
        let h = hex::encode;
        all.push(format!(
            "  {{\n   \"protocol_name\": \"{name}\",\n   \"init_prologue\": \"{p}\",\n   \"resp_prologue\": \"{p}\",\n   \"init_psks\": [\"{psk}\"],\n   \"resp_psks\": [\"{psk}\"],\n   \"init_static\": \"{}\",\n   \"init_ephemeral\": \"{}\",\n   \"resp_static\": \"{}\",\n   \"resp_ephemeral\": \"{}\",\n   \"handshake_hash\": \"{hash}\",\n   \"messages\": [\n{}\n   ]\n  }}",
            h(key(1)), h(key(2)), h(key(3)), h(key(4)), messages.join(",\n"),
            p = hex::encode("independent"), psk = hex::encode([0x77; 32]),
        ));
    }
    Ok(format!("{{\n \"vectors\": [\n{}\n ]\n}}\n", all.join(",\n")))
}
