"""uTP links, datagrams and ports."""

from __future__ import annotations

import asyncio
import socket
import time
import unittest

import crust
from support import LOOPBACK, PATIENCE, TestCase, new_network, new_service, pair, wait_for

UTP = "utp://127.0.0.1:0"


def exchange(one: crust.Service, other: crust.Service, data: bytes) -> crust.Datagram:
    """Send a datagram, which may be lost, until one has come."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        one.send_datagram(other.id, data)
        for event in other.events(0.5):
            if isinstance(event, crust.Datagram) and event.data == data:
                return event
    raise AssertionError(f"no datagram of {len(data)} bytes within {PATIENCE} s")


def port_of(endpoint: str) -> int:
    return int(endpoint.rpartition(":")[2])


class Links(TestCase):
    def test_hello_both_ways_over_utp_alone(self) -> None:
        with pair(listen=[UTP]) as (one, other):
            self.assertEqual([one.peer(other.id).endpoint], other.listeners())
            self.assertTrue(one.peer(other.id).endpoint.startswith("utp://"))
            one.send(other.id, b"hello")
            self.assertEqual(wait_for(other, crust.Message), crust.Message(one.id, b"hello", 1))
            other.send(one.id, b"hello too")
            self.assertEqual(wait_for(one, crust.Message), crust.Message(other.id, b"hello too", 1))
            large = bytes(range(256)) * (crust.MAX_MESSAGE // 256)
            one.send_wait(other.id, large, timeout=PATIENCE)
            self.assertTrue(wait_for(other, crust.Message).data == large)

    def test_listeners_by_default(self) -> None:
        with crust.Service(network_name=new_network()) as one:
            wait_for(one, crust.ListenerStarted)
            wait_for(one, crust.ListenerStarted)
            self.assertEqual(sorted(e.partition(":")[0] for e in one.listeners()), ["tcp", "utp"])


class Datagrams(TestCase):
    def test_of_all_sizes(self) -> None:
        with pair(listen=[UTP]) as (one, other):
            most = one.max_datagram(other.id)
            self.assertIn(most, range(1100, 65536))
            for size in (1, 0, most):
                data = bytes(n * 11 >> 2 & 255 for n in range(size))
                self.assertEqual(exchange(one, other, data), crust.Datagram(one.id, data))
            self.assertGreaterEqual(one.stats().sent_datagrams, 3)
            self.assertEqual(other.stats().sent_datagrams, 0)

    def test_refused(self) -> None:
        with pair(listen=[UTP]) as (one, other):
            with self.fails(crust.TooBig, "70000 bytes"):
                one.send_datagram(other.id, bytes(70_000))
            with self.fails(crust.UnknownPeer, "not connected"):
                one.send_datagram(one.id, b"x")
            with self.fails(crust.UnknownPeer, "not connected"):
                one.max_datagram(one.id)
            with self.fails(crust.Invalid, "bytes-like"):
                one.send_datagram(other.id, "x")  # type: ignore[arg-type]
            for wrong in (b"x", "x"):
                with self.fails(crust.Invalid, "peer id"):
                    one.send_datagram(wrong, b"x")  # type: ignore[arg-type]
                with self.fails(crust.Invalid, "peer id"):
                    one.max_datagram(wrong)  # type: ignore[arg-type]

    def test_over_tcp(self) -> None:
        with pair() as (one, other):
            data = bytes(one.max_datagram(other.id))
            self.assertGreaterEqual(len(data), 1100)
            self.assertEqual(exchange(one, other, data), crust.Datagram(one.id, data))
            with self.fails(crust.TooBig):
                one.send_datagram(other.id, data + b"x")

    def test_asyncio(self) -> None:
        async def program() -> None:
            network = new_network()
            async with (
                new_service(network, listen=[UTP]) as one,
                new_service(network, listen=[UTP]) as other,
            ):
                await one.connect(await other.connection_info())

                async def repeat() -> None:
                    while True:
                        one.send_datagram(other.id, bytearray(b"now"))
                        await asyncio.sleep(0.1)

                sending = asyncio.ensure_future(repeat())
                async for event in other:
                    if isinstance(event, crust.Datagram):
                        self.assertEqual(event, crust.Datagram(one.id, b"now"))
                        break
                sending.cancel()

        asyncio.run(asyncio.wait_for(program(), PATIENCE))


class Ports(TestCase):
    def test_a_live_port_is_tried_first(self) -> None:
        taken = socket.create_server(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        datagrams.bind(("127.0.0.1", port))

        def start(endpoint: str) -> int:
            with new_service(new_network(), listen=[endpoint], live_port=port) as one:
                return port_of(wait_for(one, crust.ListenerStarted).endpoint)

        with taken, datagrams:
            for endpoint in (LOOPBACK, UTP):
                self.assertNotEqual(start(endpoint), port)
        for endpoint in (LOOPBACK, UTP):
            self.assertEqual(start(endpoint), port)
        with self.fails(crust.Invalid, "65536"):
            new_service(new_network(), live_port=65536)

    def test_ports_rotate_and_sessions_stay(self) -> None:
        network = new_network()
        with self.fails(crust.Invalid, "PortRotation"):
            new_service(network, port_rotation=0.999)
        with new_service(network, listen=[UTP], port_rotation=1) as one, new_service(network) as other:
            first = wait_for(one, crust.ListenerStarted).endpoint
            other.connect_endpoint(first).result(PATIENCE)
            self.assertNotEqual(wait_for(one, crust.ListenerStarted).endpoint, first)
            self.assertEqual(wait_for(one, crust.ListenerStopped).endpoint, first)
            one.send(other.id, b"still here")
            self.assertEqual(wait_for(other, crust.Message).data, b"still here")


if __name__ == "__main__":
    unittest.main()
