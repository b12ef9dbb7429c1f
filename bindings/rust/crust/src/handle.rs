use std::ffi::c_int;
use std::fmt;
use std::ptr;
use std::time::Duration;

use crust_sys as sys;

use crate::ban::{Ban, Texts};
use crate::config::{Beacon, c_string};
use crate::error::{Result, check};
use crate::group::{Group, GroupInfo, GroupPeer};
use crate::info::{KnownPeer, LanPeer, PeerInfo, Stats};
use crate::nat::{MappedPort, Nat, NatFlow, NatSeen, NatServer};
use crate::peer_id::PeerId;

mod sending;

pub(crate) use sending::timeout_ms;
pub use sending::{Outgoing, Sent};

/// The calls of a service. A [`Service`](crate::Service) derefs to its handle, so
/// all of these are methods of a service too.
///
/// A handle is a number: it is copied freely, may be used from any thread at any
/// time, and does not keep the service alive. When the service is gone, calls
/// return [`BadHandle`](crate::ErrorKind::BadHandle). It is what a
/// [handler](crate::Service::with_responder) uses to answer.
///
/// Nothing but [`send_wait`](Handle::send_wait) blocks. What takes time on the
/// network answers with an [`Event`](crate::Event) that carries the caller's
/// token: a call that returned an error causes no event, a call with a token that
/// returned `Ok` causes exactly one final event.
///
/// Every call can fail with [`Closed`](crate::ErrorKind::Closed),
/// [`BadHandle`](crate::ErrorKind::BadHandle),
/// [`Forked`](crate::ErrorKind::Forked) and
/// [`Panicked`](crate::ErrorKind::Panicked); other kinds are named at each.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Handle {
    service: sys::crust_service,
    id: PeerId,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("id", &self.id).finish()
    }
}

impl Handle {
    /// The handle of a service of the library, which is asked for its id.
    pub(crate) fn of(service: sys::crust_service) -> Result<Self> {
        let mut id = sys::crust_peer_id::default();
        // SAFETY: room for one id. The library checks handles itself, here and
        // in every call below: any number is safe.
        check(unsafe { sys::crust_service_id(service, &mut id) })?;
        Ok(Self {
            service,
            id: PeerId::from_raw(id),
        })
    }

    pub(crate) fn raw(self) -> sys::crust_service {
        self.service
    }

    /// Who the service is.
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Begins to close the service and returns at once. What
    /// [`send`](Handle::send) accepted is still delivered, within
    /// [`close_timeout`](crate::Config::close_timeout). Then come the remaining
    /// events, one [`Lost`](crate::Event::Lost) for each session and
    /// [`Stopped`](crate::Event::Stopped) as the last. Closing again does nothing.
    pub fn close(&self) {
        // SAFETY: see Handle::of. It fails only when the service is gone
        // already, which is what was asked for, or in a child of a fork, where
        // there is none.
        unsafe { sys::crust_service_close(self.service) };
    }

    /// Gathers where this service can be reached. The answer comes as
    /// [`ConnectionInfo`](crate::Event::ConnectionInfo) with the token; it is
    /// signed, holds for 24 hours, and is to be given to the other peer by any
    /// channel.
    pub fn prepare_connection_info(&self, token: u64) -> Result<()> {
        // SAFETY: see Handle::of.
        check(unsafe { sys::crust_prepare_connection_info(self.service, token) }).map(drop)
    }

    /// Connects to the peer that made `info`. One side or both may call it.
    /// Final event: [`Connected`](crate::Event::Connected),
    /// [`AlreadyConnected`](crate::Event::AlreadyConnected) or
    /// [`ConnectFailed`](crate::Event::ConnectFailed).
    ///
    /// Errors: [`BadInfo`](crate::ErrorKind::BadInfo),
    /// [`SelfConnect`](crate::ErrorKind::SelfConnect),
    /// [`Limit`](crate::ErrorKind::Limit).
    pub fn connect(&self, info: &[u8], token: u64) -> Result<()> {
        // SAFETY: a buffer with its length, which the library copies.
        check(unsafe { sys::crust_connect(self.service, info.as_ptr().cast(), info.len(), token) })
            .map(drop)
    }

