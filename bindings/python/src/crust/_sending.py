"""The sending side of a service."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from . import _ffi, _send
from ._base import Base, check_peer
from ._errors import Code, CrustError, Timeout, WouldBlock
from ._events import Delivered
from ._inbox import Call, deadline_of, slice_ms
from ._types import Buffer, PeerId


class Sending(Base):
    """Queueing messages for peers."""

    def send(self, peer: bytes, data: Buffer, priority: int = 1) -> None:
        """Queue one message, copying it, and never block.

        Args:
            peer: to whom.
            data: up to `MAX_MESSAGE` bytes; none is a message too.
            priority: 0 is the most urgent and overtakes; within a priority order is kept; 0 and 1
                are never dropped, 2 to 255 when they grow too old on a link that does not move.

        Raises:
            WouldBlock: the queue is full; a `Writable` event follows.
            UnknownPeer: not connected to that peer.
            TooBig: over `MAX_MESSAGE`; the session is unharmed.
            Closed: the service is closed.
        """
        check_peer(peer)
        _send.check_priority(priority)
        where, length = _send.pin(data)
        code = _ffi.crust_send(self._handle, peer, where, length, priority)
        if code < 0:
            self._check(code, "send")

    def send_receipt(self, peer: bytes, data: Buffer, priority: int = 1) -> Call[Delivered]:
        """Do what `send` does, and have it told when the message has arrived.

        That is: the peer's library has the message and all that was sent before it at its
        priority, in order, and will hand them to its program unless its service stops first.

        Args:
            peer: to whom.
            data: up to `MAX_MESSAGE` bytes.
            priority: as for `send`.

        Returns:
            A call whose outcome is the `Delivered` event. It raises `Expired` when the message was
            dropped for its age, and the error of the loss when the session was lost first; then
            the message may have arrived or not.

        Raises:
            WouldBlock: the queue is full, and a `Writable` event follows; or 4,096 receipts of
                this peer are outstanding.
            UnknownPeer, TooBig, Closed: as for `send`.
        """
        check_peer(peer)
        _send.check_priority(priority)
        where, length = _send.pin(data)
        return self._call("receipt", _ffi.crust_send_receipt, peer, where, length, priority)

    def send_datagram(self, peer: bytes, data: Buffer) -> None:
        """Send one datagram at once, copying it: at most once, in no order.

        It never waits behind messages that are queued, and is encrypted and authenticated as they
        are. It may be lost on the way, when too many wait to be sent or to be taken, and while the
        session is suspended. Over TCP it goes into the stream and may come late instead. It
        arrives as `Datagram`.

        Args:
            peer: to whom.
            data: up to `max_datagram` bytes.

        Raises:
            UnknownPeer: not connected to that peer.
            TooBig: more than fits; the sentence says how much does.
            Closed: the service is closed.
        """
        check_peer(peer)
        where, length = _send.pin(data)
        self._check(_ffi.crust_send_datagram(self._handle, peer, where, length), "send_datagram")

    def max_datagram(self, peer: bytes) -> int:
        """Return how many bytes `send_datagram` takes now for a peer.

        At least 1,100, more over uTP when the path turns out to be wider.

        Raises:
            UnknownPeer: not connected to that peer.
            Closed: the service is closed.
        """
        check_peer(peer)
        fits: int = _ffi.crust_max_datagram(self._handle, peer)
        self._check(fits, "max_datagram")
        return fits

    def send_wait(
        self, peer: bytes, data: Buffer, priority: int = 1, timeout: Optional[float] = None
    ) -> None:
        """Do what `send` does, but wait while the queue is full.

        Args:
            peer: to whom.
            data: up to `MAX_MESSAGE` bytes.
            priority: as for `send`.
            timeout: seconds to wait at most; None for ever.

        Raises:
            Timeout: the queue stayed full.
            UnknownPeer, TooBig, Closed: as for `send`.
        """
        check_peer(peer)
        _send.check_priority(priority)
        self._send_until(peer, data, priority, deadline_of(timeout))

    def _send_until(self, peer: bytes, data: Buffer, priority: int, deadline: float) -> None:
        where, length = _send.pin(data)
        while True:
            wait = slice_ms(deadline)
            code = _ffi.crust_send_wait(self._handle, peer, where, length, priority, wait)
            if code != Code.TIMEOUT or slice_ms(deadline) == 0:
                self._check(code, "send")
                return

    def send_many(
        self, peer: bytes, payloads: Iterable[Buffer], priority: int = 1, *, timeout: Optional[float] = 0
    ) -> int:
        """Queue many messages for one peer, in order, until one is refused.

        Much cheaper than as many calls of `send`.

        Args:
            peer: to whom.
            payloads: the messages.
            priority: as for `send`.
            timeout: seconds to wait while the queue is full; 0 not at all, None for ever.

        Returns:
            How many were accepted. Fewer than given means that the queue is full and a `Writable`
            event follows.

        Raises:
            UnknownPeer, TooBig, Closed: as for `send`; ``accepted`` of the exception says how many
                messages before the refused one were accepted.
        """
        check_peer(peer)
        _send.check_priority(priority)
        peers = [PeerId(peer)]
        items: Sequence[Buffer] = payloads if isinstance(payloads, (list, tuple)) else list(payloads)
        deadline = deadline_of(timeout)
        done = 0
        while done < len(items):
            chunk = items[done : done + _send.CHUNK]
            accepted = self._send_chunk(peers, chunk, priority, done)
            done += accepted
            if accepted < len(chunk):
                if not self._send_refused(peer, items[done], priority, deadline, done):
                    break
                done += 1
        return done

    def send_batch(
        self, messages: Iterable[tuple[bytes, Buffer, int]], *, timeout: Optional[float] = 0
    ) -> int:
        """Queue ``(peer, data, priority)`` messages, in order, until one is refused.

        As `send_many`, but for any mixture of peers and priorities.

        Args:
            messages: what to send.
            timeout: as for `send_many`.

        Returns:
            How many were accepted. Fewer than given means that the queue of the next message's
            peer is full and a `Writable` event follows.

        Raises:
            UnknownPeer, TooBig, Closed: as for `send_many`.
        """
        items = messages if isinstance(messages, (list, tuple)) else list(messages)
        for peer, _, priority in items:
            check_peer(peer)
            _send.check_priority(priority)
        deadline = deadline_of(timeout)
        done = 0
        while done < len(items):
            chunk = items[done : done + _send.CHUNK]
            accepted = self._send_chunk(
                [peer for peer, _, _ in chunk],
                [data for _, data, _ in chunk],
                [priority for _, _, priority in chunk],
                done,
            )
            done += accepted
            if accepted < len(chunk):
                peer, data, priority = items[done]
                if not self._send_refused(peer, data, priority, deadline, done):
                    break
                done += 1
        return done

    def _send_chunk(
        self, peers: Sequence[bytes], payloads: Sequence[Buffer], priorities: Any, done: int
    ) -> int:
        """Queue messages of one call; fewer are accepted than given only when a queue is full."""
        try:
            accepted, why = _send.send(self._handle, peers, payloads, priorities)
        except CrustError as failure:
            if not self._handle:
                self._fail_closed("send")
            failure.accepted = done
            raise
        if accepted < len(payloads) and why != Code.WOULD_BLOCK:
            raise _ffi.failure(why, done + accepted)
        return accepted

    def _send_refused(self, peer: bytes, data: Buffer, priority: int, deadline: float, done: int) -> bool:
        """Send the message that a batch stopped at, waiting for room; False when there is none."""
        if not deadline:
            return False
        try:
            self._send_until(peer, data, priority, deadline)
        except Timeout:
            return False
        except CrustError as failure:
            failure.accepted = done
            raise
        return True

    async def send_async(self, peer: bytes, data: Buffer, priority: int = 1) -> None:
        """Do what `send` does, but let other tasks run while the queue is full.

        Iterate over the service meanwhile: the queue's `Writable` event is one of its events.

        Raises:
            UnknownPeer, TooBig, Closed: as for `send`.
        """
        try:
            return self.send(peer, data, priority)
        except WouldBlock:
            pass
        self._attach()
        loop = asyncio.get_running_loop()
        while True:
            room = asyncio.Event()

            def notify(room: asyncio.Event = room) -> None:
                with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                    loop.call_soon_threadsafe(room.set)

            # Registered before the refusal, because another thread may take its Writable at once.
            self._inbox.on_writable(PeerId(peer), notify)
            try:
                self.send(peer, data, priority)
            except WouldBlock:
                await room.wait()
            else:
                return None
            finally:
                self._inbox.off_writable(PeerId(peer), notify)
