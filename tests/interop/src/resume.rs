//! Section 14 of docs/PROTOCOL.md: sessions that outlive their links, and what
//! must not bring one about or end one.

use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::frame::{self, Chosen, Claim, Result};
use crate::link::{Link, Us};
use crate::peer::{text, Peer};
use crate::scenarios::{expect, pattern, same, Way};
use crate::session::{answer, chosen, claim, Answer, Event, Session, ACK_BYTES, ACK_RECORDS};

/// Where two peers meet again and again.
struct Meeting {
    us: Us,
    id: String,
    /// Where the peer finds us, when it was the peer that dialled.
    door: Option<TcpListener>,
}

impl Meeting {
    fn begin(way: Way, peer: &mut Peer) -> Result<(Meeting, Session)> {
        let us = peer.neighbour(way.decider, way.aes);
        Meeting::begin_as(us, way.dial, peer)
    }

    fn begin_as(us: Us, dial: bool, peer: &mut Peer) -> Result<(Meeting, Session)> {
        let door = if dial { None } else { Some(peer.invite(&us.identity.id())?) };
        let meeting = Meeting { id: hex::encode(us.identity.id()), us, door };
        let session = Session::adopt(meeting.link(peer)?, 1)?;
        expect(session.link.them.resume == 30_000, "the peer does not say that it keeps sessions for 30 s")?;
        same(text(&peer.event("connected")?, "peer"), &meeting.id)?;
        Ok((meeting, session))
    }

    /// A further link, dialled by who has dialled the first one.
    fn link(&self, peer: &mut Peer) -> Result<Link> {
        match &self.door {
            None => peer.dial(&self.us),
            Some(door) => peer.accept_at(door, &self.us),
        }
    }

    /// Begins a session as the side that dials.
    fn dialled(peer: &mut Peer, decider: bool) -> Result<(Meeting, Session)> {
        Meeting::begin(Way { dial: true, decider, aes: true }, peer)
    }
}

/// How a link dies.
const CUTS: usize = 4;

/// Makes the link useless in the `how`-th way. The last one leaves it open: only we
/// know that it is to be given up.
fn cut(s: &mut Session, how: usize) -> Result<()> {
    match how {
        0 => s.link.wire.cut(), // a reset, mostly, with something unread in it
        1 => {
            let mut body = Vec::new();
            frame::message(&mut body, 9, b"cut in two");
            let sealed = s.link.records.seal(frame::content(&body), &body)?;
            s.keep(frame::content(&body), &body);
            s.link.wire.send(&sealed[..sealed.len() - 5])?;
            s.link.wire.cut()
        }
        2 => s.link.wire.conn.shutdown(std::net::Shutdown::Write).map_err(|e| e.to_string()),
        _ => Ok(()),
    }
}

/// What an echoing peer still owes.
#[derive(Default)]
struct Owed {
    small: VecDeque<String>,
    halves: usize,
    large: usize,
    bulk: usize,
}

impl Owed {
    fn is_empty(&self) -> bool {
        self.small.is_empty() && self.halves + self.large + self.bulk == 0
    }

    /// Takes the next message, which must be due.
    fn take(&mut self, s: &mut Session, large: &[u8]) -> Result<()> {
        let less = |n: &mut usize| n.checked_sub(1).map(|left| *n = left).ok_or("a message came twice".to_string());
        match s.message()? {
            (1, got) => same(String::from_utf8(got).ok(), self.small.pop_front()),
            (5, got) => expect(got == large, "the echo of the large message differs").and_then(|_| less(&mut self.large)),
            (7, got) => same(got.len(), 5000).and_then(|_| less(&mut self.bulk)),
            (9, got) => same(got, b"cut in two".to_vec()).and_then(|_| less(&mut self.halves)),
            other => Err(format!("{other:?}")),
        }
    }
}

