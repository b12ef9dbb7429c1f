"""Peer ids, events, errors and options as values."""

from __future__ import annotations

import dataclasses
import pickle
import typing
import unittest

import crust
from crust._options import Options
from support import TestCase

PEER = crust.PeerId(bytes(range(32)))
EVENTS: list[crust.Event] = [
    crust.Message(PEER, b"data", 1),
    crust.Datagram(PEER, b"data"),
    crust.Writable(PEER),
    crust.ListenerStarted("tcp://127.0.0.1:1"),
    crust.ListenerStopped("tcp://127.0.0.1:1"),
    crust.NetworkChanged(2),
    crust.PortMapped("tcp://203.0.113.5:1", "tcp://10.0.0.2:1", crust.Means.PCP, 3600.0, 0, ""),
    crust.CacheTrouble(-20, "why"),
    crust.Discovered(PEER, "tcp://10.0.0.2:1", crust.Role.NODE, crust.By.BEACON),
    crust.Forgotten(PEER, crust.By.GOSSIP),
    crust.Clear(PEER, "tracer://10.0.0.2:1", crust.How.DIALED),
    crust.GroupChanged("friends", crust.GroupState.DOWN, PEER, 1, 2, 1.5, crust.Code.RESET, "why"),
    crust.GroupChanged("any", crust.GroupState.TRYING, None, 1, 2, 0.0, 0, ""),
    crust.Alert(crust.AlertKind.PROTOCOL, PEER, "203.0.113.5", 1, 2, 0.5, str(PEER), 600.0, "all of it"),
    crust.Alert(crust.AlertKind.GARBAGE, None, "203.0.113.0/24", 1, 2, 0.5, "", 0.0, "all of it"),
    crust.PortUnmapped("tcp://203.0.113.5:1", "tcp://10.0.0.2:1", crust.Means.PCP, 0, ""),
    crust.ListenerFailed("tcp://127.0.0.1:1", crust.Code.ADDRESS_IN_USE, "why"),
    crust.ConnectionInfo(7, b"info"),
    crust.Connected(PEER, 7, crust.How.DIALED, crust.Role.NODE, "tcp://127.0.0.1:1", b"app", 0.5),
    crust.AlreadyConnected(PEER, 7),
    crust.ConnectFailed(7, None, "", crust.Code.REFUSED, "why"),
    crust.Bootstrapped(PEER, 7, "tcp://127.0.0.1:1"),
    crust.BootstrapFailed(7, crust.Code.TIMEOUT, "why"),
    crust.Lost(PEER, crust.Code.RESET, "why", 3),
    crust.Suspended(PEER, "tcp://127.0.0.1:1", crust.Code.RESET, "why"),
    crust.Resumed(PEER, "tcp://127.0.0.1:1", crust.How.DIALED),
    crust.Delivered(PEER, 7, crust.Code.EXPIRED, "why"),
    crust.MessagesDropped(PEER, 2, 3, 4),
    crust.Stopped(0, ""),
    crust.Unknown(99, 0, 0, None, b"", "", ""),
]


class PeerIds(TestCase):
    def test_forms(self) -> None:
        text = bytes(range(32)).hex()
        self.assertEqual(str(PEER), text)
        self.assertEqual(f"{PEER}", text)
        self.assertEqual(repr(PEER), f"PeerId('{text}')")
        self.assertEqual(PEER.short, text[:8])
        for form in (text, text.upper(), bytes(PEER), bytearray(PEER), memoryview(PEER), PEER):
            self.assertEqual(crust.PeerId(form), PEER)

    def test_is_bytes(self) -> None:
        self.assertEqual({bytes(PEER): 1}[PEER], 1)
        self.assertLess(PEER, crust.PeerId(bytes(reversed(range(32)))))
        self.assertEqual(pickle.loads(pickle.dumps(PEER)), PEER)  # noqa: S301 - our own bytes
        self.assertIs(type(pickle.loads(pickle.dumps(PEER))), crust.PeerId)  # noqa: S301

    def test_malformed(self) -> None:
        for bad in ("", "ab", "zz" * 32, "ab" * 33, b"", bytes(31), bytes(33), 5, None, "ab" * 31 + "\0"):
            with self.subTest(bad=bad), self.fails(crust.Invalid, "peer id"):
                crust.PeerId(bad)  # type: ignore[arg-type]

    def test_generated_differ(self) -> None:
        self.assertEqual(len({crust.generate_identity() for _ in range(10)}), 10)


