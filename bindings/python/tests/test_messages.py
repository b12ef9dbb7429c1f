"""Sending: sizes, queues, forms of data."""

from __future__ import annotations

import random
import threading
import unittest
from array import array

import crust
from support import PATIENCE, TestCase, link, new_network, new_service, pair, receive, wait_for

MESSAGE = 64 << 10


def fill(service: crust.Service, peer: crust.PeerId) -> int:
    """Send until the queue is full; return how many were accepted."""
    accepted = 0
    while True:
        try:
            service.send(peer, accepted.to_bytes(4, "big") + bytes(MESSAGE - 4))
        except crust.WouldBlock:
            return accepted
        accepted += 1


class Sizes(TestCase):
    def test_largest(self) -> None:
        with pair() as (one, other):
            contents = bytes(range(256)) * (crust.MAX_MESSAGE // 256)
            one.send(other.id, contents)
            self.assertEqual(receive(other, 1), [(one.id, 1, contents)])

    def test_one_byte_more_is_refused_and_harms_nothing(self) -> None:
        with pair() as (one, other):
            too_big = bytes(crust.MAX_MESSAGE + 1)
            for call in (
                lambda: one.send(other.id, too_big),
                lambda: one.send_wait(other.id, too_big),
                lambda: one.send_many(other.id, [too_big]),
                lambda: one.send_batch([(other.id, too_big, 1)]),
            ):
                with self.fails(crust.TooBig):
                    call()
            one.send(other.id, b"still here")
            self.assertEqual(receive(other, 1), [(one.id, 1, b"still here")])

    def test_sizes_around_the_ways_of_copying(self) -> None:
        sizes = [0, 1, 2, 63, 64, 65, 1023, 1024, 1025, 4095, 4096, 4097, 65535, 65536, 65537, 300000]
        contents = [bytes([index]) * size for index, size in enumerate(sizes)]
        with pair() as (one, other):
            for one_by_one in (True, False):
                for copy in (True, False):
                    for content in contents:
                        if one_by_one:
                            one.send(other.id, content)
                    if not one_by_one:
                        self.assertEqual(one.send_many(other.id, contents, timeout=PATIENCE), len(contents))
                    got: list[bytes] = []
                    while len(got) < len(contents):
                        for event in other.poll(PATIENCE, copy=copy):
                            assert isinstance(event, (crust.Message, crust.MessageView))
                            got.append(bytes(event.data))
                    self.assertEqual(got, contents)

    def test_many_equal_sizes(self) -> None:
        with pair() as (one, other):
            for size in (1, 64, 2000, 5000):
                contents = [n.to_bytes(2, "big") * (size // 2) + b"." for n in range(400)]
                self.assertEqual(one.send_many(other.id, contents, timeout=PATIENCE), 400)
                self.assertEqual([data for _, _, data in receive(other, 400)], contents)


    def test_shapes_in_turn(self) -> None:
        """Calls with one size and with many, longer and shorter ones, to two peers, do not mix up."""
        network = new_network()
        choose = random.Random(1)
        with new_service(network) as one, new_service(network) as two, new_service(network) as three:
            link(one, two)
            link(one, three)
            wanted: dict[crust.PeerId, list[tuple[int, bytes]]] = {two.id: [], three.id: []}
            for call in range(400):
                peer = choose.choice((two.id, three.id))
                priority, count = choose.choice((1, 1, 2)), choose.choice((1, 2, 40, 65, 300))
                size = choose.choice((0, 1, 64, 64, 64, 300, 1100))
                alike = choose.random() < 0.7
                stamp = call.to_bytes(2, "big") * 600
                contents = [stamp[: size if alike else choose.randrange(1200)] for _ in range(count)]
                self.assertEqual(one.send_many(peer, contents, priority=priority, timeout=PATIENCE), count)
                wanted[peer] += [(priority, content) for content in contents]
            for service in (two, three):
                got: list[tuple[int, bytes]] = []
                while len(got) < len(wanted[service.id]):
                    batch = service.receive_messages(PATIENCE, copy=len(got) % 3 > 0)
                    got += [(priority, bytes(data)) for _, priority, data in batch]
                for priority in (1, 2):  # the order among priorities is the library's affair
                    self.assertEqual(
                        [data for p, data in got if p == priority],
                        [data for p, data in wanted[service.id] if p == priority],
                    )


class Forms(TestCase):
    def test_everything_bytes_like(self) -> None:
        numbers = array("H", [1, 2, 3])
        forms = [
            b"bytes",
            bytearray(b"bytearray"),
            bytearray(),
            memoryview(b"a read-only view")[2:],
            memoryview(bytearray(b"a writable view"))[2:],
            memoryview(numbers),
            memoryview(b"with gaps")[::2],
        ]
        wanted = [bytes(memoryview(form)) for form in forms]
        with pair() as (one, other):
            for form in forms:
                one.send(other.id, form)
                one.send_wait(other.id, form)
            self.assertEqual(
                [data for _, _, data in receive(other, 14)], [data for data in wanted for _ in "12"]
            )
            self.assertEqual(one.send_many(other.id, forms), len(forms))
            self.assertEqual(one.send_many(other.id, iter(forms)), len(forms))
            self.assertEqual([data for _, _, data in receive(other, 14)], wanted * 2)
            large = [bytes(form) * 3000 for form in wanted] + [bytearray(b"x") * 9000, bytearray()]
            self.assertEqual(one.send_many(other.id, large), len(large))
            self.assertEqual(
                [data for _, _, data in receive(other, len(large))], [bytes(data) for data in large]
            )

    def test_what_is_no_message(self) -> None:
        with pair() as (one, other):
            for bad in ("text", 5, None, [1, 2]):
                for call in (
                    lambda bad=bad: one.send(other.id, bad),
                    lambda bad=bad: one.send_many(other.id, [b"ok", bad]),
                    lambda bad=bad: one.send_batch([(other.id, bad, 1)]),
                ):
                    with self.subTest(bad=bad), self.fails(crust.Invalid, "a message is bytes-like"):
                        call()
            one.send(other.id, b"the end")
            self.assertEqual(receive(other, 1), [(one.id, 1, b"the end")])

    def test_what_is_no_peer(self) -> None:
        with pair() as (one, other):
            for bad in (b"short", bytes(33), str(other.id), None, bytearray(other.id)):
                for call in (
                    lambda bad=bad: one.send(bad, b""),
                    lambda bad=bad: one.send_wait(bad, b""),
                    lambda bad=bad: one.send_many(bad, [b""]),
                    lambda bad=bad: one.send_batch([(bad, b"", 0)]),
                    lambda bad=bad: one.disconnect(bad),
                    lambda bad=bad: one.peer(bad),
                ):
                    with self.subTest(bad=bad), self.fails(crust.Invalid, "peer id"):
                        call()
            one.send(bytes(other.id), b"plain bytes do")
            self.assertEqual(receive(other, 1), [(one.id, 1, b"plain bytes do")])

    def test_priorities(self) -> None:
        with pair() as (one, other):
            for bad in (-1, 256):
                with self.subTest(bad=bad), self.fails(crust.Invalid, "priority"):
                    one.send(other.id, b"", bad)
                with self.subTest(bad=bad), self.fails(crust.Invalid, "priority"):
                    one.send_many(other.id, [b""], bad)
                with self.subTest(bad=bad), self.fails(crust.Invalid, "priority"):
                    one.send_batch([(other.id, b"", bad)])
            for priority in (0, 1, 255):
                one.send_many(other.id, [b"x"], priority)
                self.assertEqual(receive(other, 1), [(one.id, priority, b"x")])


class Batches(TestCase):
    def test_nothing(self) -> None:
        with pair() as (one, other):
            self.assertEqual(one.send_many(other.id, []), 0)
            self.assertEqual(one.send_batch([]), 0)

    def test_more_than_one_call_holds(self) -> None:
        with pair() as (one, other):
            contents = [n.to_bytes(8, "big") for n in range(10_000)]
            self.assertEqual(one.send_many(other.id, contents), len(contents))
            self.assertEqual([data for _, _, data in receive(other, len(contents))], contents)

    def test_mixture(self) -> None:
        network = new_network()
        with new_service(network) as hub, new_service(network) as one, new_service(network) as other:
            link(hub, one)
            link(hub, other)
            messages = [((one, other)[n % 2].id, n.to_bytes(2, "big"), n % 3) for n in range(3000)]
            self.assertEqual(hub.send_batch(messages), 3000)
            for service in (one, other):
                got = receive(service, 1500)
                for priority in range(3):
                    self.assertEqual(
                        [data for _, p, data in got if p == priority],
                        [data for peer, data, p in messages if peer == service.id and p == priority],
                    )

    def test_refusal_says_how_many_were_accepted(self) -> None:
        stranger = crust.generate_identity()[1]
        too_big = bytes(crust.MAX_MESSAGE + 1)
        with pair() as (one, other):
            with self.assertRaises(crust.TooBig) as caught:
                one.send_many(other.id, [b"1", b"2", too_big, b"never"])
            self.assertEqual(caught.exception.accepted, 2)
            with self.assertRaises(crust.UnknownPeer) as unknown:
                one.send_batch([(other.id, b"3", 1)] * 1500 + [(stranger, b"x", 1), (other.id, b"never", 1)])
            self.assertEqual(unknown.exception.accepted, 1500)
            self.assertIn(stranger.short, str(unknown.exception))
            self.assertEqual([data for _, _, data in receive(other, 1502)], [b"1", b"2"] + [b"3"] * 1500)


class FullQueue(TestCase):
    def test_would_block_then_writable(self) -> None:
        with pair(event_queue=1 << 20) as (one, other):
            accepted = fill(one, other.id)
            self.assertGreater(accepted, 0)
            self.assertGreater(one.peer(other.id).queued_bytes, 0)
            got = receive(other, accepted)
            self.assertEqual([int.from_bytes(data[:4], "big") for _, _, data in got], list(range(accepted)))
            self.assertEqual(wait_for(one, crust.Writable), crust.Writable(other.id))
            one.send(other.id, b"room again")
            self.assertEqual(receive(other, 1), [(one.id, 1, b"room again")])

    def test_refusal_says_who(self) -> None:
        with pair() as (one, other), self.fails(crust.WouldBlock, other.id.short):
            while True:
                one.send(other.id, bytes(MESSAGE))

    def test_many_stop_at_the_full_queue(self) -> None:
        count = 10_000  # more than all buffers between the two can hold
        contents = [n.to_bytes(4, "big") + bytes(MESSAGE - 4) for n in range(8)] * (count // 8)
        with pair(event_queue=1 << 20) as (one, other):
            for mixed in (False, True):
                if mixed:
                    accepted = one.send_batch([(other.id, content, 1) for content in contents])
                else:
                    accepted = one.send_many(other.id, contents)
                self.assertGreater(accepted, 0)
                self.assertLess(accepted, count)
                self.assertEqual([data for _, _, data in receive(other, accepted)], contents[:accepted])
                self.assertEqual(wait_for(one, crust.Writable), crust.Writable(other.id))

    def test_waiting_has_an_end(self) -> None:
        with pair(event_queue=1 << 20) as (one, other):
            accepted = fill(one, other.id)
            # What lies in the buffers of the system goes on for a moment.
            with self.fails(crust.Timeout, other.id.short):
                while True:
                    one.send_wait(other.id, bytes(MESSAGE), timeout=0.01)
                    accepted += 1
            more = one.send_many(other.id, [bytes(MESSAGE)] * 10_000, timeout=0.01)
            self.assertLess(more, 10_000)
            self.assertEqual(len(receive(other, accepted + more)), accepted + more)

    def test_waiting_for_a_reader(self) -> None:
        with pair(event_queue=1 << 20) as (one, other):
            count = 400
            contents = [n.to_bytes(4, "big") + bytes(MESSAGE - 4) for n in range(count)]
            results: list[int] = []

            def send() -> None:
                results.append(one.send_many(other.id, contents[:200], timeout=None))
                for content in contents[200:]:
                    one.send_wait(other.id, content, timeout=PATIENCE)
                results.append(200)

            thread = threading.Thread(target=send)
            thread.start()
            got = receive(other, count)
            thread.join(PATIENCE)
            self.assertEqual(results, [200, 200])
            self.assertEqual([data for _, _, data in got], contents)

    def test_waiting_ends_with_the_session(self) -> None:
        for end in (lambda one, _: one.close(), lambda _, other: other.close()):
            with pair(event_queue=1 << 20, close_timeout=0.1) as (one, other):
                fill(one, other.id)
                outcome: list[type[BaseException]] = []
                started = threading.Event()

                def send(
                    one: crust.Service = one,
                    peer: crust.PeerId = other.id,
                    started: threading.Event = started,
                    outcome: list[type[BaseException]] = outcome,
                ) -> None:
                    started.set()
                    try:
                        one.send_wait(peer, bytes(MESSAGE))
                        one.send_many(peer, [bytes(MESSAGE)] * 1000, timeout=None)
                    except crust.CrustError as failure:
                        outcome.append(type(failure))

                thread = threading.Thread(target=send)
                thread.start()
                started.wait(PATIENCE)
                end(one, other)
                thread.join(PATIENCE)
                self.assertIn(outcome, ([crust.UnknownPeer], [crust.Closed]))


if __name__ == "__main__":
    unittest.main()
