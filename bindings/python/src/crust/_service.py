"""The service: one node of the network."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import os
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Optional, overload

from . import _base, _ffi
from ._aio import EventStream, Pump
from ._batch import MessageBatch, with_copy
from ._config import Config, apply_config
from ._connecting import Connecting
from ._errors import Closed, Code, CrustError, UnknownPeer, error
from ._events import Event, Stopped
from ._inbox import Inbox, deadline_of
from ._looking import Looking
from ._sending import Sending
from ._show import table
from ._types import Beacon, PeerId

if TYPE_CHECKING:
    from typing import Literal

    from typing_extensions import Self, Unpack

    from ._options import Options

_open: weakref.WeakSet[Service] = weakref.WeakSet()


def _close_all() -> None:
    for service in list(_open):
        service.close()


def _after_fork_in_child() -> None:
    """The threads of the library do not exist in a child; whatever needs them fails at once."""
    _base.forked()
    for service in list(_open):
        service._abandon()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _new(config: Config) -> int:
    handle, service = ctypes.c_void_p(), ctypes.c_uint64()
    _ffi.check(_ffi.crust_config_new(ctypes.byref(handle)))
    try:
        apply_config(handle, config)
        _ffi.check(_ffi.crust_service_new(handle, None, ctypes.byref(service)))
    finally:
        _ffi.crust_config_free(handle)
    return service.value


class Service(Sending, Connecting, Looking):
    """One node: an identity, its listeners, its peers and one queue of events.

    Made from a `Config`, from keyword arguments named as its fields, or from both, the keywords
    winning. Close it, best by ``with`` or ``async with``.

    Every method may be called from any thread at any time. Only `poll`, `events`,
    `receive_messages`, `send_wait`, `send_many` and `send_batch` with a timeout, `Call.result`
    and `close` block; none of them holds the interpreter lock meanwhile.

    Events are taken by `poll`, `events`, `receive_messages` or ``async for event in service``;
    each goes to one taker. Someone must take them: when too many wait, the service stops
    reading from its peers.

    In a process made by ``os.fork`` after the import, every call raises `Forked`; multiprocessing
    works with the start methods "spawn" and "forkserver".

    Raises:
        Invalid: an option is malformed or out of bounds.
        PermissionDenied, IoError: the identity file cannot be read or made.
    """

    def __init__(self, config: Optional[Config] = None, **options: Unpack[Options]) -> None:
        self._handle = 0
        self._pump = None
        self._handle = _new(replace(config or Config(), **options))
        self._inbox = Inbox(self._handle)
        self._guard = threading.Lock()
        self._closing = threading.Lock()
        _open.add(self)
        raw = ctypes.create_string_buffer(_ffi.PEER_ID_SIZE)
        _ffi.check(_ffi.crust_service_id(self._handle, raw))
        self._id = PeerId(raw.raw)

    # Life.

    @property
    def id(self) -> PeerId:
        """Who the service is; known also after it was closed."""
        return self._id

    @property
    def closed(self) -> bool:
        """Whether the service was closed."""
        return not self._handle

    def stop(self) -> None:
        """Begin to close and return at once.

        The events that remain can still be taken: one `Lost` for each session, `Stopped` last.
        """
        self._check(_ffi.crust_service_close(self._handle), "stop")

    def close(self) -> None:
        """Close in order and free everything; events not taken yet are dropped.

        Waits until queued messages are sent, at most `Config.close_timeout`. Threads that wait in
        a method of this service get `Closed`. It may be called again, from any thread.

        Raises:
            Panicked: a fault inside the library kept it from closing.
        """
        if not hasattr(self, "_closing"):
            return  # construction failed
        with self._closing:  # who comes second waits until the first is done
            with self._guard:
                handle, self._handle = self._handle, 0
                pump, self._pump = self._pump, None
            _open.discard(self)
            if not handle:
                return
            if pump is not None:
                pump.stop_soon()
            code = _ffi.crust_service_free(handle)
            self._inbox.end()
        if code == Code.PANICKED:
            raise _ffi.failure(code)

    async def aclose(self) -> None:
        """Do what `close` does without blocking the event loop."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.stop()
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._attach()
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            with contextlib.suppress(Exception):
                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            with contextlib.suppress(Exception):
                self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Service cannot be pickled: make one in each process")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Service {self._id.short} {state}>" if hasattr(self, "_id") else "<Service>"

    def _repr_html_(self) -> str:
        heads = ("peer", "endpoint", "how", "role", "round trip, ms", "sent", "received", "queued bytes")
        rows: list[tuple[object, ...]] = []
        state = "closed"
        with contextlib.suppress(CrustError):  # closed meanwhile, or in a forked child
            for peer in self.peers():
                with contextlib.suppress(UnknownPeer):
                    i = self.peer(peer)
                    trip = None if i.rtt is None else i.rtt * 1e3
                    counts = (i.sent_messages, i.received_messages, i.queued_bytes)
                    rows.append((i.peer, i.endpoint, i.how, i.role, trip, *counts))
            state = f"{len(rows)} peers, listens at {', '.join(self.listeners()) or 'nothing'}"
        return table(f"Service {self._id.short}: {state}", heads, rows)

    def _abandon(self) -> None:
        """In a forked child: leave everything as it is, it belongs to the parent."""
        self._handle = 0
        self._pump = None
        self._guard = threading.Lock()
        self._closing = threading.Lock()
        self._inbox.abandon()

    # Taking events.

    def poll(self, timeout: Optional[float] = None, max_events: int = 0, *, copy: bool = True) -> list[Event]:
        """Take the events that wait, or wait for some.

        Args:
            timeout: seconds to wait at most; 0 not at all, None for ever.
            max_events: how many to take at most; 0 as many as come together.
            copy: False gives `MessageView` in place of `Message`, which shares the library's memory.

        Returns:
            The events in order; an empty list when none came in time or `wakeup` was called.

        Raises:
            Closed: the service was closed, or `Stopped` has been taken.
        """
        if not 0 <= max_events <= 0xFFFFFFFF:
            raise error(Code.INVALID, f"max_events is a whole number from 0, not {max_events!r}")
        if not self._handle:
            self._fail_closed("poll")
        return self._inbox.take(deadline_of(timeout), max_events, copy)

    def events(self, timeout: Optional[float] = None, *, copy: bool = True) -> Iterator[Event]:
        """Iterate over the events.

        Several threads may iterate; each event goes to one of them.

        Args:
            timeout: the iteration ends when nothing happened for that many seconds; None never.
            copy: as for `poll`.

        Returns:
            An iterator that also ends after `Stopped`, or when the service is closed.
        """
        deadline_of(timeout)  # refuses a bad timeout here and not at the first step
        return self._events(timeout, copy)

    def _events(self, timeout: Optional[float], copy: bool) -> Iterator[Event]:
        inbox = self._inbox
        while self._handle:
            try:
                event = inbox.backlog.popleft()
            except IndexError:
                try:
                    if inbox.refill(deadline_of(timeout), copy):
                        continue
                except Closed:
                    pass
                return
            yield with_copy(event, copy)
            if type(event) is Stopped:
                return

    @overload
    def receive_messages(
        self, timeout: Optional[float] = None, max_events: int = 0, *, copy: Literal[True] = True
    ) -> MessageBatch[bytes]: ...

    @overload
    def receive_messages(
        self, timeout: Optional[float] = None, max_events: int = 0, *, copy: Literal[False]
    ) -> MessageBatch[memoryview]: ...

    @overload
    def receive_messages(
        self, timeout: Optional[float] = None, max_events: int = 0, *, copy: bool
    ) -> MessageBatch[Any]: ...

    def receive_messages(
        self, timeout: Optional[float] = None, max_events: int = 0, *, copy: bool = True
    ) -> MessageBatch[Any]:
        """Take messages the fast way: as columns, without an object for each.

        Args:
            timeout: as for `poll`.
            max_events: as for `poll`.
            copy: False gives views of the library's memory in place of `bytes`. A view keeps its
                whole batch alive.

        Returns:
            The messages, and in ``events`` what happened right after them. It is false when
            nothing came in time or `wakeup` was called.

        Raises:
            Closed: the service was closed, or `Stopped` has been taken.
        """
        if not 0 <= max_events <= 0xFFFFFFFF:
            raise error(Code.INVALID, f"max_events is a whole number from 0, not {max_events!r}")
        if not self._handle:
            self._fail_closed("receive_messages")
        return self._inbox.take_messages(deadline_of(timeout), max_events, copy)

    def wakeup(self) -> None:
        """Make the `poll` or `receive_messages` that waits now, or else the next one, return empty."""
        self._inbox.wake()
        self._check(_ffi.crust_wakeup(self._handle), "wakeup")

    def fileno(self) -> int:
        """Return a descriptor that is readable while events wait in the library.

        For ``select`` and ``selectors``. Poll it; never read or close it. After it was readable,
        call `poll` with timeout 0 until that returns nothing.

        Raises:
            Unsupported: this platform has none.
        """
        fd = ctypes.c_ssize_t(-1)
        self._check(_ffi.crust_service_fd(self._handle, ctypes.byref(fd)), "fileno")
        return fd.value

    def stream(self, *, copy: bool = True) -> AsyncIterator[Event]:
        """Iterate over the events in asyncio code; ``async for event in service`` is the same.

        Ends after `Stopped`, or when the service is closed. While 4,096 events or 16 MiB of
        messages wait unread, nothing more is read, also not the answer to an awaited call.
        """
        return EventStream(self, copy)

    def __aiter__(self) -> AsyncIterator[Event]:
        return EventStream(self, True)

    def _attach(self) -> Pump:
        """Return the pump of the running event loop."""
        loop = asyncio.get_running_loop()
        with self._guard:
            if not self._handle:
                self._fail_closed("attach")
            pump = self._pump
            if pump is not None and pump.loop is not loop:
                if pump.loop.is_running():
                    raise error(Code.STATE, "another event loop reads the events of this service")
                pump.stop()
                pump = None
            if pump is None:
                try:
                    fd: Optional[int] = self.fileno()
                except CrustError:
                    fd = None
                pump = self._pump = Pump(self._inbox, self._handle, loop, fd)
            return pump

    # Listeners.

    def listen(self, endpoint: str) -> None:
        """Start one more listener; `ListenerStarted` or `ListenerFailed` follows.

        Raises:
            Invalid: the endpoint is malformed.
            AddressInUse, AddressError, PermissionDenied: the system refused.
            Closed: the service is closed.
        """
        self._check(_ffi.crust_listen(self._handle, _ffi.c_string(endpoint, "endpoint")), "listen")

    def stop_listening(self, endpoint: str) -> None:
        """Stop the listener at an endpoint of `listeners`. Sessions live on.

        Raises:
            Invalid: nothing listens there.
        """
        self._check(
            _ffi.crust_stop_listening(self._handle, _ffi.c_string(endpoint, "endpoint")), "stop_listening"
        )

    def listeners(self) -> list[str]:
        """Return where the service listens."""
        size = ctypes.c_size_t(1024)
        while True:
            buffer = ctypes.create_string_buffer(size.value)
            code = _ffi.crust_listeners(self._handle, buffer, ctypes.byref(size))
            if code != Code.BUFFER_TOO_SMALL:
                self._check(code, "listeners")
                return _ffi.text(buffer.value).splitlines()

    def set_accept(self, accept: bool) -> None:
        """Accept or refuse sessions that peers begin."""
        self._check(_ffi.crust_set_accept(self._handle, 1 if accept else 0), "set_accept")

    def set_beacon(self, beacon: Beacon) -> None:
        """Change `Config.beacon` of a service that runs.

        A beacon that is turned off says goodbye, and `peers_on_lan` knows nobody any more; one that
        is turned on begins anew.
        """
        self._check(_ffi.crust_set_beacon(self._handle, int(beacon)), "set_beacon")

    def network_changed(self) -> None:
        """Say that this machine's network has changed, or that it has slept.

        It is for programs that know before the system tells, or where it does not. Every session
        proves its link, and those without one are dialled at once. `NetworkChanged` follows; calls
        within half a second are one.
        """
        self._check(_ffi.crust_service_network_changed(self._handle), "network_changed")