/// Links are cut in all ways, under messages in both directions and with one in
/// pieces: nothing is lost, doubled or out of order.
pub fn resumption(program: &str, way: Way) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &["--echo"])?;
    let (meeting, mut s) = Meeting::begin(way, &mut peer)?;
    let rounds = 3 * CUTS;
    let large = pattern(rounds * 60_000, 9);
    let mut owed = Owed { large: 1, ..Owed::default() };
    let mut sent = Vec::new();
    for round in 0..rounds {
        let burst = [3, 700, 0, 2500, 90][round % 5];
        for k in 0..burst {
            let message = format!("message {k} of round {round}");
            s.send_message(1, message.as_bytes())?;
            owed.small.push_back(message.clone());
            sent.push(message);
        }
        let rest = &large[round * 60_000..];
        s.send_piece(5, &rest[..60_000], rest.len() as u32)?;
        for _ in 0..burst * (round % 3) / 3 {
            owed.take(&mut s, &large)?;
        }
        peer.command(&format!("bulk {} 40 5000 7", meeting.id))?;
        owed.bulk += 40;
        let how = round % CUTS;
        cut(&mut s, how)?;
        owed.halves += (how == 1) as usize;
        // As many records as possible are asked for a second time.
        let told = if round % 2 == 0 { s.received } else { s.told };
        let link = if how == CUTS - 1 { peer.dial(&meeting.us)? } else { meeting.link(&mut peer)? };
        let old = s.resume(link, told)?;
        if how == CUTS - 1 {
            expect({ old }.wire.closed(Duration::from_secs(5)), "a link that the session has left stays open")?;
        }
        // Sometimes the next cut comes before anything has been read.
        while round % 5 != 3 && !owed.small.is_empty() {
            owed.take(&mut s, &large)?;
        }
    }
    while !owed.is_empty() {
        owed.take(&mut s, &large)?;
    }
    s.ping(77)?;
    // Otherwise nothing was tried.
    expect(s.repeated > 0 && s.doubled > 0, &format!("{} records sent and {} come again", s.repeated, s.doubled))?;
    for message in sent {
        same(text(&peer.message_of(1)?, "text"), &message)?;
    }
    peer.command("stats")?;
    let stats = peer.event("stats")?;
    same((stats["sessions_total"].as_u64(), stats["peers"].as_u64()), (Some(1), Some(1)))?;
    expect(!peer.has("lost") && !peer.has("connected"), "the session was another one in between")?;
    s.close()?;
    same(text(&peer.event("lost")?, "code"), "disconnected")?;
    expect(peer.message_of_within(1, Duration::ZERO)?.is_none(), "a message came twice")?;
    peer.quit()
}

/// Close is content: it comes over the next link when the last one has died.
pub fn close_over_the_next_link(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    for decider in [true, false] {
        let (meeting, mut s) = Meeting::dialled(&mut peer, decider)?;
        s.link.wire.cut()?;
        peer.command(&format!("bulk {} 20 100", meeting.id))?;
        peer.event("sent")?;
        peer.command(&format!("disconnect {}", meeting.id))?;
        let told = s.received;
        s.resume(meeting.link(&mut peer)?, told)?;
        for _ in 0..20 {
            same(s.message()?.1.len(), 100)?;
        }
        same(s.next()?, Event::Close(1))?;
        drop(s);
        same(text(&peer.event("lost")?, "code"), "disconnected")?;

        let (meeting, mut s) = Meeting::dialled(&mut peer, decider)?;
        let last = frame::reason(frame::CLOSE, 1);
        s.keep(frame::content(&last), &last);
        s.link.wire.cut()?;
        s.resume(meeting.link(&mut peer)?, 0)?;
        same(text(&peer.event("lost")?, "code"), "disconnected")?;
        expect(s.link.wire.closed(Duration::from_secs(5)), "the link was not closed after Close")?;
    }
    peer.quit()
}

/// The peer acknowledges in time, and keeps a bounded amount for who does not.
pub fn acknowledgements(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    let (meeting, mut s) = Meeting::dialled(&mut peer, true)?;
    for k in 0..1000u64 {
        s.send_message(1, format!("{k}").as_bytes())?;
    }
    while s.acked < s.sent - (ACK_RECORDS - 1) {
        s.read()?;
    }
    s.ping(1)?;
    let large = pattern(1 << 20, 5);
    for (i, piece) in large.chunks(1 << 16 >> 1).enumerate() {
        s.send_piece(1, piece, (large.len() - (i << 15)) as u32)?;
    }
    let pieces_unacknowledged = ACK_BYTES as u64 / (1 << 15) - 1;
    while s.acked < s.sent - pieces_unacknowledged {
        s.read()?;
    }
    s.ping(2)?;

    s.acknowledges = false;
    peer.command(&format!("bulk {} 3000 10000", meeting.id))?;
    s.link.wire.patience(Duration::from_secs(1));
    let mut early = 0;
    while s.read().is_ok() {
        while s.waiting() {
            same(s.message()?.1.len(), 10_000)?;
            early += 1;
        }
    }
    // At least 524,288 bytes, less a record that does not fit; at most 8 MiB.
    let (least, most) = ((524_288 - 65_519) / 10_080, (8 << 20) / 10_000);
    expect((least..=most).contains(&early), &format!("{early} messages came without any acknowledgement"))?;
    s.acknowledges = true;
    s.link.wire.patience(Duration::from_secs(20));
    s.acknowledge()?;
    for _ in early..3000 {
        same(s.message()?.1.len(), 10_000)?;
    }
    s.close()?;
    peer.quit()
}

