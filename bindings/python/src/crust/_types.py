"""Values: who a peer is, how a service is made, what can be looked at."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from . import _ffi
from ._errors import Code, NamedNumber, OpenNumber, error
from ._gate import GateRequest, set_gate
from ._log import log_number
from ._show import Shown

Buffer = Union[bytes, bytearray, memoryview]
"""What can be sent: contiguous bytes."""


class PeerId(bytes):
    """A peer's Ed25519 public key: who it is.

    It is a `bytes` of length 32, made from 32 bytes or from 64 hexadecimal digits; ``str()``
    gives the digits.

    Raises:
        Invalid: the value has another form.
    """

    __slots__ = ()

    def __new__(cls, value: Union[str, Buffer]) -> PeerId:
        if isinstance(value, str):
            raw = ctypes.create_string_buffer(_ffi.PEER_ID_SIZE)
            _ffi.check(_ffi.crust_peer_id_parse(_ffi.c_string(value, "peer id"), raw))
            return super().__new__(cls, raw.raw)
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise error(Code.INVALID, f"a peer id is bytes or str, not {type(value).__name__}")
        made = super().__new__(cls, value)
        if len(made) != _ffi.PEER_ID_SIZE:
            raise error(Code.INVALID, f"a peer id has {_ffi.PEER_ID_SIZE} bytes, not {len(made)}")
        return made

    @property
    def short(self) -> str:
        """The first 8 digits, for people."""
        return self[:4].hex()

    def __str__(self) -> str:
        return self.hex()

    def __repr__(self) -> str:
        return f"PeerId('{self.hex()}')"

    def _repr_html_(self) -> str:
        return f'<code title="{self.hex()}">{self.short}</code>'


class Role(OpenNumber):
    """What a peer is to the network."""

    NODE = 0
    CLIENT = 1


class How(OpenNumber):
    """By which way a session came about."""

    UNKNOWN = 0
    DIALED = 1
    ACCEPTED = 2
    MAPPED = 3
    """Dialled at a port that the peer's router passes on, as the peer said; it says `ACCEPTED`."""
    PUNCHED = 4
    RELAYED = 5


class Means(OpenNumber):
    """How a router was asked for a port."""

    UNKNOWN = 0
    PCP = 1
    UPNP_IGD2 = 2
    UPNP_PINHOLE = 3
    """To open its firewall for IPv6."""
    NAT_PMP = 4
    UPNP_IGD1 = 5


class By(OpenNumber):
    """How a peer was discovered."""

    UNKNOWN = 0
    BEACON = 1
    """Its beacon was heard on a network of this machine."""
    GOSSIP = 2
    """Connected peers have told of it."""


class GroupState(OpenNumber):
    """How it stands with a peer of a group."""

    UNKNOWN = 0
    UP = 1
    """There is a session, which may be suspended."""
    DOWN = 2
    """There is none, or none any more; the next attempt is due in a while."""
    TRYING = 3
    """An attempt is under way."""
    FAILED = 4
    """An attempt has failed; the next one is due in a while."""
    DROPPED = 5
    """The program has disconnected it: nothing is tried until it asks again."""


class AlertKind(OpenNumber):
    """What somebody does too much of."""

    UNKNOWN = 0
    CONNECTIONS = 1
    """Connections over what is taken of one address, closed unread."""
    GARBAGE = 2
    """Connections that said nothing, or nothing of this network."""
    HANDSHAKES = 3
    """Handshakes that were begun and never finished."""
    SESSIONS = 4
    """Sessions that came and went within 10 s, or were refused."""
    FORGERY = 5
    """Records that do not authenticate; whoever carries a TCP connection can make them."""
    PROTOCOL = 6
    """An authenticated peer broke the protocol."""
    FLOOD = 7
    """A peer sends more than it may, for seconds on end: it is read no faster."""
    GOSSIP = 8
    """Records of gossip that were refused."""
    RELAY = 9
    """Circuits that were refused."""


class Cipher(NamedNumber):
    """Which record ciphers a service offers."""

    AUTO = 0
    """AES-256-GCM when both sides have AES hardware, ChaCha20-Poly1305 otherwise."""
    CHACHA20_POLY1305 = 1
    """Always ChaCha20-Poly1305."""


class Beacon(NamedNumber):
    """What a service does on the networks that its machine is in, so that peers there find each other."""

    ON = 0
    """Say hello, answer those who ask, and hear others."""
    OFF = 1
    """Send nothing and hear nothing."""
    LISTEN = 2
    """Hear others and send nothing."""
    ASK = 3
    """Hear others, who answer, and tell nothing of oneself."""


