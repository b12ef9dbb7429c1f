"""Services: listening, identities, options, looking."""

from __future__ import annotations

import socket
import stat
import tempfile
import unittest
from pathlib import Path

import crust
from crust import _ffi, _nat
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


class Hello(TestCase):
    def test_both_ways(self) -> None:
        with pair() as (one, other):
            one.send(other.id, b"hello")
            self.assertEqual(wait_for(other, crust.Message), crust.Message(one.id, b"hello", 1))
            other.send(one.id, b"hello too", priority=0)
            self.assertEqual(wait_for(one, crust.Message), crust.Message(other.id, b"hello too", 0))

    def test_connected_says_who_and_how(self) -> None:
        network = new_network()
        with (
            new_service(network, app_id=b"app one", role=crust.Role.CLIENT) as one,
            new_service(network) as other,
        ):
            info = other.prepare_connection_info().result(PATIENCE)
            self.assertEqual(crust.connection_info_peer(info), other.id)
            call = one.connect(info)
            outcome = call.result(PATIENCE)
            dialled = wait_for(one, crust.Connected)
            accepted = wait_for(other, crust.Connected)
            self.assertEqual(outcome, dialled)
            self.assertEqual((dialled.peer, dialled.token), (other.id, call.token))
            self.assertEqual(
                (dialled.how, dialled.role, dialled.app_id), (crust.How.DIALED, crust.Role.NODE, b"")
            )
            self.assertEqual(dialled.endpoint, other.listeners()[0])
            self.assertGreater(dialled.took, 0)
            self.assertEqual((accepted.peer, accepted.token), (one.id, 0))
            self.assertEqual((accepted.how, accepted.role), (crust.How.ACCEPTED, crust.Role.CLIENT))
            self.assertEqual(accepted.app_id, b"app one")

    def test_endpoint_without_and_with_peer(self) -> None:
        network = new_network()
        with new_service(network) as one, new_service(network) as other, new_service(network) as third:
            wait_for(other, crust.ListenerStarted)
            endpoint = other.listeners()[0]
            self.assertEqual(one.connect_endpoint(endpoint).result(PATIENCE).peer, other.id)
            self.assertEqual(third.connect_endpoint(f"{endpoint}#{other.id}").result(PATIENCE).peer, other.id)

    def test_second_connect_finds_the_session(self) -> None:
        with pair() as (one, other):
            outcome = one.connect(other.prepare_connection_info().result(PATIENCE)).result(PATIENCE)
            self.assertIsInstance(outcome, crust.AlreadyConnected)
            self.assertEqual(outcome.peer, other.id)

    def test_disconnect_is_seen_by_both(self) -> None:
        with pair() as (one, other):
            one.disconnect(other.id)
            for service, peer in ((one, other), (other, one)):
                lost = wait_for(service, crust.Lost)
                self.assertEqual(
                    (lost.peer, lost.code, lost.name), (peer.id, crust.Code.DISCONNECTED, "disconnected")
                )
                self.assertIsInstance(lost.error, crust.Disconnected)
                self.assertTrue(lost.text)
            self.assertEqual(one.peers(), [])


