//! Conversations with a libcrust peer, in both roles, with both ciphers and with
//! the choice between links on either side.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding};

use crate::frame::{self, Chosen, Claim, Info, Result};
use crate::keys::{self, Identity};
use crate::link::{read, write, Us, Wire};
use crate::peer::{text, Peer};
use crate::session::{answer, chosen, claim, Answer, Event, Session};

/// How a conversation comes about.
#[derive(Clone, Copy)]
pub struct Way {
    pub dial: bool,
    pub decider: bool,
    pub aes: bool,
}

impl Way {
    pub fn all() -> Vec<Way> {
        let both = [true, false];
        let mut out = Vec::new();
        for dial in both {
            for decider in both {
                out.extend(both.map(|aes| Way { dial, decider, aes }));
            }
        }
        out
    }

    pub fn name(&self) -> String {
        let cipher = if self.aes { "AES-256-GCM" } else { "ChaCha20-Poly1305" };
        let role = if self.dial { "initiator" } else { "responder" };
        let part = if self.decider { "decider" } else { "claimant" };
        format!("{role}, {part}, {cipher}")
    }

    pub fn begin(&self, peer: &mut Peer) -> Result<(Us, Session)> {
        let us = peer.neighbour(self.decider, self.aes);
        let link = if self.dial { peer.dial(&us)? } else { peer.accept(&us)? };
        expect(link.decider() == self.decider, "the wrong side decides")?;
        expect(link.aes == (self.aes && link.them.ciphers & 2 != 0), "another cipher than both offer")?;
        let session = Session::adopt(link, 1)?;
        let connected = peer.event("connected")?;
        expect(text(&connected, "peer") == hex::encode(us.identity.id()), "connected names another peer")?;
        expect(text(&connected, "app_id") == "interop", "connected shows another app id")?;
        let how = if self.dial { "accepted" } else { "dialed" };
        expect(text(&connected, "how") == how, "connected tells another way")?;
        Ok((us, session))
    }
}

pub fn expect(good: bool, otherwise: &str) -> Result<()> {
    if good {
        Ok(())
    } else {
        Err(otherwise.into())
    }
}

pub fn same<T: PartialEq + std::fmt::Debug>(got: T, want: T) -> Result<()> {
    if got == want {
        Ok(())
    } else {
        Err(format!("{got:?} instead of {want:?}"))
    }
}

pub fn pattern(n: usize, k: usize) -> Vec<u8> {
    (0..n).map(|i| (k * 31 + i * 7 + (i >> 8) * 13 + 3) as u8).collect()
}

