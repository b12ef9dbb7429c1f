//! Payloads, record headers, frames and connection infos of docs/PROTOCOL.md.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::keys;

pub type Result<T> = std::result::Result<T, String>;

pub const PAD: u8 = 0;
pub const MESSAGE: u8 = 1;
pub const PING: u8 = 2;
pub const PONG: u8 = 3;
pub const CLAIM: u8 = 4;
pub const CHOSEN: u8 = 5;
pub const REFUSED: u8 = 6;
pub const CLOSE: u8 = 7;
pub const ACK: u8 = 8;
pub const DATAGRAM: u8 = 9;

pub const FRAMES: u8 = 1;
pub const PIECE: u8 = 2;
pub const CONTROL: u8 = 3;

/// Whether a frame may be in a record of this type.
pub fn belongs(frame: u8, record: u8) -> bool {
    match frame {
        MESSAGE | CLOSE => record == FRAMES,
        PING..=REFUSED | ACK | DATAGRAM => record == CONTROL,
        _ => record != PIECE,
    }
}

pub fn field(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    out.push(tag);
    out.extend((value.len() as u16).to_be_bytes());
    out.extend(value);
}

pub fn offer() -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, 1, &[1]);
    out
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hello {
    pub version: u8,
    pub peer: [u8; 32],
    pub app_id: Vec<u8>,
    pub role: u8,
    pub instance: u64,
    pub ciphers: u8,
    pub lost_after: u32,
    pub resume: u32,
    pub unacked: u32,
    pub flags: u8,
}

/// The flag of a responder that would take a session now.
pub const READY: u8 = 8;

impl Hello {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        field(&mut out, 1, &[self.version]);
        field(&mut out, 2, &self.peer);
        field(&mut out, 4, &[self.role]);
        field(&mut out, 5, &self.instance.to_be_bytes());
        field(&mut out, 6, &[self.ciphers]);
        field(&mut out, 7, &self.lost_after.to_be_bytes());
        field(&mut out, 8, &self.resume.to_be_bytes());
        if self.unacked > 0 {
            field(&mut out, 9, &self.unacked.to_be_bytes());
        }
        if self.flags != 0 {
            field(&mut out, 10, &[self.flags]);
        }
        if !self.app_id.is_empty() {
            field(&mut out, 3, &self.app_id);
        }
        out
    }

    pub fn decode(mut b: &[u8]) -> Result<Hello> {
        let mut h = Hello::default();
        while !b.is_empty() {
            if b.len() < 3 {
                return Err("a field is cut short".into());
            }
            let n = u16::from_be_bytes([b[1], b[2]]) as usize;
            let value = b.get(3..3 + n).ok_or("a field goes past the end")?;
            let wrong = |_| format!("field {} has {} bytes", b[0], n);
            match b[0] {
                1 => h.version = u8::from_be_bytes(value.try_into().map_err(wrong)?),
                2 => h.peer = value.try_into().map_err(wrong)?,
                3 => h.app_id = value.to_vec(),
                4 => h.role = u8::from_be_bytes(value.try_into().map_err(wrong)?),
                5 => h.instance = u64::from_be_bytes(value.try_into().map_err(wrong)?),
                6 => h.ciphers = u8::from_be_bytes(value.try_into().map_err(wrong)?),
                7 => h.lost_after = u32::from_be_bytes(value.try_into().map_err(wrong)?),
                8 => h.resume = u32::from_be_bytes(value.try_into().map_err(wrong)?),
                9 => h.unacked = u32::from_be_bytes(value.try_into().map_err(wrong)?),
                10 => h.flags = u8::from_be_bytes(value.try_into().map_err(wrong)?),
                _ => {}
            }
            b = &b[3 + n..];
        }
        if h.version == 0 || h.peer == [0; 32] || h.ciphers & 1 == 0 {
            return Err(format!("a hello that lacks something: {h:?}"));
        }
        Ok(h)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Header {
    pub kind: u8,
    pub priority: u8,
    pub len: u16,
    pub left: u32,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.kind, self.priority];
        out.extend(self.len.to_be_bytes());
        out.extend(self.left.to_be_bytes());
        out
    }

    pub fn decode(b: &[u8]) -> Result<Header> {
        let b: [u8; 8] = b.try_into().map_err(|_| "a header of another length".to_string())?;
        let h = Header {
            kind: b[0],
            priority: b[1],
            len: u16::from_be_bytes([b[2], b[3]]),
            left: u32::from_be_bytes([b[4], b[5], b[6], b[7]]),
        };
        let good = match h.kind {
            FRAMES | CONTROL => h.priority == 0 && h.left == 0,
            PIECE => h.len > 0 && h.left >= h.len as u32 && h.left <= 2 << 20,
            _ => false,
        };
        if good && h.len <= 65519 {
            Ok(h)
        } else {
            Err(format!("a header that must not be: {h:?}"))
        }
    }
}

