//! Sections 10 to 14 of docs/PROTOCOL.md: which link carries the session,
//! messages, heartbeats, acknowledgements, resumption and the end, on top of links.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::frame::{self, Chosen, Claim, Header, Result, SessionId};
use crate::keys::blake2b_256;
use crate::link::Link;
use crate::peer::PATIENCE;

/// After so many records of content, or bytes of their bodies, an Ack is due.
pub const ACK_RECORDS: u64 = 128;
pub const ACK_BYTES: usize = 131_072;

/// What comes out of a session.
#[derive(Debug, PartialEq)]
pub enum Event {
    Message(u8, Vec<u8>),
    Datagram(Vec<u8>),
    Pong(u64),
    Close(u16),
    Refused(u16),
}

/// One side of a session. It keeps all that the other side has not acknowledged.
pub struct Session {
    pub link: Link,
    pub id: SessionId,
    /// The claim of its link.
    pub seq: u64,
    /// Whether Acks are sent by themselves.
    pub acknowledges: bool,
    /// Records of content that were sent, and how many the other side has acknowledged.
    pub sent: u64,
    pub acked: u64,
    kept: VecDeque<(Header, Vec<u8>)>,
    /// Records of content that came, and a hash of each.
    pub received: u64,
    hashes: Vec<[u8; 32]>,
    /// The number of the next record of content on the link.
    position: u64,
    /// What the last Ack said, and the bytes that have come since.
    pub told: u64,
    untold: usize,
    /// Records of content that went out, and came, more than once.
    pub repeated: usize,
    pub doubled: usize,
    events: VecDeque<Event>,
    partial: HashMap<u8, (Vec<u8>, u32)>,
}

/// What the answer to a claim was.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Claim(Claim),
    Chosen(Chosen),
    Refused(u16),
}

/// Reads until the other side claims, chooses or refuses.
pub fn answer(link: &mut Link) -> Result<Answer> {
    loop {
        let (header, body) = link.record()?;
        if header.kind != frame::CONTROL || header.len > 4096 {
            return Err(format!("{header:?} before the link is chosen"));
        }
        let frames = frame::frames(&body)?;
        for (i, (kind, body)) in frames.iter().enumerate() {
            let answer = match *kind {
                frame::CLAIM => Answer::Claim(Claim::decode(body)?),
                frame::CHOSEN => Answer::Chosen(Chosen::decode(body)?),
                frame::REFUSED if body.len() >= 2 => Answer::Refused(u16::from_be_bytes([body[0], body[1]])),
                frame::PING | frame::PONG | frame::PAD => continue,
                _ => return Err(format!("frame {kind} before the link is chosen")),
            };
            if i + 1 < frames.len() {
                return Err(format!("{answer:?} is not the last frame of its record"));
            }
            return Ok(answer);
        }
    }
}

/// Reads the other side's claim, which on a link that we have dialled must be asked for.
pub fn claim(link: &mut Link) -> Result<Claim> {
    if link.initiator {
        link.send_control(&[])?;
    }
    match answer(link)? {
        Answer::Claim(c) if c.seq > 0 => Ok(c),
        other => Err(format!("{other:?} where a claim was due")),
    }
}

/// Reads the other side's choice.
pub fn chosen(link: &mut Link) -> Result<Chosen> {
    match answer(link)? {
        Answer::Chosen(c) => Ok(c),
        other => Err(format!("{other:?} where Chosen was due")),
    }
}

impl Session {
    /// Makes a session of a link to a peer with which there is no other.
    pub fn adopt(mut link: Link, seq: u64) -> Result<Session> {
        if link.decider() {
            let claim = claim(&mut link)?;
            if claim != (Claim { past: claim.past, ..Claim::new(claim.seq, &[]) }) {
                return Err(format!("{claim:?} where a first claim was due"));
            }
            let choice = Chosen::new();
            link.send_control(&choice.encode())?;
            return Ok(Session::new(link, choice.session, claim.seq));
        }
        link.send_control(&Claim::new(seq, &[]).encode())?;
        let choice = chosen(&mut link)?;
        if choice.received != 0 {
            return Err(format!("{choice:?} for a new session"));
        }
        Ok(Session::new(link, choice.session, seq))
    }

    /// The session that begins with Chosen.
    pub fn new(link: Link, id: SessionId, seq: u64) -> Session {
        Session {
            link,
            id,
            seq,
            acknowledges: true,
            sent: 0,
            acked: 0,
            kept: VecDeque::new(),
            received: 0,
            hashes: Vec::new(),
            position: 0,
            told: 0,
            untold: 0,
            repeated: 0,
            doubled: 0,
            events: VecDeque::new(),
            partial: HashMap::new(),
        }
    }