/// Acknowledgements that cannot be true end the session.
pub fn false_acknowledgements(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    for (what, resumed, acks) in [
        ("more than was sent", false, &[4u64][..]),
        ("the largest number", false, &[u64::MAX]),
        ("less than before", false, &[3, 2]),
        ("more than was sent, on a later link", true, &[4]),
        ("less than was told with the resumption", true, &[2]),
    ] {
        for decider in [true, false] {
            let (meeting, mut s) = Meeting::dialled(&mut peer, decider)?;
            s.acknowledges = false;
            for k in 0..3 {
                peer.command(&format!("send {} {k}", meeting.id))?;
                same(s.message()?.1, format!("{k}").into_bytes())?;
            }
            same(s.received, 3)?;
            if resumed {
                s.link.wire.cut()?;
                s.resume(meeting.link(&mut peer)?, 3)?;
            }
            for ack in acks {
                s.link.send_control(&frame::numbered(frame::ACK, *ack))?;
            }
            let lost = peer.event("lost")?;
            same((what, text(&lost, "code")), (what, "protocol"))?;
            expect(s.link.wire.closed(Duration::from_secs(5)), &format!("{what}: the link is open"))?;
        }
    }
    peer.quit()
}

/// A link whose other end lies in a resumption is turned down, and not used.
fn turned_down(mut link: Link, what: &str) -> Result<()> {
    match answer(&mut link) {
        Ok(Answer::Refused(6)) | Err(_) => expect(link.wire.closed(Duration::from_secs(5)), &format!("{what}: the link is open")),
        Ok(other) => Err(format!("{what}: {other:?}")),
    }
}

/// Numbers of records that cannot be true bring no resumption about, and leave the
/// session as it was.
pub fn lies(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    for way in Way::all().into_iter().filter(|way| way.aes) {
        let (meeting, mut s) = Meeting::begin(way, &mut peer)?;
        for k in 0..5 {
            peer.command(&format!("send {} {k}", meeting.id))?;
            same(s.message()?.1, format!("{k}").into_bytes())?;
        }
        s.acknowledge()?;
        s.send_message(2, b"before the cut")?;
        s.ping(5)?;
        s.link.wire.cut()?;
        for received in [s.received - 1, 0, s.received + 1, u64::MAX] {
            let mut link = meeting.link(&mut peer)?;
            if way.decider {
                let theirs = claim(&mut link)?;
                same((theirs.session, theirs.received), (s.id, s.sent))?;
                s.seq = theirs.seq;
                link.send_control(&Chosen::of(s.id, received).encode())?;
            } else {
                let ours = s.next_claim(received);
                link.send_control(&ours.encode())?;
            }
            turned_down(link, &format!("{received} records, {}", way.name()))?;
        }
        peer.command(&format!("send {} 5", meeting.id))?;
        let told = s.received;
        s.resume(meeting.link(&mut peer)?, told)?;
        same(s.message()?, (1, b"5".to_vec()))?;
        s.send_message(2, b"after the lies")?;
        same(text(&peer.event("message")?, "text"), "before the cut")?;
        same(text(&peer.event("message")?, "text"), "after the lies")?;
        expect(!peer.has("lost"), "a lie has ended the session")?;
        s.close()?;
        peer.event("lost")?;
    }
    peer.quit()
}

/// Claims and choices that name other sessions, none, or are malformed.
pub fn other_sessions(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    let us = peer.neighbour(false, true);
    // There is no session: a link for one only is refused, any other link is welcome.
    let unknown = Claim { only: true, session: [9; 16], received: 3, ..Claim::new(1, &[]) };
    let mut link = peer.dial(&us)?;
    link.send_control(&unknown.encode())?;
    same(answer(&mut link)?, Answer::Refused(8))?;
    let mut link = peer.dial(&us)?;
    link.send_control(&Claim { seq: 2, only: false, ..unknown.clone() }.encode())?;
    let choice = chosen(&mut link)?;
    expect(choice.session != [9; 16] && choice.received == 0, "an unknown session goes on")?;
    peer.event("connected")?;
    // Of a claim for another session, the one that there is ends.
    let mut other = peer.dial(&us)?;
    other.send_control(&Claim { session: [8; 16], ..Claim::new(3, &[]) }.encode())?;
    let again = chosen(&mut other)?;
    expect(again.session != choice.session && again.session != [8; 16], "it is the same session")?;
    peer.event("lost")?;
    peer.event("connected")?;
    Session::new(other, again.session, 3).close()?;
    peer.event("lost")?;

    for size in [0, 8, 33, 40, 42, 48, 177] {
        let mut link = peer.dial(&us)?;
        let mut body = Vec::new();
        frame::frame(&mut body, frame::CLAIM, &vec![1; size]);
        link.send_control(&body)?;
        turned_down(link, &format!("a claim of {size} bytes"))?;
    }
    let us = peer.neighbour(true, true);
    for (what, body) in [("a choice of no session", vec![0; 40]), ("a choice of 39 bytes", vec![1; 39])] {
        let mut link = peer.dial(&us)?;
        claim(&mut link)?;
        let mut out = Vec::new();
        frame::frame(&mut out, frame::CHOSEN, &body);
        link.send_control(&out)?;
        turned_down(link, what)?;
    }
    expect(peer.event_within("connected", Duration::from_millis(100))?.is_none(), "a malformed answer made a session")?;
    peer.quit()
}