/// The header of a record of control frames.
pub fn control(frames: &[u8]) -> Header {
    Header { kind: CONTROL, priority: 0, len: frames.len() as u16, left: 0 }
}

/// The header of a record of content in frames.
pub fn content(frames: &[u8]) -> Header {
    Header { kind: FRAMES, priority: 0, len: frames.len() as u16, left: 0 }
}

/// The header of a piece of a message.
pub fn piece(priority: u8, piece: &[u8], left: u32) -> Header {
    Header { kind: PIECE, priority, len: piece.len() as u16, left }
}

/// Appends a frame.
pub fn frame(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    let mut n = body.len();
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
    out.extend(body);
}

pub fn message(out: &mut Vec<u8>, priority: u8, text: &[u8]) {
    frame(out, MESSAGE, &[&[priority], text].concat());
}

fn number(b: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(b[at..at + 8].try_into().expect("eight bytes"))
}

pub type SessionId = [u8; 16];

/// What the claimant says first on a link. Without a session it has none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Claim {
    pub seq: u64,
    pub only: bool,
    pub begun: bool,
    pub session: SessionId,
    pub received: u64,
    pub past: u64,
    pub held: Vec<u64>,
}

impl Claim {
    /// The claim of somebody who has no session.
    pub fn new(seq: u64, held: &[u64]) -> Claim {
        Claim { seq, held: held.to_vec(), ..Claim::default() }
    }

    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = self.seq.to_be_bytes().to_vec();
        body.push(self.only as u8 | (self.begun as u8) << 1);
        body.extend(self.session);
        body.extend(self.received.to_be_bytes());
        body.extend(self.past.to_be_bytes());
        self.held.iter().for_each(|h| body.extend(h.to_be_bytes()));
        let mut out = Vec::new();
        frame(&mut out, CLAIM, &body);
        out
    }

    pub fn decode(body: &[u8]) -> Result<Claim> {
        if body.len() < 41 || body.len() > 169 || (body.len() - 41) % 8 != 0 {
            return Err(format!("a claim of {} bytes", body.len()));
        }
        Ok(Claim {
            seq: number(body, 0),
            only: body[8] & 1 != 0,
            begun: body[8] & 2 != 0,
            session: body[9..25].try_into().unwrap(),
            received: number(body, 25),
            past: number(body, 33),
            held: (41..body.len()).step_by(8).map(|at| number(body, at)).collect(),
        })
    }
}

/// The decider's choice. Choices of this program count up.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chosen {
    pub session: SessionId,
    pub received: u64,
    pub order: u64,
    pub past: u64,
}

static CHOICES: AtomicU64 = AtomicU64::new(1);

impl Chosen {
    /// The choice for a new session.
    pub fn new() -> Chosen {
        Chosen::of(keys::random(), 0)
    }

    /// The next choice, for a session of which `received` records have come.
    pub fn of(session: SessionId, received: u64) -> Chosen {
        Chosen { session, received, order: CHOICES.fetch_add(1, Ordering::Relaxed), past: 0 }
    }

