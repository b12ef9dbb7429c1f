use std::ffi::c_char;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crust_sys as sys;

use crate::config::Role;
use crate::error::{Error, text_at};
use crate::group::GroupState;
use crate::logs::LogLevel;
use crate::peer_id::PeerId;

mod batch;
mod kinds;
mod payload;

pub use batch::Batch;
use batch::RawBatch;
pub use kinds::{AlertKind, By, How, Means};
pub use payload::{Message, Payload};

/// Something that happened. Events of one peer come in order: connected,
/// messages, lost, and suspended and resumed in between when its link breaks; a
/// datagram may overtake messages and be overtaken. More may be added.
///
/// Events own what they hold and may be kept and sent to other threads. Cloning
/// is cheap, except that a clone of an event that a
/// [handler](crate::Service::with_handler) was lent copies its bytes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message has arrived.
    Message(Message),
    /// A send queue that refused a message
    /// ([`WouldBlock`](crate::ErrorKind::WouldBlock)) has drained to half. Once
    /// per refusal.
    #[non_exhaustive]
    Writable {
        /// Whose queue.
        peer: PeerId,
    },
    /// A listener accepts connections.
    #[non_exhaustive]
    ListenerStarted {
        /// Where, with the port it really got.
        endpoint: String,
    },
    /// A listener could not start or has died.
    #[non_exhaustive]
    ListenerFailed {
        /// Where, as asked for.
        endpoint: String,
        /// Why.
        error: Error,
    },
    /// Answers [`prepare_connection_info`](crate::Handle::prepare_connection_info).
    #[non_exhaustive]
    ConnectionInfo {
        /// The token of the call.
        token: u64,
        /// What to give to the other peer.
        info: Payload,
    },
    /// A peer has proved its identity and the session stands. Exactly one per
    /// session, before any message of it.
    #[non_exhaustive]
    Connected {
        /// Who.
        peer: PeerId,
        /// The token of the connect that this answers, zero when there was none.
        token: u64,
        /// By which way.
        how: How,
        /// What the peer is to the network.
        role: Role,
        /// The peer's end of the link.
        endpoint: String,
        /// What the peer's program attached to its service, authenticated.
        app_id: Payload,
        /// From the call or the accepted connection to the session.
        took: Duration,
    },
    /// The final event of a connect that found a session.
    #[non_exhaustive]
    AlreadyConnected {
        /// The token of the call.
        token: u64,
        /// With whom.
        peer: PeerId,
    },
    /// The final event of a connect that failed.
    #[non_exhaustive]
    ConnectFailed {
        /// The token of the call.
        token: u64,
        /// Whom it tried to reach, if known.
        peer: Option<PeerId>,
        /// Where, if known.
        endpoint: Option<String>,
        /// Why.
        error: Error,
    },
    /// One contact answered; it follows that peer's `Connected`. The other
    /// attempts were given up.
    #[non_exhaustive]
    Bootstrapped {
        /// The token of the call.
        token: u64,
        /// Who answered.
        peer: PeerId,
        /// Where.
        endpoint: String,
    },
    /// No contact answered.
    #[non_exhaustive]
    BootstrapFailed {
        /// The token of the call.
        token: u64,
        /// Why, contact by contact.
        error: Error,
    },
    /// The last event of a session.
    #[non_exhaustive]
    Lost {
        /// Who.
        peer: PeerId,
        /// Why. [`Disconnected`](crate::ErrorKind::Disconnected) means that one
        /// side asked for it.
        error: Error,
        /// Of how many accepted messages it is not known that they arrived.
        count: u32,
    },
    /// The link of a session is gone. The session takes messages as before and
    /// waits for another link; `Resumed` or `Lost` follows.
    #[non_exhaustive]
    Suspended {
        /// Who.
        peer: PeerId,
        /// The peer's end of the link.
        endpoint: String,
        /// Why.
        error: Error,
    },
    /// A session goes on over another link. Every message arrives, once and in
    /// order. Without a `Suspended` before it the link is a better one, or the peer
    /// noticed first that the old one had broken.
    #[non_exhaustive]
    Resumed {
        /// Who.
        peer: PeerId,
        /// The peer's end of the new link.
        endpoint: String,
        /// By which way.
        how: How,
    },
    /// The final event of [`send_receipt`](crate::Handle::send_receipt).
    #[non_exhaustive]
    Delivered {
        /// The token of the call.
        token: u64,
        /// To whom.
        peer: PeerId,
        /// Why it is not known that the message has arrived; `None` when it has.
        /// [`Expired`](crate::ErrorKind::Expired) means that it was dropped for
        /// its age, others that the session was lost first.
        error: Option<Error>,
    },
    /// Accepted messages will not arrive, because they grew too old in the queue.
    #[non_exhaustive]
    MessagesDropped {
        /// To whom.
        peer: PeerId,
        /// Of which priority.
        priority: u8,
        /// How many.
        count: u32,
        /// Their bytes together.
        bytes: u64,
    },
    /// The last event of the service.
    #[non_exhaustive]
    Stopped {
        /// Why it had to stop by itself; `None` after closing.
        error: Option<Error>,
    },
    /// A datagram has arrived, sent by
    /// [`send_datagram`](crate::Handle::send_datagram).
    #[non_exhaustive]
    Datagram {
        /// From whom.
        peer: PeerId,
        /// The bytes.
        payload: Payload,
    },
    /// A listener was given up for one at a new port, by
    /// [`port_rotation`](crate::Config::port_rotation). Sessions live on.
    #[non_exhaustive]
    ListenerStopped {
        /// Where it was.
        endpoint: String,
    },
    /// Addresses, interfaces or routes of this machine have changed, it has slept,
    /// or [`network_changed`](crate::Handle::network_changed) was called. Several
    /// changes may be told as one.
    #[non_exhaustive]
    NetworkChanged {
        /// How many addresses came or went.
        count: u32,
    },
    /// A router passes a port on to a listener. It comes again when another router
    /// or means has taken over.
    #[non_exhaustive]
    PortMapped {
        /// Where others reach it from now on.
        endpoint: String,
        /// Where it leads: an address of this machine, and the port of a listener.
        internal: String,
        /// How the router was asked.
        means: Means,
        /// For how long; it is renewed in time. Zero is for ever.
        lease: Duration,
        /// Set when another NAT is in front of the router: peers are not told then.
        error: Option<Error>,
    },
    /// A router does not pass a port on any more.
    #[non_exhaustive]
    PortUnmapped {
        /// Where others reached it.
        endpoint: String,
        /// Where it led.
        internal: String,
        /// How the router was asked.
        means: Means,
        /// Why; `None` when it was not wanted any more.
        error: Option<Error>,
    },
    /// The bootstrap cache is not what it should be: the file was set aside and begun
    /// anew, or mended, or there is a cache in memory only. The service lives on.
    #[non_exhaustive]
    CacheTrouble {
        /// Why, and what was done.
        error: Error,
    },
    /// There is a peer. Nothing is proved of it until somebody connects, but that it
    /// holds its key. It comes once for each `by`, and again when `endpoint` or `role`
    /// have become others.
    #[non_exhaustive]
    Discovered {
        /// Who.
        peer: PeerId,
        /// Where it may be.
        endpoint: String,
        /// What it is to the network.
        role: Role,
        /// How it was discovered.
        by: By,
    },
    /// A discovered peer has said goodbye, or nothing was heard of it for too long. A
    /// session with it is not touched.
    #[non_exhaustive]
    Forgotten {
        /// Who.
        peer: PeerId,
        /// How it had been discovered.
        by: By,
    },
    /// Something has changed in a group of [`keep`](crate::Handle::keep). It comes after
    /// the peer's `Connected` or `Lost`.
    #[non_exhaustive]
    Group {
        /// The name of the group.
        group: String,
        /// How it stands with the peer, or with the search.
        state: GroupState,
        /// Who; `None`: it is about the search for more peers of a group of any.
        peer: Option<PeerId>,
        /// How many peers of the group are connected.
        up: u32,
        /// How many should be.
        wanted: u64,
        /// Until the next attempt; `None`: none is due.
        next: Option<Duration>,
        /// Why there is no session; `None` when it is up or trying.
        error: Option<Error>,
    },
    /// Somebody makes this service work for nothing. Of one offender and kind one comes in
    /// 10 s at most. Addresses are named only when they have proved themselves.
    #[non_exhaustive]
    Alert {
        /// What somebody does too much of.
        kind: AlertKind,
        /// Who; `None`: it is about the address.
        peer: Option<PeerId>,
        /// An address, or a prefix of which many addresses do; empty when not known.
        address: String,
        /// How often, since the last such alert.
        count: u32,
        /// The bytes that came with it, as far as they are counted.
        bytes: u64,
        /// What it took of the processor, estimated.
        cpu: Duration,
        /// What might be banned: a peer, an address or a prefix; `None`: nothing.
        suggest: Option<String>,
        /// For how long.
        suggest_for: Duration,
        /// All that is known, in one sentence.
        text: String,
    },
    /// The session with a peer is in clear, as [`tracer`](crate::Config::tracer) has allowed:
    /// whoever is between the two reads all, and can change it. It follows the peer's
    /// `Connected`, before any message.
    #[non_exhaustive]
    Clear {
        /// Who.
        peer: PeerId,
        /// The peer's end of the link.
        endpoint: String,
        /// How the session came about.
        how: How,
    },
    /// A record of the log, when [`log_level`](crate::Config::log_level) asks for it:
    /// docs/LOGS.md lists them. With the feature `log` it has also gone to the crate of that
    /// name, target `crust`, on the thread that takes the event.
    #[non_exhaustive]
    Log {
        /// How urgent it is.
        level: LogLevel,
        /// When it happened.
        time: SystemTime,
        /// Its name.
        name: String,
        /// What it says: an object of JSON.
        attrs: String,
    },
    /// An event newer than this crate, to be ignored.
    #[non_exhaustive]
    Unknown {
        /// Its type in the C ABI.
        number: u32,
    },
}