class Gossip(NamedNumber):
    """How a service takes part in gossip.

    By it peers tell each other over their sessions where they and others can be dialled.
    """

    ON = 0
    """Tells peers where it and others can be dialled, and asks them for the same."""
    ANSWER = 1
    """Tells where it can be dialled itself, to peers that ask; learns nothing."""
    OFF = 2
    """Takes no part."""


class Relay(NamedNumber):
    """What a service does for peers that cannot reach each other."""

    SIGNAL = 0
    """Carry the letters by which two peers meet, and no more."""
    OFF = 1
    """Carry nothing of others."""
    DATA = 2
    """Carry letters and links, within limits; for services that peers can reach."""


# Record ciphers by the number that crust_peer_info gives.
_CIPHER_NAMES = {1: "ChaCha20-Poly1305", 2: "AES-256-GCM"}


@dataclass(frozen=True)
class Config:
    """How a service is made. Every default works; None and 0 mean the library's default.

    Times are seconds, sizes are bytes.

    Attributes:
        network_name: separates networks and hides the traffic from who does not know it, up to
            256 bytes; "" is the public default network.
        identity_file: path of the secret identity, created with mode 0600 if it is missing.
        identity_seed: 32 secret bytes of `generate_identity`. Neither means a fresh identity.
        app_id: handed to every peer, authenticated, up to 256 bytes.
        role: handed to every peer.
        listen: endpoints such as ``tcp://0.0.0.0:0`` or ``utp://0.0.0.0:0``; None is one random
            port per transport on all addresses; an empty sequence starts no listener.
        live_port: the port, of TCP and of UDP, that listeners with port 0 try first, 5483 by
            convention; where it is taken they get a random one; 0 is random ports.
        port_rotation: how often listeners with port 0 move to a new random port, at least 1 s;
            the old one accepts for one more interval, and sessions stay; never.
        accept: whether peers may begin sessions; see `Service.set_accept`.
        network_watch: whether to watch this machine's addresses, interfaces and routes, and
            whether it has slept; see `Service.network_changed`.
        port_map: whether routers are asked to pass the ports of the listeners on; the environment
            variable CRUST_PORTMAP, when it is "off", says no whatever this says.
        external_port: the port that routers must give, or none: to one TCP listener and to one UDP
            listener, those started first or their successors by `port_rotation`; 0 is any port.
        beacon: whether the service makes itself known on the networks that its machine is in, by
            broadcast and multicast, and hears who else is there: see `Discovered` and
            `Service.peers_on_lan`. One that listens at loopback addresses alone does so on the
            loopback network alone. It connects to nobody by itself. The environment variable
            CRUST_BEACON, when it is "off", turns it off whatever this says.
        beacon_port: the UDP port of that, the same for all peers; 5484.
        relay: what is done for peers that cannot reach each other.
        stun: servers to ask as well what they see of the UDP socket, ``HOST:PORT``, or ``HOST``
            for port 3478, with an IP address or a name; at most 8. They are asked in clear.
        only: the ways in which links may come about, for policies and tests; others are not tried,
            or refused after authentication with `NotAllowed`. A dial counts as `How.MAPPED` when a
            router of the peer passes it on, as `How.DIALED` otherwise. None are all.
        allow_nodes: a whitelist: the IP addresses and prefixes that peers of role node may have; none
            are all. See `Service.set_allowed`.
        allow_clients: the same for peers of role client.
        bans: who is blacklisted from the beginning, as by `Service.ban`.
        max_bans: entries of the blacklist; 65,536.
        gate: the program's own policy: called once about each peer that has proved its key and has
            no session, before it gets one; True lets it in. Otherwise it is refused with
            `NotAllowed`, as when the function raises, has not returned within `gate_timeout`, or
            `max_gates` other calls have not. It runs on threads of the library, several at once,
            and nothing waits for it longer. Peers that dial must then ask for a session, which
            takes a round trip more.
        gate_timeout: how long a peer waits for it, at most 5 s; 1 s.
        max_gates: calls of it that have not returned, at most 4,096; 64.
        contacts: fallback endpoints of `Service.bootstrap`, ``ENDPOINT`` or ``ENDPOINT#PEER``.
        cache: the file in which peers are written down that the service has connected to directly,
            and from which it bootstraps beside the contacts; made when it is not there, its
            directory is not. "default" is the user's own; None is none.
        cache_peers: how many peers there is room for in it, up to 65,536; 200.
        gossip: whether peers are told, over the sessions with them, where this service and others
            that it knows of can be dialled, and asked for the same.
        tracer: whether sessions may be in clear, for looking at them: at listeners such as
            ``tracer://0.0.0.0:0``, and where `Service.connect_endpoint` dials such endpoints.
            Both sides must allow it; `Clear` tells of each.
        key_log: a file to which the keys of every session are appended, so that captures of
            them can be read. WHOEVER HAS IT READS EVERYTHING that the service sends and
            receives. None is none.
        log_level: which records of the log go to the logger ``crust`` of the module `logging`: those
            of this level and above, such as `logging.INFO`; None are none. docs/LOGS.md lists
            them. They come from the thread that takes events, when it does.
        cipher: restricts the record cipher.
        connect_timeout: for one connect altogether; 60 s.
        bootstrap_timeout: for one bootstrap altogether; 10 s.
        handshake_timeout: for one handshake; 10 s.
        heartbeat: how long a link stays silent at most before it says that it is alive; 20 s.
        lost_after: how long nothing is heard before a link is given up, at least twice the
            heartbeat; 120 s.
        resume: whether a session whose link is gone waits for another one.
        resume_window: how long it waits before the peer is lost; the lesser of both sides'
            counts; 30 s.
        close_timeout: how long disconnecting and closing let queued messages drain; 5 s.
        message_max_age: age at which messages of priority 2 and above are dropped from the
            queue of a link that does not move; 60 s.
        send_queue: bytes queued for one peer, at least `MAX_MESSAGE`; 4 MiB.
        resend_buffer: bytes that are sent to one peer and kept until it has acknowledged them, in
            case the link breaks, at least 512 KiB; it bounds the throughput to as much each
            round trip; 8 MiB.
        event_queue: bytes of messages that wait for the program; 16 MiB.
        max_peers: sessions; 4,096.
        max_handshakes: accepted connections not yet authenticated; 1,024.
        max_handshakes_per_address: the same per IPv4 address or IPv6 /64; 256.
        max_connects: connects in flight; 1,024.
        json: options as a JSON object, read before the other fields; docs/CONFIG.md names its keys.
    """

    network_name: str = ""
    identity_file: Union[str, os.PathLike[str], None] = None
    identity_seed: Optional[bytes] = None
    app_id: bytes = b""
    role: Role = Role.NODE
    listen: Optional[Sequence[str]] = None
    live_port: int = 0
    port_rotation: Optional[float] = None
    accept: bool = True
    network_watch: bool = True
    port_map: bool = True
    external_port: int = 0
    beacon: Beacon = Beacon.ON
    beacon_port: int = 0
    relay: Relay = Relay.SIGNAL
    stun: Sequence[str] = ()
    only: Sequence[How] = ()
    allow_nodes: Sequence[str] = ()
    allow_clients: Sequence[str] = ()
    bans: Sequence[str] = ()
    max_bans: int = 0
    gate: Optional[Callable[[GateRequest], bool]] = None
    gate_timeout: Optional[float] = None
    max_gates: int = 0
    contacts: Sequence[str] = ()
    cache: Union[str, os.PathLike[str], None] = None
    cache_peers: int = 0
    gossip: Gossip = Gossip.ON
    tracer: bool = False
    key_log: Union[str, os.PathLike[str], None] = None
    log_level: Optional[int] = None
    cipher: Cipher = Cipher.AUTO
    connect_timeout: Optional[float] = None
    bootstrap_timeout: Optional[float] = None
    handshake_timeout: Optional[float] = None
    heartbeat: Optional[float] = None
    lost_after: Optional[float] = None
    resume: bool = True
    resume_window: Optional[float] = None
    close_timeout: Optional[float] = None
    message_max_age: Optional[float] = None
    send_queue: int = 0
    resend_buffer: int = 0
    event_queue: int = 0
    max_peers: int = 0
    max_handshakes: int = 0
    max_handshakes_per_address: int = 0
    max_connects: int = 0
    json: Optional[str] = None

    def __repr__(self) -> str:
        """Show what differs from the defaults, and never the secret seed."""
        shown = []
        for name, field in self.__dataclass_fields__.items():
            value = getattr(self, name)
            if value != field.default:
                shown.append(f"{name}={'<secret>' if name == 'identity_seed' else repr(value)}")
        return f"Config({', '.join(shown)})"