/// Everything that two peers do with each other, with an echoing peer.
pub fn conversation(program: &str, way: Way) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &["--echo", "--app-id", "the other", "--role", "client"])?;
    let (us, mut s) = way.begin(&mut peer)?;
    same(s.link.them.app_id.as_slice(), b"the other".as_slice())?;
    same((s.link.them.version, s.link.them.role), (1, 1))?;
    let id = hex::encode(us.identity.id());

    s.ping(0x0102_0304_0506_0708)?;
    // Frames that only a later version knows, and padding, are passed over.
    let mut odd = Vec::new();
    frame::frame(&mut odd, 200, &[1; 300]);
    frame::frame(&mut odd, frame::PAD, &[0; 1000]);
    frame::message(&mut odd, 0, b"behind them");
    s.send_frames(&odd)?;
    same(s.message()?, (0, b"behind them".to_vec()))?;
    same(text(&peer.event("message")?, "text"), "behind them")?;
    s.send_frames(&[])?;
    let mut odd = Vec::new();
    frame::frame(&mut odd, 200, &[1; 300]);
    frame::frame(&mut odd, frame::PAD, &[0; 1000]);
    s.link.send_control(&odd)?;
    s.link.send_control(&[])?;
    datagrams(&mut peer, &mut s, &id)?;

    // Small messages, many to a record, of every length of length.
    let sizes = [0, 1, 125, 126, 127, 128, 500, 16381, 16382, 16383, 16384, 30000];
    for chunk in sizes.chunks(3) {
        let mut out = Vec::new();
        chunk.iter().for_each(|&n| frame::message(&mut out, 1, &pattern(n, n)));
        s.send_frames(&out)?;
    }
    for n in sizes {
        same(s.message()?, (1, pattern(n, n)))?;
        same(peer.event("message")?["len"].as_u64(), Some(n as u64))?;
    }
    for k in 0..50 {
        s.send_message(1, format!("message {k}").as_bytes())?;
    }
    for k in 0..50 {
        same(s.message()?, (1, format!("message {k}").into_bytes()))?;
        same(text(&peer.event("message")?, "text"), &format!("message {k}"))?;
    }
    peer.command(&format!("send {id} a word from libcrust"))?;
    same(s.message()?, (1, b"a word from libcrust".to_vec()))?;

    large(&mut peer, &mut s, &id)?;
    // Over the change of key in both directions: two nonces a record.
    for k in 1..=33_000 {
        s.ping(k)?;
    }
    let (sent, received) = (s.link.records.sent, s.link.records.received);
    expect(sent > 65_536 && received > 65_536, "too few records for a change of key")?;
    s.send_message(2, b"after the change of key")?;
    same(s.message()?, (2, b"after the change of key".to_vec()))?;

    s.close()?;
    let lost = peer.event("lost")?;
    same((text(&lost, "peer"), text(&lost, "code")), (id.as_str(), "disconnected"))?;
    peer.quit()
}

/// Datagrams of the program go beside the messages.
fn datagrams(peer: &mut Peer, s: &mut Session, id: &str) -> Result<()> {
    for text in [&b"by the way"[..], b"", &[b'x'; 1100]] {
        let mut out = Vec::new();
        frame::frame(&mut out, frame::DATAGRAM, text);
        s.link.send_control(&out)?;
        same(peer.event("datagram")?["len"].as_u64(), Some(text.len() as u64))?;
    }
    peer.command(&format!("datagram {id} and back"))?;
    same(s.next()?, Event::Datagram(b"and back".to_vec()))
}

/// Messages in pieces, overtaken by an urgent one.
fn large(peer: &mut Peer, s: &mut Session, id: &str) -> Result<()> {
    let (whole, other) = (pattern(2 << 20, 1), pattern(100_000, 2));
    let half = whole.len() / 2;
    for (at, piece) in whole[..half].chunks(65_519).scan(0, |at, p| Some((std::mem::replace(at, *at + p.len()), p))) {
        s.send_piece(5, piece, (whole.len() - at) as u32)?;
    }
    s.send_message(0, b"urgent")?;
    s.send_piece(7, &other[..1], other.len() as u32)?;
    s.send_piece(7, &other[1..60_000], other.len() as u32 - 1)?;
    for (at, piece) in whole[half..].chunks(9_999).scan(half, |at, p| Some((std::mem::replace(at, *at + p.len()), p))) {
        s.send_piece(5, piece, (whole.len() - at) as u32)?;
    }
    s.send_piece(7, &other[60_000..], 40_000)?;
    same(text(&peer.event("message")?, "text"), "urgent")?;
    same(peer.event("message")?["len"].as_u64(), Some(whole.len() as u64))?;
    same(peer.event("message")?["len"].as_u64(), Some(other.len() as u64))?;
    let mut echoes = vec![s.message()?, s.message()?, s.message()?];
    echoes.sort_by_key(|(priority, _)| *priority);
    expect(echoes == [(0, b"urgent".to_vec()), (5, whole), (7, other)], "an echo of a large message differs")?;

    peer.command(&format!("bulk {id} 20 100000 3"))?;
    for _ in 0..20 {
        let (priority, got) = s.message()?;
        same((priority, got.len()), (3, 100_000))?;
    }
    Ok(())
}

