use crust_sys as sys;

/// What somebody does too much of. More may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum AlertKind {
    /// Connections over what is taken of one address, closed unread.
    Connections,
    /// Connections that said nothing, or nothing of this network.
    Garbage,
    /// Handshakes that were begun and never finished.
    Handshakes,
    /// Sessions that came and went within 10 s, or were refused.
    Sessions,
    /// Records that do not authenticate; whoever carries a TCP connection can make them.
    Forgery,
    /// An authenticated peer broke the protocol.
    Protocol,
    /// A peer sends more than it may, for seconds on end: it is read no faster, and its datagrams are lost.
    Flood,
    /// Records of gossip that were refused.
    Gossip,
    /// Circuits, letters and tests of reachability that were refused.
    Relay,
    /// A kind newer than this crate.
    Unknown,
}

impl AlertKind {
    pub(super) fn from_raw(raw: u32) -> Self {
        match raw {
            sys::CRUST_ALERT_CONNECTIONS => Self::Connections,
            sys::CRUST_ALERT_GARBAGE => Self::Garbage,
            sys::CRUST_ALERT_HANDSHAKES => Self::Handshakes,
            sys::CRUST_ALERT_SESSIONS => Self::Sessions,
            sys::CRUST_ALERT_FORGERY => Self::Forgery,
            sys::CRUST_ALERT_PROTOCOL => Self::Protocol,
            sys::CRUST_ALERT_FLOOD => Self::Flood,
            sys::CRUST_ALERT_GOSSIP => Self::Gossip,
            sys::CRUST_ALERT_RELAY => Self::Relay,
            _ => Self::Unknown,
        }
    }
}

/// By which way a session came about. More may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum How {
    /// We connected to the peer.
    Dialed,
    /// The peer connected to us.
    Accepted,
    /// We connected to the peer at a port that its router passes on, as it said; the
    /// peer says [`Accepted`](Self::Accepted).
    Mapped,
    /// Both sides opened their NATs.
    Punched,
    /// Another peer relays.
    Relayed,
    /// A way newer than this crate.
    Unknown,
}

impl How {
    pub(crate) fn from_raw(how: u8) -> Self {
        match u32::from(how) {
            sys::CRUST_HOW_DIALED => How::Dialed,
            sys::CRUST_HOW_ACCEPTED => How::Accepted,
            sys::CRUST_HOW_MAPPED => How::Mapped,
            sys::CRUST_HOW_PUNCHED => How::Punched,
            sys::CRUST_HOW_RELAYED => How::Relayed,
            _ => How::Unknown,
        }
    }

    /// The library's number of it, which a way newer than this crate has none of.
    pub(crate) fn to_raw(self) -> Option<u32> {
        match self {
            How::Dialed => Some(sys::CRUST_HOW_DIALED),
            How::Accepted => Some(sys::CRUST_HOW_ACCEPTED),
            How::Mapped => Some(sys::CRUST_HOW_MAPPED),
            How::Punched => Some(sys::CRUST_HOW_PUNCHED),
            How::Relayed => Some(sys::CRUST_HOW_RELAYED),
            How::Unknown => None,
        }
    }
}

/// How a router was asked for a port. More may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Means {
    /// The Port Control Protocol.
    Pcp,
    /// UPnP, of an Internet gateway device of version 2.
    UpnpIgd2,
    /// UPnP, to open a firewall for IPv6.
    UpnpPinhole,
    /// NAT-PMP.
    NatPmp,
    /// UPnP, of an Internet gateway device of version 1.
    UpnpIgd1,
    /// A means newer than this crate.
    Unknown,
}

impl Means {
    pub(super) fn from_raw(means: u32) -> Self {
        match means {
            sys::CRUST_MEANS_PCP => Means::Pcp,
            sys::CRUST_MEANS_UPNP_IGD2 => Means::UpnpIgd2,
            sys::CRUST_MEANS_UPNP_PINHOLE => Means::UpnpPinhole,
            sys::CRUST_MEANS_NAT_PMP => Means::NatPmp,
            sys::CRUST_MEANS_UPNP_IGD1 => Means::UpnpIgd1,
            _ => Means::Unknown,
        }
    }
}

/// How a peer was discovered. More may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum By {
    /// Its beacon was heard on a network of this machine.
    Beacon,
    /// Connected peers have told of it.
    Gossip,
    /// A way newer than this crate.
    Unknown,
}

impl By {
    pub(super) fn from_raw(by: u32) -> Self {
        match by {
            sys::CRUST_BY_BEACON => By::Beacon,
            sys::CRUST_BY_GOSSIP => By::Gossip,
            _ => By::Unknown,
        }
    }
}