_DURATIONS = {
    "connect_timeout": 20,
    "bootstrap_timeout": 21,
    "handshake_timeout": 22,
    "heartbeat": 23,
    "lost_after": 24,
    "close_timeout": 25,
    "message_max_age": 26,
    "port_rotation": 27,
    "resume_window": 28,
    "gate_timeout": 62,
}
_NUMBERS = {
    "live_port": 9,
    "external_port": 14,
    "beacon_port": 17,
    "send_queue": 40,
    "event_queue": 41,
    "max_peers": 42,
    "max_handshakes": 43,
    "max_handshakes_per_address": 44,
    "max_connects": 45,
    "resend_buffer": 46,
    "cache_peers": 47,
    "max_bans": 60,
    "max_gates": 61,
}
_NETWORK_NAME, _IDENTITY_FILE, _IDENTITY_SEED, _APP_ID = 1, 2, 3, 4
_ROLE, _NO_LISTEN, _NO_ACCEPT, _CIPHER, _NO_RESUME, _NO_NETWORK_WATCH = 5, 6, 7, 8, 10, 11
_RELAY, _NO_PORT_MAP, _CACHE, _BEACON, _GOSSIP, _ONLY = 12, 13, 15, 16, 18, 19
_TRACER, _KEY_LOG, _LOG_LEVEL = 70, 71, 72
_PATHS = {"identity_file": _IDENTITY_FILE, "cache": _CACHE, "key_log": _KEY_LOG}
_CHOICES = {"role": _ROLE, "relay": _RELAY, "beacon": _BEACON, "gossip": _GOSSIP, "cipher": _CIPHER}
_U64_MAX = (1 << 64) - 1


