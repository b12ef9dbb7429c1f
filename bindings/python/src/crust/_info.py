"""What can be looked at: sessions, peers that are known of, counters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from . import _ffi
from ._show import Shown
from ._types import How, PeerId, Role

# Record ciphers by the number that crust_peer_info gives.
_CIPHER_NAMES = {1: "ChaCha20-Poly1305", 2: "AES-256-GCM"}


@dataclass(frozen=True)
class PeerInfo(Shown):
    """One session, as `Service.peer` saw it.

    Attributes:
        peer: who.
        endpoint: the peer's end of the link.
        how: by which way the session came about.
        role: what the peer is to the network.
        cipher: ``AES-256-GCM`` or ``ChaCha20-Poly1305``.
        rtt: the last measured round trip in seconds; None when there is none yet.
        age: seconds since the session began.
        sent_messages, sent_bytes: of messages, without overhead.
        received_messages, received_bytes: of messages, without overhead.
        dropped_messages: accepted, but too old to send.
        queued_bytes: waiting to be sent, now.
        unacked_bytes: sent, and kept in case the link breaks, now.
        suspended: whether there is no link now.
        resumed: times that the session went over to another link.
    """

    peer: PeerId
    endpoint: str
    how: How
    role: Role
    cipher: str
    rtt: Optional[float]
    age: float
    sent_messages: int
    sent_bytes: int
    received_messages: int
    received_bytes: int
    dropped_messages: int
    queued_bytes: int
    unacked_bytes: int
    suspended: bool
    resumed: int


@dataclass(frozen=True)
class LanPeer(Shown):
    """A peer whose beacon was heard on a network of this machine: see `Service.peers_on_lan`.

    Attributes:
        peer: who.
        role: what it is to the network.
        endpoints: where it may be, in the networks of this machine, the most useful first: at least
            one, at most 16. That it is there is not proved until somebody connects.
        heard: seconds since it was heard the last time.
    """

    peer: PeerId
    role: Role
    endpoints: tuple[str, ...]
    heard: float


@dataclass(frozen=True)
class KnownPeer(Shown):
    """A peer of which gossip has told: see `Service.known`.

    It is not connected, or need not be. Nothing of it is proved but that the peer holds its key and
    has said so.

    Attributes:
        peer: who.
        role: what it is to the network.
        endpoints: where it says that it may be dialled: at most 8.
        direct: it says that somebody on the Internet has come to it unasked.
        relays: it carries links of others.
        expires: seconds until it is forgotten unless it says by then that it is still there.
    """

    peer: PeerId
    role: Role
    endpoints: tuple[str, ...]
    direct: bool
    relays: bool
    expires: float


def known_peer(raw: _ffi.KnownPeerStruct) -> KnownPeer:
    """Convert a crust_known_peer."""
    return KnownPeer(
        peer=PeerId(bytes(raw.peer.bytes)),
        role=Role(raw.role),
        endpoints=tuple(_ffi.text(raw.endpoints).splitlines()),
        direct=raw.direct != 0,
        relays=raw.relays != 0,
        expires=raw.expires_ms / 1e3,
    )


def lan_peer(raw: _ffi.LanPeerStruct) -> LanPeer:
    """Convert a crust_lan_peer."""
    return LanPeer(
        peer=PeerId(bytes(raw.peer.bytes)),
        role=Role(raw.role),
        endpoints=tuple(_ffi.text(raw.endpoints).splitlines()),
        heard=raw.heard_ms / 1e3,
    )


def peer_info(raw: _ffi.PeerInfoStruct) -> PeerInfo:
    """Convert a crust_peer_info."""
    return PeerInfo(
        peer=PeerId(bytes(raw.peer.bytes)),
        endpoint=_ffi.text(raw.endpoint),
        how=How(raw.how),
        role=Role(raw.role),
        cipher=_CIPHER_NAMES.get(raw.cipher, f"cipher {raw.cipher}"),
        rtt=raw.rtt_us / 1e6 if raw.rtt_us else None,
        age=raw.age_us / 1e6,
        sent_messages=raw.sent_messages,
        sent_bytes=raw.sent_bytes,
        received_messages=raw.received_messages,
        received_bytes=raw.received_bytes,
        dropped_messages=raw.dropped_messages,
        queued_bytes=raw.queued_bytes,
        unacked_bytes=raw.unacked_bytes,
        suspended=bool(raw.suspended),
        resumed=raw.resumed,
    )


@dataclass(frozen=True)
class Stats(Shown):
    """What a service has done since it was made.

    Attributes:
        peers: sessions, now.
        listeners: now.
        handshakes: accepted connections not yet authenticated, now.
        connects: connection attempts in flight, now.
        sessions_total: sessions ever.
        handshakes_failed: accepted connections that did not authenticate.
        handshakes_evicted: of these, given up to make room.
        connects_failed: connection attempts that failed.
        sent_messages, sent_bytes: of messages, without overhead.
        received_messages, received_bytes: of messages, without overhead.
        dropped_messages: accepted, but too old to send.
        wire_sent_bytes, wire_received_bytes: on the links, with overhead.
        events_queued, event_bytes_queued: waiting in the library, now.
        events_total: events ever.
        backpressure_pauses: times that reading stopped because the event queue was full.
        sent_datagrams, received_datagrams: by `Service.send_datagram`.
        lost_datagrams: received ones that found no room in the event queue, or were over the
            bounds of their peer.
        circuits: links carried for others, now.
        carried_bytes: of those, since the start.
        known: peers of which gossip has told, now.
        refused_connections: Connections closed unread, over a limit of accepting.
        refused_handshakes: Handshakes not answered, over the share of the processor that they may have.
        refused_files: Connections closed unread, for want of descriptors.
        refused_sessions: Sessions refused, over a limit of peers.
        shed_sessions: Sessions ended to make room for those that are worth more.
        rate_pauses: Times that a peer was not read for a while, since it sends too fast.
        alerts: Alerts raised.
        suppressed_alerts: Alerts that came too fast to be raised.
        resumptions: Times that a session went over to another link.
        refused_banned: Connections and sessions refused for the blacklist or the whitelists; what the
            system drops before, of banned addresses that come again and again, is not counted.
        memory_bytes: that queues and buffers hold of `max_memory_bytes`, and beyond it, now.
        refused_memory: Times that `max_memory_bytes` had no room.
        dropped_logs: Records of the log for which there was no room.
        refused_help: Letters, circuits and tests of reachability that peers asked for too often, or without leave.
    """

    peers: int
    listeners: int
    handshakes: int
    connects: int
    sessions_total: int
    handshakes_failed: int
    handshakes_evicted: int
    connects_failed: int
    sent_messages: int
    sent_bytes: int
    received_messages: int
    received_bytes: int
    dropped_messages: int
    wire_sent_bytes: int
    wire_received_bytes: int
    events_queued: int
    event_bytes_queued: int
    events_total: int
    backpressure_pauses: int
    sent_datagrams: int
    received_datagrams: int
    lost_datagrams: int
    circuits: int
    carried_bytes: int
    known: int
    refused_connections: int
    refused_handshakes: int
    refused_files: int
    refused_sessions: int
    shed_sessions: int
    rate_pauses: int
    alerts: int
    suppressed_alerts: int
    resumptions: int
    refused_banned: int
    memory_bytes: int
    refused_memory: int
    dropped_logs: int
    refused_help: int


def stats(raw: _ffi.StatsStruct) -> Stats:
    """Convert a crust_stats."""
    return Stats(*(getattr(raw, name) for name in Stats.__dataclass_fields__))
