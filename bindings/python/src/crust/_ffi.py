"""The C ABI of include/crust.h, declared for ctypes.

Every function is bound with its argument and result types through ``CDLL``, which releases
the interpreter lock during calls. Callbacks cannot be expressed here: their structure holds
plain addresses, so that no Python code is ever reachable from a thread of the library.
"""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    c_char,
    c_char_p,
    c_int,
    c_int16,
    c_int32,
    c_size_t,
    c_ssize_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
)
from typing import Any, Callable

from ._errors import Code, CrustError, error
from ._loader import load

library, library_path = load()

PEER_ID_SIZE = 32
PEER_ID_TEXT = 65
SEED_SIZE = 32
MAX_MESSAGE = 2097152
MAX_APP_ID = 256
MAX_NETWORK_NAME = 256

EVENT_MESSAGE = 1
EVENT_WRITABLE = 2
EVENT_LISTENER_STARTED = 3
EVENT_LISTENER_FAILED = 4
EVENT_CONNECTION_INFO = 5
EVENT_CONNECTED = 6
EVENT_ALREADY_CONNECTED = 7
EVENT_CONNECT_FAILED = 8
EVENT_BOOTSTRAPPED = 9
EVENT_BOOTSTRAP_FAILED = 10
EVENT_LOST = 11
EVENT_MESSAGES_DROPPED = 12
EVENT_STOPPED = 13
EVENT_SUSPENDED = 14
EVENT_RESUMED = 15
EVENT_DELIVERED = 16
EVENT_DATAGRAM = 17
EVENT_LISTENER_STOPPED = 18
EVENT_NETWORK_CHANGED = 19
EVENT_PORT_MAPPED = 20
EVENT_PORT_UNMAPPED = 21
EVENT_CACHE_TROUBLE = 22
EVENT_DISCOVERED = 23
EVENT_FORGOTTEN = 24
EVENT_GROUP = 25
EVENT_ALERT = 26
EVENT_CLEAR = 27
EVENT_LOG = 28

LOG_OFF, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG = range(5)


class PeerIdStruct(ctypes.Structure):
    """crust_peer_id."""

    _fields_ = (("bytes", c_uint8 * PEER_ID_SIZE),)


class EventStruct(ctypes.Structure):
    """crust_event; pointers as plain addresses."""

    _fields_ = (
        ("type", c_uint32),
        ("code", c_int32),
        ("priority", c_uint8),
        ("role", c_uint8),
        ("how", c_uint8),
        ("reserved0", c_uint8),
        ("count", c_uint32),
        ("token", c_uint64),
        ("peer", c_void_p),
        ("data", c_void_p),
        ("len", c_uint64),
        ("endpoint", c_void_p),
        ("text", c_void_p),
        ("took_us", c_uint64),
        ("bytes", c_uint64),
        ("reserved1", c_uint64),
    )


class CallbacksStruct(ctypes.Structure):
    """crust_callbacks, for its layout only: this binding never passes one."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("user", c_void_p),
        ("on_events", c_void_p),
        ("on_release", c_void_p),
    )


class MessageStruct(ctypes.Structure):
    """crust_message; pointers as plain addresses."""

    _fields_ = (
        ("peer", c_void_p),
        ("data", c_void_p),
        ("len", c_uint64),
        ("priority", c_uint8),
        ("reserved", c_uint8 * 7),
    )


class PeerInfoStruct(ctypes.Structure):
    """crust_peer_info."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("how", c_uint8),
        ("role", c_uint8),
        ("cipher", c_uint8),
        ("reserved", c_uint8),
        ("peer", PeerIdStruct),
        ("endpoint", c_char * 64),
        ("rtt_us", c_uint64),
        ("age_us", c_uint64),
        ("sent_messages", c_uint64),
        ("sent_bytes", c_uint64),
        ("received_messages", c_uint64),
        ("received_bytes", c_uint64),
        ("dropped_messages", c_uint64),
        ("queued_bytes", c_uint64),
        ("unacked_bytes", c_uint64),
        ("suspended", c_uint64),
        ("resumed", c_uint64),
    )


