//! Sections 19 and 20 of docs/PROTOCOL.md with a libcrust peer: handshakes in
//! datagrams in both roles, and sessions over them.

use std::time::Duration;

use crate::datagram::{flight, receive, socket, Association, Flight, ANSWER, OFFER, PROLOGUE};
use crate::frame::{self, Result};
use crate::inner::{tunnel, Inner, Tunnel};
use crate::keys::{self, Identity};
use crate::link::{write, Link, Us};
use crate::peer::{text, Peer};
use crate::scenarios::{expect, pattern, same, Way};
use crate::session::Session;

const FLAGS: [&str; 3] = ["--listen", "utp://127.0.0.1:0", "--echo"];

/// An association with the peer that has proved to work.
fn associate(peer: &mut Peer, us: &Us, dial: bool) -> Result<Inner> {
    let socket = socket()?;
    if !dial {
        let address = socket.local_addr().map_err(|e| e.to_string())?;
        peer.command(&format!("connect utp://{address}#{}", hex::encode(us.identity.id())))?;
        let mut inner = Inner::new(Association::respond(socket, us)?);
        same(inner.assoc.them.peer, peer.id)?;
        inner.ping()?; // the confirmation
        return Ok(inner);
    }
    let mut inner = Inner::new(Association::initiate(socket, peer.utp_address()?, us)?);
    same(inner.assoc.them.peer, peer.id)?;
    // Each finish, the first one and one that comes again, brings a confirmation.
    for _ in 0..2 {
        inner.assoc.commit(us)?;
        expect(inner.pump(Duration::from_secs(5))? > 0, "no confirmation of the finish")?;
    }
    Ok(inner)
}

fn link(peer: &mut Peer, us: &Us, dial: bool) -> Result<(Link, Tunnel)> {
    let inner = associate(peer, us, dial)?;
    let (them, aes) = (inner.assoc.them.clone(), inner.assoc.aes);
    let t = tunnel(inner)?;
    let conn = t.conn.try_clone().map_err(|e| e.to_string())?;
    Ok((Link::inside(conn, us, them, aes, dial), t))
}

/// A session over sealed datagrams: messages small and large, datagrams, an orderly end.
pub fn conversation(program: &str, way: Way) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &FLAGS)?;
    let us = peer.neighbour(way.decider, way.aes);
    let id = hex::encode(us.identity.id());
    let (l, t) = link(&mut peer, &us, way.dial)?;
    expect(l.aes == (way.aes && l.them.ciphers & 2 != 0), "another cipher than both offer")?;
    let mut s = Session::adopt(l, 1)?;
    let connected = peer.event("connected")?;
    same((text(&connected, "peer"), text(&connected, "transport")), (id.as_str(), "utp"))?;
    s.ping(7)?;
    for n in [0, 1, 1000, 1200, 30_000] {
        s.send_message(1, &pattern(n, n))?;
        same(s.message()?, (1, pattern(n, n)))?;
    }
    let large = pattern(2 << 20, 3);
    for (i, piece) in large.chunks(1 << 15).enumerate() {
        s.send_piece(5, piece, (large.len() - (i << 15)) as u32)?;
    }
    expect(s.message()? == (5, large), "the echo of a large message differs")?;
    for text in [&b"by the way"[..], b"", &[b'x'; 1000]] {
        t.send_datagram.send(text.to_vec()).map_err(|e| e.to_string())?;
        same(peer.event("datagram")?["len"].as_u64(), Some(text.len() as u64))?;
    }
    peer.command(&format!("datagram {id} and back"))?;
    same(t.datagrams.recv_timeout(Duration::from_secs(10)).map_err(|e| e.to_string())?, b"and back".to_vec())?;
    s.close()?;
    t.end.recv_timeout(Duration::from_secs(10)).map_err(|_| "the association did not end")??;
    same(text(&peer.event("lost")?, "code"), "disconnected")?;
    peer.quit()
}

/// A session goes on over uTP when TCP is gone, and the other way round.
pub fn change_of_transport(program: &str) -> Result<()> {
    let mut peer = Peer::start(program, "interop", &FLAGS)?;
    for decider in [true, false] {
        let us = peer.neighbour(decider, true);
        let mut s = Session::adopt(peer.dial(&us)?, 1)?;
        peer.event("connected")?;
        for round in 0..6u32 {
            for k in 0..200u32 {
                s.send_message(1, &pattern(500, (round * 200 + k) as usize))?;
            }
            for k in 0..100u32 {
                same(s.message()?, (1, pattern(500, (round * 200 + k) as usize)))?;
            }
            s.link.wire.cut()?;
            let told = s.received;
            let next = if round % 2 == 0 { link(&mut peer, &us, true)?.0 } else { peer.dial(&us)? };
            s.resume(next, told)?;
            for k in 100..200u32 {
                same(s.message()?, (1, pattern(500, (round * 200 + k) as usize)))?;
            }
        }
        expect(!peer.has("lost"), "the session was lost")?;
        s.close()?;
        peer.event("lost")?;
    }
    peer.quit()
}

/// What gets no answer: other networks, offers that come again, noise.
pub fn silence(program: &str) -> Result<()> {
    let peer = Peer::start(program, "interop", &FLAGS)?;
    let address = peer.utp_address()?;
    let offer = |us: &Us, prologue: &[u8]| -> Result<Flight> {
        let m = write(&mut us.noise_over(prologue, true, None)?, &frame::offer())?;
        Ok(Flight::new(OFFER, keys::random(), &m))
    };
    let quiet = |datagram: &[u8], what: &str| -> Result<()> {
        let s = socket()?;
        s.send_to(datagram, address).map_err(|e| e.to_string())?;
        expect(receive(&s, Duration::from_millis(300))?.is_none(), &format!("{what} was answered"))
    };
    let stranger = Us::new(Identity::from_seed(&keys::random()), "another network", true);
    quiet(&offer(&stranger, PROLOGUE)?.offer(&stranger.network), "another network")?;
    let us = peer.neighbour(true, true);
    quiet(&offer(&us, b"libcrust/1")?.offer(&us.network), "a handshake for streams")?;
    quiet(&[0x55; 700], "noise")?;
    let first = offer(&us, PROLOGUE)?;
    let s = socket()?;
    s.send_to(&first.offer(&us.network), address).map_err(|e| e.to_string())?;
    expect(flight(&s, &us, ANSWER, Duration::from_secs(5))?.is_some(), "no answer to a first offer")?;
    quiet(&first.offer(&us.network), "an offer that came from elsewhere before")?;
    let again = Flight { id: keys::random(), ..first };
    quiet(&again.offer(&us.network), "an ephemeral key that came before")?;
    peer.quit()
}
