"""Sessions that outlive their links, and receipts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import unittest
from collections.abc import Iterator

import crust
from support import LOOPBACK, PATIENCE, TestCase, new_network, new_service, pair, receive, wait_for


class Relay:
    """Carries TCP connections to a listener, and cuts them when told."""

    def __init__(self, target: str) -> None:
        host, _, port = target.removeprefix("tcp://").rpartition(":")
        self._target = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._guard = threading.Lock()
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def cut(self) -> None:
        """End the connections that there are."""
        with self._guard:
            for end in self._ends:
                with contextlib.suppress(OSError):  # the other side was faster
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join(PATIENCE)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(PATIENCE)
        for end in self._ends:
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                ends = [self._listener.accept()[0], socket.create_connection(self._target)]
            except OSError:
                return
            with self._guard:
                self._ends += ends
            for one, other in (ends, reversed(ends)):
                self._threads.append(threading.Thread(target=self._carry, args=(one, other)))
                self._threads[-1].start()

    @staticmethod
    def _carry(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay_to(service: crust.Service) -> Iterator[Relay]:
    relay = Relay(wait_for(service, crust.ListenerStarted).endpoint)
    try:
        yield relay
    finally:
        relay.close()


class Resuming(TestCase):
    def test_a_session_outlives_its_links(self) -> None:
        network = new_network()
        with (
            new_service(network) as one,
            relay_to(one) as relay,
            new_service(network, listen=[], resume_window=PATIENCE) as other,
        ):
            other.connect_endpoint(relay.endpoint).result(PATIENCE)
            wait_for(one, crust.Connected)  # before that there is nothing to resume
            sent = []
            for cut in range(3):
                contents = [b"%d %d" % (cut, n) for n in range(500)]
                self.assertEqual(other.send_many(one.id, contents), 500)
                relay.cut()
                suspended = wait_for(other, crust.Suspended)
                self.assertEqual((suspended.peer, suspended.endpoint), (one.id, relay.endpoint))
                self.assertLess(suspended.code, 0)
                self.assertIsInstance(suspended.error, crust.CrustError)
                other.send(one.id, b"meanwhile")
                sent += [*contents, b"meanwhile"]
                resumed = wait_for(other, crust.Resumed)
                self.assertEqual(resumed, crust.Resumed(one.id, relay.endpoint, crust.How.DIALED))
            received = [data for _, _, data in receive(one, len(sent))]
            self.assertEqual(received, sent)
            info = other.peer(one.id)
            self.assertEqual((info.suspended, info.resumed), (False, 3))
            self.assertEqual(other.stats().resumptions, 3)

    def test_a_session_that_does_not_resume(self) -> None:
        network = new_network()
        with (
            new_service(network) as one,
            relay_to(one) as relay,
            new_service(network, listen=[], resume=False) as other,
        ):
            other.connect_endpoint(relay.endpoint).result(PATIENCE)
            wait_for(one, crust.Connected)  # before that there is nothing to resume
            relay.cut()
            for event in other.events(PATIENCE):
                self.assertNotIsInstance(event, crust.Suspended)
                if isinstance(event, crust.Lost):
                    self.assertEqual((event.code, event.count), (crust.Code.RESET, 0))
                    break
            else:
                self.fail("the session was not lost")


class Receipts(TestCase):
    def test_delivered(self) -> None:
        with pair() as (one, other):
            calls = [one.send_receipt(other.id, b"%d" % n) for n in range(100)]
            events = [call.result(PATIENCE) for call in calls]
            self.assertEqual(events, [crust.Delivered(other.id, call.token, 0, "") for call in calls])
            self.assertEqual([data for _, _, data in receive(other, 100)], [b"%d" % n for n in range(100)])
            told = [event for event in one.poll(PATIENCE) if isinstance(event, crust.Delivered)]
            self.assertEqual(told, events)

    def test_the_session_is_lost_first(self) -> None:
        network = new_network()
        with (
            new_service(network) as one,
            relay_to(one) as relay,
            new_service(network, listen=[], resume=False) as other,
        ):
            other.connect_endpoint(relay.endpoint).result(PATIENCE)
            wait_for(one, crust.Connected)  # before that there is nothing to resume
            relay.cut()
            call = None
            with contextlib.suppress(crust.UnknownPeer):  # the loss was noticed before
                call = other.send_receipt(one.id, b"x")
            if call is not None:
                with self.fails(crust.Reset):
                    call.result(PATIENCE)

    def test_refused(self) -> None:
        with pair() as (one, other):
            with self.fails(crust.UnknownPeer, "not connected"):
                one.send_receipt(one.id, b"x")
            with self.fails(crust.TooBig):
                one.send_receipt(other.id, bytes(crust.MAX_MESSAGE + 1))
            with self.fails(crust.Invalid, "priority"):
                one.send_receipt(other.id, b"x", 256)
            self.assertEqual(one.send_receipt(other.id, b"and on").result(PATIENCE).code, 0)

    def test_asyncio(self) -> None:
        async def program() -> None:
            network = new_network()
            async with new_service(network, listen=[LOOPBACK]) as one, new_service(network) as other:
                await one.connect(await other.connection_info())
                delivered = await one.send_receipt(other.id, b"hello")
                self.assertEqual((delivered.peer, delivered.code), (other.id, crust.Code.OK))

        asyncio.run(asyncio.wait_for(program(), PATIENCE))


if __name__ == "__main__":
    unittest.main()
