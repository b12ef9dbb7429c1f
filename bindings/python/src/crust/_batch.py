"""Decoding the library's batches.

A batch is one run of memory with an array of crust_event and everything they point to. The two
ways to take one:

- by copy: the whole run is copied once into a `bytes`, the batch goes back to the library, and
  each message is a slice. When the messages are large, each is copied alone instead; messages of
  one length that lie one after another, as small ones do, are cut by the struct module.
- by view: a `memoryview` over the run; slices of it keep the batch alive, the last one frees it.

No ctypes object is made per event; the columns of the event array are read as strided views.
"""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Any, Callable, Generic, Optional, TypeVar, Union

from . import _ffi
from ._errors import known
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
from ._log import Record
from ._types import AlertKind, By, GroupState, How, Means, PeerId, Role

Data = TypeVar("Data", bytes, memoryview)

EVENT_SIZE = 88
# A whole crust_event: type code priority role how count token peer data len endpoint text
# took_us bytes.
_EVENT = struct.Struct("@IiBBBxIQQQQQQQQ8x")
# The same, reading only what a message has: type priority peer data len.
_MESSAGE = struct.Struct("@I4xB15xQQQ40x")
if not _EVENT.size == _MESSAGE.size == ctypes.sizeof(_ffi.EventStruct) == EVENT_SIZE:
    raise ImportError("crust does not know how this platform lays out crust_event")

# Below this many bytes of batch for an event, copying the whole batch and slicing it is faster
# than copying message by message.
_COPY_WHOLE_BELOW = 1024

# How many messages the struct module cuts at once.
_CUT = 64

# Types of byte arrays by the power of two that holds a batch: a type per length would leak types.
_ARRAYS = [ctypes.c_char * (1 << power) for power in range(48)]

# How many peer ids a reader remembers; dropped all at once beyond.
_REMEMBERED_PEERS = 16384


class _Memory:
    """Owns a batch; freed with the last view of it."""

    __slots__ = ("_batch", "_free")

    def __init__(self, batch: int) -> None:
        self._batch = batch
        self._free: Callable[[int], None] = _ffi.crust_batch_free

    def __del__(self) -> None:
        self._free(self._batch)


class MessageBatch(Generic[Data]):
    """A run of messages as columns, and the other events that followed it.

    Iterating yields ``(peer, priority, data)`` for each message. To keep the order in which
    things happened, handle the messages first and then `events`.

    Attributes:
        peers: who sent each message.
        priorities: the priority of each message.
        data: the bytes of each message.
        events: what happened after these messages and before the next batch.
    """

    __slots__ = ("peers", "priorities", "data", "events")

    peers: list[PeerId]
    priorities: list[int]
    data: list[Data]
    events: list[Event]

    def __init__(
        self, peers: list[PeerId], priorities: list[int], data: list[Data], events: list[Event]
    ) -> None:
        self.peers = peers
        self.priorities = priorities
        self.data = data
        self.events = events

    def __len__(self) -> int:
        """Return the number of messages."""
        return len(self.data)

    def __bool__(self) -> bool:
        """Return whether there is anything, a message or another event."""
        return bool(self.data or self.events)

    def __iter__(self) -> Iterator[tuple[PeerId, int, Data]]:
        return zip(self.peers, self.priorities, self.data)

    def __repr__(self) -> str:
        return f"<MessageBatch of {len(self.data)} messages and {len(self.events)} other events>"


