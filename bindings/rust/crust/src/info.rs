use std::ffi::c_char;
use std::time::Duration;

use crust_sys as sys;

use crate::config::Role;
use crate::event::How;
use crate::peer_id::PeerId;

/// What encrypts a session's records. More may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cipher {
    /// ChaCha20-Poly1305.
    ChaCha20Poly1305,
    /// AES-256-GCM, used where both sides have hardware for it.
    Aes256Gcm,
    /// A cipher newer than this crate.
    Unknown,
}

/// One session, as [`peer`](crate::Handle::peer) describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Who.
    pub peer: PeerId,
    /// The peer's end of the link.
    pub endpoint: String,
    /// By which way the session came about.
    pub how: How,
    /// What the peer is to the network.
    pub role: Role,
    /// What encrypts it.
    pub cipher: Cipher,
    /// The last measured round trip; `None` when there is none yet.
    pub rtt: Option<Duration>,
    /// Since the session began.
    pub age: Duration,
    /// Messages sent.
    pub sent_messages: u64,
    /// Bytes of them, without overhead.
    pub sent_bytes: u64,
    /// Messages received.
    pub received_messages: u64,
    /// Bytes of them, without overhead.
    pub received_bytes: u64,
    /// Messages dropped because they grew too old in the queue.
    pub dropped_messages: u64,
    /// Bytes that wait to be sent, now.
    pub queued_bytes: u64,
    /// Bytes that are sent, and kept in case the link breaks, now.
    pub unacked_bytes: u64,
    /// Whether there is no link now.
    pub suspended: bool,
    /// Times that the session went over to another link.
    pub resumed: u64,
}

impl PeerInfo {
    pub(crate) fn empty() -> sys::crust_peer_info {
        sys::crust_peer_info {
            struct_size: size_of::<sys::crust_peer_info>() as u32,
            how: 0,
            role: 0,
            cipher: 0,
            reserved: 0,
            peer: sys::crust_peer_id::default(),
            endpoint: [0; 64],
            rtt_us: 0,
            age_us: 0,
            sent_messages: 0,
            sent_bytes: 0,
            received_messages: 0,
            received_bytes: 0,
            dropped_messages: 0,
            queued_bytes: 0,
            unacked_bytes: 0,
            suspended: 0,
            resumed: 0,
        }
    }

    pub(crate) fn from_raw(raw: &sys::crust_peer_info) -> Self {
        Self {
            peer: PeerId::from_raw(raw.peer),
            endpoint: text_of(&raw.endpoint),
            how: How::from_raw(raw.how),
            role: Role::from_raw(raw.role),
            cipher: match raw.cipher {
                1 => Cipher::ChaCha20Poly1305,
                2 => Cipher::Aes256Gcm,
                _ => Cipher::Unknown,
            },
            rtt: (raw.rtt_us != 0).then(|| Duration::from_micros(raw.rtt_us)),
            age: Duration::from_micros(raw.age_us),
            sent_messages: raw.sent_messages,
            sent_bytes: raw.sent_bytes,
            received_messages: raw.received_messages,
            received_bytes: raw.received_bytes,
            dropped_messages: raw.dropped_messages,
            queued_bytes: raw.queued_bytes,
            unacked_bytes: raw.unacked_bytes,
            suspended: raw.suspended != 0,
            resumed: raw.resumed,
        }
    }
}

/// A peer whose beacon was heard on a network of this machine, as
/// [`peers_on_lan`](crate::Handle::peers_on_lan) tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LanPeer {
    /// Who.
    pub peer: PeerId,
    /// What it is to the network.
    pub role: Role,
    /// Where it may be, in the networks of this machine, the most useful first: at least
    /// one, at most 16. That it is there is not proved until somebody connects.
    pub endpoints: Vec<String>,
    /// How long ago it was heard the last time.
    pub heard: Duration,
}

impl LanPeer {
    pub(crate) fn empty() -> sys::crust_lan_peer {
        sys::crust_lan_peer {
            struct_size: size_of::<sys::crust_lan_peer>() as u32,
            role: 0,
            peer: sys::crust_peer_id::default(),
            heard_ms: 0,
            endpoints: [0; 1024],
        }
    }

