"""Where the events of a service arrive, whoever asks for them.

Blocking readers, awaited calls and the asyncio pump all take from here, so that an event taken
on behalf of one is never lost for the others.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import math
import threading
import time
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Callable, Generic, Optional, TypeVar

from ._batch import MessageBatch, Reader, as_batch, token_of, with_copy
from ._errors import Closed, Code, error
from ._events import (
    AlreadyConnected,
    BootstrapFailed,
    Bootstrapped,
    Connected,
    ConnectFailed,
    ConnectionInfo,
    Datagram,
    Delivered,
    Event,
    Lost,
    Message,
    MessageView,
    Stopped,
    Writable,
)
from ._types import PeerId

if TYPE_CHECKING:
    import asyncio

    from ._base import Base

T = TypeVar("T")

# Events that wait unread in Python at most, by number and by bytes of messages.
BACKLOG_EVENTS = 4096
BACKLOG_BYTES = 16 << 20

# How many events are decoded at a time when they are handed out one by one.
CHUNK = 512

# Python runs signal handlers, such as the one of Ctrl-C, only when a call of the main thread
# returns; so the main thread never waits longer than this inside the library.
_MAIN_SLICE_MS = 100
_FOREVER_MS = -1
_HANDOVER_SECONDS = 0.02
_MAX_MS = (1 << 31) - 1

_main_thread = threading.main_thread().ident


def deadline_of(timeout: Optional[float]) -> float:
    """Turn a timeout in seconds, None for ever, into a time of `time.monotonic`.

    Raises:
        Invalid: it is negative or no number.
    """
    if timeout is None:
        return math.inf
    if not isinstance(timeout, (int, float)) or not timeout >= 0:
        raise error(Code.INVALID, f"a timeout must be None or a number of seconds from 0, not {timeout!r}")
    return time.monotonic() + timeout if timeout else 0.0


def slice_ms(deadline: float) -> int:
    """Return how long one call into the library may wait, in milliseconds; -1 for ever."""
    if not deadline:
        return 0
    if deadline == math.inf:
        rest = _FOREVER_MS
    else:
        rest = min(max(math.ceil((deadline - time.monotonic()) * 1000), 0), _MAX_MS)
    if threading.get_ident() == _main_thread:
        return _MAIN_SLICE_MS if rest < 0 else min(rest, _MAIN_SLICE_MS)
    return rest


class Call(Generic[T]):
    """Something that takes time on the network and was started.

    ``await call`` in asyncio code, or ``call.result(timeout)`` elsewhere, gives the outcome or
    raises why it failed. Neither has to be done: the same is told by the event that carries
    `token`, which is delivered in any case.

    Attributes:
        token: the `token` of the event that answers this call.
    """

    __slots__ = ("_future", "_service", "token")

    token: int

    def __init__(self, token: int, service: Base) -> None:
        self.token = token
        self._service = service
        self._future: concurrent.futures.Future[T] = concurrent.futures.Future()
        # Running futures cannot be cancelled: whoever stops waiting does not stop the others.
        self._future.set_running_or_notify_cancel()

    def done(self) -> bool:
        """Return whether the outcome is known."""
        return self._future.done()

    def result(self, timeout: Optional[float] = None) -> T:
        """Wait for the outcome in a program without asyncio.

        Events that come meanwhile are kept for `Service.poll`, `Service.events` and the others.

        Raises:
            Timeout: the outcome is not known after that many seconds; it may still come.
            Limit: 4,096 events or 16 MiB of messages came meanwhile and nobody reads them.
            CrustError: why it failed.
        """
        self._service._inbox.wait_for(self._future, deadline_of(timeout))
        if not self._future.done():
            raise error(Code.TIMEOUT, f"no answer within {timeout:g} seconds")
        return self._future.result()

    def __await__(self) -> Generator[Any, None, T]:
        import asyncio

        if not self._future.done():
            self._service._ensure_pump()
        wrapped: asyncio.Future[T] = asyncio.wrap_future(self._future)
        return wrapped.__await__()

    def __repr__(self) -> str:
        state = "done" if self._future.done() else "pending"
        return f"<Call token={self.token} {state}>"


class Inbox:
    """The events of one service. Any thread; one at a time polls the library."""

    def __init__(self, handle: int) -> None:
        self._reader = Reader(handle)
        self._polling = threading.Lock()
        # One item for each thread inside take or take_messages; appending and popping are atomic.
        self._takers: deque[None] = deque()
        self._woken = False
        self._tokens = itertools.count(1)
        self._calls: dict[int, tuple[str, Call[Any]]] = {}
        self._writable: dict[PeerId, list[Callable[[], None]]] = {}
        self.backlog: deque[Event] = deque()
        # Called when the pump's waiters should look again: events went to the backlog from
        # outside the pump, or no more will come.
        self.on_backlog: Optional[Callable[[], None]] = None
        # Tells whether a pump polls on another thread, while there is a pump.
        self.pumped_elsewhere: Optional[Callable[[], bool]] = None
        self.ended = False

    # Taking events.

    def take(self, deadline: float, limit: int, copy: bool) -> list[Event]:
        """Return up to limit events (0: as many as come together), none when the time is over.

        Raises:
            Closed: the service is closed, or `Stopped` was taken.
        """
        while self._enter(deadline):
            try:
                while not self._reader.records:
                    events = self._from_backlog(limit, copy)
                    if events:
                        return events
                    self._check_open()
                    wait = slice_ms(deadline)
                    events = self._poll(wait, limit, copy)
                    self._note(events)
                    if events or self._was_woken() or time.monotonic() >= deadline:
                        return events
            finally:
                self._leave()
        return []

    def take_messages(self, deadline: float, limit: int, copy: bool) -> MessageBatch[Any]:
        """Return a run of messages and the other events right after it; empty when time is over.

        Raises:
            Closed: the service is closed, or `Stopped` was taken.
        """
        while self._enter(deadline):
            try:
                while not self._reader.records:
                    events = self._from_backlog(limit or CHUNK, copy)
                    if events:
                        batch, rest = as_batch(events, copy)
                        self.backlog.extendleft(reversed(rest))
                        return batch
                    self._check_open()
                    wait = slice_ms(deadline)
                    try:
                        batch, rest = self._reader.messages(wait, limit, copy)
                    except Closed:
                        self.end()
                        raise
                    self.backlog.extend(rest)
                    self._note(batch.events)
                    self._note(rest)
                    if batch or self._was_woken() or time.monotonic() >= deadline:
                        return batch
            finally:
                self._leave()
        return MessageBatch([], [], [], [])

    def refill(self, deadline: float, copy: bool) -> bool:
        """Wait until the backlog is not empty; False when the time is over or `wake` was called.

        Raises:
            Closed: the service is closed, or `Stopped` was taken.
        """
        while self._enter(deadline):
            try:
                while not self.backlog and not self._reader.records:
                    self._check_open()
                    if not self._to_backlog(self._poll(slice_ms(deadline), CHUNK, copy)) and (
                        self._was_woken() or time.monotonic() >= deadline
                    ):
                        return False
                if self.backlog:
                    return True
            finally:
                self._leave()
        return bool(self.backlog)

    def fill(self, wait_ms: int, patience: float = 0.0) -> bool:
        """Move events from the library to the backlog; return whether there were any.

        Returns False when another thread polls and goes on for that many seconds.

        Raises:
            Closed: the service is closed, or `Stopped` was taken.
        """
        if not self._polling.acquire(timeout=patience):
            return False
        try:
            self._check_open()
            return self._to_backlog(self._poll(wait_ms, CHUNK, True))
        finally:
            self._polling.release()
            self._tell()

    def full(self) -> bool:
        """Return whether no more events should be moved to the backlog."""
        if len(self.backlog) >= BACKLOG_EVENTS:
            return True
        waiting = list(self.backlog)
        unread = sum(len(e.data) for e in waiting if isinstance(e, (Message, MessageView, Datagram)))
        return unread >= BACKLOG_BYTES

    def wait_for(self, future: concurrent.futures.Future[Any], deadline: float) -> None:
        """Wait until a call is done, polling only if nobody else does."""
        while not future.done():
            if self._takers or (self.pumped_elsewhere and self.pumped_elsewhere()):
                self._wait_for_others(future, deadline)
            elif self.full():
                raise error(Code.LIMIT, f"{len(self.backlog)} events wait unread: read them while waiting")
            elif self.fill(slice_ms(deadline)):
                if self.on_backlog:
                    self.on_backlog()
            elif self._polling.locked():
                self._wait_for_others(future, deadline)
            if time.monotonic() >= deadline:
                return

    def wake(self) -> None:
        """Make the take that waits now, or else the next one, return."""
        self._woken = True

    def _was_woken(self) -> bool:
        woken, self._woken = self._woken, False
        return woken

    def _wait_for_others(self, future: concurrent.futures.Future[Any], deadline: float) -> None:
        """Let the thread that polls resolve the call, looking now and then whether it still polls."""
        rest = min(deadline - time.monotonic(), _HANDOVER_SECONDS)
        concurrent.futures.wait([future], timeout=max(rest, 0))

    def _enter(self, deadline: float) -> bool:
        """Become the one thread that polls."""
        self._takers.append(None)
        entered = False
        try:
            rest = max(deadline - time.monotonic(), 0) if deadline else 0
            entered = self._polling.acquire(timeout=min(rest, threading.TIMEOUT_MAX))
        finally:  # also when Ctrl-C ends the waiting
            if not entered:
                self._takers.pop()
        return entered

    def _leave(self) -> None:
        self._polling.release()
        self._takers.pop()
        self._tell()

    def _tell(self) -> None:
        """Hand records of the log on, with no lock held."""
        records = self._reader.records
        while records:
            with contextlib.suppress(IndexError):  # another thread has taken it
                records.popleft().tell()

    def _check_open(self) -> None:
        if self.ended:
            raise error(Code.CLOSED, "poll: the service is closed")

    def _poll(self, wait_ms: int, limit: int, copy: bool) -> list[Event]:
        try:
            return self._reader.events(wait_ms, limit, copy)
        except Closed:
            self.end()
            raise

    def _to_backlog(self, events: list[Event]) -> bool:
        """Keep events for any taker; return whether there were any."""
        # Noted afterwards: who learns that Stopped has come must find it in the backlog.
        self.backlog.extend(events)
        self._note(events)
        return bool(events)

    def _from_backlog(self, limit: int, copy: bool) -> list[Event]:
        taken: list[Event] = []
        try:
            while not limit or len(taken) < limit:
                taken.append(with_copy(self.backlog.popleft(), copy))
        except IndexError:
            pass
        return taken

    # Calls and waiters.

    def start(self, kind: str, service: Base) -> Call[Any]:
        """Register a call, before the library can answer it."""
        call: Call[Any] = Call(next(self._tokens), service)
        self._calls[call.token] = kind, call
        return call

    def forget(self, call: Call[Any]) -> None:
        """Drop a call that the library refused."""
        self._calls.pop(call.token, None)

    def on_writable(self, peer: PeerId, notify: Callable[[], None]) -> None:
        """Have notify called once, from any thread, when a peer's queue may take messages again."""
        self._writable.setdefault(peer, []).append(notify)

    def off_writable(self, peer: PeerId, notify: Callable[[], None]) -> None:
        """Undo on_writable; nothing happens when notify was called."""
        with contextlib.suppress(KeyError, ValueError):
            waiting = self._writable[peer]
            waiting.remove(notify)
            if not waiting:
                del self._writable[peer]

    def abandon(self) -> None:
        """In a forked child: let nothing wait for threads that exist in the parent only."""
        self.ended = True
        self._polling = threading.Lock()
        self.backlog.clear()

    def end(self) -> None:
        """Note that no more events will come from the library."""
        self.ended = True
        for token in list(self._calls):
            kind_and_call = self._calls.pop(token, None)
            if kind_and_call is not None:
                kind, call = kind_and_call
                call._future.set_exception(error(Code.CLOSED, f"{kind}: the service is closed"))
        for peer in list(self._writable):
            self._notify_writable(peer)
        if self.on_backlog:
            self.on_backlog()

    def _note(self, events: list[Event]) -> None:
        """Resolve what waits for these events. Once for each event that leaves the library."""
        for event in events:
            kind = type(event)
            if kind is Message or kind is MessageView or kind is Datagram:
                continue
            if isinstance(event, (Writable, Lost)):
                self._notify_writable(event.peer)
            elif isinstance(event, Stopped):
                self.end()
            else:
                token = token_of(event)
                if token is not None and token in self._calls:
                    self._resolve(token, event)

    def _notify_writable(self, peer: PeerId) -> None:
        for notify in self._writable.pop(peer, ()):
            notify()

    def _resolve(self, token: int, event: Event) -> None:
        kind, call = self._calls[token]
        if kind == "bootstrap" and isinstance(event, (Connected, AlreadyConnected, ConnectFailed)):
            return  # an attempt of the bootstrap, not its end
        del self._calls[token]
        if isinstance(event, (ConnectFailed, BootstrapFailed)) or (
            isinstance(event, Delivered) and event.code
        ):
            call._future.set_exception(event.error)
        elif isinstance(event, ConnectionInfo):
            call._future.set_result(event.data)
        elif isinstance(event, (Connected, AlreadyConnected, Bootstrapped, Delivered)):
            call._future.set_result(event)
