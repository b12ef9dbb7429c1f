use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crust_sys as sys;

use crate::error::{Error, ErrorKind};
use crate::info::text_of;
use crate::peer_id::PeerId;

/// On what of the other end a NAT's mapping or filter depends (RFC 4787 sections 4.1
/// and 5). More may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NatDepends {
    /// Not found out.
    Unknown,
    /// On nothing.
    EndpointIndependent,
    /// On its address.
    AddressDependent,
    /// On its address and port.
    AddressPortDependent,
}

impl NatDepends {
    fn from_raw(raw: u8) -> Self {
        match u32::from(raw) {
            sys::CRUST_NAT_ENDPOINT_INDEPENDENT => Self::EndpointIndependent,
            sys::CRUST_NAT_ADDRESS_DEPENDENT => Self::AddressDependent,
            sys::CRUST_NAT_ADDRESS_PORT_DEPENDENT => Self::AddressPortDependent,
            _ => Self::Unknown,
        }
    }
}

/// How a NAT chooses the external port of a new mapping. More may be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NatPorts {
    /// Not found out.
    Unknown,
    /// The internal port, where it is free.
    Preserving,
    /// The last one and so many more; not 0.
    Sequential(i16),
    /// Any of these.
    Block {
        /// The first.
        low: u16,
        /// The last.
        high: u16,
    },
    /// Any.
    Random,
}

impl NatPorts {
    fn from_raw(raw: &sys::crust_nat_flow) -> Self {
        match u32::from(raw.ports) {
            sys::CRUST_NAT_PORTS_PRESERVING => Self::Preserving,
            sys::CRUST_NAT_PORTS_SEQUENTIAL => Self::Sequential(raw.step),
            sys::CRUST_NAT_PORTS_BLOCK => Self::Block {
                low: raw.low,
                high: raw.high,
            },
            sys::CRUST_NAT_PORTS_RANDOM => Self::Random,
            _ => Self::Unknown,
        }
    }
}

/// How much the external address and the mapping can be relied upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// Too few peers in different networks agree.
    None,
    /// As many as two do.
    Tentative,
    /// As many as three do.
    Confirmed,
}

/// What is known of the NAT between a service and others, of one transport protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatFlow {
    /// In the external address, and the mapping where it is known.
    pub confidence: Confidence,
    /// Whether there is no NAT: others see one of this machine's addresses and the port
    /// that the socket has. Filtering is then a firewall's.
    pub none: bool,
    /// On what the external port depends.
    pub mapping: NatDepends,
    /// On what it depends whether something is let in.
    pub filtering: NatDepends,
    /// How external ports are chosen.
    pub ports: NatPorts,
    /// Whether no peer on the Internet has told anything: the rest is about what lies
    /// between this machine and a smaller network.
    pub nearby: bool,
    /// Whether there are two NATs in a row.
    pub twice: bool,
    /// Whether nothing of this protocol gets through.
    pub blocked: bool,
    /// Whether what goes to our own external endpoint comes back; `None` when it was
    /// not tried.
    pub hairpin: Option<bool>,
    /// Our endpoints as others see them, those that most say first; at most 16.
    pub external: Vec<SocketAddr>,
}

impl NatFlow {
    pub(crate) fn empty() -> sys::crust_nat_flow {
        sys::crust_nat_flow {
            struct_size: size_of::<sys::crust_nat_flow>() as u32,
            confidence: 0,
            none: 0,
            nearby: 0,
            twice: 0,
            blocked: 0,
            hairpin: 0,
            mapping: 0,
            filtering: 0,
            ports: 0,
            reserved: 0,
            step: 0,
            low: 0,
            high: 0,
            external: [0; 1024],
        }
    }

    pub(crate) fn from_raw(raw: &sys::crust_nat_flow) -> Self {
        Self {
            confidence: match raw.confidence {
                0 => Confidence::None,
                1 => Confidence::Tentative,
                _ => Confidence::Confirmed,
            },
            none: raw.none != 0,
            mapping: NatDepends::from_raw(raw.mapping),
            filtering: NatDepends::from_raw(raw.filtering),
            ports: NatPorts::from_raw(raw),
            nearby: raw.nearby != 0,
            twice: raw.twice != 0,
            blocked: raw.blocked != 0,
            hairpin: match raw.hairpin {
                1 => Some(false),
                2 => Some(true),
                _ => None,
            },
            external: text_of(&raw.external)
                .lines()
                .filter_map(|line| line.parse().ok())
                .collect(),
        }
    }
}