def _number(value: Any, what: str) -> int:
    """Check what ctypes would silently truncate."""
    if not isinstance(value, int) or not 0 <= value <= _U64_MAX:
        raise error(Code.INVALID, f"{what} must be a whole number from 0, not {value!r}")
    return int(value)


def _duration(value: Any, what: str) -> int:
    """Seconds to milliseconds, rounded up so that a short time never becomes the default."""
    try:
        milliseconds: int = math.ceil(value * 1000)
    except (TypeError, ValueError, OverflowError):
        milliseconds = -1
    if not 0 <= milliseconds <= _U64_MAX:
        raise error(Code.INVALID, f"{what} must be a number of seconds from 0, not {value!r}")
    return milliseconds


def _blob(value: Any, what: str) -> bytes:
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise error(Code.INVALID, f"{what} must be bytes, not {type(value).__name__}")
    return bytes(value)


def _items(value: Any, what: str) -> list[str]:
    """A sequence of strings; one string would be a sequence of letters."""
    if isinstance(value, (str, bytes)):
        raise error(Code.INVALID, f"{what} must be a sequence of strings, not one string")
    return list(value)


def _ways(value: Any) -> int:
    """Ways as the sum of a bit for each."""
    total = 0
    for way in value:
        if not isinstance(way, How) or not way:
            raise error(Code.INVALID, f"only must be a sequence of How, without {way!r}")
        total |= 1 << int(way)
    return total


def apply_config(handle: ctypes.c_void_p, config: Config) -> None:
    """Write a `Config` into a crust_config."""
    if config.json is not None:
        document = _ffi.c_string(config.json, "json")
        _ffi.check(_ffi.crust_config_load_json(handle, document, len(document)))
    for name, option in _DURATIONS.items():
        value = getattr(config, name)
        if value is not None:
            _ffi.check(_ffi.crust_config_set_u64(handle, option, _duration(value, name)))
    for name, option in _NUMBERS.items():
        size = _number(getattr(config, name), name)
        if size:
            _ffi.check(_ffi.crust_config_set_u64(handle, option, size))
    if config.network_name:
        name_bytes = _ffi.c_string(config.network_name, "network_name")
        _ffi.check(_ffi.crust_config_set_str(handle, _NETWORK_NAME, name_bytes))
    if config.identity_file is not None and config.identity_seed is not None:
        raise error(Code.INVALID, "identity_file and identity_seed cannot both be given")
    for name, option in _PATHS.items():
        path = getattr(config, name)
        if path is not None:
            _ffi.check(_ffi.crust_config_set_str(handle, option, _ffi.c_string(os.fspath(path), name)))
    if config.identity_seed is not None:
        seed = _blob(config.identity_seed, "identity_seed")
        _ffi.check(_ffi.crust_config_set_bytes(handle, _IDENTITY_SEED, seed, len(seed)))
    if config.app_id:
        app_id = _blob(config.app_id, "app_id")
        _ffi.check(_ffi.crust_config_set_bytes(handle, _APP_ID, app_id, len(app_id)))
    for option, on in (
        (_NO_ACCEPT, not config.accept),
        (_NO_NETWORK_WATCH, not config.network_watch),
        (_NO_PORT_MAP, not config.port_map),
        (_NO_RESUME, not config.resume),
        (_TRACER, config.tracer),
    ):
        if on:
            _ffi.check(_ffi.crust_config_set_u64(handle, option, 1))
    for name, option in _CHOICES.items():
        choice = _number(getattr(config, name), name)
        if choice:
            _ffi.check(_ffi.crust_config_set_u64(handle, option, choice))
    _apply_endpoints(handle, config)
    _apply_policy(handle, config)


