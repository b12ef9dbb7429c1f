"""What is known of the NATs between a service and others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from . import _ffi
from ._errors import CrustError, OpenNumber, error
from ._show import Shown
from ._types import PeerId


class NatDepends(OpenNumber):
    """On what of the other end a NAT's mapping or filter depends (RFC 4787 sections 4.1 and 5)."""

    UNKNOWN = 0
    """It is not found out."""
    ENDPOINT_INDEPENDENT = 1
    """On nothing."""
    ADDRESS_DEPENDENT = 2
    """On its address."""
    ADDRESS_PORT_DEPENDENT = 3
    """On its address and port."""


class NatPorts(OpenNumber):
    """How a NAT chooses the external port of a new mapping."""

    UNKNOWN = 0
    """It is not found out."""
    PRESERVING = 1
    """The internal port, where it is free."""
    SEQUENTIAL = 2
    """The last one and `NatFlow.step`."""
    BLOCK = 3
    """Any from `NatFlow.low` to `NatFlow.high`."""
    RANDOM = 4
    """Any."""


class Confidence(OpenNumber):
    """How much the external address and the mapping can be relied upon."""

    NONE = 0
    """Too few peers in different networks agree."""
    TENTATIVE = 1
    """As many as two do."""
    CONFIRMED = 2
    """As many as three do."""


@dataclass(frozen=True)
class NatFlow(Shown):
    """What is known of the NAT between a service and others, of one transport protocol.

    Attributes:
        confidence: in the external address, and the mapping where it is known.
        none: whether there is no NAT: others see one of this machine's addresses and the port
            that the socket has. Filtering is then a firewall's.
        mapping: on what the external port depends.
        filtering: on what it depends whether something is let in.
        ports: how external ports are chosen.
        step: of sequential ports, else 0.
        low, high: of a block, else 0.
        nearby: whether no peer on the Internet has told anything: the rest is about what lies
            between this machine and a smaller network.
        twice: whether there are two NATs in a row.
        blocked: whether nothing of this protocol gets through.
        hairpin: whether what goes to our own external endpoint comes back; None when it was not
            tried.
        external: our endpoints as others see them, ``ADDRESS:PORT``, those that most say first;
            at most 16.
    """

    confidence: Confidence
    none: bool
    mapping: NatDepends
    filtering: NatDepends
    ports: NatPorts
    step: int
    low: int
    high: int
    nearby: bool
    twice: bool
    blocked: bool
    hairpin: Optional[bool]
    external: tuple[str, ...]


@dataclass(frozen=True)
class NatServer(Shown):
    """What a STUN server has said.

    Attributes:
        server: as in `Config.stun`.
        seen: our endpoint as it has seen it last, ``ADDRESS:PORT``; None when it has not.
        error: why there is no answer; None when there is one, or none is due.
    """

    server: str
    seen: Optional[str]
    error: Optional[str]


@dataclass(frozen=True)
class NatSeen(Shown):
    """How one peer sees a service.

    Attributes:
        peer: who.
        source: the peer's end of its link, with which it looks, ``ADDRESS:PORT``.
        at: our endpoint as the peer has seen it last, such as ``tcp://203.0.113.5:5483``. Over
            TCP it is our end of a link that was dialled, or the listener.
    """

    peer: PeerId
    source: str
    at: str


@dataclass(frozen=True)
class MappedPort(Shown):
    """A port of a listener that a router passes on, or why it does not.

    Attributes:
        internal: where it leads, an endpoint of this machine.
        external: where others reach it; None: nowhere, and `error` says why.
        gateway: the router's address; None when it is not known.
        means: how it was asked, ``pcp``, ``nat-pmp`` or ``upnp``; empty without a mapping.
        expires: seconds until the router drops it unless it is renewed; None: never, or there is none.
        twice: whether another NAT is in front of the router.
        error: why there is no mapping; None when there is one.
    """

    internal: str
    external: Optional[str]
    gateway: Optional[str]
    means: str
    expires: Optional[float]
    twice: bool
    error: Optional[CrustError]


@dataclass(frozen=True)
class Nat(Shown):
    """What is known of the NATs between a service and others, as `Service.nat` saw it.

    It is of the address family about which more is known; of both, IPv4.

    Attributes:
        udp, tcp: of each transport protocol.
        reachable: whether somebody on the Internet has reached the service unasked within the
            last hour. False means that nobody has so far, not that nobody could.
        why: in a few words: what proves that, or why there is no proof.
        cgnat: whether the NAT that others see is a provider's: no router here can map its ports.
        pending: whether more is being found out now, or will be in a moment.
        servers: what the servers of `Config.stun` have said, in that order.
        mapped: the ports of listeners that routers pass on, and those that they do not.
        seen: who has said what, of the peers that are connected now and not over a relay, in the
            order of their ids, TCP first; at most 256. Each speaks for itself: `NatFlow.external`
            is what comes of it all.
    """

    udp: NatFlow
    tcp: NatFlow
    reachable: bool
    why: str
    cgnat: bool
    pending: bool
    servers: tuple[NatServer, ...]
    mapped: tuple[MappedPort, ...]
    seen: tuple[NatSeen, ...] = ()


def nat_server(raw: _ffi.NatServerStruct) -> NatServer:
    """Convert a crust_nat_server."""
    return NatServer(_ffi.text(raw.server), _ffi.text(raw.seen) or None, _ffi.text(raw.error) or None)


def nat_seen(raw: _ffi.NatSeenStruct) -> NatSeen:
    """Convert a crust_nat_seen."""
    return NatSeen(PeerId(bytes(raw.peer.bytes)), _ffi.text(getattr(raw, "from")), _ffi.text(raw.at))


def mapped_port(raw: _ffi.NatPortStruct) -> MappedPort:
    """Convert a crust_nat_port."""
    return MappedPort(
        internal=_ffi.text(raw.internal),
        external=_ffi.text(raw.external) or None,
        gateway=_ffi.text(raw.gateway) or None,
        means=_ffi.text(raw.means),
        expires=raw.expires_ms / 1e3 if raw.expires_ms else None,
        twice=bool(raw.twice),
        error=error(raw.code, _ffi.text(raw.text)) if raw.code else None,
    )


def _flow(raw: _ffi.NatFlowStruct) -> NatFlow:
    return NatFlow(
        confidence=Confidence(raw.confidence),
        none=bool(raw.none),
        mapping=NatDepends(raw.mapping),
        filtering=NatDepends(raw.filtering),
        ports=NatPorts(raw.ports),
        step=raw.step,
        low=raw.low,
        high=raw.high,
        nearby=bool(raw.nearby),
        twice=bool(raw.twice),
        blocked=bool(raw.blocked),
        hairpin={1: False, 2: True}.get(raw.hairpin),
        external=tuple(_ffi.text(raw.external).splitlines()),
    )


def nat(
    raw: _ffi.NatStruct,
    udp: _ffi.NatFlowStruct,
    tcp: _ffi.NatFlowStruct,
    servers: Sequence[NatServer] = (),
    mapped: Sequence[MappedPort] = (),
    seen: Sequence[NatSeen] = (),
) -> Nat:
    """Convert a crust_nat and its two crust_nat_flow."""
    return Nat(
        udp=_flow(udp),
        tcp=_flow(tcp),
        reachable=bool(raw.reachable),
        why=_ffi.text(raw.why),
        cgnat=bool(raw.cgnat),
        pending=bool(raw.pending),
        servers=tuple(servers),
        mapped=tuple(mapped),
        seen=tuple(seen),
    )