/// What is known of the NATs between a service and others, of the address family about
/// which more is known; of both, IPv4. It comes from connected peers, and is forgotten
/// when this machine's addresses change.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Nat {
    /// Of UDP.
    pub udp: NatFlow,
    /// Of TCP.
    pub tcp: NatFlow,
    /// Whether somebody on the Internet has reached the service unasked within the last
    /// hour. False means that nobody has so far, not that nobody could.
    pub reachable: bool,
    /// In a few words: what proves that, or why there is no proof.
    pub why: String,
    /// Whether the NAT that others see is a provider's: no router here can map its ports.
    pub cgnat: bool,
    /// Whether more is being found out now, or will be in a moment.
    pub pending: bool,
    /// What the STUN servers of the configuration have said, in that order.
    pub servers: Vec<NatServer>,
    /// The ports of listeners that routers pass on, and those that they do not.
    pub mapped: Vec<MappedPort>,
    /// Who has said what, of the peers that are connected now and not over a relay, in the
    /// order of their ids, TCP first; at most 256. Each speaks for itself: `external` is
    /// what comes of it all.
    pub seen: Vec<NatSeen>,
}

/// How one peer sees a service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatSeen {
    /// Who.
    pub peer: PeerId,
    /// The peer's end of its link, with which it looks; `None` when it is not known.
    pub from: Option<SocketAddr>,
    /// Our endpoint as the peer has seen it last, such as `"tcp://203.0.113.5:5483"`. Over
    /// TCP it is our end of a link that was dialled, or the listener.
    pub at: String,
}

impl NatSeen {
    pub(crate) fn empty() -> sys::crust_nat_seen {
        sys::crust_nat_seen {
            struct_size: size_of::<sys::crust_nat_seen>() as u32,
            reserved: 0,
            peer: sys::crust_peer_id { bytes: [0; 32] },
            from: [0; 64],
            at: [0; 64],
        }
    }

    pub(crate) fn from_raw(raw: &sys::crust_nat_seen) -> Self {
        Self {
            peer: PeerId::from_raw(raw.peer),
            from: text_of(&raw.from).parse().ok(),
            at: text_of(&raw.at),
        }
    }
}

/// What a STUN server has said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatServer {
    /// As in the configuration.
    pub server: String,
    /// Our endpoint as it has seen it last; `None` when it has not.
    pub seen: Option<SocketAddr>,
    /// Why there is no answer; `None` when there is one, or none is due.
    pub error: Option<String>,
}

impl NatServer {
    pub(crate) fn empty() -> sys::crust_nat_server {
        sys::crust_nat_server {
            struct_size: size_of::<sys::crust_nat_server>() as u32,
            reserved: 0,
            server: [0; 272],
            seen: [0; 64],
            error: [0; 256],
        }
    }

    pub(crate) fn from_raw(raw: &sys::crust_nat_server) -> Self {
        let error = text_of(&raw.error);
        Self {
            server: text_of(&raw.server),
            seen: text_of(&raw.seen).parse().ok(),
            error: (!error.is_empty()).then_some(error),
        }
    }
}

/// A port of a listener that a router passes on, or why it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MappedPort {
    /// Where it leads: an address of this machine and the port of a listener.
    pub internal: String,
    /// Where others reach it; `None`: nowhere, and `error` says why.
    pub external: Option<String>,
    /// The router; `None` when it is not known.
    pub gateway: Option<IpAddr>,
    /// How it was asked: `"pcp"`, `"nat-pmp"` or `"upnp"`; empty without a mapping.
    pub means: String,
    /// Until the router drops it unless it is renewed; `None`: never, or there is none.
    pub expires: Option<Duration>,
    /// Whether another NAT is in front of the router.
    pub twice: bool,
    /// Why there is no mapping; `None` when there is one.
    pub error: Option<Error>,
}

impl MappedPort {
    pub(crate) fn empty() -> sys::crust_nat_port {
        sys::crust_nat_port {
            struct_size: size_of::<sys::crust_nat_port>() as u32,
            code: 0,
            twice: 0,
            reserved: 0,
            expires_ms: 0,
            internal: [0; 64],
            external: [0; 64],
            gateway: [0; 64],
            means: [0; 16],
            text: [0; 256],
        }
    }

    pub(crate) fn from_raw(raw: &sys::crust_nat_port) -> Self {
        let external = text_of(&raw.external);
        Self {
            internal: text_of(&raw.internal),
            external: (!external.is_empty()).then_some(external),
            gateway: text_of(&raw.gateway).parse().ok(),
            means: text_of(&raw.means),
            expires: (raw.expires_ms != 0).then(|| Duration::from_millis(raw.expires_ms)),
            twice: raw.twice != 0,
            error: (raw.code < 0)
                .then(|| Error::new(ErrorKind::from_code(raw.code), text_of(&raw.text))),
        }
    }
}

impl Nat {
    pub(crate) fn empty() -> sys::crust_nat {
        sys::crust_nat {
            struct_size: size_of::<sys::crust_nat>() as u32,
            reachable: 0,
            cgnat: 0,
            pending: 0,
            reserved: 0,
            why: [0; 256],
        }
    }