impl Event {
    /// Whom the event is about.
    pub fn peer(&self) -> Option<PeerId> {
        match self {
            Event::Message(message) => Some(message.peer),
            Event::Writable { peer }
            | Event::Connected { peer, .. }
            | Event::AlreadyConnected { peer, .. }
            | Event::Bootstrapped { peer, .. }
            | Event::Lost { peer, .. }
            | Event::MessagesDropped { peer, .. }
            | Event::Suspended { peer, .. }
            | Event::Resumed { peer, .. }
            | Event::Delivered { peer, .. }
            | Event::Discovered { peer, .. }
            | Event::Forgotten { peer, .. }
            | Event::Clear { peer, .. }
            | Event::Datagram { peer, .. } => Some(*peer),
            Event::ConnectFailed { peer, .. }
            | Event::Group { peer, .. }
            | Event::Alert { peer, .. } => *peer,
            _ => None,
        }
    }

    /// The token of the call that the event answers, for the kinds of events
    /// that answer one.
    pub fn token(&self) -> Option<u64> {
        match self {
            Event::ConnectionInfo { token, .. }
            | Event::Connected { token, .. }
            | Event::AlreadyConnected { token, .. }
            | Event::ConnectFailed { token, .. }
            | Event::Bootstrapped { token, .. }
            | Event::BootstrapFailed { token, .. }
            | Event::Delivered { token, .. } => Some(*token),
            _ => None,
        }
    }

