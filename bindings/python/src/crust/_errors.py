"""Codes, and one exception class for each of them.

The numbers are the same in Go, C, Rust and Python and are only ever added to.
"""

from __future__ import annotations

import enum

__all__ = [
    "AbiError",
    "AddressError",
    "AddressInUse",
    "BadInfo",
    "Banned",
    "Canceled",
    "Closed",
    "Code",
    "ConnectedError",
    "CrustError",
    "CryptoError",
    "Disconnected",
    "Expired",
    "Forked",
    "HandshakeError",
    "InternalError",
    "Invalid",
    "IoError",
    "Limit",
    "NetworkNameError",
    "NoEndpoint",
    "NotAllowed",
    "Panicked",
    "PeerError",
    "PeerSilent",
    "PermissionDenied",
    "ProtocolError",
    "Refused",
    "Replaced",
    "Reset",
    "SelfConnect",
    "StateError",
    "Timeout",
    "TooBig",
    "TransportError",
    "UnknownPeer",
    "Unreachable",
    "Unsupported",
    "WouldBlock",
    "WrongPeer",
    "error",
]


class NamedNumber(enum.IntEnum):
    """A number with a name, shown by the name."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}.{self.name}"


class OpenNumber(NamedNumber):
    """One of which newer libraries may have more: such a number is taken for 0."""

    @classmethod
    def _missing_(cls, value: object) -> object:
        return cls(0)


class Code(NamedNumber):
    """What went wrong. A number that is not here comes from a newer library."""

    OK = 0
    INVALID = -1
    BAD_HANDLE = -2
    STATE = -3
    NO_MEMORY = -4
    WOULD_BLOCK = -5
    TIMEOUT = -6
    CANCELED = -7
    CLOSED = -8
    BUFFER_TOO_SMALL = -9
    TOO_BIG = -10
    UNSUPPORTED = -11
    WOULD_DEADLOCK = -12
    FORKED = -13
    PANICKED = -14
    INTERNAL = -15
    ABI = -16
    IO = -20
    ADDRESS_IN_USE = -21
    ADDRESS = -22
    UNREACHABLE = -23
    REFUSED = -24
    RESET = -25
    PERMISSION = -26
    LIMIT = -27
    SELF = -40
    UNKNOWN_PEER = -41
    CONNECTED = -42
    BANNED = -43
    NOT_ALLOWED = -44
    BAD_INFO = -45
    HANDSHAKE = -46
    CRYPTO = -47
    NETWORK_NAME = -48
    WRONG_PEER = -49
    NO_ENDPOINT = -50
    DISCONNECTED = -51
    PEER_SILENT = -52
    PROTOCOL = -53
    REPLACED = -54
    EXPIRED = -55


_NAMES = {int(code): code.name.lower() for code in Code}
_CODES = {int(code): code for code in Code}


def known(code: int) -> int:
    """Return the `Code` of a number, or the number itself when it is newer than this binding."""
    return _CODES.get(code, code)


def code_name(code: int) -> str:
    """Return a code's name in snake_case, such as ``would_block``."""
    return _NAMES.get(code, f"code({code})")


class CrustError(Exception):
    """The base of every error of this package; ``str()`` is one sentence that says what was wrong.

    Attributes:
        code: the number, a member of `Code` unless the library is newer than this binding.
        accepted: for `Service.send_many` and `Service.send_batch`, how many messages were
            accepted before the refused one; 0 elsewhere.
    """

    code: int
    accepted: int

    def __init__(self, message: str, code: int = Code.INTERNAL, accepted: int = 0) -> None:
        super().__init__(message, code, accepted)
        self.code = known(code)
        self.accepted = accepted

    @property
    def name(self) -> str:
        """The code's name in snake_case, such as ``would_block``."""
        return code_name(self.code)

    def __str__(self) -> str:
        return str(self.args[0])


class TransportError(CrustError):
    """The operating system or the network refused (codes -20 to -39)."""


class PeerError(CrustError):
    """A peer or what is said about it is the reason (codes -40 to -59)."""


class Invalid(CrustError, ValueError):
    """An argument is malformed or out of bounds."""


class StateError(CrustError):
    """Not possible now."""


class WouldBlock(CrustError):
    """The send queue is full; a `Writable` event follows."""


class Timeout(CrustError):
    """No answer in time."""