    /// Connects to `"ENDPOINT"`, whoever answers there, or to `"ENDPOINT#PEER"`
    /// and nobody else. The same final events as [`connect`](Handle::connect).
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid),
    /// [`Limit`](crate::ErrorKind::Limit).
    pub fn connect_endpoint(&self, contact: &str, token: u64) -> Result<()> {
        let contact = c_string("contact", contact)?;
        // SAFETY: a NUL-terminated string, which the library copies.
        check(unsafe { sys::crust_connect_endpoint(self.service, contact.as_ptr(), token) })
            .map(drop)
    }

    /// Connects to a peer of which only the id is known: peers that are connected
    /// to this service introduce the two, over up to six peers in a row. Both open
    /// their NATs; where that fails, a peer that relays carries the link. The same
    /// final events as [`connect`](Handle::connect), which fails with
    /// [`NoEndpoint`](crate::ErrorKind::NoEndpoint) when no peer is connected, and
    /// with [`Timeout`](crate::ErrorKind::Timeout) when nobody knows the peer.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) when the id is zero,
    /// [`SelfConnect`](crate::ErrorKind::SelfConnect),
    /// [`Limit`](crate::ErrorKind::Limit).
    pub fn connect_peer(&self, peer: &PeerId, token: u64) -> Result<()> {
        // SAFETY: an id.
        check(unsafe { sys::crust_service_connect_peer(self.service, peer.as_raw(), token) })
            .map(drop)
    }

    /// [`connect_peer`](Handle::connect_peer), with what is to be said at once: at most
    /// 64 messages of 16,384 bytes together, which are the first ones of the session,
    /// in their order, at priority 1. Over a relay that has a key which the peer has left
    /// with it they are there after one round trip, when
    /// [`Connected`](crate::Event::Connected) comes here; otherwise as soon as what is
    /// sent then, but with a session that there is already at once. With
    /// [`ConnectFailed`](crate::Event::ConnectFailed) they are not delivered, but who was
    /// cut off in the last moment may have taken them, and a relay that lies can bring
    /// them up to ten minutes later.
    ///
    /// Errors: those of [`connect_peer`](Handle::connect_peer);
    /// [`Invalid`](crate::ErrorKind::Invalid), too, when there are more.
    pub fn connect_peer_with(
        &self,
        peer: &PeerId,
        token: u64,
        first: &[impl AsRef<[u8]>],
    ) -> Result<()> {
        let (at, sizes): (Vec<_>, Vec<_>) = first
            .iter()
            .map(|message| {
                let bytes = message.as_ref();
                (bytes.as_ptr().cast::<std::ffi::c_void>(), bytes.len())
            })
            .unzip();
        // SAFETY: an id, and as many live buffers and lengths as are said, which the
        // library copies.
        check(unsafe {
            sys::crust_service_connect_peer_with(
                self.service,
                peer.as_raw(),
                at.as_ptr(),
                sizes.as_ptr(),
                at.len(),
                token,
            )
        })
        .map(drop)
    }

    /// Tries all [contacts](crate::Config::contact) at once and keeps the first
    /// that answers. Final event: [`Bootstrapped`](crate::Event::Bootstrapped) or
    /// [`BootstrapFailed`](crate::Event::BootstrapFailed).
    ///
    /// Errors: [`State`](crate::ErrorKind::State) when a bootstrap is running.
    pub fn bootstrap(&self, token: u64) -> Result<()> {
        // SAFETY: see Handle::of.
        check(unsafe { sys::crust_bootstrap(self.service, token) }).map(drop)
    }

    /// [`bootstrap`](Self::bootstrap) without some contacts, for instance those that have
    /// refused the program. Nothing is sent to an `ENDPOINT`, whoever has a `#PEER` is not
    /// the one that is kept, and `ENDPOINT#PEER` is that peer there.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid), too, for a malformed one.
    pub fn bootstrap_except<S: AsRef<str>>(
        &self,
        except: impl IntoIterator<Item = S>,
        token: u64,
    ) -> Result<()> {
        let except = except
            .into_iter()
            .map(|contact| c_string("contact", contact.as_ref()))
            .collect::<Result<Vec<_>>>()?;
        let raw: Vec<_> = except.iter().map(|contact| contact.as_ptr()).collect();
        // SAFETY: an array of NUL-terminated strings with its length.
        check(unsafe { sys::crust_bootstrap_except(self.service, raw.as_ptr(), raw.len(), token) })
            .map(drop)
    }

    /// Connects to the peers of a group, and again whenever one is lost, until
    /// [`release`](Self::release): at where it was last, at what the group, the cache
    /// and other peers tell, over either transport, and by peers that are connected to
    /// both. A group of the same name is replaced. Sessions that there are count, and
    /// those that the peers begin. After a loss and after each attempt in vain comes a
    /// pause of random length that doubles, from 1 s to 1 minute at most. A peer that
    /// [`disconnect`](Self::disconnect) disconnects, connected or not, stays so: nothing
    /// is tried, and the sessions that it begins are refused, until the program connects
    /// to it or names it in a call of this. Each change is an
    /// [`Event::Group`](crate::Event::Group).
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid),
    /// [`SelfConnect`](crate::ErrorKind::SelfConnect),
    /// [`BadInfo`](crate::ErrorKind::BadInfo), [`Limit`](crate::ErrorKind::Limit).
    pub fn keep(&self, group: &Group) -> Result<()> {
        // SAFETY: a struct that says its own size, of arrays with their lengths.
        group
            .with_raw(|raw| check(unsafe { sys::crust_service_keep(self.service, raw) }))?
            .map(drop)
    }

    /// Ends that a group is kept, and the attempts for it that are under way. Sessions
    /// live on.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) when there is no such group.
    pub fn release(&self, name: &str) -> Result<()> {
        let name = c_string("name", name)?;
        // SAFETY: a NUL-terminated string, which the library copies.
        check(unsafe { sys::crust_service_release(self.service, name.as_ptr()) }).map(drop)
    }

    /// The groups that are kept, in the order in which they came.
    pub fn groups(&self) -> Result<Vec<GroupInfo>> {
        let mut groups = each(GroupInfo::empty, GroupInfo::from_raw, |index, raw| {
            // SAFETY: a struct that says its own size.
            unsafe { sys::crust_service_group(self.service, index, raw) }
        })?;
        for group in &mut groups {
            let name = c_string("name", &group.name)?;
            group.peers = each(GroupPeer::empty, GroupPeer::from_raw, |index, raw| {
                // SAFETY: a NUL-terminated string, and a struct that says its own size.
                match unsafe {
                    sys::crust_service_group_peer(self.service, name.as_ptr(), index, raw)
                } {
                    sys::CRUST_ERR_INVALID => 0, // released meanwhile
                    count => count,
                }
            })?;
        }
        Ok(groups)
    }

    /// Blacklists peers and addresses, one or ten thousand, for a time or, with `None`, as
    /// long as the service lives. Each is a peer id, whatever its address, or an IP address
    /// or a prefix such as `203.0.113.0/24`, whoever is there. Who is banned already is so
    /// anew. `reason`, up to 256 bytes, is kept for [`bans`](Self::bans).
    ///
    /// It holds at once: sessions are `Lost` with [`Banned`](crate::ErrorKind::Banned),
    /// without waiting for what is queued, and the peers are told; what is being connected
    /// fails with it; and then nothing is sent to those who are banned nor taken from them,
    /// by whatever way they come.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid), [`SelfConnect`](crate::ErrorKind::SelfConnect),
    /// [`Limit`](crate::ErrorKind::Limit), [`Closed`](crate::ErrorKind::Closed): then nobody
    /// is banned who was not before.
    pub fn ban<S: ToString>(
        &self,
        who: impl IntoIterator<Item = S>,
        time: Option<Duration>,
        reason: &str,
    ) -> Result<()> {
        let who = Texts::new("who", who)?;
        let reason = c_string("reason", reason)?;
        let ms = match time {
            None => 0,
            Some(time) => {
                u64::try_from(time.as_nanos().div_ceil(1_000_000).max(1)).unwrap_or(u64::MAX)
            }
        };
        // SAFETY: an array of NUL-terminated strings with its length, and one more.
        check(unsafe { sys::crust_ban(self.service, who.as_ptr(), who.len(), ms, reason.as_ptr()) })
            .map(drop)
    }

    /// Lifts bans of the very peers, addresses and prefixes that were banned, and returns
    /// how many there were. An address in a banned prefix stays banned.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid).
    pub fn unban<S: ToString>(&self, who: impl IntoIterator<Item = S>) -> Result<usize> {
        let who = Texts::new("who", who)?;
        // SAFETY: an array of NUL-terminated strings with its length.
        check(unsafe { sys::crust_unban(self.service, who.as_ptr(), who.len()) })
            .map(|lifted| lifted as usize)
    }

    /// The blacklist: peers in the order of their ids, then prefixes in the order of their
    /// addresses, IPv4 first.
    pub fn bans(&self) -> Result<Vec<Ban>> {
        let raw = fill(Ban::empty(), |buffer, n| {
            // SAFETY: room for `*n` structs, of which the first says the size, or NULL to
            // ask for the number.
            unsafe { sys::crust_bans(self.service, buffer, n) }
        })?;
        Ok(raw.iter().map(Ban::from_raw).collect())
    }

    /// Replaces the whitelists: which IP addresses and prefixes peers of role node, and of
    /// role client, may have, up to 1,024 each; none: all are allowed. Others are refused,
    /// before they can say anything when their address is on neither list, and not dialled;
    /// so are links that others carry, whose address is not known. Sessions with peers that
    /// are not allowed any more are `Lost` with [`NotAllowed`](crate::ErrorKind::NotAllowed).
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid), [`Limit`](crate::ErrorKind::Limit),
    /// [`Closed`](crate::ErrorKind::Closed).
    pub fn set_allowed<S: ToString, T: ToString>(
        &self,
        nodes: impl IntoIterator<Item = S>,
        clients: impl IntoIterator<Item = T>,
    ) -> Result<()> {
        let nodes = Texts::new("nodes", nodes)?;
        let clients = Texts::new("clients", clients)?;
        // SAFETY: arrays of NUL-terminated strings with their lengths.
        check(unsafe {
            sys::crust_set_allowed(
                self.service,
                nodes.as_ptr(),
                nodes.len(),
                clients.as_ptr(),
                clients.len(),
            )
        })
        .map(drop)
    }

    /// Gives up a running bootstrap, whose final event is then `BootstrapFailed`
    /// with [`Canceled`](crate::ErrorKind::Canceled). Without one it does nothing.
    pub fn stop_bootstrap(&self) -> Result<()> {
        // SAFETY: see Handle::of.
        check(unsafe { sys::crust_stop_bootstrap(self.service) }).map(drop)
    }

    /// Ends a session in order: what [`send`](Handle::send) accepted is
    /// delivered, then the peer is told. [`Lost`](crate::Event::Lost) with
    /// [`Disconnected`](crate::ErrorKind::Disconnected) follows on both sides.
    ///
    /// Errors: [`UnknownPeer`](crate::ErrorKind::UnknownPeer).
    pub fn disconnect(&self, peer: &PeerId) -> Result<()> {
        // SAFETY: an id.
        check(unsafe { sys::crust_disconnect(self.service, peer.as_raw()) }).map(drop)
    }

    /// Starts one more listener, such as `"tcp://0.0.0.0:0"` or `"utp://0.0.0.0:0"`.
    /// [`ListenerStarted`](crate::Event::ListenerStarted) or
    /// [`ListenerFailed`](crate::Event::ListenerFailed) follows.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid),
    /// [`AddressInUse`](crate::ErrorKind::AddressInUse),
    /// [`Address`](crate::ErrorKind::Address),
    /// [`Permission`](crate::ErrorKind::Permission).
    pub fn listen(&self, endpoint: &str) -> Result<()> {
        let endpoint = c_string("endpoint", endpoint)?;
        // SAFETY: a NUL-terminated string, which the library copies.
        check(unsafe { sys::crust_listen(self.service, endpoint.as_ptr()) }).map(drop)
    }

    /// Stops the listener at an endpoint, as
    /// [`listeners`](Handle::listeners) gives it. Sessions live on.
    ///
    /// Errors: [`Invalid`](crate::ErrorKind::Invalid) when nothing listens there.
    pub fn stop_listening(&self, endpoint: &str) -> Result<()> {
        let endpoint = c_string("endpoint", endpoint)?;
        // SAFETY: a NUL-terminated string, which the library copies.
        check(unsafe { sys::crust_stop_listening(self.service, endpoint.as_ptr()) }).map(drop)
    }

    /// Where the service listens.
    pub fn listeners(&self) -> Result<Vec<String>> {
        let text = fill(0u8, |buffer, len| {
            // SAFETY: a buffer with its length, or NULL to ask for the size.
            unsafe { sys::crust_listeners(self.service, buffer.cast(), len) }
        })?;
        let text = text.split(|&byte| byte == 0).next().unwrap_or_default();
        let text = String::from_utf8_lossy(text);
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Accepts or refuses sessions that peers begin. See
    /// [`Config::no_accept`](crate::Config::no_accept).
    pub fn set_accept(&self, accept: bool) -> Result<()> {
        // SAFETY: see Handle::of.
        check(unsafe { sys::crust_set_accept(self.service, c_int::from(accept)) }).map(drop)
    }

    /// Changes [`Config::beacon`](crate::Config::beacon) of a service that runs. A beacon
    /// that is turned off says goodbye, and [`peers_on_lan`](Self::peers_on_lan) knows
    /// nobody any more; one that is turned on begins anew.
    pub fn set_beacon(&self, beacon: Beacon) -> Result<()> {
        // SAFETY: see Handle::of.
        check(unsafe { sys::crust_set_beacon(self.service, beacon.raw()) }).map(drop)
    }

    /// Says that this machine's network has changed, or that it has slept, for
    /// programs that know before the system tells, or where it does not. Every
    /// session proves its link, and those without one are dialled at once. An
    /// [`Event::NetworkChanged`](crate::Event::NetworkChanged) follows; calls
    /// within half a second are one.
    pub fn network_changed(&self) -> Result<()> {
        // SAFETY: see Handle::of.
        check(unsafe { sys::crust_service_network_changed(self.service) }).map(drop)
    }

    /// The peers, in the order of their ids.
    pub fn peers(&self) -> Result<Vec<PeerId>> {
        let ids = fill(sys::crust_peer_id::default(), |buffer, n| {
            // SAFETY: room for `*n` ids, or NULL to ask for the number.
            unsafe { sys::crust_peers(self.service, buffer, n) }
        })?;
        Ok(ids.into_iter().map(PeerId::from_raw).collect())
    }

    /// One session. Errors: [`UnknownPeer`](crate::ErrorKind::UnknownPeer).
    pub fn peer(&self, peer: &PeerId) -> Result<PeerInfo> {
        let mut raw = PeerInfo::empty();
        // SAFETY: an id, and a struct that says its own size.
        check(unsafe { sys::crust_peer(self.service, peer.as_raw(), &mut raw) })?;
        Ok(PeerInfo::from_raw(&raw))
    }

    /// What the service has done since it was made.
    pub fn stats(&self) -> Result<Stats> {
        let mut raw = sys::crust_stats {
            struct_size: size_of::<sys::crust_stats>() as u32,
            ..Default::default()
        };
        // SAFETY: a struct that says its own size.
        check(unsafe { sys::crust_service_stats(self.service, &mut raw) })?;
        Ok(Stats::from_raw(&raw))
    }

    /// What is known of the NATs between this service and others. It sends nothing.
    pub fn nat(&self) -> Result<Nat> {
        let (mut raw, mut udp, mut tcp) = (Nat::empty(), NatFlow::empty(), NatFlow::empty());
        // SAFETY: structs that say their own sizes.
        check(unsafe { sys::crust_service_nat(self.service, &mut raw, &mut udp, &mut tcp) })?;
        let servers = each(NatServer::empty, NatServer::from_raw, |index, raw| {
            // SAFETY: a struct that says its own size.
            unsafe { sys::crust_service_nat_server(self.service, index, raw) }
        })?;
        let mapped = each(MappedPort::empty, MappedPort::from_raw, |index, raw| {
            // SAFETY: a struct that says its own size.
            unsafe { sys::crust_service_nat_port(self.service, index, raw) }
        })?;
        let seen = each(NatSeen::empty, NatSeen::from_raw, |index, raw| {
            // SAFETY: a struct that says its own size.
            unsafe { sys::crust_service_nat_seen(self.service, index, raw) }
        })?;
        Ok(Nat::from_raw(&raw, &udp, &tcp, servers, mapped, seen))
    }

    /// The peers whose beacons were heard on the networks of this machine, in the order
    /// of their ids, at once: it asks nobody. See [`Config::beacon`](crate::Config::beacon).
    pub fn peers_on_lan(&self) -> Result<Vec<LanPeer>> {
        each(LanPeer::empty, LanPeer::from_raw, |index, raw| {
            // SAFETY: a struct that says its own size.
            unsafe { sys::crust_service_lan_peer(self.service, index, raw) }
        })
    }

    /// The peers of which gossip has told, connected ones too, in the order of their ids:
    /// up to 16,384. There are none unless [`Config::gossip`](crate::Config::gossip) is on.
    pub fn known(&self) -> Result<Vec<KnownPeer>> {
        let mut peers: Vec<KnownPeer> = Vec::new();
        let mut raw = [KnownPeer::empty(); 256];
        loop {
            let after = match peers.last() {
                Some(last) => last.peer.as_raw(),
                None => ptr::null(),
            };
            let mut n = raw.len();
            // SAFETY: an id or NULL, and room for `n` structs that say their own size.
            check(unsafe {
                sys::crust_service_known(self.service, after, raw.as_mut_ptr(), &mut n)
            })?;
            peers.extend(raw[..n].iter().map(KnownPeer::from_raw));
            if n < raw.len() {
                return Ok(peers);
            }
        }
    }

    /// Makes the call that waits for events now, or else the next one, come back
    /// without: [`Events::next_timeout`](crate::Events::next_timeout) and
    /// [`next_batch`](crate::Events::next_batch) return `Ok(None)`. With it
    /// another thread can call a thread's attention. Iterating goes on waiting.
    ///
    /// Errors: [`State`](crate::ErrorKind::State) for a service with a handler.
    pub fn wakeup(&self) -> Result<()> {
        // SAFETY: see Handle::of.
        check(unsafe { sys::crust_wakeup(self.service) }).map(drop)
    }
}