    pub(crate) fn from_raw(raw: &sys::crust_lan_peer) -> Self {
        Self {
            peer: PeerId::from_raw(raw.peer),
            role: Role::from_raw(raw.role as u8),
            endpoints: text_of(&raw.endpoints).lines().map(str::to_owned).collect(),
            heard: Duration::from_millis(raw.heard_ms),
        }
    }
}

/// A peer of which gossip has told, as [`known`](crate::Handle::known) tells of it. It is
/// not connected, or need not be. Nothing of it is proved but that the peer holds its key
/// and has said so.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KnownPeer {
    /// Who.
    pub peer: PeerId,
    /// What it is to the network.
    pub role: Role,
    /// Where it says that it may be dialled: at most 8.
    pub endpoints: Vec<String>,
    /// It says that somebody on the Internet has come to it unasked.
    pub direct: bool,
    /// It carries links of others.
    pub relays: bool,
    /// Until it is forgotten unless it says by then that it is still there.
    pub expires: Duration,
}

impl KnownPeer {
    pub(crate) fn empty() -> sys::crust_known_peer {
        sys::crust_known_peer {
            struct_size: size_of::<sys::crust_known_peer>() as u32,
            role: 0,
            direct: 0,
            relays: 0,
            reserved: 0,
            peer: sys::crust_peer_id::default(),
            expires_ms: 0,
            endpoints: [0; 512],
        }
    }

    pub(crate) fn from_raw(raw: &sys::crust_known_peer) -> Self {
        Self {
            peer: PeerId::from_raw(raw.peer),
            role: Role::from_raw(raw.role),
            endpoints: text_of(&raw.endpoints).lines().map(str::to_owned).collect(),
            direct: raw.direct != 0,
            relays: raw.relays != 0,
            expires: Duration::from_millis(raw.expires_ms),
        }
    }
}