/// The peer ends the session: what it has accepted comes before Close.
pub fn closed_by_the_peer(program: &str, way: Way) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    let (us, mut s) = way.begin(&mut peer)?;
    let id = hex::encode(us.identity.id());
    peer.command(&format!("bulk {id} 100 1000"))?;
    peer.event("sent")?;
    peer.command(&format!("disconnect {id}"))?;
    for _ in 0..100 {
        same(s.message()?.1.len(), 1000)?;
    }
    same(s.next()?, Event::Close(1))?;
    // After Close the peer has nothing to say but the end of the stream.
    same(s.link.wire.drain(Duration::from_millis(200)), 0)?;
    drop(s);
    same(text(&peer.event("lost")?, "code"), "disconnected")?;
    peer.quit()
}

/// A service that stops says so.
pub fn stopping(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    let (_, mut s) = Way { dial: true, decider: false, aes: true }.begin(&mut peer)?;
    peer.command("quit")?;
    same(s.next()?, Event::Close(2))?;
    drop(s);
    peer.event("stopped").map(|_| ())
}

/// A first flight of another network, and one that is replayed, get no byte.
pub fn silence(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    let stranger = Us::new(Identity::from_seed(&keys::random()), "another network", false);
    let flight = |us: &Us| -> Result<Vec<u8>> {
        let m = write(&mut us.noise(true, None)?, &frame::offer())?;
        Ok(us.network.flight(&keys::random(), 77, &m))
    };
    let patience = Duration::from_secs(2);
    let mut w = Wire::new(peer.connect()?);
    w.send(&flight(&stranger)?)?;
    same(w.drain(patience), 0)?;

    let us = peer.neighbour(false, false);
    let first = flight(&us)?;
    for (time, answered) in [(1, true), (2, false), (3, false)] {
        let mut w = Wire::new(peer.connect()?);
        w.send(&first)?;
        let n = w.drain(patience);
        expect((n > 0) == answered, &format!("time {time}: {n} bytes of answer"))?;
    }
    // A legitimate peer is not disturbed by any of this.
    Way { dial: true, decider: true, aes: true }.begin(&mut peer)?.1.close()?;
    peer.quit()
}

/// The peer dials us, and we are of another network.
pub fn dialled_by_another_network(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    let us = Us::new(Identity::from_seed(&keys::random()), "another network", false);
    let listener = peer.invite(&us.identity.id())?;
    let (conn, _) = listener.accept().map_err(|e| e.to_string())?;
    let mut w = Wire::new(conn);
    let noise = match w.flight(&us.network) {
        Ok(noise) => read(&mut us.noise(false, None)?, &noise).map(|_| ()),
        Err(e) => Err(e),
    };
    expect(noise.is_err(), "a first flight of another network was understood")?;
    drop(w);
    same(text(&peer.event("connect_failed")?, "code"), "network_name")?;
    peer.quit()
}

/// Somebody else than expected answers: the peer leaves without a third flight.
pub fn somebody_else(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    let us = peer.neighbour(true, false);
    let listener = peer.invite(&Identity::from_seed(&keys::random()).id())?;
    let (conn, _) = listener.accept().map_err(|e| e.to_string())?;
    let mut w = Wire::new(conn);
    let mut state = us.noise(false, None)?;
    let m = w.flight(&us.network)?;
    read(&mut state, &m)?;
    let m = write(&mut state, &us.hello.encode())?;
    let flight = us.network.flight(&keys::random(), 0, &m);
    w.send(&flight)?;
    same(w.drain(Duration::from_secs(5)), 0)?;
    same(text(&peer.event("connect_failed")?, "code"), "wrong_peer")?;
    peer.quit()
}

/// A peer that claims an id which it does not hold is no peer.
pub fn false_identity(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    let mut us = peer.neighbour(true, false);
    let victim = Identity::from_seed(&keys::random()).id();
    us.hello.peer = victim;
    let listener = peer.invite(&victim)?;
    let (conn, _) = listener.accept().map_err(|e| e.to_string())?;
    expect(crate::link::Link::respond(conn, &us).is_err(), "as a responder it got a third flight")?;
    same(text(&peer.event("connect_failed")?, "code"), "handshake")?;
    let mut link = peer.dial(&us)?; // the initiator hears nothing of the refusal but the end
    expect(link.wire.closed(Duration::from_secs(5)), "as an initiator it was not cut off")?;
    expect(peer.event_within("connected", Duration::from_millis(200))?.is_none(), "it was connected")?;
    peer.quit()
}

