//! Sections 10 to 13 of docs/PROTOCOL.md: which link carries the session,
//! messages, heartbeats and the end, on top of a link.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::frame::{self, Result};
use crate::link::Link;
use crate::peer::PATIENCE;

/// What comes out of a session.
#[derive(Debug, PartialEq)]
pub enum Event {
    Message(u8, Vec<u8>),
    Pong(u64),
    Close(u16),
    Refused(u16),
}

pub struct Session {
    pub link: Link,
    events: VecDeque<Event>,
    partial: HashMap<u8, (Vec<u8>, u32)>,
}

/// What the answer to a claim was.
#[derive(Debug, PartialEq)]
pub enum Answer {
    Claim(u64, Vec<u64>),
    Chosen,
    Refused(u16),
}

/// Reads until the other side claims, chooses or refuses.
pub fn answer(link: &mut Link) -> Result<Answer> {
    loop {
        let (header, body) = link.record()?;
        if header.kind != frame::FRAMES || header.len > 4096 {
            return Err(format!("{header:?} before the link is chosen"));
        }
        let frames = frame::frames(&body)?;
        for (i, (kind, body)) in frames.iter().enumerate() {
            let numbers = || body.chunks(8).map(|c| c.try_into().map(u64::from_be_bytes).map_err(|_| "a claim cut short"));
            let answer = match *kind {
                frame::CLAIM => {
                    let all = numbers().collect::<std::result::Result<Vec<_>, _>>()?;
                    let (seq, held) = all.split_first().ok_or("an empty claim")?;
                    Answer::Claim(*seq, held.to_vec())
                }
                frame::CHOSEN => Answer::Chosen,
                frame::REFUSED if body.len() >= 2 => Answer::Refused(u16::from_be_bytes([body[0], body[1]])),
                frame::MESSAGE | frame::CLOSE | frame::REFUSED => return Err(format!("frame {kind} before the link is chosen")),
                _ => continue,
            };
            if i + 1 < frames.len() {
                return Err(format!("{answer:?} is not the last frame of its record"));
            }
            return Ok(answer);
        }
    }
}

impl Session {
    /// Makes a session of a link to a peer with which there is no other.
    pub fn adopt(mut link: Link, seq: u64) -> Result<Session> {
        if link.decider() {
            let got = answer(&mut link)?;
            if !matches!(&got, Answer::Claim(seq, held) if *seq > 0 && held.is_empty()) {
                return Err(format!("{got:?} where a first claim was due"));
            }
            let mut chosen = Vec::new();
            frame::frame(&mut chosen, frame::CHOSEN, &[]);
            link.send_frames(&chosen)?;
        } else {
            link.send_frames(&frame::claim(seq, &[]))?;
            let got = answer(&mut link)?;
            if got != Answer::Chosen {
                return Err(format!("{got:?} where Chosen was due"));
            }
        }
        Ok(Session { link, events: VecDeque::new(), partial: HashMap::new() })
    }

    fn piece(&mut self, header: frame::Header, body: Vec<u8>) -> Result<()> {
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

    fn frame(&mut self, kind: u8, body: &[u8]) -> Result<()> {
        let number = |n: usize| body.get(..n).ok_or(format!("frame {kind} is too short"));
        match kind {
            frame::MESSAGE => {
                let (priority, text) = body.split_first().ok_or("a message without a priority")?;
                self.events.push_back(Event::Message(*priority, text.to_vec()));
            }
            frame::PING => {
                let mut pong = Vec::new();
                frame::frame(&mut pong, frame::PONG, number(8)?);
                // A peer that has sent Close may have hung up: it asks for no answer.
                self.link.send_frames(&pong).ok();
            }
            frame::PONG => self.events.push_back(Event::Pong(u64::from_be_bytes(number(8)?.try_into().unwrap()))),
            frame::CLOSE => self.events.push_back(Event::Close(u16::from_be_bytes(number(2)?.try_into().unwrap()))),
            frame::REFUSED => self.events.push_back(Event::Refused(u16::from_be_bytes(number(2)?.try_into().unwrap()))),
            frame::CLAIM | frame::CHOSEN => return Err(format!("frame {kind} inside a session")),
            _ => {}
        }
        Ok(())
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
            let (header, body) = self.link.record()?;
            if header.kind == frame::PIECE {
                self.piece(header, body)?;
                continue;
            }
            for (kind, body) in frame::frames(&body)? {
                self.frame(kind, &body)?;
            }
        }
    }

    pub fn message(&mut self) -> Result<(u8, Vec<u8>)> {
        match self.next()? {
            Event::Message(priority, text) => Ok((priority, text)),
            other => Err(format!("{other:?} where a message was due")),
        }
    }

    /// Sends a Ping and waits for its Pong.
    pub fn ping(&mut self, value: u64) -> Result<()> {
        let mut ping = Vec::new();
        frame::frame(&mut ping, frame::PING, &value.to_be_bytes());
        self.link.send_frames(&ping)?;
        match self.next()? {
            Event::Pong(v) if v == value => Ok(()),
            other => Err(format!("{other:?} where Pong({value}) was due")),
        }
    }

    /// Ends the session in order and waits until the other side has closed.
    pub fn close(mut self) -> Result<()> {
        self.link.send_frames(&frame::reason(frame::CLOSE, 1))?;
        self.link.wire.conn.shutdown(std::net::Shutdown::Write).map_err(|e| e.to_string())?;
        if self.link.wire.closed(Duration::from_secs(5)) {
            Ok(())
        } else {
            Err("the other side did not close".into())
        }
    }
}