class Canceled(CrustError):
    """Given up by the program, or by closing the service."""


class Closed(CrustError):
    """The service is closed."""


class TooBig(CrustError, ValueError):
    """The message is over `MAX_MESSAGE`."""


class Unsupported(CrustError):
    """This library or platform cannot."""


class Forked(CrustError):
    """The process is a fork of one that had loaded the library; start it with "spawn" instead."""


class InternalError(CrustError):
    """A fault inside the library or this binding."""


class Panicked(InternalError):
    """A fault inside the library was caught; the service is closed."""


class AbiError(InternalError):
    """A structure size or the ABI version is not acceptable to the library."""


class IoError(TransportError):
    """The operating system refused for another reason."""


class AddressInUse(TransportError):
    """Another program listens there."""


class AddressError(TransportError):
    """The address does not exist on this machine, or is malformed."""


class Unreachable(TransportError):
    """No route to the address."""


class Refused(TransportError):
    """Nothing listens there."""


class Reset(TransportError):
    """The connection broke."""


class PermissionDenied(TransportError):
    """The operating system forbids it."""


class Limit(TransportError):
    """A limit on connections, handshakes, descriptors or waiting events."""


class SelfConnect(PeerError):
    """The peer is this service itself."""


class UnknownPeer(PeerError, LookupError):
    """Not connected to that peer."""


class ConnectedError(PeerError):
    """Already connected to that peer."""


class Banned(PeerError):
    """The peer or its address is blacklisted."""


class NotAllowed(PeerError):
    """The peer does not accept us."""


class BadInfo(PeerError, ValueError):
    """Connection info that is malformed, forged or expired."""


class HandshakeError(PeerError):
    """The other end did not complete the handshake."""


class CryptoError(PeerError):
    """Data that fails authentication."""


class NetworkNameError(PeerError):
    """No answer to the first flight: another network name, or no libcrust there."""


class WrongPeer(PeerError):
    """Somebody else than the expected peer answered."""


class NoEndpoint(PeerError):
    """Nothing to try."""


class Disconnected(PeerError):
    """The connection was closed in order by either side."""


class PeerSilent(PeerError):
    """Nothing heard from the peer for the whole timeout."""


class ProtocolError(PeerError):
    """The peer broke the protocol."""


class Replaced(PeerError):
    """The peer restarted and came back as a new session."""


class Expired(PeerError):
    """A message grew too old in the queue and was dropped."""


_CLASSES: dict[int, type[CrustError]] = {
    Code.INVALID: Invalid,
    Code.BAD_HANDLE: Closed,
    Code.STATE: StateError,
    Code.WOULD_BLOCK: WouldBlock,
    Code.TIMEOUT: Timeout,
    Code.CANCELED: Canceled,
    Code.CLOSED: Closed,
    Code.TOO_BIG: TooBig,
    Code.UNSUPPORTED: Unsupported,
    Code.FORKED: Forked,
    Code.PANICKED: Panicked,
    Code.ABI: AbiError,
    Code.IO: IoError,
    Code.ADDRESS_IN_USE: AddressInUse,
    Code.ADDRESS: AddressError,
    Code.UNREACHABLE: Unreachable,
    Code.REFUSED: Refused,
    Code.RESET: Reset,
    Code.PERMISSION: PermissionDenied,
    Code.LIMIT: Limit,
    Code.SELF: SelfConnect,
    Code.UNKNOWN_PEER: UnknownPeer,
    Code.CONNECTED: ConnectedError,
    Code.BANNED: Banned,
    Code.NOT_ALLOWED: NotAllowed,
    Code.BAD_INFO: BadInfo,
    Code.HANDSHAKE: HandshakeError,
    Code.CRYPTO: CryptoError,
    Code.NETWORK_NAME: NetworkNameError,
    Code.WRONG_PEER: WrongPeer,
    Code.NO_ENDPOINT: NoEndpoint,
    Code.DISCONNECTED: Disconnected,
    Code.PEER_SILENT: PeerSilent,
    Code.PROTOCOL: ProtocolError,
    Code.REPLACED: Replaced,
    Code.EXPIRED: Expired,
}


def error(code: int, message: str, accepted: int = 0) -> CrustError:
    """Make the exception that fits a code; a code of a newer library gives an `InternalError`."""
    return _CLASSES.get(code, InternalError)(message, code, accepted)