/// Nothing but a claim may come before the link is chosen.
pub fn too_early(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    let us = peer.neighbour(false, true);
    let mut large = Vec::new();
    frame::frame(&mut large, frame::PAD, &[0; 4097]);
    let mut message = Vec::new();
    frame::message(&mut message, 0, b"too early");
    let ack = frame::numbered(frame::ACK, 0);
    let early: [(&str, frame::Header, &[u8]); 5] = [
        ("a message", frame::content(&message), &message),
        ("padding as content", frame::content(&[0, 0]), &[0, 0]),
        ("a large record", frame::control(&large), &large),
        ("an acknowledgement", frame::control(&ack), &ack),
        ("a message as control", frame::control(&message), &message),
    ];
    for (what, header, body) in early {
        let mut link = peer.dial(&us)?;
        link.send_record(header, body)?;
        expect(link.wire.closed(Duration::from_secs(5)), &format!("{what} before Chosen was accepted"))?;
    }
    let mut link = peer.dial(&us)?;
    link.send_record(frame::piece(0, b"x", 1), b"x")?;
    expect(link.wire.closed(Duration::from_secs(5)), "a piece before Chosen was accepted")?;
    // Pings and padding may come.
    let mut link = peer.dial(&us)?;
    let mut early = Vec::new();
    frame::frame(&mut early, frame::PAD, &[1, 2, 3]);
    frame::frame(&mut early, frame::PING, &9u64.to_be_bytes());
    frame::frame(&mut early, 99, &[]);
    link.send_control(&early)?;
    Session::adopt(link, 1)?.close()?;
    peer.event("connected")?;
    expect(peer.event_within("message", Duration::from_millis(100))?.is_none(), "a message of a refused link was delivered")?;
    peer.quit()
}

/// A Ping may come right behind the claim: Chosen still ends its record.
pub fn ping_behind_the_claim(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    let ping = frame::numbered(frame::PING, 9);
    for k in 0..200 {
        let us = peer.neighbour(false, true);
        let mut link = if k % 2 == 0 { peer.dial(&us)? } else { peer.accept(&us)? };
        link.send_control_in_records(&[&Claim::new(1, &[]).encode(), &ping])?;
        chosen(&mut link)?;
        peer.event("connected")?;
    }
    peer.quit()
}

/// We are the claimant and hold a session: a link that names it is refused, an
/// older claim too, a later one that does not name it takes over.
pub fn links_of_a_claimant(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &["--echo"])?;
    let us = peer.neighbour(false, true);
    let mut first = Session::adopt(peer.dial(&us)?, 5)?;
    peer.event("connected")?;
    for (seq, held) in [(6, vec![5]), (4, vec![]), (7, vec![1, 2, 5, 6])] {
        let mut link = peer.dial(&us)?;
        link.send_control(&Claim::new(seq, &held).encode())?;
        same(answer(&mut link)?, Answer::Refused(3))?;
        // One that names the session as well is no better than the link it has.
        let mut link = peer.dial(&us)?;
        let named = Claim { only: seq == 7, session: first.id, ..Claim::new(seq, &held) };
        if seq > 5 {
            link.send_control(&named.encode())?;
            same(answer(&mut link)?, Answer::Refused(3))?;
        }
    }
    first.send_message(1, b"still here")?;
    same(first.message()?.1, b"still here".to_vec())?;
    let mut second = Session::adopt(peer.dial(&us)?, 8)?;
    expect(second.id != first.id, "a session that was lost goes on")?;
    same(first.next()?, Event::Refused(8))?;
    expect(first.link.wire.closed(Duration::from_secs(5)), "the old link was not closed")?;
    peer.event("lost")?;
    peer.event("connected")?;
    second.send_message(1, b"here now")?;
    same(second.message()?.1, b"here now".to_vec())?;

    // The same identity with another instance has restarted, whatever it claims.
    let mut reborn = us.clone();
    reborn.hello.instance ^= 1;
    let third = Session::adopt(peer.dial(&reborn)?, 1)?;
    expect(second.link.wire.closed(Duration::from_secs(5)), "the link before the restart was not closed")?;
    peer.event("lost")?;
    peer.event("connected")?;
    third.close()?;
    peer.quit()
}