class Reader:
    """Takes batches from one service. One thread at a time."""

    def __init__(self, service: int) -> None:
        self._service = service
        self._peers: dict[bytes, PeerId] = {}
        self._cutters = _cutters(1)
        self._batch = ctypes.c_void_p()
        self._base = ctypes.c_void_p()
        self._size = ctypes.c_size_t()
        self._batch_ref = ctypes.byref(self._batch)
        self._base_ref = ctypes.byref(self._base)
        self._size_ref = ctypes.byref(self._size)
        # Records of the log that have come and are to be handed on.
        self.records: deque[Record] = deque()

    def events(self, wait_ms: int, limit: int, copy: bool) -> list[Event]:
        """Take events; an empty list when none came in time."""
        count = _ffi.crust_poll(self._service, wait_ms, limit, self._batch_ref)
        if count <= 0:
            _ffi.check(count)
            return []
        run = _Run(self._batch.value or 0, self)
        try:
            return self._decode(run, 0, count, copy)
        finally:
            run.release()

    def messages(self, wait_ms: int, limit: int, copy: bool) -> tuple[MessageBatch[Any], list[Event]]:
        """Take a run of messages and the other events right after it, and what came after both."""
        count = _ffi.crust_poll(self._service, wait_ms, limit, self._batch_ref)
        if count <= 0:
            _ffi.check(count)
            return MessageBatch([], [], [], []), []
        run = _Run(self._batch.value or 0, self)
        try:
            types = run.column("I", 0, count)
            messages = count if types.count(_ffi.EVENT_MESSAGE) == count else _leading_messages(types)
            peers, priorities, data = self._columns(run, messages, copy)
            rest = self._decode(run, messages, count, copy) if messages < count else []
        finally:
            run.release()
        others = 0
        while others < len(rest) and not isinstance(rest[others], (Message, MessageView)):
            others += 1
        return MessageBatch(peers, priorities, data, rest[:others]), rest[others:]

    def _columns(self, run: _Run, count: int, copy: bool) -> tuple[list[PeerId], list[int], list[Any]]:
        if not count:
            return [], [], []
        base = run.base
        priorities = run.table[8 : count * EVENT_SIZE : EVENT_SIZE].tolist()
        senders = run.cells("Q", 24, count)
        starts = run.column("Q", 32, count)
        sizes = run.cells("Q", 40, count)
        if _all_alike(senders, count):
            peers = [self._peer(run, senders[0])] * count
        else:
            known = {address: self._peer(run, address) for address in set(senders)}
            peers = [known[address] for address in senders]
        data: list[Any]
        size, start = sizes[0], starts[0]
        if copy and size and _all_alike(sizes, count):
            end = start + size * count
            if starts == list(range(start, end, size)):
                return peers, priorities, self._cut(run.view[start - base : end - base], size)
        source = run.source(copy)
        lengths = sizes.tolist()
        if copy and isinstance(source, memoryview):
            data = [bytes(source[a - base : a - base + n]) for a, n in zip(starts, lengths)]
        else:
            data = [source[a - base : a - base + n] for a, n in zip(starts, lengths)]
        return peers, priorities, data

    def _cut(self, view: memoryview, size: int) -> list[bytes]:
        """Copy messages of one size that lie one after another."""
        if self._cutters[0].size != size:
            self._cutters = _cutters(size)
        one, many = self._cutters
        whole = len(view) // many.size * many.size
        data: list[bytes] = list(chain.from_iterable(many.iter_unpack(view[:whole])))
        data.extend(chain.from_iterable(one.iter_unpack(view[whole:])))
        return data

    def _decode(self, run: _Run, start: int, end: int, copy: bool) -> list[Event]:
        events: list[Event] = []
        append = events.append
        base = run.base
        known: dict[int, PeerId] = {}
        source = run.source(copy)
        convert = copy and isinstance(source, memoryview)
        make: Any = Message if copy else MessageView
        rows = _MESSAGE.iter_unpack(run.table[start * EVENT_SIZE : end * EVENT_SIZE])
        for index, (kind, priority, sender, address, length) in enumerate(rows, start):
            if kind != _ffi.EVENT_MESSAGE and kind != _ffi.EVENT_DATAGRAM:
                if kind == _ffi.EVENT_LOG:
                    self._record(run, index)
                else:
                    append(self._other(run, index))
                continue
            peer = known.get(sender)
            if peer is None:
                peer = known[sender] = self._peer(run, sender)
            address -= base
            data = source[address : address + length]
            if kind == _ffi.EVENT_DATAGRAM:
                append(Datagram(peer, bytes(data)))
            else:
                append(make(peer, bytes(data) if convert else data, priority))
        return events

    def _peer(self, run: _Run, address: int) -> PeerId:
        """Return the one PeerId object of a peer, so that ids are not made for each batch."""
        raw = bytes(run.view[address - run.base : address - run.base + _ffi.PEER_ID_SIZE])
        peer = self._peers.get(raw)
        if peer is None:
            if len(self._peers) >= _REMEMBERED_PEERS:
                self._peers.clear()
            peer = self._peers[raw] = PeerId(raw)
        return peer

    def _record(self, run: _Run, index: int) -> None:
        """Keep a record of the log."""
        row = _EVENT.unpack_from(run.table, index * EVENT_SIZE)
        attrs = ctypes.string_at(row[8], row[9]) if row[8] else b"{}"
        name = _ffi.text(ctypes.string_at(row[11])) if row[11] else ""
        self.records.append(Record(row[2], row[12] / 1e6, name, attrs))

    def _other(self, run: _Run, index: int) -> Event:
        """Decode one event that is no message and no datagram."""
        row = _EVENT.unpack_from(run.table, index * EVENT_SIZE)
        kind, code, _, _, _, _, token = row[:7]
        peer_at, data_at, length, endpoint_at, text_at, took_us, _ = row[7:]
        peer = self._peer(run, peer_at) if peer_at else None
        data = ctypes.string_at(data_at, length) if data_at else b""
        endpoint = _ffi.text(ctypes.string_at(endpoint_at)) if endpoint_at else ""
        text = _ffi.text(ctypes.string_at(text_at)) if text_at else ""
        code = known(code)
        if kind == _ffi.EVENT_LISTENER_STARTED:
            return ListenerStarted(endpoint)
        if kind == _ffi.EVENT_LISTENER_STOPPED:
            return ListenerStopped(endpoint)
        if kind == _ffi.EVENT_NETWORK_CHANGED:
            return NetworkChanged(row[5])
        if kind == _ffi.EVENT_CACHE_TROUBLE:
            return CacheTrouble(code, text)
        if kind == _ffi.EVENT_GROUP:
            return GroupChanged(
                _ffi.text(data), GroupState(row[4]), peer, row[5], row[13], took_us / 1e6, code, text
            )
        if kind == _ffi.EVENT_ALERT:
            figures = (row[5], row[13], token / 1e6)
            return Alert(AlertKind(row[4]), peer, endpoint, *figures, _ffi.text(data), took_us / 1e6, text)
        if kind in (_ffi.EVENT_PORT_MAPPED, _ffi.EVENT_PORT_UNMAPPED):
            at, means = (endpoint, _ffi.text(data)), Means(row[5])
            if kind == _ffi.EVENT_PORT_UNMAPPED:
                return PortUnmapped(*at, means, code, text)
            return PortMapped(*at, means, took_us / 1e6, code, text)
        if kind == _ffi.EVENT_LISTENER_FAILED:
            return ListenerFailed(endpoint, code, text)
        if kind == _ffi.EVENT_CONNECTION_INFO:
            return ConnectionInfo(token, data)
        if kind == _ffi.EVENT_CONNECT_FAILED:
            return ConnectFailed(token, peer, endpoint, code, text)
        if kind == _ffi.EVENT_BOOTSTRAP_FAILED:
            return BootstrapFailed(token, code, text)
        if kind == _ffi.EVENT_STOPPED:
            return Stopped(code, text)
        event = None if peer is None else self._of_peer(row, peer, data, endpoint, text)
        return event or Unknown(kind, code, token, peer, data, endpoint, text)

    def _of_peer(
        self, row: tuple[int, ...], peer: PeerId, data: bytes, endpoint: str, text: str
    ) -> Optional[Event]:
        """Make an event that is about a peer; None when its type is not known."""
        kind, code, priority, role, how, count, token = row[:7]
        took_us, size = row[12:]
        code = known(code)
        if kind == _ffi.EVENT_WRITABLE:
            return Writable(peer)
        if kind == _ffi.EVENT_CONNECTED:
            return Connected(peer, token, How(how), Role(role), endpoint, data, took_us / 1e6)
        if kind == _ffi.EVENT_ALREADY_CONNECTED:
            return AlreadyConnected(peer, token)
        if kind == _ffi.EVENT_BOOTSTRAPPED:
            return Bootstrapped(peer, token, endpoint)
        if kind == _ffi.EVENT_LOST:
            self._peers.pop(peer, None)
            return Lost(peer, code, text, count)
        if kind == _ffi.EVENT_MESSAGES_DROPPED:
            return MessagesDropped(peer, priority, count, size)
        if kind == _ffi.EVENT_SUSPENDED:
            return Suspended(peer, endpoint, code, text)
        if kind == _ffi.EVENT_RESUMED:
            return Resumed(peer, endpoint, How(how))
        if kind == _ffi.EVENT_DELIVERED:
            return Delivered(peer, token, code, text)
        if kind == _ffi.EVENT_DISCOVERED:
            return Discovered(peer, endpoint, Role(role), By(count))
        if kind == _ffi.EVENT_CLEAR:
            return Clear(peer, endpoint, How(how))
        if kind == _ffi.EVENT_FORGOTTEN:
            return Forgotten(peer, By(count))
        return None


