//! Section 20 of docs/PROTOCOL.md: what is in sealed datagrams. Streams of packets,
//! acknowledged and repeated when lost; datagrams of the program; and one uTP
//! connection (BEP 29) in the packets, led out to a TCP connection on loopback, so
//! that the code for TCP goes on from there.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::time::{Duration, Instant};

use crate::datagram::{receive, Association};
use crate::frame::Result;

const PAD: u8 = 0;
const PING: u8 = 1;
const ACK: u8 = 2;
const STREAM: u8 = 3;
const DATAGRAM: u8 = 4;
const CHALLENGE: u8 = 5;
const RESPONSE: u8 = 6;
const CLOSE: u8 = 7;

const BUFFER: u64 = 1 << 20;
const PLAIN: usize = 1200;
const REPEAT: Duration = Duration::from_millis(200);

fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Takes a uvarint in its shortest form.
fn take(b: &mut &[u8]) -> Result<u64> {
    let (mut n, mut shift) = (0u64, 0);
    loop {
        let (&byte, rest) = b.split_first().ok_or("a number is cut short")?;
        *b = rest;
        n |= ((byte & 0x7f) as u64).checked_shl(shift).ok_or("a number is too long")?;
        if byte & 0x80 == 0 {
            if byte == 0 && shift > 0 || n >= 1 << 62 {
                return Err("a number in another form".into());
            }
            return Ok(n);
        }
        shift += 7;
    }
}

fn take_bytes<'a>(b: &mut &'a [u8], n: usize) -> Result<&'a [u8]> {
    let (head, rest) = b.split_at_checked(n).ok_or("a frame ends too early")?;
    *b = rest;
    Ok(head)
}

/// One side of what is in an association.
pub struct Inner {
    pub assoc: Association,
    number: u64,
    /// Numbers that came: the first and the last of each range.
    seen: Vec<(u64, u64)>,
    flying: BTreeMap<u64, (u64, Vec<u8>, Instant)>,
    sent: u64,
    limit: u64,
    waiting: Vec<u8>,
    came: u64,
    ahead: BTreeMap<u64, Vec<u8>>,
    stream: Vec<u8>,
    pub packets: VecDeque<Vec<u8>>,
    pub datagrams: VecDeque<Vec<u8>>,
    pub closed: Option<u16>,
    acknowledge: bool,
}

impl Inner {
    pub fn new(assoc: Association) -> Inner {
        Inner {
            assoc,
            number: 0,
            seen: Vec::new(),
            flying: BTreeMap::new(),
            sent: 0,
            limit: BUFFER,
            waiting: Vec::new(),
            came: 0,
            ahead: BTreeMap::new(),
            stream: Vec::new(),
            packets: VecDeque::new(),
            datagrams: VecDeque::new(),
            closed: None,
            acknowledge: false,
        }
    }

    /// Seals and sends one datagram. Returns its number.
    pub fn send(&mut self, plain: &[u8]) -> Result<u64> {
        let number = self.number;
        self.number += 1;
        let datagram = self.assoc.out.seal(&self.assoc.theirs, number, plain);
        self.assoc.socket.send_to(&datagram, self.assoc.address).map_err(|e| format!("cannot send: {e}"))?;
        Ok(number)
    }

    pub fn ping(&mut self) -> Result<()> {
        self.send(&[PING]).map(|_| ())
    }

    pub fn send_datagram(&mut self, data: &[u8]) -> Result<()> {
        let mut plain = vec![DATAGRAM];
        put(&mut plain, data.len() as u64);
        plain.extend(data);
        self.send(&plain).map(|_| ())
    }

    /// Sends a packet as soon as the limit and what is on its way allow it.
    pub fn send_packet(&mut self, packet: &[u8]) -> Result<()> {
        self.waiting.extend((packet.len() as u16).to_be_bytes());
        self.waiting.extend(packet);
        self.flush()
    }

    fn flush(&mut self) -> Result<()> {
        let room = (self.limit - self.sent).min((64 * PLAIN).saturating_sub(self.flying.len() * PLAIN) as u64);
        let n = self.waiting.len().min(room as usize);
        let now: Vec<u8> = self.waiting.drain(..n).collect();
        for part in now.chunks(PLAIN - 12) {
            let offset = self.sent;
            self.sent += part.len() as u64;
            self.fly(offset, part.to_vec())?;
        }
        Ok(())
    }