/// We decide: the peer's claims count up and name the session that it holds.
pub fn links_of_a_decider(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &["--echo"])?;
    let us = peer.neighbour(true, true);
    let mut link = peer.dial(&us)?;
    let first = claim(&mut link)?;
    same(&first, &Claim::new(first.seq, &[]))?;
    let choice = Chosen::new();
    link.send_control(&choice.encode())?;
    let mut s = Session::new(link, choice.session, first.seq);
    peer.event("connected")?;

    let mut other = peer.dial(&us)?;
    let second = claim(&mut other)?;
    expect(second.seq > first.seq, "the claims do not count up")?;
    same(&second, &Claim { session: s.id, ..Claim::new(second.seq, &[first.seq]) })?;
    other.send_control(&frame::reason(frame::REFUSED, 3))?;
    expect(other.wire.closed(Duration::from_secs(5)), "a refused link was not closed")?;
    s.send_message(1, b"still here")?;
    same(s.message()?, (1, b"still here".to_vec()))?;

    // Chosen with another session on a further link says that we have given up the first.
    let mut third = peer.dial(&us)?;
    same(claim(&mut third)?, Claim { session: s.id, received: 1, ..Claim::new(second.seq + 1, &[first.seq]) })?;
    third.send_control(&Chosen::new().encode())?;
    expect(s.link.wire.closed(Duration::from_secs(5)), "the link that was given up is still open")?;
    peer.event("lost")?;
    peer.event("connected")?;
    drop(third);
    peer.quit()
}

/// Sessions that begin behind the third flight, with messages, before anybody is
/// asked: by us and by the peer, whoever decides; and one whose link is refused.
pub fn begun_at_once(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &["--echo"])?;
    for decider in [true, false] {
        let us = peer.neighbour(decider, true);
        let mut link = peer.dial(&us)?;
        expect(link.them.flags & frame::READY != 0, "the peer does not say that it would take a session")?;
        let name = keys::random();
        let first = if decider { Chosen::of(name, 0).encode() } else { Claim { begun: true, session: name, ..Claim::new(1, &[]) }.encode() };
        link.send_control(&first)?;
        let mut s = Session::new(link, name, 1);
        s.send_message(1, b"at once")?;
        match answer(&mut s.link)? {
            Answer::Claim(c) if decider => same((c.session, c.received), (name, 0))?,
            Answer::Chosen(c) if !decider => same((c.session, c.received), (name, 0))?,
            other => return Err(format!("{other:?} to a session that was begun")),
        }
        same(s.message()?, (1, b"at once".to_vec()))?;
        peer.event("connected")?;
        s.close()?;
        peer.event("lost")?;
    }
    for (decider, again) in [(true, false), (false, false), (true, true), (false, true)] {
        let mut us = peer.neighbour(decider, true);
        us.hello.flags = frame::READY;
        let id = us.identity.id();
        let door = peer.invite(&id)?;
        let mut link = peer.accept_at(&door, &us)?;
        peer.event("connected")?;
        peer.command(&format!("send {} at once", hex::encode(id)))?;
        let mut first = answer(&mut link)?;
        if again {
            link.send_control(&frame::reason(frame::REFUSED, 3))?;
            link = peer.accept_at(&door, &us)?;
            first = if decider { answer(&mut link)? } else { first };
        }
        let (name, seq) = match first {
            // The decider may have another name for it.
            Answer::Claim(c) if decider && c.begun && c.session != [0; 16] => (keys::random(), c.seq),
            Answer::Chosen(c) if !decider && c.received == 0 => (c.session, 1),
            other => return Err(format!("{other:?} where a session begins")),
        };
        if decider {
            link.send_control(&Chosen::of(name, 0).encode())?;
        } else if again {
            // It was refused, so the peer asks; we name no session, and it is chosen all the same.
            link.send_control(&Claim::new(2, &[]).encode())?;
            same(chosen(&mut link)?.session, name)?;
        } else {
            link.send_control(&Claim { session: name, ..Claim::new(1, &[]) }.encode())?;
        }
        let mut s = Session::new(link, name, seq);
        same(s.message()?.1, b"at once".to_vec())?;
        s.send_message(1, b"and back")?;
        same(s.message()?.1, b"and back".to_vec())?;
        s.close()?;
        peer.event("lost")?;
    }
    expect(!peer.has("connected"), "a session began twice")?;
    peer.quit()
}