class StatsStruct(ctypes.Structure):
    """crust_stats."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("peers", c_uint64),
        ("listeners", c_uint64),
        ("handshakes", c_uint64),
        ("connects", c_uint64),
        ("sessions_total", c_uint64),
        ("handshakes_failed", c_uint64),
        ("handshakes_evicted", c_uint64),
        ("connects_failed", c_uint64),
        ("sent_messages", c_uint64),
        ("sent_bytes", c_uint64),
        ("received_messages", c_uint64),
        ("received_bytes", c_uint64),
        ("dropped_messages", c_uint64),
        ("wire_sent_bytes", c_uint64),
        ("wire_received_bytes", c_uint64),
        ("events_queued", c_uint64),
        ("event_bytes_queued", c_uint64),
        ("events_total", c_uint64),
        ("backpressure_pauses", c_uint64),
        ("sent_datagrams", c_uint64),
        ("received_datagrams", c_uint64),
        ("lost_datagrams", c_uint64),
        ("circuits", c_uint64),
        ("carried_bytes", c_uint64),
        ("known", c_uint64),
        ("refused_connections", c_uint64),
        ("refused_handshakes", c_uint64),
        ("refused_files", c_uint64),
        ("refused_sessions", c_uint64),
        ("shed_sessions", c_uint64),
        ("rate_pauses", c_uint64),
        ("alerts", c_uint64),
        ("suppressed_alerts", c_uint64),
        ("resumptions", c_uint64),
        ("refused_banned", c_uint64),
        ("memory_bytes", c_uint64),
        ("refused_memory", c_uint64),
        ("dropped_logs", c_uint64),
        ("refused_help", c_uint64),
    )


class NatStruct(ctypes.Structure):
    """crust_nat."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("reachable", c_uint8),
        ("cgnat", c_uint8),
        ("pending", c_uint8),
        ("reserved", c_uint8),
        ("why", c_char * 256),
    )


class NatFlowStruct(ctypes.Structure):
    """crust_nat_flow."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("confidence", c_uint8),
        ("none", c_uint8),
        ("nearby", c_uint8),
        ("twice", c_uint8),
        ("blocked", c_uint8),
        ("hairpin", c_uint8),
        ("mapping", c_uint8),
        ("filtering", c_uint8),
        ("ports", c_uint8),
        ("reserved", c_uint8),
        ("step", c_int16),
        ("low", c_uint16),
        ("high", c_uint16),
        ("external", c_char * 1024),
    )


class NatServerStruct(ctypes.Structure):
    """crust_nat_server."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("server", c_char * 272),
        ("seen", c_char * 64),
        ("error", c_char * 256),
    )


class NatSeenStruct(ctypes.Structure):
    """crust_nat_seen."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("peer", PeerIdStruct),
        ("from", c_char * 64),
        ("at", c_char * 64),
    )


class NatPortStruct(ctypes.Structure):
    """crust_nat_port."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("code", c_int32),
        ("twice", c_uint32),
        ("reserved", c_uint32),
        ("expires_ms", c_uint64),
        ("internal", c_char * 64),
        ("external", c_char * 64),
        ("gateway", c_char * 64),
        ("means", c_char * 16),
        ("text", c_char * 256),
    )


class LanPeerStruct(ctypes.Structure):
    """crust_lan_peer."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("role", c_uint32),
        ("peer", PeerIdStruct),
        ("heard_ms", c_uint64),
        ("endpoints", c_char * 1024),
    )


class KnownPeerStruct(ctypes.Structure):
    """crust_known_peer."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("role", c_uint8),
        ("direct", c_uint8),
        ("relays", c_uint8),
        ("reserved", c_uint8),
        ("peer", PeerIdStruct),
        ("expires_ms", c_uint64),
        ("endpoints", c_char * 512),
    )


class GroupStruct(ctypes.Structure):
    """crust_group; arrays as plain addresses."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("any", c_uint32),
        ("role", c_uint32),
        ("reserved", c_uint32),
        ("name", c_char_p),
        ("peers", c_void_p),
        ("n_peers", c_size_t),
        ("contacts", c_void_p),
        ("n_contacts", c_size_t),
        ("infos", c_void_p),
        ("info_lens", c_void_p),
        ("n_infos", c_size_t),
    )


class GroupInfoStruct(ctypes.Structure):
    """crust_group_info."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("any", c_uint32),
        ("role", c_uint32),
        ("code", c_int32),
        ("up", c_uint32),
        ("wanted", c_uint32),
        ("next_ms", c_uint64),
        ("name", c_char * 72),
        ("text", c_char * 256),
    )


class GroupPeerStruct(ctypes.Structure):
    """crust_group_peer."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("state", c_uint32),
        ("peer", PeerIdStruct),
        ("code", c_int32),
        ("tries", c_uint32),
        ("next_ms", c_uint64),
        ("text", c_char * 256),
    )


class GateRequestStruct(ctypes.Structure):
    """crust_gate_request."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("how", c_uint8),
        ("role", c_uint8),
        ("outbound", c_uint8),
        ("reserved", c_uint8),
        ("peer", PeerIdStruct),
        ("app_id", c_void_p),
        ("app_id_len", c_size_t),
        ("endpoint", c_char_p),
    )


GATE_FN = ctypes.CFUNCTYPE(c_int, c_void_p, POINTER(GateRequestStruct))
RELEASE_FN = ctypes.CFUNCTYPE(None, c_void_p)