class Listening(TestCase):
    def test_busy_port(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as busy:
            endpoint = f"tcp://127.0.0.1:{busy.getsockname()[1]}"
            with new_service(new_network(), listen=[endpoint]) as one:
                failed = wait_for(one, crust.ListenerFailed)
                self.assertEqual((failed.endpoint, failed.name), (endpoint, "address_in_use"))
                self.assertIn(endpoint, failed.text)
                with self.fails(crust.AddressInUse, endpoint):
                    one.listen(endpoint)

    def test_more_and_fewer(self) -> None:
        with new_service(new_network(), listen=[]) as one:
            self.assertEqual(one.listeners(), [])
            one.listen(LOOPBACK)
            endpoint = wait_for(one, crust.ListenerStarted).endpoint
            self.assertEqual(one.listeners(), [endpoint])
            one.stop_listening(endpoint)
            self.assertEqual(one.listeners(), [])
            with self.fails(crust.Invalid):
                one.stop_listening(endpoint)

    def test_default_listens(self) -> None:
        with crust.Service(network_name=new_network()) as one:
            self.assertTrue(wait_for(one, crust.ListenerStarted).endpoint.startswith("tcp://"))

    def test_foreign_address(self) -> None:
        with new_service(new_network(), listen=[]) as one, self.fails(crust.AddressError):
            one.listen("tcp://192.0.2.1:0")


class Identity(TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def test_file_is_made_and_kept(self) -> None:
        path = self.directory / "identity"
        with new_service(new_network(), identity_file=path) as one:
            first = one.id
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        with new_service(new_network(), identity_file=str(path)) as one:
            self.assertEqual(one.id, first)

    def test_unreadable_file(self) -> None:
        garbage = self.directory / "garbage"
        garbage.write_bytes(b"not an identity")
        for path in (self.directory, garbage, self.directory / "no" / "directory"):
            with self.subTest(path=path), self.assertRaises(crust.CrustError) as caught:
                new_service(new_network(), identity_file=path)
            self.assertIn(str(path), str(caught.exception))
            self.assertNotIn("\n", str(caught.exception))

    def test_seed(self) -> None:
        seed, peer = crust.generate_identity()
        with new_service(new_network(), identity_seed=seed) as one:
            self.assertEqual(one.id, peer)
        with self.fails(crust.Invalid):
            new_service(new_network(), identity_seed=seed[:-1])
        with self.fails(crust.Invalid, "identity_file", "identity_seed"):
            new_service(new_network(), identity_seed=seed, identity_file=self.directory / "identity")

    def test_seed_is_not_shown(self) -> None:
        seed, _ = crust.generate_identity()
        shown = repr(crust.Config(identity_seed=seed, network_name="n"))
        self.assertEqual(shown, "Config(network_name='n', identity_seed=<secret>)")


class Options(TestCase):
    def test_out_of_bounds(self) -> None:
        for options in (
            {"network_name": "n" * 257},
            {"network_name": "a\0b"},
            {"app_id": b"a" * 257},
            {"app_id": "text"},
            {"heartbeat": 10.0, "lost_after": 11.0},
            {"heartbeat": -1.0},
            {"connect_timeout": float("nan")},
            {"connect_timeout": float("inf")},
            {"connect_timeout": "1"},
            {"send_queue": 1},
            {"max_peers": -1},
            {"max_peers": 1.5},
            {"role": 7},
            {"cipher": 9},
            {"listen": ["nonsense"]},
            {"listen": LOOPBACK},
            {"contacts": ["nonsense"]},
            {"json": "{"},
            {"json": '{"no_such_option": 1}'},
        ):
            with self.subTest(options=options), self.fails(crust.Invalid):
                crust.Service(**options)

    def test_unknown_keyword(self) -> None:
        with self.assertRaisesRegex(TypeError, "no_such_option"):
            crust.Service(no_such_option=1)  # type: ignore[call-arg]

    def test_config_and_keywords(self) -> None:
        config = crust.Config(network_name=new_network(), listen=[LOOPBACK], app_id=b"from config")
        with crust.Service(config) as one, crust.Service(config, app_id=b"from keyword") as other:
            link(one, other)
            one.disconnect(other.id)
            wait_for(one, crust.Lost)
            self.assertEqual(one.connect_endpoint(other.listeners()[0]).result(PATIENCE).peer, other.id)
            self.assertEqual(wait_for(one, crust.Connected).app_id, b"from keyword")

    def test_cipher(self) -> None:
        with pair(cipher=crust.Cipher.CHACHA20_POLY1305) as (one, other):
            self.assertEqual(one.peer(other.id).cipher, "ChaCha20-Poly1305")


class Looking(TestCase):
    def test_nat(self) -> None:
        with pair() as (one, _):
            seen = one.nat()
            for flow in (seen.udp, seen.tcp):  # peers on this machine know nothing of NATs
                self.assertEqual((flow.confidence, flow.external), (crust.Confidence.NONE, ()))
                self.assertEqual((flow.mapping, flow.filtering), (crust.NatDepends.UNKNOWN,) * 2)
                self.assertEqual((flow.ports, flow.step), (crust.NatPorts.UNKNOWN, 0))
                self.assertEqual((flow.none, flow.twice, flow.nearby, flow.blocked), (False,) * 4)
                self.assertIsNone(flow.hairpin)
            self.assertEqual((seen.reachable, seen.cgnat), (False, False))
            self.assertIn("no peer has told", seen.why)

            self.assertEqual((seen.servers, seen.mapped), ((), ()))

    def test_stun(self) -> None:
        with self.fails(crust.Invalid, "nobody can be reached"):
            crust.Service(stun=["0.0.0.0"])  # noqa: S104
        with new_service(new_network(), stun=["127.0.0.1:1", "127.0.0.2"]) as one:
            self.assertEqual([s.server for s in one.nat().servers], ["127.0.0.1:1", "127.0.0.2"])
            self.assertEqual([s.seen for s in one.nat().servers], [None, None])

    def test_only(self) -> None:
        for wrong in (["dialed"], [crust.How.UNKNOWN]):
            with self.fails(crust.Invalid, "only must be a sequence of How"):
                crust.Service(only=wrong)  # type: ignore[arg-type]
        network = new_network()
        with new_service(network, only=[crust.How.DIALED]) as shy, new_service(network) as other:
            with self.assertRaises(crust.NotAllowed):
                other.connect_endpoint(f"{shy.listeners()[0]}#{shy.id}").result(PATIENCE)
            outcome = shy.connect_endpoint(f"{other.listeners()[0]}#{other.id}").result(PATIENCE)
            self.assertEqual(outcome.peer, other.id)

    def test_nat_lists(self) -> None:
        raw = _ffi.NatPortStruct(
            code=-6, twice=1, expires_ms=1500, internal=b"tcp://192.168.1.2:5483", text=b"late"
        )
        port = _nat.mapped_port(raw)
        self.assertIsInstance(port.error, crust.Timeout)
        self.assertEqual((port.internal, port.external, port.gateway), ("tcp://192.168.1.2:5483", None, None))
        self.assertEqual((port.expires, port.twice), (1.5, True))
        good = _nat.mapped_port(
            _ffi.NatPortStruct(external=b"tcp://203.0.113.5:7", gateway=b"192.168.1.1", means=b"pcp")
        )
        self.assertEqual(
            (good.external, good.gateway, good.means), ("tcp://203.0.113.5:7", "192.168.1.1", "pcp")
        )
        self.assertEqual((good.error, good.expires), (None, None))
        said = _nat.nat_server(_ffi.NatServerStruct(server=b"x", seen=b"203.0.113.5:7", error=b"no answer"))
        self.assertEqual(said, crust.NatServer("x", "203.0.113.5:7", "no answer"))
        raw_seen = _ffi.NatSeenStruct(at=b"utp://[2001:db8::1]:8")
        setattr(raw_seen, "from", b"203.0.113.5:7")
        raw_seen.peer.bytes[0] = 7
        peer = crust.PeerId(b"\7" + bytes(31))
        self.assertEqual(
            _nat.nat_seen(raw_seen), crust.NatSeen(peer, "203.0.113.5:7", "utp://[2001:db8::1]:8")
        )

    def test_nat_structs(self) -> None:
        flow = _ffi.NatFlowStruct(mapping=3, filtering=99, ports=2, step=-2, hairpin=1, confidence=2, twice=1)
        flow.external = b"203.0.113.5:7\n[2001:db8::1]:8"
        seen = _nat.nat(
            _ffi.NatStruct(reachable=1, cgnat=1, why=b"because"), flow, _ffi.NatFlowStruct(hairpin=2)
        )
        self.assertEqual((seen.reachable, seen.cgnat, seen.why), (True, True, "because"))
        self.assertEqual(seen.udp.external, ("203.0.113.5:7", "[2001:db8::1]:8"))
        self.assertIs(seen.udp.mapping, crust.NatDepends.ADDRESS_PORT_DEPENDENT)
        self.assertIs(seen.udp.filtering, crust.NatDepends.UNKNOWN)
        self.assertEqual((seen.udp.ports, seen.udp.step), (crust.NatPorts.SEQUENTIAL, -2))
        self.assertEqual((seen.udp.hairpin, seen.tcp.hairpin), (False, True))
        self.assertEqual((seen.udp.confidence, seen.udp.twice), (crust.Confidence.CONFIRMED, True))

    def test_peer_and_stats(self) -> None:
        with pair() as (one, other):
            one.send_many(other.id, [b"x" * 10] * 5)
            receive(other, 5)
            wait_until(lambda: other.stats().received_messages == 5)  # counters follow the events
            self.assertEqual((one.peers(), other.peers()), ([other.id], [one.id]))
            sent, received = one.peer(other.id), other.peer(one.id)
            self.assertEqual((sent.sent_messages, sent.sent_bytes), (5, 50))
            self.assertEqual((received.received_messages, received.received_bytes), (5, 50))
            self.assertEqual(
                (sent.peer, sent.how, received.how), (other.id, crust.How.DIALED, crust.How.ACCEPTED)
            )
            self.assertEqual(sent.endpoint, other.listeners()[0])
            self.assertIn(sent.cipher, ("AES-256-GCM", "ChaCha20-Poly1305"))
            self.assertGreater(sent.age, 0)
            counters = one.stats()
            self.assertEqual((counters.peers, counters.listeners, counters.sessions_total), (1, 1, 1))
            self.assertEqual((counters.sent_messages, counters.sent_bytes), (5, 50))
            wait_until(lambda: one.stats().wire_sent_bytes > 50)  # counted a moment after the messages

    def test_unknown_peer(self) -> None:
        stranger = crust.generate_identity()[1]
        with new_service(new_network()) as one:
            self.assertEqual(one.peers(), [])
            for call in (
                lambda: one.peer(stranger),
                lambda: one.disconnect(stranger),
                lambda: one.send(stranger, b"x"),
                lambda: one.send_wait(stranger, b"x"),
                lambda: one.send_many(stranger, [b"x"]),
                lambda: one.send_batch([(stranger, b"x", 1)]),
            ):
                with self.fails(crust.UnknownPeer, stranger.short):
                    call()

    def test_many_peers(self) -> None:
        network = new_network()
        with new_service(network) as hub:
            others = [new_service(network, listen=[]) for _ in range(70)]
            try:
                for other in others:
                    other.connect_endpoint(hub.listeners()[0]).result(PATIENCE)
                for _ in others:
                    wait_for(hub, crust.Connected)
                self.assertEqual(hub.peers(), sorted(other.id for other in others))
            finally:
                for other in others:
                    other.close()


if __name__ == "__main__":
    unittest.main()
