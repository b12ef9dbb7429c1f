"""Reliable, encrypted peer-to-peer connections.

A `Service` is one node. It listens, connects to other peers and takes events::

    import crust

    with crust.Service(network_name="example") as service:
        info = service.prepare_connection_info().result(10)  # give it to the other side
        for event in service.events():
            if isinstance(event, crust.Message):
                service.send(event.peer, b"thanks for " + event.data)

In asyncio code the same is::

    async with crust.Service(network_name="example") as service:
        await service.connect(info)
        async for event in service:
            ...

Importing the package loads libcrust, which is written in Go: it cannot be unloaded, and a
process forked afterwards cannot use it.
"""

from __future__ import annotations

from ._bans import Ban
from ._batch import MessageBatch
from ._config import Config
from ._errors import (
    AbiError,
    AddressError,
    AddressInUse,
    BadInfo,
    Banned,
    Canceled,
    Closed,
    Code,
    ConnectedError,
    CrustError,
    CryptoError,
    Disconnected,
    Expired,
    Forked,
    HandshakeError,
    InternalError,
    Invalid,
    IoError,
    Limit,
    NetworkNameError,
    NoEndpoint,
    NotAllowed,
    Panicked,
    PeerError,
    PeerSilent,
    PermissionDenied,
    ProtocolError,
    Refused,
    Replaced,
    Reset,
    SelfConnect,
    StateError,
    Timeout,
    TooBig,
    TransportError,
    UnknownPeer,
    Unreachable,
    Unsupported,
    WouldBlock,
    WrongPeer,
)
from ._events import (
    Alert,
    AlreadyConnected,
    BootstrapFailed,
    Bootstrapped,
    CacheTrouble,
    Clear,
    Connected,
    ConnectFailed,
    ConnectionInfo,
    Datagram,
    Delivered,
    Discovered,
    Event,
    Forgotten,
    GroupChanged,
    ListenerFailed,
    ListenerStarted,
    ListenerStopped,
    Lost,
    Message,
    MessagesDropped,
    MessageView,
    NetworkChanged,
    PortMapped,
    PortUnmapped,
    Resumed,
    Stopped,
    Suspended,
    Unknown,
    Writable,
)
from ._ffi import MAX_APP_ID, MAX_MESSAGE, MAX_NETWORK_NAME, library_path
from ._gate import GateRequest
from ._groups import GroupInfo, GroupPeer
from ._inbox import Call
from ._info import KnownPeer, LanPeer, PeerInfo, Stats
from ._nat import Confidence, MappedPort, Nat, NatDepends, NatFlow, NatPorts, NatSeen, NatServer
from ._service import Service
from ._types import (
    AlertKind,
    Beacon,
    By,
    Cipher,
    Gossip,
    GroupState,
    How,
    Means,
    PeerId,
    Relay,
    Role,
    connection_info_peer,
    generate_identity,
    has,
    version,
)

__version__ = "0.1.0"

__all__ = [
    "MAX_APP_ID",
    "MAX_MESSAGE",
    "MAX_NETWORK_NAME",
    "AbiError",
    "AddressError",
    "AddressInUse",
    "Alert",
    "AlertKind",
    "AlreadyConnected",
    "BadInfo",
    "Ban",
    "Banned",
    "Beacon",
    "BootstrapFailed",
    "Bootstrapped",
    "By",
    "CacheTrouble",
    "Call",
    "Canceled",
    "Cipher",
    "Clear",
    "Closed",
    "Code",
    "Confidence",
    "Config",
    "ConnectFailed",
    "Connected",
    "ConnectedError",
    "ConnectionInfo",
    "CrustError",
    "CryptoError",
    "Datagram",
    "Delivered",
    "Disconnected",
    "Discovered",
    "Event",
    "Expired",
    "Forgotten",
    "Forked",
    "GateRequest",
    "Gossip",
    "GroupChanged",
    "GroupInfo",
    "GroupPeer",
    "GroupState",
    "HandshakeError",
    "How",
    "InternalError",
    "Invalid",
    "IoError",
    "KnownPeer",
    "LanPeer",
    "Limit",
    "ListenerFailed",
    "ListenerStarted",
    "ListenerStopped",
    "Lost",
    "MappedPort",
    "Means",
    "Message",
    "MessageBatch",
    "MessageView",
    "MessagesDropped",
    "Nat",
    "NatDepends",
    "NatFlow",
    "NatPorts",
    "NatSeen",
    "NatServer",
    "NetworkChanged",
    "NetworkNameError",
    "NoEndpoint",
    "NotAllowed",
    "Panicked",
    "PeerError",
    "PeerId",
    "PeerInfo",
    "PeerSilent",
    "PermissionDenied",
    "PortMapped",
    "PortUnmapped",
    "ProtocolError",
    "Refused",
    "Relay",
    "Replaced",
    "Reset",
    "Resumed",
    "Role",
    "SelfConnect",
    "Service",
    "StateError",
    "Stats",
    "Stopped",
    "Suspended",
    "Timeout",
    "TooBig",
    "TransportError",
    "Unknown",
    "UnknownPeer",
    "Unreachable",
    "Unsupported",
    "WouldBlock",
    "Writable",
    "WrongPeer",
    "connection_info_peer",
    "generate_identity",
    "has",
    "library_path",
    "version",
]

# Tracebacks show the public names of exceptions.
for _name in __all__:
    if isinstance(globals()[_name], type) and issubclass(globals()[_name], Exception):
        globals()[_name].__module__ = __name__
del _name
