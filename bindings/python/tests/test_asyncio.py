"""Services in asyncio programs."""

from __future__ import annotations

import asyncio
import socket
import threading
import unittest
from collections.abc import Coroutine
from typing import Any, Callable

import crust
from support import PATIENCE, TestCase, new_network, new_service


class ThreadedLoop(asyncio.SelectorEventLoop):
    """A loop that cannot watch descriptors, as the Proactor loop of Windows."""

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> None:  # type: ignore[override]
        raise NotImplementedError


def run(program: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop | None = None) -> None:
    """Run a program to its end, with the time of a test."""
    loop = loop or asyncio.SelectorEventLoop()
    try:
        loop.run_until_complete(asyncio.wait_for(program, PATIENCE))
        loop.run_until_complete(loop.shutdown_default_executor())
    finally:
        loop.close()


async def link(one: crust.Service, other: crust.Service) -> None:
    await one.connect(await other.connection_info())


async def next_of(service: crust.Service, kind: type[crust.Event]) -> crust.Event:
    async for event in service:
        if isinstance(event, kind):
            return event
    raise AssertionError(f"the events ended without {kind.__name__}")


async def hello() -> None:
    network = new_network()
    async with new_service(network) as one, new_service(network) as other:
        info = await other.connection_info()
        connected = await one.connect(info)
        assert connected.peer == other.id
        one.send(other.id, b"hello")
        async for event in other:
            if isinstance(event, crust.Message):
                assert event == crust.Message(one.id, b"hello", 1)
                other.send(event.peer, b"hello too")
                break
        message = await next_of(one, crust.Message)
        assert message == crust.Message(other.id, b"hello too", 1)


async def everything_in_order_though_unread() -> None:
    """Unread events stop the reading, and are all there when somebody reads."""
    network = new_network()
    count = 20_000
    async with new_service(network) as one, new_service(network) as other:
        await link(one, other)
        sent = one.send_many(other.id, [n.to_bytes(64, "big") for n in range(count)])
        assert sent == count
        while other.stats().events_total < count:
            await asyncio.sleep(0)
        for _ in range(1000):  # turns of the loop, in each of which hundreds of events could be read
            await asyncio.sleep(0)
        assert other.stats().events_queued > count // 2, "more was read than the bound allows"
        received = 0
        async for event in other:
            if isinstance(event, crust.Message):
                assert event.data == received.to_bytes(64, "big")
                received += 1
                if received == count:
                    break
        one.send(other.id, b"and on")
        assert (await next_of(other, crust.Message)) == crust.Message(one.id, b"and on", 1)


async def closing_ends_the_iteration() -> None:
    service = new_service(new_network())
    seen: list[crust.Event] = []

    async def take() -> None:
        async for event in service:
            seen.append(event)

    tasks = [asyncio.ensure_future(take()) for _ in range(3)]
    await service.connection_info()
    await service.aclose()
    await asyncio.gather(*tasks)
    assert any(isinstance(event, crust.ListenerStarted) for event in seen)
    assert service.closed
    await service.aclose()
    async for event in service:
        raise AssertionError(f"an event of a closed service: {event}")


class Common(TestCase):
    """What must hold however the events reach the loop."""

    def on_both(self, program: Callable[[], Coroutine[Any, Any, None]]) -> None:
        for loop in (asyncio.SelectorEventLoop(), ThreadedLoop()):
            with self.subTest(loop=type(loop).__name__):
                run(program(), loop)

    def test_hello(self) -> None:
        self.on_both(hello)

    def test_unread_events(self) -> None:
        self.on_both(everything_in_order_though_unread)

    def test_closing(self) -> None:
        self.on_both(closing_ends_the_iteration)

    def test_closing_from_another_thread(self) -> None:
        async def program() -> None:
            async with new_service(new_network()) as service:
                task = asyncio.ensure_future(next_of(service, crust.Stopped))
                await service.connection_info()
                thread = threading.Thread(target=service.close)
                thread.start()
                with self.assertRaises(AssertionError):
                    await task
                thread.join(PATIENCE)

        self.on_both(program)

    def test_other_threads_take_too(self) -> None:
        async def program() -> None:
            network = new_network()
            async with new_service(network) as one, new_service(network) as other:
                await link(one, other)
                taken: list[bytes] = []

                def take() -> None:
                    taken.extend(e.data for e in other.events() if isinstance(e, crust.Message))

                thread = threading.Thread(target=take)
                thread.start()
                contents = [n.to_bytes(4, "big") for n in range(3000)]
                self.assertEqual(one.send_many(other.id, contents), 3000)
                one.disconnect(other.id)
                await next_of(one, crust.Lost)
                other.stop()
                async for event in other:
                    if isinstance(event, crust.Message):
                        taken.append(event.data)
                await asyncio.get_running_loop().run_in_executor(None, thread.join)
                self.assertEqual(sorted(taken), contents)

        self.on_both(program)

    def test_stop(self) -> None:
        async def program() -> None:
            network = new_network()
            async with new_service(network) as one, new_service(network) as other:
                await link(one, other)
                one.stop()
                kinds = [type(event) async for event in one]
                self.assertEqual(kinds[-2:], [crust.Lost, crust.Stopped])
                self.assertEqual((await next_of(other, crust.Lost)).peer, one.id)  # type: ignore[attr-defined]

        self.on_both(program)

    def test_failures_are_raised(self) -> None:
        async def program() -> None:
            with socket.socket() as reserved:
                reserved.bind(("127.0.0.1", 0))
                endpoint = f"tcp://127.0.0.1:{reserved.getsockname()[1]}"
                async with new_service(new_network(), contacts=[endpoint]) as service:
                    with self.fails(crust.Refused, endpoint):
                        await service.connect_endpoint(endpoint)
                    with self.assertRaises(crust.CrustError):
                        await service.bootstrap()
                    with self.fails(crust.BadInfo):
                        await service.connect(b"nonsense")
                    failed = await next_of(service, crust.ConnectFailed)
                    assert isinstance(failed, crust.ConnectFailed)
                    self.assertEqual(failed.name, "refused")

        self.on_both(program)

    def test_closing_fails_what_is_awaited(self) -> None:
        async def program() -> None:
            with socket.create_server(("127.0.0.1", 0)) as silent:
                service = new_service(new_network())
                call = service.connect_endpoint(f"tcp://127.0.0.1:{silent.getsockname()[1]}")

                async def wait() -> None:
                    with self.fails(crust.Closed):
                        await call

                task = asyncio.ensure_future(wait())
                await service.connection_info()
                await service.aclose()
                await task

        self.on_both(program)

    def test_sending_waits_for_room(self) -> None:
        async def program() -> None:
            network = new_network()
            options: dict[str, Any] = {"event_queue": 1 << 20}
            async with new_service(network, **options) as one, new_service(network, **options) as other:
                await link(one, other)
                count, size = 500, 64 << 10
                full = 0

                async def drain_own_events() -> None:
                    nonlocal full
                    async for event in one:
                        full += isinstance(event, crust.Writable)

                own = asyncio.ensure_future(drain_own_events())

                async def send(start: int) -> None:
                    for number in range(start, count, 2):
                        await one.send_async(other.id, number.to_bytes(4, "big") + bytes(size - 4))

                senders = [asyncio.ensure_future(send(start)) for start in (0, 1)]
                numbers = []
                async for event in other:
                    if isinstance(event, crust.Message):
                        numbers.append(int.from_bytes(event.data[:4], "big"))
                        if len(numbers) == count:
                            break
                await asyncio.gather(*senders)
                self.assertEqual([n for n in numbers if n % 2], list(range(1, count, 2)))
                self.assertEqual([n for n in numbers if not n % 2], list(range(0, count, 2)))
                self.assertGreater(full, 0, "the queue was never full, so nothing waited")
                own.cancel()

        self.on_both(program)

    def test_sending_ends_with_the_session(self) -> None:
        async def program() -> None:
            network = new_network()
            async with (
                new_service(network) as one,
                new_service(network, event_queue=1 << 20, close_timeout=0.2) as other,
            ):
                await link(one, other)

                async def flood() -> None:
                    while True:
                        await one.send_async(other.id, bytes(1 << 20))

                task = asyncio.ensure_future(flood())
                await next_of(other, crust.Message)
                await other.aclose()
                with self.fails(crust.UnknownPeer):
                    await task

        self.on_both(program)