    /// The frame.
    pub fn encode(&self) -> Vec<u8> {
        let numbers = [self.received, self.order, self.past].map(u64::to_be_bytes).concat();
        let mut out = Vec::new();
        frame(&mut out, CHOSEN, &[&self.session[..], &numbers].concat());
        out
    }

    pub fn decode(body: &[u8]) -> Result<Chosen> {
        if body.len() < 40 || body[..16] == [0; 16] {
            return Err(format!("a choice of {} bytes, or of no session", body.len()));
        }
        let session = body[..16].try_into().unwrap();
        Ok(Chosen { session, received: number(body, 16), order: number(body, 24), past: number(body, 32) })
    }
}

/// A frame whose body is a number: Ping, Pong, Ack.
pub fn numbered(kind: u8, value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    frame(&mut out, kind, &value.to_be_bytes());
    out
}

/// The number of such a frame.
pub fn numbered_value(kind: u8, body: &[u8]) -> Result<u64> {
    if body.len() < 8 {
        return Err(format!("frame {kind} is too short"));
    }
    Ok(number(body, 0))
}

pub fn reason(kind: u8, reason: u16) -> Vec<u8> {
    let mut out = Vec::new();
    frame(&mut out, kind, &reason.to_be_bytes());
    out
}

/// Splits a run of frames.
pub fn frames(mut b: &[u8]) -> Result<Vec<(u8, Vec<u8>)>> {
    let mut out = Vec::new();
    while !b.is_empty() {
        let (mut n, mut at, mut shift) = (0u64, 1, 0);
        loop {
            let byte = *b.get(at).ok_or("a frame without a length")?;
            n |= ((byte & 0x7f) as u64) << shift;
            at += 1;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
            if shift > 56 {
                return Err("a length that is too long".into());
            }
        }
        let body = b.get(at..at + n as usize).ok_or("a frame over the end of its record")?;
        out.push((b[0], body.to_vec()));
        b = &b[at + n as usize..];
    }
    Ok(out)
}

const INFO_CONTEXT: &[u8] = b"libcrust/1 connection info\x00";

#[derive(Debug, PartialEq)]
pub struct Info {
    pub peer: [u8; 32],
    pub expires: u64,
    pub tcp: Vec<(Vec<u8>, u16)>,
}

impl Info {
    pub fn encode(&self, key: &keys::Identity) -> Vec<u8> {
        let mut out = vec![1];
        out.extend(self.peer);
        out.extend(self.expires.to_be_bytes());
        out.extend(keys::random::<16>());
        out.push(self.tcp.len() as u8);
        for (address, port) in &self.tcp {
            out.extend([1, address.len() as u8]);
            out.extend(address);
            out.extend(port.to_be_bytes());
        }
        let signature = key.sign(&[INFO_CONTEXT, &out].concat());
        out.extend(signature);
        out
    }

    pub fn decode(b: &[u8]) -> Result<Info> {
        if b.len() < 58 + 64 || b.len() > 4096 || b[0] != 1 {
            return Err("this is no connection info".into());
        }
        let (signed, signature) = b.split_at(b.len() - 64);
        let peer: [u8; 32] = b[1..33].try_into().unwrap();
        if !keys::verify(&peer, &[INFO_CONTEXT, signed].concat(), signature) {
            return Err("the signature of the connection info does not hold".into());
        }
        let mut info = Info { peer, expires: u64::from_be_bytes(b[33..41].try_into().unwrap()), tcp: Vec::new() };
        let mut rest = &signed[58..];
        for _ in 0..b[57] {
            let size = *rest.get(1).ok_or("an endpoint is cut short")? as usize;
            let all = rest.get(..4 + size).ok_or("an endpoint is cut short")?;
            if all[0] == 1 {
                info.tcp.push((all[2..2 + size].to_vec(), u16::from_be_bytes([all[2 + size], all[3 + size]])));
            }
            rest = &rest[4 + size..];
        }
        Ok(info)
    }
}