/// Asks for a size, then fills a buffer of it, until the size did not grow in
/// between.
fn fill<T: Copy>(
    blank: T,
    mut ask: impl FnMut(*mut T, &mut usize) -> sys::crust_result,
) -> Result<Vec<T>> {
    let mut n = 0;
    let code = ask(ptr::null_mut(), &mut n);
    if code != sys::CRUST_ERR_BUFFER_TOO_SMALL {
        check(code)?;
    }
    loop {
        let mut buffer = vec![blank; n];
        let code = ask(buffer.as_mut_ptr(), &mut n);
        if code != sys::CRUST_ERR_BUFFER_TOO_SMALL {
            check(code)?;
            buffer.truncate(n);
            return Ok(buffer);
        }
    }
}

/// Asks for one of a list after the other. `ask` fills a struct with that of an index,
/// where there is one, and returns how many there are.
fn each<R, T>(
    empty: fn() -> R,
    read: fn(&R) -> T,
    mut ask: impl FnMut(u32, &mut R) -> sys::crust_result,
) -> Result<Vec<T>> {
    let mut list = Vec::new();
    loop {
        let mut raw = empty();
        let index = list.len() as u32;
        let count = check(ask(index, &mut raw))?;
        if index as i32 >= count {
            return Ok(list);
        }
        list.push(read(&raw));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_goes_on_while_the_answer_grows() {
        // The list has 2 entries when asked, and 5 when first fetched.
        let sizes = [2, 5, 5];
        let mut call = 0;
        let list = fill(0u8, |buffer, n| {
            let size = sizes[call];
            call += 1;
            let room = std::mem::replace(n, size);
            if buffer.is_null() || room < size {
                return sys::CRUST_ERR_BUFFER_TOO_SMALL;
            }
            // SAFETY: there is room for `size` bytes.
            unsafe { buffer.write_bytes(7, size) };
            sys::CRUST_OK
        });
        assert_eq!(list, Ok(vec![7; 5]));
        assert_eq!(call, 3);
    }
}
