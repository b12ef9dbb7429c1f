"""Taking the events of a service, until it is closed."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
import unittest

import crust
from support import (
    LOOPBACK,
    PATIENCE,
    TestCase,
    link,
    new_network,
    new_service,
    pair,
    receive,
    wait_for,
    wait_until,
)


class Taking(TestCase):
    def test_poll_takes_at_most(self) -> None:
        with pair() as (one, other):
            one.send_many(other.id, [bytes([n]) for n in range(10)])
            taken: list[crust.Event] = []
            while len(taken) < 10:
                events = other.poll(PATIENCE, 3)
                self.assertIn(len(events), (1, 2, 3))
                taken += events
            self.assertEqual(
                [event.data[0] for event in taken if isinstance(event, crust.Message)], list(range(10))
            )

    def test_poll_does_not_wait(self) -> None:
        with new_service(new_network(), listen=[]) as one:
            self.assertEqual(one.poll(0), [])
            self.assertEqual(one.poll(0.001), [])
            self.assertEqual(list(one.events(0)), [])
            self.assertFalse(one.receive_messages(0))

    def test_bad_arguments(self) -> None:
        with new_service(new_network()) as one:
            for bad in (-1, float("nan"), "1"):
                with self.subTest(timeout=bad), self.fails(crust.Invalid, "timeout"):
                    one.poll(bad)  # type: ignore[arg-type]
                with self.subTest(timeout=bad), self.fails(crust.Invalid, "timeout"):
                    one.events(bad)  # type: ignore[arg-type]
            for limit in (-1, 1 << 32):
                with self.subTest(limit=limit), self.fails(crust.Invalid, "max_events"):
                    one.poll(0, limit)

    def test_leaving_the_loop_leaves_the_rest(self) -> None:
        with pair() as (one, other):
            one.send_many(other.id, [bytes([n]) for n in range(20)])
            iterator = other.events(PATIENCE)
            numbers = []
            for _ in range(5):
                event = next(iterator)
                assert isinstance(event, crust.Message)
                numbers.append(event.data[0])
            while len(numbers) < 20:  # the suspended iterator holds nothing back
                numbers += [data[0] for _, _, data in other.receive_messages(PATIENCE)]
            self.assertEqual(numbers, list(range(20)))

    def test_order_of_columns_and_events(self) -> None:
        with pair() as (one, other):
            one.send_many(other.id, [b"a", b"bb", b""], priority=2)
            one.disconnect(other.id)
            story: list[object] = []
            while not any(isinstance(item, crust.Lost) for item in story):
                batch = other.receive_messages(PATIENCE)
                self.assertTrue(batch)
                story += [*batch, *batch.events]
            self.assertEqual(story[:3], [(one.id, 2, b"a"), (one.id, 2, b"bb"), (one.id, 2, b"")])
            self.assertIsInstance(story[3], crust.Lost)

    def test_messages_of_many_peers_in_one_batch(self) -> None:
        network = new_network()
        with new_service(network) as hub, new_service(network) as one, new_service(network) as other:
            link(hub, one)
            link(hub, other)
            before = hub.stats().events_total
            for number in range(50):
                for service in (one, other):
                    service.send(hub.id, bytes([number]))
                wait_until(lambda n=number: hub.stats().events_total == before + 2 * n + 2)  # type: ignore[misc]
            batch = hub.receive_messages(PATIENCE)
            self.assertEqual(len(batch), 100)
            for service in (one, other):
                mine = [data[0] for peer, _, data in batch if peer == service.id]
                self.assertEqual(mine, list(range(50)))

    def test_columns_stop_at_the_next_message_after_an_event(self) -> None:
        for through_the_backlog in (False, True):
            with pair() as (one, other):
                while other.poll(0):
                    pass
                before = other.stats().events_total
                one.send_many(other.id, [b"1", b"2"])
                wait_until(lambda: other.stats().events_total == before + 2)  # noqa: B023 - called at once
                other.listen(LOOPBACK)
                wait_until(lambda: other.stats().events_total == before + 3)  # noqa: B023
                one.send_many(other.id, [b"3", b"4", b"5"])
                wait_until(lambda: other.stats().events_total == before + 6)  # noqa: B023
                if through_the_backlog:
                    other.prepare_connection_info().result(PATIENCE)
                first, second = other.receive_messages(PATIENCE), other.receive_messages(PATIENCE)
                self.assertEqual(first.data, [b"1", b"2"])
                self.assertEqual([type(event) for event in first.events], [crust.ListenerStarted])
                self.assertEqual(second.data, [b"3", b"4", b"5"])
                self.assertEqual(second.peers, [one.id] * 3)
                self.assertEqual(second.priorities, [1] * 3)
                self.assertEqual(bool(second.events), through_the_backlog)  # the ConnectionInfo

    def test_forms_do_not_depend_on_who_waited(self) -> None:
        with pair() as (one, other):
            for copy in (True, False):
                one.send_many(other.id, [b"a", b"b", b"c"])
                wait_until(lambda: other.stats().events_queued >= 3)
                other.prepare_connection_info().result(PATIENCE)  # moves them to the backlog
                (event,) = other.poll(PATIENCE, 1, copy=copy)
                self.assertIs(type(event), crust.Message if copy else crust.MessageView)
                self.assertIs(type(next(iter(other.events(PATIENCE, copy=copy)))), type(event))
                (data,) = other.receive_messages(PATIENCE, 1, copy=copy).data
                self.assertIs(type(data), bytes if copy else memoryview)
                self.assertEqual(bytes(data), b"c")
                wait_for(other, crust.ConnectionInfo)

    def test_result_does_not_hoard(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent, pair() as (one, other):
            call = other.connect_endpoint(f"tcp://127.0.0.1:{silent.getsockname()[1]}")
            self.assertEqual(one.send_many(other.id, [b"x"] * 10_000), 10_000)
            with self.fails(crust.Limit, "events wait unread"):
                call.result(PATIENCE)
            self.assertEqual(len(receive(other, 10_000)), 10_000)

    def test_views_outlive_the_service(self) -> None:
        with pair() as (one, other):
            contents = [bytes([n]) * 1000 for n in range(50)]
            one.send_many(other.id, contents)
            views: list[memoryview] = []
            while len(views) < 25:
                views += other.receive_messages(PATIENCE, 25 - len(views), copy=False).data
            while len(views) < 50:
                for event in other.poll(PATIENCE, copy=False):
                    assert isinstance(event, crust.MessageView)
                    self.assertEqual((event.peer, event.priority), (one.id, 1))
                    views.append(event.data)
        self.assertTrue(all(view.readonly for view in views))
        self.assertEqual([bytes(view) for view in views], contents)

    def test_wakeup(self) -> None:
        with new_service(new_network(), listen=[]) as one:
            one.wakeup()
            self.assertEqual(one.poll(PATIENCE), [])
            results: list[list[crust.Event]] = []
            thread = threading.Thread(target=lambda: results.append(one.poll(None)))
            thread.start()
            one.wakeup()
            thread.join(PATIENCE)
            self.assertEqual(results, [[]])

    def test_result_keeps_the_events(self) -> None:
        with pair() as (one, other):
            one.send_many(other.id, [b"before"] * 2)
            self.assertEqual(wait_for(other, crust.Message).data, b"before")
            other.prepare_connection_info().result(PATIENCE)
            kinds = [type(other.poll(PATIENCE, 1)[0]) for _ in range(2)]
            self.assertEqual(set(kinds), {crust.Message, crust.ConnectionInfo})

    def test_results_beside_a_taker(self) -> None:
        with pair() as (one, _):
            stopped = threading.Event()

            def take() -> None:
                for event in one.events():
                    if isinstance(event, crust.Stopped):
                        stopped.set()

            taker = threading.Thread(target=take)
            taker.start()
            infos = [one.prepare_connection_info() for _ in range(20)]
            self.assertEqual({crust.connection_info_peer(call.result(PATIENCE)) for call in infos}, {one.id})
            one.stop()
            taker.join(PATIENCE)
            self.assertTrue(stopped.is_set())

    def test_fileno_is_readable_while_events_wait(self) -> None:
        with pair() as (one, other):
            while other.poll(0):
                pass
            self.assertEqual(select.select([other], [], [], 0)[0], [])
            one.send(other.id, b"x")
            self.assertEqual(select.select([other], [], [], PATIENCE)[0], [other])
            self.assertEqual(len(other.poll(0)), 1)
            # The descriptor may be readable once too often, but polling puts an end to that.
            deadline = time.monotonic() + PATIENCE
            while select.select([other], [], [], 0)[0]:
                self.assertEqual(other.poll(0), [])
                self.assertLess(time.monotonic(), deadline, "readable for ever though nothing waits")

    def test_threads_share_the_events(self) -> None:
        with pair() as (one, other):
            shares: list[list[bytes]] = [[] for _ in range(4)]

            def take(share: list[bytes]) -> None:
                share.extend(e.data for e in other.events() if isinstance(e, crust.Message))

            threads = [threading.Thread(target=take, args=(share,)) for share in shares]
            for thread in threads:
                thread.start()
            contents = [n.to_bytes(4, "big") for n in range(5000)]
            self.assertEqual(one.send_many(other.id, contents, timeout=PATIENCE), 5000)
            one.disconnect(other.id)
            wait_for(one, crust.Lost)  # the other side has got everything
            other.stop()
            for thread in threads:
                thread.join(PATIENCE)
            self.assertEqual(
                sorted(b"".join(share)[i : i + 4] for share in shares for i in range(0, 4 * len(share), 4)),
                contents,
            )


class Closing(TestCase):
    def test_every_method_says_closed(self) -> None:
        one = new_service(new_network())
        peer = one.id
        self.assertFalse(one.closed)
        one.close()
        one.close()
        self.assertTrue(one.closed)
        self.assertEqual(one.id, peer)
        for call in (
            lambda: one.poll(0),
            lambda: one.receive_messages(0),
            lambda: one.wakeup(),
            lambda: one.fileno(),
            lambda: one.send(peer, b""),
            lambda: one.send_wait(peer, b""),
            lambda: one.send_many(peer, [b""]),
            lambda: one.send_batch([(peer, b"", 0)]),
            lambda: one.send_receipt(peer, b""),
            lambda: one.send_datagram(peer, b""),
            lambda: one.max_datagram(peer),
            lambda: one.prepare_connection_info(),
            lambda: one.connect(b"x"),
            lambda: one.connect_endpoint(LOOPBACK),
            lambda: one.bootstrap(),
            lambda: one.bootstrap(excluding=[LOOPBACK]),
            lambda: one.stop_bootstrap(),
            lambda: one.disconnect(peer),
            lambda: one.listen(LOOPBACK),
            lambda: one.stop_listening(LOOPBACK),
            lambda: one.listeners(),
            lambda: one.set_accept(True),
            lambda: one.set_beacon(crust.Beacon.OFF),
            lambda: one.ban([peer]),
            lambda: one.unban([peer]),
            lambda: one.bans(),
            lambda: one.set_allowed(),
            lambda: one.peers(),
            lambda: one.peer(peer),
            lambda: one.stats(),
            lambda: one.stop(),
        ):
            with self.fails(crust.Closed, "the service is closed"):
                call()
        self.assertEqual(list(one.events()), [])

    def test_what_was_accepted_arrives(self) -> None:
        network = new_network()
        with new_service(network) as other:
            with new_service(network) as one:
                link(one, other)
                self.assertEqual(one.send_many(other.id, [b"x"] * 1000), 1000)
            received, codes = 0, []
            for event in other.events(PATIENCE):
                received += isinstance(event, crust.Message)
                if isinstance(event, crust.Lost):
                    codes.append(event.code)
                    break
            self.assertEqual((received, codes), (1000, [crust.Code.DISCONNECTED]))

    def test_stop_then_the_remaining_events(self) -> None:
        with pair() as (one, other):
            one.stop()
            one.stop()
            events = list(one.events(PATIENCE))
            self.assertIsInstance(events[-1], crust.Stopped)
            self.assertEqual(events[-1], crust.Stopped(0, ""))
            self.assertIn(other.id, [event.peer for event in events if isinstance(event, crust.Lost)])
            with self.fails(crust.Closed):
                one.poll(0)

    def test_waiting_threads_end(self) -> None:
        one = new_service(new_network(), listen=[])
        waiting = threading.Barrier(4)
        ended: list[str] = []

        def poll() -> None:
            waiting.wait()
            try:
                one.poll()
            except crust.Closed:
                ended.append("poll")

        def iterate() -> None:
            waiting.wait()
            ended.extend("event" for _ in one.events())
            ended.append("events")

        def receive_messages() -> None:
            waiting.wait()
            try:
                one.receive_messages()
            except crust.Closed:
                ended.append("receive_messages")

        threads = [threading.Thread(target=target) for target in (poll, iterate, receive_messages)]
        for thread in threads:
            thread.start()
        waiting.wait()
        one.close()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual(sorted(ended), ["events", "poll", "receive_messages"])

    def test_forgotten_service_warns_and_is_closed(self) -> None:
        network = new_network()
        with new_service(network) as other:
            one = new_service(network)
            link(one, other)
            with self.assertWarnsRegex(ResourceWarning, "unclosed <Service"):
                del one
            self.assertEqual(wait_for(other, crust.Lost).code, crust.Code.DISCONNECTED)

    def test_nothing_is_left_open(self) -> None:
        def descriptors() -> int:
            return len(os.listdir("/proc/self/fd"))

        with pair():
            pass
        before = descriptors()
        for _ in range(10):
            with pair() as (one, other):
                one.send(other.id, b"x")
                receive(other, 1)
        self.assertLessEqual(descriptors(), before)


if __name__ == "__main__":
    unittest.main()
