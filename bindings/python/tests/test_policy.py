"""Who is not wanted: bans, the gate, alerts."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import socket
import threading
import unittest

import crust
from crust import _gate
from support import (
    PATIENCE,
    TestCase,
    new_network,
    new_service,
    pair,
    wait_for,
    wait_until,
)


class Bans(TestCase):
    def test_who_is_banned_is_lost_and_kept_out(self) -> None:
        with pair() as (one, other):
            one.ban([other.id, "192.0.2.77/24"], 3600, "spam")
            one.ban([ipaddress.ip_address("::1")])
            for service, peer in ((one, other), (other, one)):
                lost = wait_for(service, crust.Lost)
                self.assertEqual((lost.peer, lost.code), (peer.id, crust.Code.BANNED))
            with self.assertRaises(crust.Banned):
                one.connect_peer(other.id)
            with self.assertRaises(crust.Banned):
                other.connect_endpoint(one.listeners()[0]).result(PATIENCE)
            bans = one.bans()
            self.assertEqual([ban.who for ban in bans], [str(other.id), "192.0.2.0/24", "::1"])
            self.assertEqual([ban.reason for ban in bans], ["spam", "spam", ""])
            self.assertTrue(3000 < (bans[0].left or 0) <= 3600)
            self.assertIsNone(bans[2].left)
            self.assertEqual(one.unban([other.id, "192.0.2.0/24", "192.0.2.0/25"]), 2)
            self.assertEqual(other.connect_endpoint(one.listeners()[0]).result(PATIENCE).peer, one.id)

    def test_en_masse(self) -> None:
        with new_service(new_network()) as one:
            one.ban(f"10.{n >> 8}.{n & 255}.0/24" for n in range(10_000))
            self.assertEqual(len(one.bans()), 10_000)

    def test_wrong_ones(self) -> None:
        with new_service(new_network(), bans=["192.0.2.1"], max_bans=2) as one:
            for wrong in ("", "x", "1.2.3.4:5", "1.2.3.4/33", bytes(32)):
                with self.assertRaises(crust.Invalid):
                    one.ban([wrong])
            with self.fails(crust.Invalid, "sequence"):
                one.ban("1.2.3.4")
            for seconds in (0, -1, math.nan, math.inf):
                with self.fails(crust.Invalid, "seconds"):
                    one.ban(["1.2.3.4"], seconds)
            with self.assertRaises(crust.Invalid):
                one.ban(["1.2.3.4"], reason="x" * 257)
            with self.assertRaises(crust.SelfConnect):
                one.ban([one.id])
            with self.assertRaises(crust.Limit):
                one.ban(["1.2.3.4", "1.2.3.5"])
            self.assertEqual([ban.who for ban in one.bans()], ["192.0.2.1"])
        with self.assertRaises(crust.Invalid):
            crust.Service(bans=["x"])
        with self.assertRaises(crust.Invalid):
            crust.Service(allow_nodes=["x"])

    def test_whitelists(self) -> None:
        network = new_network()
        with new_service(network, allow_nodes=["192.0.2.0/24"]) as shy, new_service(network) as other:
            with self.assertRaises(crust.NotAllowed):
                other.connect_endpoint(shy.listeners()[0]).result(PATIENCE)
            shy.set_allowed(nodes=["127.0.0.0/8"], clients=["::1"])
            other.connect_endpoint(shy.listeners()[0]).result(PATIENCE)
            shy.set_allowed(nodes=["::1"])
            self.assertEqual(wait_for(shy, crust.Lost).code, crust.Code.NOT_ALLOWED)


class Gates(TestCase):
    def test_it_decides(self) -> None:
        network, asked = new_network(), []

        def gate(request: crust.GateRequest) -> bool:
            asked.append(request)
            return request.app_id == b"friend"

        with new_service(network, gate=gate) as one:
            for app_id in (b"friend", b"foe"):
                with new_service(network, app_id=app_id, role=crust.Role.CLIENT) as other:
                    call = other.connect_endpoint(one.listeners()[0])
                    if app_id == b"friend":
                        self.assertEqual(call.result(PATIENCE).peer, one.id)
                    else:
                        with self.assertRaises(crust.NotAllowed):
                            call.result(PATIENCE)
                    last = asked[-1]
                    self.assertEqual(
                        (last.peer, last.app_id, last.role), (other.id, app_id, crust.Role.CLIENT)
                    )
                    self.assertEqual((last.how, last.outbound), (crust.How.ACCEPTED, False))
                    self.assertIn("127.0.0.1", last.endpoint)
            self.assertEqual(len(asked), 2)
        wait_until(lambda: not _gate._held)

    def test_what_stalls_or_raises_refuses(self) -> None:
        go = threading.Event()

        def stalls(_: crust.GateRequest) -> bool:
            return go.wait(PATIENCE)

        def raises(_: crust.GateRequest) -> bool:
            raise ValueError("policy")

        self.addCleanup(go.set)
        for gate in (stalls, raises):
            network = new_network()
            logged = self.assertLogs("crust") if gate is raises else contextlib.nullcontext()
            with new_service(network, gate=gate, gate_timeout=0.5) as one, new_service(network) as other:
                at = one.listeners()[0]
                with self.assertRaises(crust.NotAllowed), logged:
                    other.connect_endpoint(at).result(PATIENCE)
        with self.fails(crust.Invalid, "gate must be a function"):
            crust.Service(gate="x")  # type: ignore[arg-type]


class Alerts(TestCase):
    def test_who_connects_and_says_nothing_is_told_of(self) -> None:
        with new_service(new_network()) as service:
            host, _, port = service.listeners()[0].removeprefix("tcp://").rpartition(":")
            for _ in range(200):
                socket.create_connection((host, int(port)), PATIENCE).close()
            alert = wait_for(service, crust.Alert)
            self.assertEqual((alert.kind, alert.peer), (crust.AlertKind.GARBAGE, None))
            self.assertIn(alert.count, range(64, 201))
            self.assertEqual((alert.address, alert.suggest, alert.suggest_for), (host, host, 600.0))
            self.assertIn(f"garbage: {alert.count} times", alert.text)


if __name__ == "__main__":
    unittest.main()