    /// What went wrong, for the kinds of events that tell of it.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Event::ListenerFailed { error, .. }
            | Event::ConnectFailed { error, .. }
            | Event::BootstrapFailed { error, .. }
            | Event::Suspended { error, .. }
            | Event::CacheTrouble { error }
            | Event::Lost { error, .. } => Some(error),
            Event::Stopped { error }
            | Event::Delivered { error, .. }
            | Event::Group { error, .. }
            | Event::PortMapped { error, .. }
            | Event::PortUnmapped { error, .. } => error.as_ref(),
            _ => None,
        }
    }

    /// Reads an event of the library. `owner` is what keeps its memory; without
    /// one the bytes are lent.
    ///
    /// # Safety
    ///
    /// Pointers in `raw` are NULL or valid as crust.h says: for the life of
    /// `owner`, or, without one, until the returned event and all borrows of it
    /// are gone.
    pub(crate) unsafe fn from_raw(raw: &sys::crust_event, owner: Option<&Arc<RawBatch>>) -> Self {
        let token = raw.token;
        let data = || Payload::from_raw(raw.data, raw.len, owner);
        // SAFETY: the caller vouches for the pointers.
        let id = unsafe { raw.peer.as_ref() };
        let peer = || id.map(|id| PeerId::from_raw(*id));
        // SAFETY: the caller vouches for the pointers.
        let text = |text: *const c_char| unsafe { text_at(text) };
        let endpoint = || text(raw.endpoint).unwrap_or_default();
        let error = || Error::from_event(raw.code, text(raw.text));
        // The library always says who, where an event is about somebody.
        let someone = || peer().unwrap_or(PeerId::from_bytes([0; PeerId::SIZE]));
        match raw.r#type {
            sys::CRUST_EVENT_MESSAGE => Event::Message(Message {
                peer: someone(),
                priority: raw.priority,
                payload: data(),
            }),
            sys::CRUST_EVENT_WRITABLE => Event::Writable { peer: someone() },
            sys::CRUST_EVENT_LISTENER_STARTED => Event::ListenerStarted {
                endpoint: endpoint(),
            },
            sys::CRUST_EVENT_LISTENER_FAILED => Event::ListenerFailed {
                endpoint: endpoint(),
                error: error(),
            },
            sys::CRUST_EVENT_CONNECTION_INFO => Event::ConnectionInfo {
                token,
                info: data(),
            },
            sys::CRUST_EVENT_CONNECTED => Event::Connected {
                peer: someone(),
                token,
                how: How::from_raw(raw.how),
                role: Role::from_raw(raw.role),
                endpoint: endpoint(),
                app_id: data(),
                took: Duration::from_micros(raw.took_us),
            },
            sys::CRUST_EVENT_ALREADY_CONNECTED => Event::AlreadyConnected {
                token,
                peer: someone(),
            },
            sys::CRUST_EVENT_CONNECT_FAILED => Event::ConnectFailed {
                token,
                peer: peer(),
                endpoint: text(raw.endpoint),
                error: error(),
            },
            sys::CRUST_EVENT_BOOTSTRAPPED => Event::Bootstrapped {
                token,
                peer: someone(),
                endpoint: endpoint(),
            },
            sys::CRUST_EVENT_BOOTSTRAP_FAILED => Event::BootstrapFailed {
                token,
                error: error(),
            },
            sys::CRUST_EVENT_LOST => Event::Lost {
                peer: someone(),
                error: error(),
                count: raw.count,
            },
            sys::CRUST_EVENT_SUSPENDED => Event::Suspended {
                peer: someone(),
                endpoint: endpoint(),
                error: error(),
            },
            sys::CRUST_EVENT_RESUMED => Event::Resumed {
                peer: someone(),
                endpoint: endpoint(),
                how: How::from_raw(raw.how),
            },
            sys::CRUST_EVENT_DELIVERED => Event::Delivered {
                token,
                peer: someone(),
                error: (raw.code != sys::CRUST_OK).then(error),
            },
            sys::CRUST_EVENT_MESSAGES_DROPPED => Event::MessagesDropped {
                peer: someone(),
                priority: raw.priority,
                count: raw.count,
                bytes: raw.bytes,
            },
            sys::CRUST_EVENT_STOPPED => Event::Stopped {
                error: (raw.code != sys::CRUST_OK).then(error),
            },
            sys::CRUST_EVENT_DATAGRAM => Event::Datagram {
                peer: someone(),
                payload: data(),
            },
            sys::CRUST_EVENT_LISTENER_STOPPED => Event::ListenerStopped {
                endpoint: endpoint(),
            },
            sys::CRUST_EVENT_NETWORK_CHANGED => Event::NetworkChanged { count: raw.count },
            sys::CRUST_EVENT_PORT_MAPPED => Event::PortMapped {
                endpoint: endpoint(),
                internal: String::from_utf8_lossy(&data()).into_owned(),
                means: Means::from_raw(raw.count),
                lease: Duration::from_micros(raw.took_us),
                error: (raw.code != sys::CRUST_OK).then(error),
            },
            sys::CRUST_EVENT_CACHE_TROUBLE => Event::CacheTrouble { error: error() },
            sys::CRUST_EVENT_DISCOVERED => Event::Discovered {
                peer: someone(),
                endpoint: endpoint(),
                role: Role::from_raw(raw.role),
                by: By::from_raw(raw.count),
            },
            sys::CRUST_EVENT_FORGOTTEN => Event::Forgotten {
                peer: someone(),
                by: By::from_raw(raw.count),
            },
            sys::CRUST_EVENT_PORT_UNMAPPED => Event::PortUnmapped {
                endpoint: endpoint(),
                internal: String::from_utf8_lossy(&data()).into_owned(),
                means: Means::from_raw(raw.count),
                error: (raw.code != sys::CRUST_OK).then(error),
            },
            sys::CRUST_EVENT_GROUP => Event::Group {
                group: String::from_utf8_lossy(&data()).into_owned(),
                state: GroupState::from_raw(u32::from(raw.how)),
                peer: peer(),
                up: raw.count,
                wanted: raw.bytes,
                next: (raw.took_us != 0).then(|| Duration::from_micros(raw.took_us)),
                error: (raw.code != sys::CRUST_OK).then(error),
            },
            sys::CRUST_EVENT_ALERT => Event::Alert {
                kind: AlertKind::from_raw(u32::from(raw.how)),
                peer: peer(),
                address: endpoint(),
                count: raw.count,
                bytes: raw.bytes,
                cpu: Duration::from_micros(token),
                suggest: (raw.len > 0).then(|| String::from_utf8_lossy(&data()).into_owned()),
                suggest_for: Duration::from_micros(raw.took_us),
                text: text(raw.text).unwrap_or_default(),
            },
            sys::CRUST_EVENT_LOG => Event::Log {
                level: LogLevel::from_raw(raw.priority),
                time: UNIX_EPOCH + Duration::from_micros(raw.took_us),
                name: text(raw.text).unwrap_or_default(),
                attrs: String::from_utf8_lossy(&data()).into_owned(),
            },
            sys::CRUST_EVENT_CLEAR => Event::Clear {
                peer: someone(),
                endpoint: endpoint(),
                how: How::from_raw(raw.how),
            },
            number => Event::Unknown { number },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(number: u32) -> sys::crust_event {
        // SAFETY: all fields are numbers or raw pointers, for which zero is valid.
        let mut event: sys::crust_event = unsafe { std::mem::zeroed() };
        event.r#type = number;
        event
    }

    #[test]
    fn a_lent_message_is_copied_by_cloning() {
        let mut bytes = *b"hello";
        let id = sys::crust_peer_id { bytes: [9; 32] };
        let event = sys::crust_event {
            data: bytes.as_ptr(),
            len: 5,
            peer: &id,
            priority: 3,
            ..raw(sys::CRUST_EVENT_MESSAGE)
        };
        // SAFETY: the pointers lead to variables of this function, and the lent
        // event is gone before they change.
        let kept = unsafe { Event::from_raw(&event, None) }.clone();
        bytes.fill(b'x');
        assert_eq!(bytes, *b"xxxxx");
        let Event::Message(message) = kept else {
            panic!("{kept:?}")
        };
        assert_eq!(&*message, b"hello");
        assert_eq!(message.peer, PeerId::from_bytes([9; 32]));
        assert_eq!(message.priority, 3);
    }

    #[test]
    fn events_without_pointers_are_read_without_fault() {
        for number in 0..40 {
            // SAFETY: all pointers are NULL.
            let event = unsafe { Event::from_raw(&raw(number), None) };
            let unknown = matches!(event, Event::Unknown { number: n } if n == number);
            let known = matches!(number, 1..=28);
            assert_eq!(unknown, !known, "{event:?}");
        }
    }
}