def _apply_policy(handle: ctypes.c_void_p, config: Config) -> None:
    if config.log_level is not None:
        _ffi.check(_ffi.crust_config_set_u64(handle, _LOG_LEVEL, log_number(config.log_level)))
    if config.gate is not None:
        if not callable(config.gate):
            raise error(Code.INVALID, f"gate must be a function, not {config.gate!r}")
        set_gate(handle, config.gate)
    for who in _items(config.bans, "bans"):
        _ffi.check(_ffi.crust_config_add_ban(handle, _ffi.c_string(who, "ban")))
    for role, prefixes in (
        (Role.NODE, _items(config.allow_nodes, "allow_nodes")),
        (Role.CLIENT, _items(config.allow_clients, "allow_clients")),
    ):
        for prefix in prefixes:
            _ffi.check(_ffi.crust_config_add_allowed(handle, int(role), _ffi.c_string(prefix, "prefix")))


def _apply_endpoints(handle: ctypes.c_void_p, config: Config) -> None:
    if config.only:
        _ffi.check(_ffi.crust_config_set_u64(handle, _ONLY, _ways(config.only)))
    if config.listen is not None:
        endpoints = _items(config.listen, "listen")
        if not endpoints:
            _ffi.check(_ffi.crust_config_set_u64(handle, _NO_LISTEN, 1))
        for endpoint in endpoints:
            _ffi.check(_ffi.crust_config_add_listener(handle, _ffi.c_string(endpoint, "endpoint")))
    for server in _items(config.stun, "stun"):
        _ffi.check(_ffi.crust_config_add_stun(handle, _ffi.c_string(server, "STUN server")))
    for contact in _items(config.contacts, "contacts"):
        _ffi.check(_ffi.crust_config_add_contact(handle, _ffi.c_string(contact, "contact")))


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
        lost_datagrams: received ones that found no room in the event queue.
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
        refused_banned: Connections and sessions refused for the blacklist or the whitelists.
        memory_bytes: that queues hold of `max_memory_bytes`, now.
        refused_memory: Times that `max_memory_bytes` had no room.
        dropped_logs: Records of the log for which there was no room.
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


def stats(raw: _ffi.StatsStruct) -> Stats:
    """Convert a crust_stats."""
    return Stats(*(getattr(raw, name) for name in Stats.__dataclass_fields__))


def generate_identity() -> tuple[bytes, PeerId]:
    """Make a new secret seed for `Config.identity_seed`, and the peer id that belongs to it."""
    seed = ctypes.create_string_buffer(_ffi.SEED_SIZE)
    peer = ctypes.create_string_buffer(_ffi.PEER_ID_SIZE)
    _ffi.check(_ffi.crust_identity_generate(seed, peer))
    made = seed.raw, PeerId(peer.raw)
    ctypes.memset(seed, 0, _ffi.SEED_SIZE)
    return made


def connection_info_peer(info: Buffer) -> PeerId:
    """Check a connection info and return who made it.

    Raises:
        BadInfo: it is malformed, forged or expired.
    """
    data = _blob(info, "connection info")
    peer = ctypes.create_string_buffer(_ffi.PEER_ID_SIZE)
    _ffi.check(_ffi.crust_connection_info_peer(data, len(data), peer))
    return PeerId(peer.raw)


def version() -> str:
    """Return the version of the library in use, such as ``0.1.0``."""
    return _ffi.text(_ffi.crust_version_string())


def has(feature: str) -> bool:
    """Return whether the library has a feature: ``tcp``, ``fd``, ``utp``."""
    return bool(_ffi.crust_has(_ffi.c_string(feature, "feature")))