/// A service that takes no sessions says so after the handshake.
pub fn not_allowed(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &["--no-accept"])?;
    for decider in [true, false] {
        let us = peer.neighbour(decider, true);
        let mut link = peer.dial(&us)?;
        if !decider {
            link.send_control(&Claim::new(1, &[]).encode())?;
        }
        same(answer(&mut link)?, Answer::Refused(4))?;
    }
    // It may still begin one itself.
    Way { dial: false, decider: true, aes: true }.begin(&mut peer)?.1.close()?;
    peer.quit()
}

/// We refuse the peer, in either part.
pub fn we_refuse(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    for (decider, reason, code) in [(true, 4, "not_allowed"), (false, 5, "limit"), (true, 7, "banned")] {
        let us = peer.neighbour(decider, false);
        let mut link = peer.accept(&us)?;
        if decider {
            answer(&mut link)?;
        }
        link.send_control(&frame::reason(frame::REFUSED, reason))?;
        same(text(&peer.event("connect_failed")?, "code"), code)?;
        expect(link.wire.closed(Duration::from_secs(5)), "a refused link was not closed")?;
    }
    peer.quit()
}

/// Records that break the protocol end the session, and only that.
pub fn broken_records(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    type Breach = fn(&mut Session) -> Result<()>;
    let breaches: [(&str, Breach); 17] = [
        ("a forged record", |s| s.link.wire.send(&[0x55; 100])),
        ("a record of an unknown type", |s| s.link.send_record(frame::Header { kind: 4, priority: 0, len: 1, left: 0 }, b"x")),
        ("a message over 2 MiB", |s| s.send_piece(1, b"x", (2 << 20) + 1)),
        ("a piece that does not go on", |s| {
            s.send_piece(1, b"xx", 10)?;
            s.send_piece(1, b"xx", 7)
        }),
        ("nine messages in pieces", |s| (0..9).try_for_each(|p| s.send_piece(p, b"x", 10))),
        ("a ninth message in one piece", |s| {
            (0..8).try_for_each(|p| s.send_piece(p, b"x", 10))?;
            s.send_piece(8, b"x", 1)
        }),
        ("a frame over the end", |s| s.send_frames(&[1, 5, 0])),
        ("a control frame over the end", |s| s.link.send_control(&[2, 9, 0, 0, 0, 0, 0, 0, 0, 0])),
        ("a claim inside a session", |s| s.link.send_control(&Claim::new(9, &[]).encode())),
        ("a choice inside a session", |s| s.link.send_control(&Chosen::new().encode())),
        ("a ping of four bytes", |s| s.link.send_control(&[2, 4, 0, 0, 0, 0])),
        ("an acknowledgement of seven bytes", |s| s.link.send_control(&[8, 7, 0, 0, 0, 0, 0, 0, 0])),
        ("a message as control", |s| s.link.send_control(&[1, 2, 0, b'x'])),
        ("a close as control", |s| s.link.send_control(&frame::reason(frame::CLOSE, 1))),
        ("a ping as content", |s| s.send_frames(&frame::numbered(frame::PING, 1))),
        ("an acknowledgement as content", |s| s.send_frames(&frame::numbered(frame::ACK, 0))),
        ("a datagram of 1,101 bytes", |s| {
            let mut out = Vec::new();
            frame::frame(&mut out, frame::DATAGRAM, &[0; 1101]);
            s.link.send_control(&out)
        }),
    ];
    for (what, breach) in breaches {
        let (_, mut s) = Way { dial: true, decider: true, aes: true }.begin(&mut peer)?;
        breach(&mut s)?;
        expect(s.link.wire.closed(Duration::from_secs(5)), &format!("{what} was accepted"))?;
        let lost = peer.event("lost")?;
        expect(matches!(text(&lost, "code"), "protocol" | "crypto"), &format!("{what}: {lost}"))?;
    }
    // Eight messages in pieces are as many as there may be.
    let (_, mut s) = Way { dial: true, decider: true, aes: false }.begin(&mut peer)?;
    (0..8).try_for_each(|p| s.send_piece(p, b"x", 10))?;
    s.send_message(9, b"and a small one")?;
    same(text(&peer.event("message")?, "text"), "and a small one")?;
    (0..8).try_for_each(|p| s.send_piece(p, b"123456789", 9))?;
    for priority in 0..8u64 {
        let m = peer.event("message")?;
        same((m["priority"].as_u64(), text(&m, "text")), (Some(priority), "x123456789"))?;
    }
    s.close()?;
    same(text(&peer.event("lost")?, "code"), "disconnected")?;
    peer.quit()
}

