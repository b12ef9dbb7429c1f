"""Values: who a peer is, and the numbers that have names."""

from __future__ import annotations

import ctypes
from typing import Any, Union

from . import _ffi
from ._errors import Code, NamedNumber, OpenNumber, error

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
    """A peer sends more than it may, for seconds on end: it is read no faster, and its datagrams are lost."""
    GOSSIP = 8
    """Records of gossip that were refused."""
    RELAY = 9
    """Circuits, letters and tests of reachability that were refused."""


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


def blob(value: Any, what: str) -> bytes:
    """Check and copy the bytes of an argument."""
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise error(Code.INVALID, f"{what} must be bytes, not {type(value).__name__}")
    return bytes(value)


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
    data = blob(info, "connection info")
    peer = ctypes.create_string_buffer(_ffi.PEER_ID_SIZE)
    _ffi.check(_ffi.crust_connection_info_peer(data, len(data), peer))
    return PeerId(peer.raw)


def version() -> str:
    """Return the version of the library in use, such as ``0.1.0``."""
    return _ffi.text(_ffi.crust_version_string())


def has(feature: str) -> bool:
    """Return whether the library has a feature: ``tcp``, ``fd``, ``utp``."""
    return bool(_ffi.crust_has(_ffi.c_string(feature, "feature")))