class _Run:
    """The memory of one batch while it is being decoded."""

    __slots__ = ("_array", "_count", "base", "table", "view")

    def __init__(self, batch: int, reader: Reader) -> None:
        memory = _Memory(batch)
        events = _ffi.crust_batch_events(batch, reader._size_ref) or 0
        self._count: int = reader._size.value
        _ffi.check(_ffi.crust_batch_memory(batch, reader._base_ref, reader._size_ref))
        self.base: int = reader._base.value or 0
        size: int = reader._size.value
        array: Any = _ARRAYS[size.bit_length()].from_address(self.base)
        array.owner = memory
        self._array: Any = array
        self.view = memoryview(array).cast("B").toreadonly()[:size]
        self.table = self.view[events - self.base : events - self.base + self._count * EVENT_SIZE]

    def cells(self, form: str, offset: int, count: int) -> memoryview:
        """Return one field of the first events, where it lies."""
        width = struct.calcsize(form)
        cells: memoryview = self.table.cast(form)  # type: ignore[call-overload]
        return cells[offset // width : count * (EVENT_SIZE // width) : EVENT_SIZE // width]

    def column(self, form: str, offset: int, count: int) -> list[int]:
        """Read one field of the first events, all of them at once."""
        return self.cells(form, offset, count).tolist()

    def source(self, copy: bool) -> Union[bytes, memoryview]:
        """Return what messages are sliced from: a copy of everything, or the view."""
        if copy and len(self.view) < _COPY_WHOLE_BELOW * self._count:
            return ctypes.string_at(self.base, len(self.view))
        return self.view

    def release(self) -> None:
        """Give the memory back as soon as nothing views it."""
        del self._array, self.view, self.table


def _all_alike(cells: memoryview, count: int) -> bool:
    """Say whether all of so many 64-bit cells are as the first one."""
    return cells == memoryview(array("Q", cells[:1]) * count)


def _cutters(size: int) -> tuple[struct.Struct, struct.Struct]:
    """Return what cuts one message of a size, and what cuts many."""
    return struct.Struct(f"{size}s"), struct.Struct(f"{size}s" * _CUT)


def _leading_messages(types: list[int]) -> int:
    count = 0
    while types[count] == _ffi.EVENT_MESSAGE:
        count += 1
    return count


def as_batch(events: list[Event], copy: bool) -> tuple[MessageBatch[Any], list[Event]]:
    """Do for decoded events what `Reader.messages` does for a batch."""
    split = 0
    messages: list[Union[Message, MessageView]] = []
    for event in events:
        if not isinstance(event, (Message, MessageView)):
            break
        messages.append(event)
        split += 1
    end = split
    while end < len(events) and not isinstance(events[end], (Message, MessageView)):
        end += 1
    wanted: Callable[[Any], Any] = bytes if copy else memoryview
    batch: MessageBatch[Any] = MessageBatch(
        [event.peer for event in messages],
        [event.priority for event in messages],
        [wanted(event.data) for event in messages],
        events[split:end],
    )
    return batch, events[end:]


def with_copy(event: Event, copy: bool) -> Event:
    """Give a message the form that the program asked for."""
    if copy:
        if type(event) is MessageView:
            return Message(event.peer, bytes(event.data), event.priority)
    elif type(event) is Message:
        return MessageView(event.peer, memoryview(event.data), event.priority)
    return event


def token_of(event: Event) -> Optional[int]:
    """Return the token of an event that has one."""
    return getattr(event, "token", None)
