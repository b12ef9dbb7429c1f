"""What a service tells the program.

Events are immutable values, made for ``match``::

    match event:
        case crust.Message(peer, data):
            ...
        case crust.Lost(peer, code, text):
            ...

The events of one peer come in order: `Connected`, messages, `Lost`, and `Suspended` and `Resumed`
in between when its link breaks; a `Datagram` may overtake messages and be overtaken. Ignore classes
that you do not know; a newer library may bring `Unknown`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Optional, Union

from ._errors import CrustError, code_name, error
from ._types import AlertKind, By, GroupState, How, Means, PeerId, Role

# Longer data is shown by its length in a repr.
_SHOWN = 64


class Event:
    """The base of every event."""

    # Slots are listed by hand because dataclass(slots=True) begins with Python 3.10.
    __slots__: Union[str, tuple[str, ...]] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by construction: frozen slots cannot be filled one by one."""
        return type(self), tuple(getattr(self, field.name) for field in fields(self))  # type: ignore[arg-type]


class _Coded(Event):
    """An event that says why: `code` and `text`."""

    __slots__ = ()

    code: int
    text: str

    @property
    def name(self) -> str:
        """The code's name in snake_case, such as ``refused``."""
        return code_name(self.code)

    @property
    def error(self) -> CrustError:
        """The exception that fits the code."""
        return error(self.code, self.text or self.name)


def _show(data: Union[bytes, memoryview]) -> str:
    return repr(bytes(data)) if len(data) <= _SHOWN else f"<{len(data)} bytes>"


@dataclass(frozen=True, init=False, repr=False)
class Message(Event):
    """A message came.

    Attributes:
        peer: who sent it.
        data: its bytes.
        priority: the priority it was sent with, 0 the most urgent.
    """

    __slots__ = ("peer", "data", "priority")

    peer: PeerId
    data: bytes
    priority: int

    # Written by hand: a frozen dataclass's own __init__ takes twice as long, and
    # messages come by the hundred thousand.
    def __init__(self, peer: PeerId, data: bytes, priority: int) -> None:
        _set_peer(self, peer)
        _set_data(self, data)
        _set_priority(self, priority)

    def __repr__(self) -> str:
        return f"Message(peer={self.peer!r}, data={_show(self.data)}, priority={self.priority})"


_set_peer = vars(Message)["peer"].__set__
_set_data = vars(Message)["data"].__set__
_set_priority = vars(Message)["priority"].__set__


