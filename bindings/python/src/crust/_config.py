"""How a service is made."""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from . import _ffi
from ._errors import Code, error
from ._gate import GateRequest, set_gate
from ._log import log_number
from ._types import Beacon, Cipher, Gossip, How, Relay, Role, blob


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
        seed = blob(config.identity_seed, "identity_seed")
        _ffi.check(_ffi.crust_config_set_bytes(handle, _IDENTITY_SEED, seed, len(seed)))
    if config.app_id:
        app_id = blob(config.app_id, "app_id")
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