/// A session that we have ended while its link was gone is over for the peer, too.
pub fn over(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    // We decide, and refuse the peer's claim; or we claim, and name no session.
    let (meeting, mut s) = Meeting::begin(Way { dial: false, decider: true, aes: true }, &mut peer)?;
    s.link.wire.cut()?;
    let mut link = meeting.link(&mut peer)?;
    let theirs = claim(&mut link)?;
    same((theirs.only, theirs.session), (true, s.id))?;
    link.send_control(&frame::reason(frame::REFUSED, 8))?;
    expect(link.wire.closed(Duration::from_secs(5)), "a refused link was not closed")?;
    peer.event("lost")?;

    let (meeting, mut s) = Meeting::begin(Way { dial: false, decider: false, aes: true }, &mut peer)?;
    s.link.wire.cut()?;
    let mut link = meeting.link(&mut peer)?;
    link.send_control(&Claim::new(2, &[]).encode())?;
    same(answer(&mut link)?, Answer::Refused(8))?;
    drop(link);
    peer.event("lost")?;
    peer.quit()
}

/// How long a session without a link is kept.
pub fn window(program: &str) -> Result<()> {
    let config = std::env::temp_dir().join(format!("crust-interop-{}.json", std::process::id()));
    std::fs::write(&config, "{\"resume_window_ms\": 900}").map_err(|e| e.to_string())?;
    let short = Peer::start(program, "interop", &["--config", config.to_str().ok_or("a path that is no text")?])?;
    std::fs::remove_file(&config).map_err(|e| e.to_string())?;
    let mut peers = [short, Peer::start(program, "interop", &[])?];
    for (which, ours, least) in [(0, 30_000, 900), (1, 600, 600), (1, 0, 0)] {
        let peer = &mut peers[which];
        let mut us = peer.neighbour(true, true);
        us.hello.resume = ours;
        let mut s = Session::adopt(peer.dial(&us)?, 1)?;
        peer.event("connected")?;
        let began = Instant::now();
        s.link.wire.cut()?;
        let lost = peer.event("lost")?;
        let took = began.elapsed();
        expect(text(&lost, "code") != "disconnected", "an end without Close passed for an orderly one")?;
        let right = Duration::from_millis(least)..Duration::from_millis(least + 5000);
        expect(right.contains(&took), &format!("lost after {took:?} instead of {least} ms"))?;
        // It is over then.
        let mut link = peer.dial(&us)?;
        same(claim(&mut link)?.session, [0; 16])?;
    }
    peers.into_iter().try_for_each(Peer::quit)
}

/// Whatever was sent on a link that resumed a session is of no use on another one.
pub fn replay(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &["--echo"])?;
    for decider in [true, false] {
        let (meeting, mut s) = Meeting::dialled(&mut peer, decider)?;
        s.link.wire.cut()?;
        s.resume(meeting.link(&mut peer)?, 0)?;
        s.send_message(1, b"once")?;
        same(s.message()?.1, b"once".to_vec())?;
        let tape = s.link.wire.tape.clone();
        for suspended in [false, true] {
            if suspended {
                s.link.wire.cut()?;
            }
            let mut w = crate::link::Wire::new(TcpStream::connect(peer.address).map_err(|e| e.to_string())?);
            w.send(&tape)?;
            same(w.drain(Duration::from_secs(1)), 0)?;
        }
        let told = s.received;
        s.resume(meeting.link(&mut peer)?, told)?;
        s.send_message(1, b"twice")?;
        same(s.message()?.1, b"twice".to_vec())?;
        for want in ["once", "twice"] {
            same(text(&peer.event("message")?, "text"), want)?;
        }
        expect(!peer.has("lost") && !peer.has("message") && !peer.has("connected"), "the replay had consequences")?;
        s.close()?;
        peer.event("lost")?;
    }
    peer.quit()
}