    pub(crate) fn from_raw(
        raw: &sys::crust_nat,
        udp: &sys::crust_nat_flow,
        tcp: &sys::crust_nat_flow,
        servers: Vec<NatServer>,
        mapped: Vec<MappedPort>,
        seen: Vec<NatSeen>,
    ) -> Self {
        Self {
            udp: NatFlow::from_raw(udp),
            tcp: NatFlow::from_raw(tcp),
            reachable: raw.reachable != 0,
            why: text_of(&raw.why),
            cgnat: raw.cgnat != 0,
            pending: raw.pending != 0,
            servers,
            mapped,
            seen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(field: &mut [std::ffi::c_char], text: &str) {
        for (to, from) in field.iter_mut().zip(text.bytes()) {
            *to = from as std::ffi::c_char;
        }
    }

    #[test]
    fn servers_and_ports_say_what_their_structs_say() {
        let mut raw = NatServer::empty();
        put(&mut raw.server, "stun.example.org:3478");
        let server = NatServer::from_raw(&raw);
        assert_eq!((server.seen, server.error), (None, None));
        put(&mut raw.seen, "203.0.113.5:7");
        put(&mut raw.error, "no answer");
        let server = NatServer::from_raw(&raw);
        assert_eq!(server.server, "stun.example.org:3478");
        assert_eq!(server.seen, "203.0.113.5:7".parse().ok());
        assert_eq!(server.error.as_deref(), Some("no answer"));

        let mut raw = MappedPort::empty();
        put(&mut raw.internal, "tcp://192.168.1.2:5483");
        let port = MappedPort::from_raw(&raw);
        assert_eq!(
            (port.external, port.gateway, port.expires),
            (None, None, None)
        );
        assert_eq!(port.error, None);
        put(&mut raw.external, "tcp://203.0.113.5:7");
        put(&mut raw.gateway, "192.168.1.1");
        put(&mut raw.means, "pcp");
        put(&mut raw.text, "late");
        (raw.code, raw.twice, raw.expires_ms) = (ErrorKind::Timeout.code(), 1, 1500);
        let port = MappedPort::from_raw(&raw);
        assert_eq!(port.external.as_deref(), Some("tcp://203.0.113.5:7"));
        assert_eq!(port.gateway, "192.168.1.1".parse().ok());
        assert_eq!((port.means.as_str(), port.twice), ("pcp", true));
        assert_eq!(port.expires, Some(Duration::from_millis(1500)));
        assert_eq!(port.error.unwrap().kind(), ErrorKind::Timeout);
    }

    #[test]
    fn a_peer_says_what_its_struct_says() {
        let mut raw = NatSeen::empty();
        raw.peer.bytes[0] = 7;
        put(&mut raw.from, "203.0.113.5:7");
        put(&mut raw.at, "utp://[2001:db8::1]:8");
        let seen = NatSeen::from_raw(&raw);
        assert_eq!(seen.peer.as_bytes()[0], 7);
        assert_eq!(seen.from, "203.0.113.5:7".parse().ok());
        assert_eq!(seen.at, "utp://[2001:db8::1]:8");
    }

    #[test]
    fn a_flow_says_what_its_struct_says() {
        let mut raw = NatFlow::empty();
        for (to, from) in raw
            .external
            .iter_mut()
            .zip(b"203.0.113.5:7\n[2001:db8::1]:8\0rest")
        {
            *to = *from as std::ffi::c_char;
        }
        (raw.confidence, raw.twice, raw.blocked) = (2, 1, 1);
        (raw.mapping, raw.filtering, raw.hairpin) = (3, 1, 2);
        (raw.ports, raw.step) = (sys::CRUST_NAT_PORTS_SEQUENTIAL as u8, -2);
        let flow = NatFlow::from_raw(&raw);
        let external: Vec<String> = flow.external.iter().map(SocketAddr::to_string).collect();
        assert_eq!(external, ["203.0.113.5:7", "[2001:db8::1]:8"]);
        assert_eq!(flow.confidence, Confidence::Confirmed);
        assert!(flow.twice && flow.blocked && !flow.none && !flow.nearby);
        assert_eq!(flow.mapping, NatDepends::AddressPortDependent);
        assert_eq!(flow.filtering, NatDepends::EndpointIndependent);
        assert_eq!(flow.ports, NatPorts::Sequential(-2));
        assert_eq!(flow.hairpin, Some(true));
        (raw.ports, raw.low, raw.high) = (sys::CRUST_NAT_PORTS_BLOCK as u8, 1024, 2047);
        let (low, high) = (1024, 2047);
        assert_eq!(NatFlow::from_raw(&raw).ports, NatPorts::Block { low, high });
        (raw.ports, raw.mapping, raw.hairpin) = (99, 99, 1);
        let flow = NatFlow::from_raw(&raw);
        assert_eq!(flow.ports, NatPorts::Unknown);
        assert_eq!(flow.mapping, NatDepends::Unknown);
        assert_eq!(flow.hairpin, Some(false));
    }
}