    /// The claim for a further link, for this session only, to be told that we have
    /// `received` records.
    pub fn next_claim(&mut self, received: u64) -> Claim {
        self.seq += 1;
        Claim { only: true, session: self.id, received, ..Claim::new(self.seq, &[]) }
    }

    /// Goes on over another link, telling that `told` records have come: at most all,
    /// at least those that were acknowledged.
    /// Returns the link before.
    pub fn resume(&mut self, mut link: Link, told: u64) -> Result<Link> {
        let theirs = if link.decider() {
            let claim = claim(&mut link)?;
            if claim.session != self.id || claim.seq <= self.seq {
                return Err(format!("{claim:?} for the session {} of the claim {}", hex::encode(self.id), self.seq));
            }
            self.seq = claim.seq;
            link.send_control(&Chosen::of(self.id, told).encode())?;
            claim.received
        } else {
            link.send_control(&self.next_claim(told).encode())?;
            let choice = chosen(&mut link)?;
            if choice.session != self.id {
                return Err("the other side has given the session up".into());
            }
            choice.received
        };
        self.move_to(link, told, theirs)
    }

    /// Goes on over a link that is chosen.
    fn move_to(&mut self, link: Link, told: u64, theirs: u64) -> Result<Link> {
        self.acknowledged(theirs)?;
        (self.position, self.told, self.untold) = (told, told, 0);
        self.repeated += self.kept.len();
        let old = std::mem::replace(&mut self.link, link);
        for (header, body) in &self.kept {
            self.link.send_record(*header, body)?;
        }
        Ok(old)
    }

    fn acknowledged(&mut self, n: u64) -> Result<()> {
        if n < self.acked || n > self.sent {
            return Err(format!("{n} records acknowledged, of {} sent and {} acknowledged before", self.sent, self.acked));
        }
        self.kept.drain(..(n - self.acked) as usize);
        self.acked = n;
        Ok(())
    }

    fn piece(&mut self, header: Header, body: Vec<u8>) -> Result<()> {
        let many = self.partial.len();
        let entry = self.partial.entry(header.priority).or_insert_with(|| (Vec::new(), header.left));
        if entry.0.is_empty() && many == 8 {
            return Err("nine messages in pieces".into());
        }
        if entry.1 != header.left {
            return Err(format!("{header:?} where {} bytes are missing", entry.1));
        }
        entry.1 -= body.len() as u32;
        entry.0.extend(body);
        if entry.1 == 0 {
            let (whole, _) = self.partial.remove(&header.priority).expect("it is there");
            self.events.push_back(Event::Message(header.priority, whole));
        }
        Ok(())
    }

    fn control(&mut self, body: &[u8]) -> Result<()> {
        let frames = frame::frames(body)?;
        let has = |wanted| frames.iter().any(|(kind, _)| *kind == wanted);
        if has(frame::PONG) && !has(frame::ACK) {
            return Err("a Pong without an Ack".into());
        }
        for (kind, body) in frames {
            if !frame::belongs(kind, frame::CONTROL) {
                return Err(format!("frame {kind} in a record of control"));
            }
            match kind {
                frame::PING => {
                    let mut out = frame::numbered(frame::PONG, frame::numbered_value(kind, &body)?);
                    out.extend(frame::numbered(frame::ACK, self.received));
                    if self.acknowledges {
                        (self.told, self.untold) = (self.received, 0);
                        // A peer that has sent Close may have hung up: it asks for no answer.
                        self.link.send_control(&out).ok();
                    }
                }
                frame::PONG => self.events.push_back(Event::Pong(frame::numbered_value(kind, &body)?)),
                frame::ACK => self.acknowledged(frame::numbered_value(kind, &body)?)?,
                frame::DATAGRAM if body.len() <= 1100 => self.events.push_back(Event::Datagram(body)),
                frame::REFUSED if body.len() >= 2 => {
                    self.events.push_back(Event::Refused(u16::from_be_bytes([body[0], body[1]])));
                    return Ok(());
                }
                frame::PAD | 10.. => {}
                _ => return Err(format!("frame {kind} of {} bytes inside a session", body.len())),
            }
        }
        Ok(())
    }