/// The text in a field of fixed size: up to the NUL.
pub(crate) fn text_of(field: &[c_char]) -> String {
    let bytes: Vec<u8> = field
        .iter()
        .take_while(|&&byte| byte != 0)
        .map(|&byte| byte.cast_unsigned_byte())
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `c_char` is signed on some platforms and not on others.
trait CastUnsignedByte {
    fn cast_unsigned_byte(self) -> u8;
}

impl CastUnsignedByte for i8 {
    fn cast_unsigned_byte(self) -> u8 {
        self as u8
    }
}

impl CastUnsignedByte for u8 {
    fn cast_unsigned_byte(self) -> u8 {
        self
    }
}

macro_rules! stats {
    ($($(#[$doc:meta])* $field:ident,)*) => {
        /// What a service has done since it was made.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Stats {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Stats {
            pub(crate) fn from_raw(raw: &sys::crust_stats) -> Self {
                Self { $($field: raw.$field,)* }
            }
        }
    };
}

stats! {
    /// Sessions, now.
    peers,
    /// Listeners, now.
    listeners,
    /// Accepted connections not yet authenticated, now.
    handshakes,
    /// Connection attempts in flight, now.
    connects,
    /// Sessions ever.
    sessions_total,
    /// Accepted connections that did not authenticate.
    handshakes_failed,
    /// Of these, given up to make room.
    handshakes_evicted,
    /// Connects that failed.
    connects_failed,
    /// Messages sent.
    sent_messages,
    /// Bytes of them, without overhead.
    sent_bytes,
    /// Messages received.
    received_messages,
    /// Bytes of them, without overhead.
    received_bytes,
    /// Messages dropped because they grew too old in the queue.
    dropped_messages,
    /// Bytes sent on the links, with overhead.
    wire_sent_bytes,
    /// Bytes received on the links, with overhead.
    wire_received_bytes,
    /// Events that wait, now.
    events_queued,
    /// Bytes of messages that wait as events, now.
    event_bytes_queued,
    /// Events ever.
    events_total,
    /// Times that reading stopped because the event queue was full.
    backpressure_pauses,
    /// Datagrams sent.
    sent_datagrams,
    /// Datagrams received.
    received_datagrams,
    /// Datagrams received that found no room in the event queue.
    lost_datagrams,
    /// Links carried for others, now.
    circuits,
    /// Bytes of those, since the start.
    carried_bytes,
    /// Peers of which gossip has told, now.
    known,
    /// Connections closed unread, over a limit of accepting.
    refused_connections,
    /// Handshakes not answered, over the share of the processor that they may have.
    refused_handshakes,
    /// Connections closed unread, for want of descriptors.
    refused_files,
    /// Sessions refused, over a limit of peers.
    refused_sessions,
    /// Sessions ended to make room for those that are worth more.
    shed_sessions,
    /// Times that a peer was not read for a while, since it sends too fast.
    rate_pauses,
    /// Alerts raised.
    alerts,
    /// Alerts that came too fast to be raised.
    suppressed_alerts,
    /// Times that a session went over to another link.
    resumptions,
    /// Connections and sessions refused for the blacklist or the whitelists; what the system
    /// drops before, of banned addresses that come again and again, is not counted.
    refused_banned,
    /// Bytes that queues and buffers hold of `max_memory_bytes`, and beyond it, now.
    memory_bytes,
    /// Times that `max_memory_bytes` had no room.
    refused_memory,
    /// Records of the log for which there was no room.
    dropped_logs,
    /// Letters, circuits and tests of reachability that peers asked for too often, or without leave.
    refused_help,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_end_at_the_nul_or_with_the_field() {
        let mut raw = PeerInfo::empty();
        for (to, from) in raw.endpoint.iter_mut().zip(b"tcp://[::1]:1\0rest") {
            *to = *from as c_char;
        }
        assert_eq!(PeerInfo::from_raw(&raw).endpoint, "tcp://[::1]:1");
        raw.endpoint = [b'x' as c_char; 64];
        assert_eq!(PeerInfo::from_raw(&raw).endpoint, "x".repeat(64));
    }

    #[test]
    fn a_peer_on_the_lan_says_what_its_struct_says() {
        let mut raw = LanPeer::empty();
        raw.peer.bytes = [7; 32];
        (raw.role, raw.heard_ms) = (sys::CRUST_ROLE_CLIENT, 1500);
        for (to, from) in raw
            .endpoints
            .iter_mut()
            .zip(b"tcp://10.0.0.2:1\nutp://10.0.0.2:2\0rest")
        {
            *to = *from as c_char;
        }
        let peer = LanPeer::from_raw(&raw);
        assert_eq!(
            (peer.peer, peer.role),
            (PeerId::from_raw(raw.peer), Role::Client)
        );
        assert_eq!(peer.endpoints, ["tcp://10.0.0.2:1", "utp://10.0.0.2:2"]);
        assert_eq!(peer.heard, Duration::from_millis(1500));
    }

    #[test]
    fn a_known_peer_says_what_its_struct_says() {
        let mut raw = KnownPeer::empty();
        raw.peer.bytes = [7; 32];
        (raw.role, raw.direct, raw.relays) = (sys::CRUST_ROLE_CLIENT as u8, 1, 0);
        raw.expires_ms = 1500;
        for (to, from) in raw.endpoints.iter_mut().zip(b"tcp://10.0.0.2:1\0rest") {
            *to = *from as c_char;
        }
        let peer = KnownPeer::from_raw(&raw);
        assert_eq!(
            (peer.peer, peer.role),
            (PeerId::from_raw(raw.peer), Role::Client)
        );
        assert_eq!(peer.endpoints, ["tcp://10.0.0.2:1"]);
        assert_eq!((peer.direct, peer.relays), (true, false));
        assert_eq!(peer.expires, Duration::from_millis(1500));
        (raw.direct, raw.relays, raw.endpoints) = (0, 1, [0; 512]);
        let peer = KnownPeer::from_raw(&raw);
        assert_eq!((peer.direct, peer.relays), (false, true));
        assert!(peer.endpoints.is_empty());
    }

    #[test]
    fn a_round_trip_of_zero_is_not_known() {
        let mut raw = PeerInfo::empty();
        assert_eq!(PeerInfo::from_raw(&raw).rtt, None);
        raw.rtt_us = 1500;
        let rtt = PeerInfo::from_raw(&raw).rtt;
        assert_eq!(rtt, Some(Duration::from_micros(1500)));
    }
}