@dataclass(frozen=True, init=False, repr=False)
class MessageView(Event):
    """A message came and was taken with ``copy=False``.

    Attributes:
        peer: who sent it.
        data: a read-only view of the library's memory. It keeps the whole batch that the
            message came with alive, so do not hold on to it for long.
        priority: the priority it was sent with, 0 the most urgent.
    """

    __slots__ = ("peer", "data", "priority")

    peer: PeerId
    data: memoryview
    priority: int

    def __init__(self, peer: PeerId, data: memoryview, priority: int) -> None:
        _set_view_peer(self, peer)
        _set_view_data(self, data)
        _set_view_priority(self, priority)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the data copied, as a `Message`."""
        return Message, (self.peer, bytes(self.data), self.priority)

    def __repr__(self) -> str:
        return f"MessageView(peer={self.peer!r}, data={_show(self.data)}, priority={self.priority})"


_set_view_peer = vars(MessageView)["peer"].__set__
_set_view_data = vars(MessageView)["data"].__set__
_set_view_priority = vars(MessageView)["priority"].__set__


@dataclass(frozen=True, repr=False)
class Datagram(Event):
    """A datagram came, sent by `Service.send_datagram`.

    Attributes:
        peer: who sent it.
        data: its bytes.
    """

    __slots__ = ("peer", "data")

    peer: PeerId
    data: bytes

    def __repr__(self) -> str:
        return f"Datagram(peer={self.peer!r}, data={_show(self.data)})"


@dataclass(frozen=True)
class Writable(Event):
    """A send queue that refused a message has drained to half; once per refusal.

    Attributes:
        peer: whose queue.
    """

    __slots__ = ("peer",)

    peer: PeerId


@dataclass(frozen=True)
class ListenerStarted(Event):
    """A listener accepts connections.

    Attributes:
        endpoint: where, with the port it really got.
    """

    __slots__ = ("endpoint",)

    endpoint: str


@dataclass(frozen=True)
class ListenerFailed(_Coded):
    """A listener could not start or has died.

    Attributes:
        endpoint: as asked for.
        code: why.
        text: why, one sentence.
    """

    __slots__ = ("endpoint", "code", "text")

    endpoint: str
    code: int
    text: str


@dataclass(frozen=True)
class ListenerStopped(Event):
    """A listener was given up for one at a new port, by `Config.port_rotation`. Sessions live on.

    Attributes:
        endpoint: where it was.
    """

    __slots__ = ("endpoint",)

    endpoint: str


@dataclass(frozen=True)
class NetworkChanged(Event):
    """This machine's network has changed.

    Addresses, interfaces or routes have changed, it has slept, or `Service.network_changed` was
    called. Several changes may be told as one.

    Attributes:
        count: how many addresses came or went.
    """

    __slots__ = ("count",)

    count: int


@dataclass(frozen=True)
class PortMapped(_Coded):
    """A router passes a port on to a listener. Again when another router or means has taken over.

    Attributes:
        endpoint: where others reach it from now on.
        internal: where it leads: an address of this machine, and the port of a listener.
        means: how the router was asked.
        lease: seconds for which it was given, and is renewed in time; 0 is for ever.
        code: `Code.OK`, or `Code.UNREACHABLE` when another NAT is in front of the router, and
            then peers are not told.
        text: the same, one sentence.
    """

    __slots__ = ("endpoint", "internal", "means", "lease", "code", "text")

    endpoint: str
    internal: str
    means: Means
    lease: float
    code: int
    text: str


@dataclass(frozen=True)
class PortUnmapped(_Coded):
    """A router does not pass a port on any more.

    Attributes:
        endpoint: where others reached it.
        internal: where it led.
        means: how the router was asked.
        code: `Code.OK` when it was not wanted any more, `Code.REPLACED` when another `PortMapped`
            takes its place, or why.
        text: why, one sentence.
    """

    __slots__ = ("endpoint", "internal", "means", "code", "text")

    endpoint: str
    internal: str
    means: Means
    code: int
    text: str


@dataclass(frozen=True, repr=False)
class ConnectionInfo(Event):
    """The answer to `Service.prepare_connection_info`.

    Attributes:
        token: of the call.
        data: give these bytes to the other peer, by any channel.
    """

    __slots__ = ("token", "data")

    token: int
    data: bytes

    def __repr__(self) -> str:
        return f"ConnectionInfo(token={self.token}, data={_show(self.data)})"


@dataclass(frozen=True)
class Connected(Event):
    """A peer has proved its identity and the session stands; before any message of it.

    Attributes:
        peer: who.
        token: of the connect that this answers, 0 when there was none.
        how: by which way the session came about.
        role: what the peer is to the network.
        endpoint: the peer's end of the link.
        app_id: what the peer's program attached to its service, authenticated.
        took: seconds from the call or the accepted connection to the session.
    """

    __slots__ = ("peer", "token", "how", "role", "endpoint", "app_id", "took")

    peer: PeerId
    token: int
    how: How
    role: Role
    endpoint: str
    app_id: bytes
    took: float


@dataclass(frozen=True)
class AlreadyConnected(Event):
    """The final event of a connect whose peer was connected already.

    Attributes:
        peer: who.
        token: of the connect.
    """

    __slots__ = ("peer", "token")

    peer: PeerId
    token: int


@dataclass(frozen=True)
class ConnectFailed(_Coded):
    """The final event of a connect that failed.

    Attributes:
        token: of the connect.
        peer: who was meant, if known.
        endpoint: where it failed, if known, else "".
        code: why.
        text: why, one sentence.
    """

    __slots__ = ("token", "peer", "endpoint", "code", "text")

    token: int
    peer: Optional[PeerId]
    endpoint: str
    code: int
    text: str


@dataclass(frozen=True)
class Bootstrapped(Event):
    """One contact answered; follows that peer's `Connected`.

    Attributes:
        peer: who.
        token: of the bootstrap.
        endpoint: which contact.
    """

    __slots__ = ("peer", "token", "endpoint")

    peer: PeerId
    token: int
    endpoint: str


@dataclass(frozen=True)
class CacheTrouble(_Coded):
    """The bootstrap cache is not what it should be. The service lives on.

    Attributes:
        code: why.
        text: why, and what was done: the file was set aside and begun anew, or mended, or there
            is a cache in memory only.
    """

    __slots__ = ("code", "text")

    code: int
    text: str


@dataclass(frozen=True)
class Discovered(Event):
    """There is a peer. Nothing is proved of it until somebody connects, but that it holds its key.

    It comes once for each `by`, and again when `endpoint` or `role` have become others.

    Attributes:
        peer: who.
        endpoint: where it may be.
        role: what it is to the network.
        by: how it was discovered.
    """

    __slots__ = ("peer", "endpoint", "role", "by")

    peer: PeerId
    endpoint: str
    role: Role
    by: By


@dataclass(frozen=True)
class Forgotten(Event):
    """A discovered peer has said goodbye, or nothing was heard of it for too long.

    A session with it is not touched.

    Attributes:
        peer: who.
        by: how it had been discovered.
    """

    __slots__ = ("peer", "by")

    peer: PeerId
    by: By


@dataclass(frozen=True)
class Clear(Event):
    """The session with a peer is in clear, as `Config.tracer` has allowed.

    Whoever is between the two reads all, and can change it. It follows the peer's `Connected`,
    before any message.

    Attributes:
        peer: who.
        endpoint: the peer's end of the link.
        how: how the session came about.
    """

    __slots__ = ("peer", "endpoint", "how")

    peer: PeerId
    endpoint: str
    how: How


@dataclass(frozen=True)
class GroupChanged(_Coded):
    """Something has changed in a group of `Service.keep`; after the peer's `Connected` or `Lost`.

    Attributes:
        group: the name of the group.
        state: how it stands with the peer, or with the search.
        peer: who; None: it is about the search for more peers of a group of any.
        up: how many peers of the group are connected.
        wanted: how many should be.
        next: seconds until the next attempt; 0 when none is due.
        code: why there is no session; 0 when it is up or being tried.
        text: one sentence that says why.
    """

    __slots__ = ("code", "group", "next", "peer", "state", "text", "up", "wanted")

    group: str
    state: GroupState
    peer: Optional[PeerId]
    up: int
    wanted: int
    next: float
    code: int
    text: str


@dataclass(frozen=True)
class Alert(Event):
    """Somebody makes this service work for nothing. Of one offender and kind one comes in 10 s at most.

    Addresses are named only when they have proved themselves.

    Attributes:
        kind: what somebody does too much of.
        peer: who; None: it is about the address.
        address: an address, or a prefix of which many addresses do; "" when not known.
        count: how often, since the last such alert.
        bytes: that came with it, as far as they are counted.
        cpu: seconds of processor time that it took, estimated.
        suggest: what might be banned, a peer, an address or a prefix; "": nothing.
        suggest_for: for how many seconds.
        text: all that is known, in one sentence.
    """

    __slots__ = ("kind", "peer", "address", "count", "bytes", "cpu", "suggest", "suggest_for", "text")

    kind: AlertKind
    peer: Optional[PeerId]
    address: str
    count: int
    bytes: int
    cpu: float
    suggest: str
    suggest_for: float
    text: str


@dataclass(frozen=True)
class BootstrapFailed(_Coded):
    """No contact answered.

    Attributes:
        token: of the bootstrap.
        code: why.
        text: why, one sentence.
    """

    __slots__ = ("token", "code", "text")

    token: int
    code: int
    text: str


@dataclass(frozen=True)
class Lost(_Coded):
    """The last event of a session.

    Attributes:
        peer: who.
        code: why; `Code.DISCONNECTED` when one side asked for it.
        text: why, one sentence.
        count: of how many accepted messages it is not known that they arrived.
    """

    __slots__ = ("peer", "code", "text", "count")

    peer: PeerId
    code: int
    text: str
    count: int


@dataclass(frozen=True)
class Suspended(_Coded):
    """The link of a session is gone; `Resumed` or `Lost` follows.

    The session takes messages as before and waits for another link.

    Attributes:
        peer: who.
        endpoint: the peer's end of the link.
        code: why.
        text: why, one sentence.
    """

    __slots__ = ("peer", "endpoint", "code", "text")

    peer: PeerId
    endpoint: str
    code: int
    text: str


@dataclass(frozen=True)
class Resumed(Event):
    """A session goes on over another link. Every message arrives, once and in order.

    Without a `Suspended` before it the link is a better one, or the peer noticed first that the
    old one had broken.

    Attributes:
        peer: who.
        endpoint: the peer's end of the new link.
        how: by which way.
    """

    __slots__ = ("peer", "endpoint", "how")

    peer: PeerId
    endpoint: str
    how: How


@dataclass(frozen=True)
class Delivered(_Coded):
    """The answer to `Service.send_receipt`.

    Attributes:
        peer: to whom.
        token: of the call.
        code: `Code.OK` when the message has arrived; `Code.EXPIRED` when it was dropped for its
            age; else the session was lost first, and then it may have arrived or not.
        text: why it is not known that it has arrived, one sentence, or "".
    """

    __slots__ = ("peer", "token", "code", "text")

    peer: PeerId
    token: int
    code: int
    text: str


@dataclass(frozen=True)
class MessagesDropped(Event):
    """Messages that had been accepted will not arrive, because they grew too old in the queue.

    Attributes:
        peer: to whom.
        priority: their priority.
        count: how many.
        bytes: how many bytes they had.
    """

    __slots__ = ("peer", "priority", "count", "bytes")

    peer: PeerId
    priority: int
    count: int
    bytes: int


@dataclass(frozen=True)
class Stopped(_Coded):
    """The last event of the service.

    Attributes:
        code: `Code.OK` after closing, else why it stopped by itself.
        text: why, one sentence, or "".
    """

    __slots__ = ("code", "text")

    code: int
    text: str


@dataclass(frozen=True)
class Unknown(_Coded):
    """An event of a newer library than this binding.

    Attributes:
        type: its number.
        code: why.
        token: of the call that it answers, or 0.
        peer: who, if anybody.
        data: what it carries.
        endpoint: where, or "".
        text: one sentence, or "".
    """

    __slots__ = ("type", "code", "token", "peer", "data", "endpoint", "text")

    type: int
    code: int
    token: int
    peer: Optional[PeerId]
    data: bytes
    endpoint: str
    text: str