    fn fly(&mut self, offset: u64, part: Vec<u8>) -> Result<()> {
        let mut plain = vec![STREAM];
        put(&mut plain, offset);
        plain.extend(&part);
        let number = self.send(&plain)?;
        self.flying.insert(number, (offset, part, Instant::now()));
        Ok(())
    }

    /// Notes a number. False when it came before.
    fn note(&mut self, n: u64) -> bool {
        if self.seen.iter().any(|&(low, high)| low <= n && n <= high) {
            return false;
        }
        self.seen.push((n, n));
        self.seen.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for &(low, high) in &self.seen {
            match merged.last_mut() {
                Some(last) if last.1 + 1 == low => last.1 = high,
                _ => merged.push((low, high)),
            }
        }
        self.seen = merged;
        true
    }

    fn ack(&mut self) -> Result<()> {
        let mut ranges = self.seen.iter().rev().take(64);
        let Some(&(low, high)) = ranges.next() else {
            return Ok(());
        };
        let mut out = vec![ACK];
        put(&mut out, high);
        put(&mut out, 0);
        put(&mut out, self.came + BUFFER);
        out.push(ranges.len() as u8);
        put(&mut out, high - low);
        let mut below = low;
        for &(low, high) in ranges {
            put(&mut out, below - high - 2);
            put(&mut out, high - low);
            below = low;
        }
        self.acknowledge = false;
        self.send(&out).map(|_| ())
    }

    fn acked(&mut self, b: &mut &[u8]) -> Result<()> {
        let (largest, _delay, limit) = (take(b)?, take(b)?, take(b)?);
        let more = take_bytes(b, 1)?[0];
        let mut low = largest.checked_sub(take(b)?).ok_or("a range below zero")?;
        let mut ranges = vec![(low, largest)];
        for _ in 0..more {
            let high = low.checked_sub(take(b)? + 2).ok_or("a range below zero")?;
            low = high.checked_sub(take(b)?).ok_or("a range below zero")?;
            ranges.push((low, high));
        }
        if more > 63 || largest >= self.number {
            return Err(format!("{more} ranges acknowledge up to {largest} of {}", self.number));
        }
        self.limit = self.limit.max(limit);
        self.flying.retain(|n, _| !ranges.iter().any(|&(low, high)| low <= *n && *n <= high));
        self.flush()
    }

    fn data(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        if offset + data.len() as u64 > self.came + BUFFER || data.is_empty() {
            return Err(format!("{} bytes at {offset}, where {} have come", data.len(), self.came));
        }
        if self.ahead.get(&offset).is_none_or(|have| have.len() < data.len()) {
            self.ahead.insert(offset, data.to_vec());
        }
        while let Some((&offset, _)) = self.ahead.first_key_value() {
            if offset > self.came {
                break;
            }
            let data = self.ahead.remove(&offset).expect("it is there");
            if let Some(news) = data.get((self.came - offset) as usize..) {
                self.stream.extend(news);
                self.came += news.len() as u64;
            }
        }
        while self.stream.len() >= 2 {
            let n = u16::from_be_bytes([self.stream[0], self.stream[1]]) as usize;
            if n == 0 {
                return Err("an empty packet".into());
            }
            if self.stream.len() < 2 + n {
                break;
            }
            self.packets.push_back(self.stream[2..2 + n].to_vec());
            self.stream.drain(..2 + n);
        }
        Ok(())
    }

    fn frames(&mut self, mut b: &[u8]) -> Result<()> {
        while let Some((&kind, rest)) = b.split_first() {
            b = rest;
            self.acknowledge |= matches!(kind, PING | STREAM | DATAGRAM);
            match kind {
                PAD => return Ok(()),
                PING => {}
                ACK => self.acked(&mut b)?,
                STREAM => {
                    let offset = take(&mut b)?;
                    return self.data(offset, b);
                }
                DATAGRAM => {
                    let n = take(&mut b)?;
                    self.datagrams.push_back(take_bytes(&mut b, n as usize)?.to_vec());
                }
                CHALLENGE => {
                    let token = take_bytes(&mut b, 8)?;
                    self.send(&[&[RESPONSE], token].concat())?;
                }
                RESPONSE => return Err("a Response without a Challenge".into()),
                CLOSE => {
                    let reason = take_bytes(&mut b, 2)?;
                    self.closed = Some(u16::from_be_bytes([reason[0], reason[1]]));
                    return Ok(());
                }
                _ => return Err(format!("a frame of type {kind}")),
            }
        }
        Ok(())
    }