class Loops(TestCase):
    def test_other_threads_take_what_was_unread(self) -> None:
        async def program() -> None:
            network = new_network()
            async with new_service(network) as one, new_service(network) as other:
                await link(one, other)
                count = 20_000
                one.send_many(other.id, [bytes(64)] * count)
                while other.stats().events_total < count:
                    await asyncio.sleep(0)
                for _ in range(1000):
                    await asyncio.sleep(0)
                taken = 0
                while taken < count:  # also what the loop had read and nobody had taken
                    taken += sum(isinstance(event, crust.Message) for event in other.poll(PATIENCE))
                waiting = asyncio.ensure_future(next_of(other, crust.Message))
                await asyncio.sleep(0)
                one.send(other.id, b"for the loop again")
                self.assertEqual(await waiting, crust.Message(one.id, b"for the loop again", 1))

        run(program())
        run(program(), ThreadedLoop())

    def test_one_loop_after_the_other(self) -> None:
        service = new_service(new_network())

        async def program() -> None:
            self.assertEqual(crust.connection_info_peer(await service.connection_info()), service.id)

        run(program())
        run(program())
        run(service.aclose())

    def test_two_loops_at_once(self) -> None:
        async def program() -> None:
            async with new_service(new_network()) as service:

                async def elsewhere() -> None:
                    info = await service.connection_info()
                    self.assertEqual(crust.connection_info_peer(info), service.id)
                    with self.fails(crust.StateError, "another event loop"):
                        await service.__aiter__().__anext__()

                await asyncio.get_running_loop().run_in_executor(None, lambda: run(elsewhere()))

        run(program())

    def test_result_on_the_thread_of_the_loop(self) -> None:
        async def program() -> None:
            async with new_service(new_network()) as service:
                info = service.prepare_connection_info().result(PATIENCE)
                self.assertEqual(crust.connection_info_peer(info), service.id)
                await next_of(service, crust.ConnectionInfo)

        run(program())
        run(program(), ThreadedLoop())

    def test_result_in_another_thread(self) -> None:
        async def program() -> None:
            async with new_service(new_network()) as service:
                call = service.prepare_connection_info()
                info = await asyncio.get_running_loop().run_in_executor(None, call.result, PATIENCE)
                self.assertEqual(crust.connection_info_peer(info), service.id)
                self.assertEqual(await call, info)

        run(program())
        run(program(), ThreadedLoop())

    def test_cancelling_one_waiter_leaves_the_others(self) -> None:
        async def program() -> None:
            with socket.create_server(("127.0.0.1", 0)) as silent:
                async with new_service(new_network(), handshake_timeout=0.5) as service:
                    call = service.connect_endpoint(f"tcp://127.0.0.1:{silent.getsockname()[1]}")

                    async def wait() -> crust.Event:
                        return await call

                    first, second = asyncio.ensure_future(wait()), asyncio.ensure_future(wait())
                    await asyncio.sleep(0)
                    first.cancel()
                    with self.fails(crust.NetworkNameError):
                        await second
                    self.assertTrue(first.cancelled())

        run(program())


if __name__ == "__main__":
    unittest.main()
