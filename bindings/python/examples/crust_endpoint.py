"""A datagram endpoint of asyncio whose addresses are peer ids.

Programs that speak UDP by an `asyncio.DatagramProtocol` get a transport from
`loop.create_datagram_endpoint`. Given a `CrustEndpoint` in its place they speak over libcrust and
need not be changed: what they send to ``(peer id in hexadecimal, 0)`` goes to that peer, encrypted,
over whatever session there is, and what comes from such an address has proved to be that peer's.
Whoever is not connected yet is connected to by the id alone: peers that are connected to both
introduce them, through NATs where there are some.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import crust

WAITING = 64
"""Datagrams that wait until one peer is connected, at most; as on every network, the rest is lost."""


class CrustEndpoint(asyncio.DatagramTransport):
    """A datagram endpoint over a service: what `loop.create_datagram_endpoint` gives for UDP.

    It takes all events of the service, and belongs to the event loop in which it was made.
    Datagrams have up to `crust.MAX_MESSAGE` bytes. They arrive, in order, as long as the peer is
    there; those for a peer whose queue is full, or that cannot be connected to, are lost.
    """

    def __init__(self, service: crust.Service, protocol: asyncio.DatagramProtocol) -> None:
        super().__init__()
        self._service = service
        self._protocol = protocol
        self._waiting: dict[crust.PeerId, list[bytes]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        protocol.connection_made(self)
        self._start(self._receive())

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send to a peer; to one that is not connected as soon as it is."""
        if self._closing:
            return
        try:
            peer = crust.PeerId(addr[0])
        except crust.Invalid as failure:  # other nodes tell addresses, and may tell anything
            self._failed(failure)
            return
        if peer in self._waiting:
            if len(self._waiting[peer]) < WAITING:
                self._waiting[peer].append(bytes(data))
            return
        try:
            self._service.send(peer, data)
        except crust.UnknownPeer:
            self._waiting[peer] = [bytes(data)]
            self._start(self._connect(peer))
        except crust.CrustError as failure:
            self._failed(failure)

    def _failed(self, failure: crust.CrustError) -> None:
        self._protocol.error_received(OSError(str(failure)))

    async def _connect(self, peer: crust.PeerId) -> None:
        try:
            await self._service.connect_peer(peer)
            for data in self._waiting[peer]:
                self._service.send(peer, data)
        except crust.CrustError as failure:
            self._failed(failure)
        finally:
            del self._waiting[peer]

    async def _receive(self) -> None:
        async for event in self._service:
            if isinstance(event, crust.Message):
                self._protocol.datagram_received(event.data, (str(event.peer), 0))
        if not self._closing:  # the service was closed
            self._closing = True
            self._protocol.connection_lost(None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the endpoint: ``sockname`` is its address."""
        return (str(self._service.id), 0) if name == "sockname" else default

    def is_closing(self) -> bool:
        """Whether it was closed."""
        return self._closing

    def close(self) -> None:
        """Stop sending and receiving. The service lives on, and is closed by who made it."""
        if self._closing:
            return
        self._closing = True
        for task in self._tasks:
            task.cancel()
        asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        """Do what `close` does."""
        self.close()