class BanInfoStruct(ctypes.Structure):
    """crust_ban_info."""

    _fields_ = (
        ("struct_size", c_uint32),
        ("reserved", c_uint32),
        ("left_ms", c_uint64),
        ("who", c_char * 72),
        ("reason", c_char * 264),
    )


BOUND: list[str] = []
"""The names of the functions bound below, in order."""


def _bind(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    try:
        function: Any = getattr(library, name)
    except AttributeError:
        raise ImportError(
            f"{library_path} has no {name}: it is older than this binding, or not libcrust. "
            "Run ./build.sh lib in a checkout of libcrust, or install the libcrust of this release."
        ) from None
    function.restype = result
    function.argtypes = arguments
    BOUND.append(name)
    return function  # type: ignore[no-any-return]


_service = c_uint64
_out_size = POINTER(c_size_t)

crust_version_string = _bind("crust_version_string", c_char_p)
crust_version_number = _bind("crust_version_number", c_uint32)
crust_abi_version = _bind("crust_abi_version", c_uint32)
crust_has = _bind("crust_has", c_int, c_char_p)

crust_strerror = _bind("crust_strerror", c_char_p, c_int32)
crust_error_name = _bind("crust_error_name", c_char_p, c_int32)
crust_last_error = _bind("crust_last_error", c_char_p)

crust_peer_id_format = _bind("crust_peer_id_format", c_int32, c_void_p, c_void_p)
crust_peer_id_parse = _bind("crust_peer_id_parse", c_int32, c_char_p, c_void_p)
crust_identity_generate = _bind("crust_identity_generate", c_int32, c_void_p, c_void_p)

crust_config_new = _bind("crust_config_new", c_int32, POINTER(c_void_p))
crust_config_free = _bind("crust_config_free", None, c_void_p)
crust_config_set_u64 = _bind("crust_config_set_u64", c_int32, c_void_p, c_int32, c_uint64)
crust_config_set_str = _bind("crust_config_set_str", c_int32, c_void_p, c_int32, c_char_p)
crust_config_set_bytes = _bind("crust_config_set_bytes", c_int32, c_void_p, c_int32, c_char_p, c_size_t)
crust_config_add_listener = _bind("crust_config_add_listener", c_int32, c_void_p, c_char_p)
crust_config_add_contact = _bind("crust_config_add_contact", c_int32, c_void_p, c_char_p)
crust_config_add_stun = _bind("crust_config_add_stun", c_int32, c_void_p, c_char_p)
crust_config_add_ban = _bind("crust_config_add_ban", c_int32, c_void_p, c_char_p)
crust_config_add_allowed = _bind("crust_config_add_allowed", c_int32, c_void_p, c_uint32, c_char_p)
crust_config_load_json = _bind("crust_config_load_json", c_int32, c_void_p, c_char_p, c_size_t)

crust_service_new = _bind("crust_service_new", c_int32, c_void_p, c_void_p, POINTER(_service))
crust_service_close = _bind("crust_service_close", c_int32, _service)
crust_service_free = _bind("crust_service_free", c_int32, _service)
crust_service_id = _bind("crust_service_id", c_int32, _service, c_void_p)

crust_service_fd = _bind("crust_service_fd", c_int32, _service, POINTER(c_ssize_t))
crust_poll = _bind("crust_poll", c_int32, _service, c_int32, c_uint32, POINTER(c_void_p))
crust_wakeup = _bind("crust_wakeup", c_int32, _service)
crust_batch_events = _bind("crust_batch_events", c_void_p, c_void_p, _out_size)
crust_batch_memory = _bind("crust_batch_memory", c_int32, c_void_p, POINTER(c_void_p), _out_size)
crust_batch_free = _bind("crust_batch_free", None, c_void_p)

crust_send = _bind("crust_send", c_int32, _service, c_char_p, c_void_p, c_size_t, c_uint8)
crust_send_wait = _bind("crust_send_wait", c_int32, _service, c_char_p, c_void_p, c_size_t, c_uint8, c_int32)
crust_send_batch = _bind("crust_send_batch", c_int32, _service, c_void_p, c_size_t, POINTER(c_int32))
crust_send_receipt = _bind(
    "crust_send_receipt", c_int32, _service, c_char_p, c_void_p, c_size_t, c_uint8, c_uint64
)
crust_send_datagram = _bind("crust_send_datagram", c_int32, _service, c_char_p, c_void_p, c_size_t)
crust_max_datagram = _bind("crust_max_datagram", c_int32, _service, c_char_p)

crust_prepare_connection_info = _bind("crust_prepare_connection_info", c_int32, _service, c_uint64)
crust_connect = _bind("crust_connect", c_int32, _service, c_char_p, c_size_t, c_uint64)
crust_connect_endpoint = _bind("crust_connect_endpoint", c_int32, _service, c_char_p, c_uint64)
crust_service_connect_peer = _bind("crust_service_connect_peer", c_int32, _service, c_char_p, c_uint64)
crust_service_connect_peer_with = _bind(
    "crust_service_connect_peer_with",
    c_int32,
    _service,
    c_char_p,
    POINTER(c_char_p),
    POINTER(c_size_t),
    c_size_t,
    c_uint64,
)
crust_connection_info_peer = _bind("crust_connection_info_peer", c_int32, c_char_p, c_size_t, c_void_p)
crust_disconnect = _bind("crust_disconnect", c_int32, _service, c_char_p)
crust_bootstrap = _bind("crust_bootstrap", c_int32, _service, c_uint64)
crust_bootstrap_except = _bind(
    "crust_bootstrap_except", c_int32, _service, POINTER(c_char_p), c_size_t, c_uint64
)
crust_stop_bootstrap = _bind("crust_stop_bootstrap", c_int32, _service)

crust_service_keep = _bind("crust_service_keep", c_int32, _service, POINTER(GroupStruct))
crust_service_release = _bind("crust_service_release", c_int32, _service, c_char_p)
crust_service_group = _bind("crust_service_group", c_int32, _service, c_uint32, POINTER(GroupInfoStruct))
crust_service_group_peer = _bind(
    "crust_service_group_peer", c_int32, _service, c_char_p, c_uint32, POINTER(GroupPeerStruct)
)

crust_ban = _bind("crust_ban", c_int32, _service, POINTER(c_char_p), c_size_t, c_uint64, c_char_p)
crust_unban = _bind("crust_unban", c_int32, _service, POINTER(c_char_p), c_size_t)
crust_bans = _bind("crust_bans", c_int32, _service, c_void_p, _out_size)
crust_set_allowed = _bind(
    "crust_set_allowed", c_int32, _service, POINTER(c_char_p), c_size_t, POINTER(c_char_p), c_size_t
)
crust_config_set_gate = _bind("crust_config_set_gate", c_int32, c_void_p, GATE_FN, c_void_p, RELEASE_FN)

crust_listen = _bind("crust_listen", c_int32, _service, c_char_p)
crust_stop_listening = _bind("crust_stop_listening", c_int32, _service, c_char_p)
crust_listeners = _bind("crust_listeners", c_int32, _service, c_void_p, _out_size)
crust_set_accept = _bind("crust_set_accept", c_int32, _service, c_int)
crust_set_beacon = _bind("crust_set_beacon", c_int32, _service, c_uint32)
crust_service_network_changed = _bind("crust_service_network_changed", c_int32, _service)

crust_peers = _bind("crust_peers", c_int32, _service, c_void_p, _out_size)
crust_peer = _bind("crust_peer", c_int32, _service, c_char_p, POINTER(PeerInfoStruct))
crust_service_stats = _bind("crust_service_stats", c_int32, _service, POINTER(StatsStruct))
crust_service_nat = _bind(
    "crust_service_nat", c_int32, _service, POINTER(NatStruct), POINTER(NatFlowStruct), POINTER(NatFlowStruct)
)
crust_service_nat_server = _bind(
    "crust_service_nat_server", c_int32, _service, c_uint32, POINTER(NatServerStruct)
)
crust_service_nat_port = _bind("crust_service_nat_port", c_int32, _service, c_uint32, POINTER(NatPortStruct))
crust_service_nat_seen = _bind("crust_service_nat_seen", c_int32, _service, c_uint32, POINTER(NatSeenStruct))
crust_service_lan_peer = _bind("crust_service_lan_peer", c_int32, _service, c_uint32, POINTER(LanPeerStruct))
crust_service_known = _bind(
    "crust_service_known", c_int32, _service, c_char_p, POINTER(KnownPeerStruct), POINTER(c_size_t)
)


def text(value: bytes | None) -> str:
    """Decode a string of the library; it is UTF-8, but never worth an exception."""
    return (value or b"").decode("utf-8", "replace")


def failure(code: int, accepted: int = 0) -> CrustError:
    """Make the exception for a call that has just failed on this thread."""
    return error(code, text(crust_last_error()) or text(crust_strerror(code)), accepted)


def check(code: int) -> int:
    """Return a non-negative result, raise the exception of a negative one."""
    if code < 0:
        raise failure(code)
    return code


def c_string(value: str, what: str) -> bytes:
    """Encode a string for the library, which reads up to the first NUL."""
    if not isinstance(value, str):
        raise error(Code.INVALID, f"the {what} must be a str, not {type(value).__name__}")
    if "\0" in value:
        raise error(Code.INVALID, f"the {what} contains a NUL character")
    return value.encode("utf-8", "surrogateescape")