    /// Takes what comes within a time, at least one datagram if there is one. Flights
    /// and what does not authenticate are dropped. Returns how many authenticated.
    pub fn pump(&mut self, mut patience: Duration) -> Result<usize> {
        let mut count = 0;
        while let Some((datagram, _)) = receive(&self.assoc.socket, patience)? {
            if let Some((number, plain)) = self.assoc.inward.open(&self.assoc.ours, &datagram) {
                if self.note(number) {
                    count += 1;
                    self.frames(&plain)?;
                }
            }
            patience = Duration::ZERO;
            if count >= 16 {
                break;
            }
        }
        if self.acknowledge {
            self.ack()?;
        }
        let late: Vec<u64> = self.flying.iter().filter(|(_, (_, _, at))| at.elapsed() > REPEAT).map(|(n, _)| *n).collect();
        for n in late {
            let (offset, part, _) = self.flying.remove(&n).expect("it is there");
            self.fly(offset, part)?;
        }
        Ok(count)
    }

    pub fn close(&mut self, reason: u16) -> Result<()> {
        self.send(&[&[CLOSE], &reason.to_be_bytes()[..]].concat()).map(|_| ())
    }
}

const DATA: u8 = 0;
const FIN: u8 = 1;
const STATE: u8 = 2;
const RESET: u8 = 3;
const SYN: u8 = 4;

/// The uTP connection of an association. What carries it loses nothing, so nothing
/// is repeated here.
struct Utp {
    inner: Inner,
    /// Of what we send, and of what comes.
    ids: (u16, u16),
    seq: u16,
    ack: u16,
    /// What the peer has room for, and our packets that it has not acknowledged.
    window: usize,
    flying: VecDeque<(u16, usize)>,
    came: Vec<u8>,
    ended: bool,
}

impl Utp {
    fn packet(&mut self, kind: u8, data: &[u8]) -> Result<()> {
        let mut out = vec![kind << 4 | 1, 0];
        out.extend((if kind == SYN { self.ids.1 } else { self.ids.0 }).to_be_bytes());
        out.extend([0; 8]); // the time, and the difference of the last packet's
        out.extend((1u32 << 20).to_be_bytes());
        out.extend(self.seq.to_be_bytes());
        out.extend(self.ack.to_be_bytes());
        out.extend(data);
        if kind != STATE {
            self.flying.push_back((self.seq, data.len()));
            self.seq = self.seq.wrapping_add(1);
        }
        self.inner.send_packet(&out)
    }

    /// Takes a packet, and returns its type.
    fn take(&mut self, p: &[u8]) -> Result<u8> {
        let word = |at: usize| u16::from_be_bytes([p[at], p[at + 1]]);
        if p.len() < 20 || p[0] & 15 != 1 {
            return Err("a packet that is not uTP".into());
        }
        let (kind, mut extension, mut at) = (p[0] >> 4, p[1], 20);
        while extension != 0 {
            let n = *p.get(at + 1).ok_or("an extension is cut short")? as usize;
            extension = p[at];
            at += 2 + n;
        }
        let data = p.get(at..).ok_or("an extension is cut short")?;
        if kind == SYN || kind == RESET {
            return Ok(kind);
        }
        if word(2) != self.ids.1 {
            return Err(format!("a packet of connection {} instead of {}", word(2), self.ids.1));
        }
        let acked = word(18);
        while self.flying.front().is_some_and(|(seq, _)| acked.wrapping_sub(*seq) < 1 << 15) {
            self.flying.pop_front();
        }
        self.window = u32::from_be_bytes(p[12..16].try_into().unwrap()) as usize;
        if kind == STATE {
            return Ok(kind);
        }
        if word(16) != self.ack.wrapping_add(1) {
            return Err(format!("packet {} behind {}", word(16), self.ack));
        }
        self.ack = word(16);
        self.came.extend(data);
        self.ended |= kind == FIN;
        self.packet(STATE, &[])?;
        Ok(kind)
    }

