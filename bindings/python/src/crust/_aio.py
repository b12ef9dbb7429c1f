"""The bridge to asyncio.

Where the event loop can watch a descriptor, it reads the service's events itself, a chunk per
wake-up. Where it cannot (the Proactor loop of Windows), one thread waits in the library.
Either stops reading while the program does not take what was read, so that nothing grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Optional

from . import _ffi
from ._base import Base
from ._batch import with_copy
from ._errors import Closed
from ._events import Event
from ._inbox import BACKLOG_EVENTS, Inbox, slice_ms

_RESUME_AT = BACKLOG_EVENTS // 2


class Pump:
    """Moves events from a service to one event loop. Every method runs on that loop's thread."""

    def __init__(self, inbox: Inbox, handle: int, loop: asyncio.AbstractEventLoop, fd: Optional[int]) -> None:
        self.loop = loop
        self._inbox = inbox
        self._handle = handle
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._paused = False
        self._stopped = False
        # A descriptor of its own: the library closes the other when the service is freed, and
        # its number may then be anybody's while the loop still knows it.
        self._fd = -1 if fd is None else os.dup(fd)
        self._room = threading.Event()
        self._thread: Optional[threading.Thread] = None
        if not self._watch():
            self._thread = threading.Thread(target=self._run, name="crust-events", daemon=True)
            self._thread.start()
        self._loop_thread = threading.get_ident()
        inbox.pumped_elsewhere = self._polls_elsewhere
        inbox.on_backlog = self.wake_soon

    def _polls_elsewhere(self) -> bool:
        """Whether another thread than the caller's reads events for this pump."""
        if self._thread is not None:
            return self._thread.is_alive()
        return self.loop.is_running() and threading.get_ident() != self._loop_thread

    def _watch(self) -> bool:
        if self._fd < 0:
            return False
        try:
            self.loop.add_reader(self._fd, self._readable)
        except NotImplementedError:
            os.close(self._fd)
            self._fd = -1
            return False
        return True

    def _readable(self) -> None:
        try:
            if self._inbox.full():
                self._paused = True
                self.loop.remove_reader(self._fd)
                return
            self._inbox.fill(0)
        except Closed:
            self.stop()
            return
        self._wake()

    def _run(self) -> None:
        """Read in a thread of its own until the service or the loop is closed."""
        try:
            while not self._stopped:
                # In this order: whoever makes room from here on sees that the pump is paused.
                self._room.clear()
                self._paused = True
                if self._inbox.full():
                    self._room.wait()
                    continue
                self._paused = False
                if self._inbox.fill(slice_ms(float("inf")), patience=0.1):
                    self.loop.call_soon_threadsafe(self._wake)
        except Closed:
            with contextlib.suppress(RuntimeError):  # the loop is closed too
                self.loop.call_soon_threadsafe(self.stop)
        except RuntimeError:
            self._stopped = True

    def wake_soon(self) -> None:
        """Have the waiters look at the backlog. Any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self.loop.call_soon_threadsafe(self._wake)

    def stop_soon(self) -> None:
        """Have the pump stop. Any thread."""
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.stop)

    def stop(self) -> None:
        """Stop reading and end what waits. It may be called again."""
        if not self._stopped:
            self._stopped = True
            self._inbox.pumped_elsewhere = None
            self._inbox.on_backlog = None
            if self._thread is not None:
                self._room.set()
                _ffi.crust_wakeup(self._handle)
            if self._fd >= 0:
                if not self.loop.is_closed():
                    self.loop.remove_reader(self._fd)
                os.close(self._fd)
                self._fd = -1
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _resume(self) -> None:
        self._paused = False
        if self._thread is not None:
            self._room.set()
        elif self._fd >= 0:
            self.loop.add_reader(self._fd, self._readable)

    async def next_event(self, copy: bool) -> Event:
        """Return the next event as soon as there is one.

        Raises:
            StopAsyncIteration: no more will come.
        """
        while True:
            try:
                event = self._inbox.backlog.popleft()
            except IndexError:
                pass
            else:
                if self._paused and len(self._inbox.backlog) <= _RESUME_AT:
                    self._resume()
                return with_copy(event, copy)
            if self._stopped or self._inbox.ended:
                raise StopAsyncIteration
            if self._paused:
                self._resume()  # other threads have taken what was unread
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                self._waiters.remove(waiter)


class EventStream(AsyncIterator[Event]):
    """The events of a service in asyncio code."""

    def __init__(self, service: Base, copy: bool) -> None:
        self._service = service
        self._copy = copy
        self._pump: Optional[Pump] = None

    async def __anext__(self) -> Event:
        if self._pump is None:
            try:
                self._pump = self._service._attach()
            except Closed:
                raise StopAsyncIteration from None
        return await self._pump.next_event(self._copy)