/// Connection infos: theirs is read and its signature checked, ours is used.
pub fn connection_info(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    peer.command("info")?;
    let event = peer.event("info")?;
    let info = Info::decode(&Base64UrlUnpadded::decode_vec(text(&event, "info")).map_err(|e| e.to_string())?)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|e| e.to_string())?.as_secs();
    same(info.peer, peer.id)?;
    expect(info.expires > now + 86_000 && info.expires <= now + 86_400, "it does not expire after a day")?;
    expect(info.tcp.contains(&(vec![127, 0, 0, 1], peer.address.port())), "it does not name the listener")?;

    let us = peer.neighbour(true, true);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(|e| e.to_string())?;
    let port = listener.local_addr().map_err(|e| e.to_string())?.port();
    let mut ours = Info { peer: us.identity.id(), expires: now + 60, tcp: vec![(vec![127, 0, 0, 1], port)] };
    let mut forged = ours.encode(&us.identity);
    forged[60] ^= 1;
    peer.command(&format!("connect {}", Base64UrlUnpadded::encode_string(&forged)))?;
    same(text(&peer.event("error")?, "code"), "bad_info")?;
    ours.expires = now - 1;
    peer.command(&format!("connect {}", Base64UrlUnpadded::encode_string(&ours.encode(&us.identity))))?;
    same(text(&peer.event("error")?, "code"), "bad_info")?;
    ours.expires = now + 60;
    peer.command(&format!("connect {}", Base64UrlUnpadded::encode_string(&ours.encode(&us.identity))))?;
    let (conn, _) = listener.accept().map_err(|e| e.to_string())?;
    let s = Session::adopt(crate::link::Link::respond(conn, &us)?, 1)?;
    peer.event("connected")?;
    s.close()?;
    peer.quit()
}

/// A silent peer is asked after, as often as its lost-after wants.
pub fn heartbeat(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &[])?;
    let mut us = peer.neighbour(true, true);
    us.hello.lost_after = 1000;
    let mut s = Session::adopt(peer.dial(&us)?, 1)?;
    peer.event("connected")?;
    let mut pings = 0;
    let began = std::time::Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let (_, body) = s.link.record()?;
        pings += frame::frames(&body)?.iter().filter(|(kind, _)| *kind == frame::PING).count();
    }
    expect(pings >= 5, &format!("{pings} pings in 3 s, where one was due every 250 ms"))?;
    s.close()?;
    peer.quit()
}