class Events(TestCase):
    def test_all_are_here(self) -> None:
        kinds = {
            kind for kind in vars(crust).values() if isinstance(kind, type) and issubclass(kind, crust.Event)
        }
        self.assertEqual(kinds, {type(event) for event in EVENTS} | {crust.Event, crust.MessageView})

    def test_values(self) -> None:
        for event in EVENTS:
            with self.subTest(event=event):
                fields = [field.name for field in dataclasses.fields(event)]  # type: ignore[arg-type]
                self.assertEqual(pickle.loads(pickle.dumps(event)), event)  # noqa: S301 - our own bytes
                self.assertEqual(len({event, dataclasses.replace(event)}), 1)  # type: ignore[type-var]
                with self.assertRaises(dataclasses.FrozenInstanceError):
                    setattr(event, fields[0], None)
                with self.assertRaises((AttributeError, TypeError)):
                    event.other = 1  # type: ignore[attr-defined]
                self.assertFalse(hasattr(event, "__dict__"))
                self.assertTrue(repr(event).startswith(type(event).__name__ + "("))

    def test_repr_can_be_evaluated(self) -> None:
        for event in EVENTS:
            with self.subTest(event=event):
                self.assertEqual(eval(repr(event), vars(crust).copy()), event)  # noqa: S307 - our own text

    def test_repr_of_large_data_is_short(self) -> None:
        event = crust.Message(PEER, bytes(1 << 20), 1)
        self.assertLess(len(repr(event)), 200)
        self.assertIn("1048576 bytes", repr(event))
        self.assertLess(len(repr(crust.MessageView(PEER, memoryview(bytes(1 << 20)), 1))), 200)

    def test_views(self) -> None:
        event = crust.MessageView(PEER, memoryview(b"data"), 1)
        self.assertEqual(event, crust.MessageView(PEER, memoryview(b"data"), 1))
        self.assertEqual(pickle.loads(pickle.dumps(event)), crust.Message(PEER, b"data", 1))  # noqa: S301

    def test_errors_of_events(self) -> None:
        for event in EVENTS:
            if hasattr(event, "code") and event.code:
                self.assertIsInstance(event.error, crust.CrustError)  # type: ignore[attr-defined]
                self.assertEqual(str(event.error), "why")  # type: ignore[attr-defined]
                self.assertEqual(event.error.name, event.name)  # type: ignore[attr-defined]


class Errors(TestCase):
    def test_families(self) -> None:
        self.assertTrue(issubclass(crust.TooBig, ValueError))
        self.assertTrue(issubclass(crust.UnknownPeer, LookupError))
        self.assertTrue(issubclass(crust.Refused, crust.TransportError))
        self.assertTrue(issubclass(crust.WrongPeer, crust.PeerError))

    def test_values(self) -> None:
        failure = crust.TooBig("a sentence", crust.Code.TOO_BIG, 3)
        again = pickle.loads(pickle.dumps(failure))  # noqa: S301 - our own bytes
        for error in (failure, again):
            self.assertEqual(
                (str(error), error.code, error.name, error.accepted), ("a sentence", -10, "too_big", 3)
            )
        self.assertEqual(crust.CrustError("x", -999).name, "code(-999)")


class Keywords(TestCase):
    def test_are_the_fields_of_config(self) -> None:
        self.assertEqual(typing.get_type_hints(Options), typing.get_type_hints(crust.Config))

    def test_everything_public_is_documented(self) -> None:
        for name in crust.__all__:
            thing = getattr(crust, name)
            if not isinstance(thing, (int, str)):
                self.assertTrue(thing.__doc__, name)


if __name__ == "__main__":
    unittest.main()