    /// Takes a record of content; one that has come on an earlier link must be the same.
    fn content(&mut self, header: Header, body: Vec<u8>) -> Result<()> {
        let hash = blake2b_256(&[1; 32], &[&header.encode()[..], &body].concat());
        self.position += 1;
        if self.position <= self.received {
            if self.hashes[self.position as usize - 1] != hash {
                return Err(format!("record {} is another than before", self.position - 1));
            }
            self.doubled += 1;
            return Ok(());
        }
        self.hashes.push(hash);
        self.received += 1;
        self.untold += body.len();
        if self.acknowledges && (self.received - self.told >= ACK_RECORDS || self.untold >= ACK_BYTES) {
            self.acknowledge()?;
        }
        if header.kind == frame::PIECE {
            return self.piece(header, body);
        }
        for (kind, body) in frame::frames(&body)? {
            if !frame::belongs(kind, frame::FRAMES) {
                return Err(format!("frame {kind} in a record of content"));
            }
            match kind {
                frame::MESSAGE => {
                    let (priority, text) = body.split_first().ok_or("a message without a priority")?;
                    self.events.push_back(Event::Message(*priority, text.to_vec()));
                }
                frame::CLOSE if body.len() >= 2 => {
                    if self.acknowledges {
                        self.acknowledge()?;
                    }
                    self.events.push_back(Event::Close(u16::from_be_bytes([body[0], body[1]])));
                    return Ok(());
                }
                frame::PAD | 10.. => {}
                _ => return Err(format!("frame {kind} of {} bytes inside a session", body.len())),
            }
        }
        Ok(())
    }

    /// Sends an Ack.
    pub fn acknowledge(&mut self) -> Result<()> {
        (self.told, self.untold) = (self.received, 0);
        // A peer that has sent Close may have hung up.
        self.link.send_control(&frame::numbered(frame::ACK, self.received)).ok();
        Ok(())
    }

    /// Reads one record, and answers what wants an answer.
    pub fn read(&mut self) -> Result<()> {
        let (header, body) = self.link.record()?;
        if header.kind == frame::CONTROL {
            self.control(&body)
        } else {
            self.content(header, body)
        }
    }

    /// What comes next; Pings are answered, and do not prolong the waiting.
    pub fn next(&mut self) -> Result<Event> {
        let began = Instant::now();
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            if began.elapsed() > PATIENCE {
                let missing: Vec<_> = self.partial.iter().map(|(p, (have, left))| (p, have.len(), left)).collect();
                return Err(format!("nothing came; incomplete (priority, bytes, left): {missing:?}"));
            }
            self.read()?;
        }
    }

    /// Whether something came that was not taken yet.
    pub fn waiting(&self) -> bool {
        !self.events.is_empty()
    }

    pub fn message(&mut self) -> Result<(u8, Vec<u8>)> {
        match self.next()? {
            Event::Message(priority, text) => Ok((priority, text)),
            other => Err(format!("{other:?} where a message was due")),
        }
    }

    /// Sends a record of content, and keeps it.
    fn send(&mut self, header: Header, body: &[u8]) -> Result<()> {
        self.keep(header, body);
        self.link.send_record(header, body)
    }

    /// Counts a record of content as sent, which goes out over the next link only.
    pub fn keep(&mut self, header: Header, body: &[u8]) {
        self.kept.push_back((header, body.to_vec()));
        self.sent += 1;
    }

    /// Sends a record of content in frames.
    pub fn send_frames(&mut self, frames: &[u8]) -> Result<()> {
        self.send(frame::content(frames), frames)
    }

    pub fn send_piece(&mut self, priority: u8, piece: &[u8], left: u32) -> Result<()> {
        self.send(frame::piece(priority, piece, left), piece)
    }

    pub fn send_message(&mut self, priority: u8, text: &[u8]) -> Result<()> {
        let mut out = Vec::new();
        frame::message(&mut out, priority, text);
        self.send_frames(&out)
    }

    /// Sends a Ping and waits for its Pong, which acknowledges all that was sent.
    pub fn ping(&mut self, value: u64) -> Result<()> {
        self.link.send_control(&frame::numbered(frame::PING, value))?;
        match self.next()? {
            Event::Pong(v) if v == value && self.acked == self.sent => Ok(()),
            Event::Pong(v) if v == value => Err(format!("{} of {} records acknowledged with a Pong", self.acked, self.sent)),
            other => Err(format!("{other:?} where Pong({value}) was due")),
        }
    }

    /// Ends the session in order and waits until the other side has closed.
    pub fn close(mut self) -> Result<()> {
        self.send_frames(&frame::reason(frame::CLOSE, 1))?;
        self.link.wire.conn.shutdown(std::net::Shutdown::Write).map_err(|e| e.to_string())?;
        while self.read().is_ok() {}
        if !self.link.wire.closed(Duration::from_secs(5)) {
            return Err("the other side did not close".into());
        }
        if self.acked < self.sent {
            return Err(format!("the other side closed, and acknowledged {} of {} records", self.acked, self.sent));
        }
        Ok(())
    }
}
