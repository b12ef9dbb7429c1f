"""The datagram endpoint of examples/: programs for UDP over libcrust."""

from __future__ import annotations

import asyncio
import unittest
from collections.abc import Coroutine
from typing import Any, Union

import crust
from support import PATIENCE, TestCase, example, new_network, new_service

crust_endpoint = example("crust_endpoint")
Address = tuple[str, int]


class Heard(asyncio.DatagramProtocol):
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[Union[tuple[bytes, Address], OSError]] = asyncio.Queue()
        self.lost = asyncio.Event()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.heard.put_nowait((data, addr))

    def error_received(self, exc: Exception) -> None:
        assert isinstance(exc, OSError)
        self.heard.put_nowait(exc)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()


def run(program: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(program, PATIENCE))


async def link(one: crust.Service, other: crust.Service) -> None:
    """Connect two services; then both know."""
    await one.connect(await other.connection_info())
    async for event in other:
        if isinstance(event, crust.Connected) and event.peer == one.id:
            return


async def to_and_fro() -> None:
    """A peer that is not connected is found through one that is, and answered by its address."""
    network = new_network()
    async with new_service(network) as hub, new_service(network) as one, new_service(network) as other:
        for service in (one, other):
            await link(service, hub)
        here, there = Heard(), Heard()
        mine, theirs = crust_endpoint.CrustEndpoint(one, here), crust_endpoint.CrustEndpoint(other, there)
        assert mine.get_extra_info("sockname") == (str(one.id), 0)
        for n in range(3):
            mine.sendto(b"%d" % n, (str(other.id), 0))
        for n in range(3):
            assert await there.heard.get() == (b"%d" % n, (str(one.id), 0))
        theirs.sendto(bytes(100_000), (str(one.id), 0))
        assert await here.heard.get() == (bytes(100_000), (str(other.id), 0))
        assert here.heard.empty()


async def addresses_that_are_none() -> None:
    async with new_service(new_network()) as service:
        protocol = Heard()
        endpoint = crust_endpoint.CrustEndpoint(service, protocol)
        for address in (("192.0.2.1", 4000), ("", 0), (None, 0), (b"x", 0), (str(service.id), 0)):
            endpoint.sendto(b"x", address)
            failure = await protocol.heard.get()
            assert isinstance(failure, OSError), (address, failure)


async def few_wait_for_one_that_is_not_there() -> None:
    async with new_service(new_network()) as service:
        protocol = Heard()
        endpoint = crust_endpoint.CrustEndpoint(service, protocol)
        for _ in range(2 * crust_endpoint.WAITING):
            endpoint.sendto(b"x", ("11" * 32, 0))
        assert [len(waiting) for waiting in endpoint._waiting.values()] == [crust_endpoint.WAITING]
        assert isinstance(await protocol.heard.get(), OSError)
        assert not endpoint._waiting


async def closing() -> None:
    network = new_network()
    async with new_service(network) as one, new_service(network) as other:
        await link(one, other)
        protocol = Heard()
        endpoint = crust_endpoint.CrustEndpoint(one, protocol)
        endpoint.close()
        endpoint.close()
        endpoint.sendto(b"x", (str(other.id), 0))
        await protocol.lost.wait()
        assert endpoint.is_closing()
        assert one.stats().sent_messages == 0
        assert not one.closed
        again = Heard()
        crust_endpoint.CrustEndpoint(one, again)
        other.send(one.id, b"still here")
        assert await again.heard.get() == (b"still here", (str(other.id), 0))
        await one.aclose()
        await again.lost.wait()


class Endpoint(TestCase):
    def test_to_and_fro(self) -> None:
        run(to_and_fro())

    def test_addresses_that_are_none(self) -> None:
        run(addresses_that_are_none())

    def test_few_wait_for_one_that_is_not_there(self) -> None:
        run(few_wait_for_one_that_is_not_there())

    def test_closing(self) -> None:
        run(closing())


if __name__ == "__main__":
    unittest.main()