    fn next(&mut self) -> Result<Vec<u8>> {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if let Some(p) = self.inner.packets.pop_front() {
                return Ok(p);
            }
            self.inner.pump(Duration::from_millis(20))?;
        }
        Err("no packet of uTP came".into())
    }

    /// Brings the connection up. The initiator of the association dials.
    fn begin(inner: Inner) -> Result<Utp> {
        let [a, b, c, d] = crate::keys::random::<4>();
        let (id, seq) = (u16::from_be_bytes([a & 0x7f, b]), u16::from_be_bytes([c, d]));
        let mut u = Utp { inner, ids: (0, 0), seq, ack: 0, window: 0, flying: VecDeque::new(), came: Vec::new(), ended: false };
        if u.inner.assoc.initiator {
            u.ids = (id + 1, id);
            u.packet(SYN, &[])?;
            let p = u.next()?;
            if p.len() < 20 || u.take(&p)? != STATE {
                return Err("SYN was not answered by STATE".into());
            }
            u.ack = u16::from_be_bytes([p[16], p[17]]).wrapping_sub(1);
            u.packet(DATA, &[])?; // shows that the answer has come
            return Ok(u);
        }
        let p = u.next()?;
        if p.len() < 20 || p[0] != SYN << 4 | 1 {
            return Err("the first packet is not SYN".into());
        }
        let theirs = u16::from_be_bytes([p[2], p[3]]);
        (u.ids, u.ack) = ((theirs, theirs.wrapping_add(1)), u16::from_be_bytes([p[16], p[17]]));
        u.packet(STATE, &[])?;
        Ok(u)
    }

    /// Carries bytes between the connection and `tcp` until both directions have ended.
    fn carry(mut self, mut tcp: TcpStream, out: &Receiver<Vec<u8>>, came: &Sender<Vec<u8>>) -> Result<()> {
        tcp.set_nonblocking(true).map_err(|e| e.to_string())?;
        let (mut finished, mut told, mut buf) = (false, false, vec![0; 40_000]);
        while self.inner.closed.is_none() {
            self.inner.pump(Duration::from_millis(1))?;
            while let Some(p) = self.inner.packets.pop_front() {
                match self.take(&p)? {
                    RESET if self.ended => return Ok(()), // it wants nothing more from us
                    RESET => return Err("the uTP connection was reset".into()),
                    _ => {}
                }
            }
            self.inner.datagrams.drain(..).for_each(|d| drop(came.send(d)));
            while let Ok(data) = out.try_recv() {
                self.inner.send_datagram(&data)?;
            }
            let flying: usize = self.flying.iter().map(|(_, n)| n).sum();
            if !finished && flying + buf.len() <= self.window {
                match tcp.read(&mut buf) {
                    Ok(0) => finished = true,
                    Ok(n) => self.packet(DATA, &buf[..n].to_vec())?,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => finished = true,
                }
                if finished {
                    self.packet(FIN, &[])?;
                }
            }
            while !self.came.is_empty() {
                match tcp.write(&self.came) {
                    Ok(n) => drop(self.came.drain(..n)),
                    Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => self.came.clear(),
                }
            }
            if self.ended && self.came.is_empty() && !told {
                tcp.shutdown(Shutdown::Write).ok();
                told = true;
            }
            if told && finished && self.flying.is_empty() {
                return self.inner.close(1);
            }
        }
        Ok(())
    }
}

/// The stream of an association, and its datagrams.
pub struct Tunnel {
    pub conn: TcpStream,
    pub datagrams: Receiver<Vec<u8>>,
    pub send_datagram: Sender<Vec<u8>>,
    pub end: Receiver<Result<()>>,
}

/// Brings uTP up in an association.
pub fn tunnel(inner: Inner) -> Result<Tunnel> {
    let utp = Utp::begin(inner)?;
    let text = |e: std::io::Error| e.to_string();
    let door = TcpListener::bind("127.0.0.1:0").map_err(text)?;
    let conn = TcpStream::connect(door.local_addr().map_err(text)?).map_err(text)?;
    let (tcp, _) = door.accept().map_err(text)?;
    let (came, datagrams) = channel();
    let (send_datagram, out) = channel();
    let (ended, end) = channel();
    std::thread::spawn(move || ended.send(utp.carry(tcp, &out, &came)));
    Ok(Tunnel { conn, datagrams, send_datagram, end })
}
