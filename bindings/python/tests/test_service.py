"""Services: connecting, listening, identities, options, looking."""

from __future__ import annotations

import contextlib
import ipaddress
import math
import socket
import stat
import tempfile
import threading
import unittest
from pathlib import Path

import crust
from crust import _ffi, _gate, _nat
from support import (
    LOOPBACK,
    PATIENCE,
    TestCase,
    link,
    new_network,
    new_service,
    pair,
    receive,
    run_python,
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


class Connecting(TestCase):
    def test_self(self) -> None:
        with new_service(new_network()) as one:
            info = one.prepare_connection_info().result(PATIENCE)
            with self.fails(crust.SelfConnect, "our own service"):
                one.connect(info).result(PATIENCE)
            with self.fails(crust.SelfConnect):
                one.connect_endpoint(one.listeners()[0]).result(PATIENCE)

    def test_through_a_third(self) -> None:
        network = new_network()
        with new_service(network) as one, new_service(network) as other, new_service(network) as third:
            with self.fails(crust.NoEndpoint, "introduce"):
                one.connect_peer(other.id).result(PATIENCE)
            link(one, third)
            link(other, third)
            call = one.connect_peer(other.id)
            met = call.result(PATIENCE)
            assert isinstance(met, crust.Connected)
            self.assertEqual((met.peer, met.token), (other.id, call.token))
            self.assertEqual(wait_for(other, crust.Connected).peer, one.id)
            one.send(other.id, b"hello")
            self.assertEqual(wait_for(other, crust.Message), crust.Message(one.id, b"hello", 1))
            self.assertEqual(one.connect_peer(other.id).result(PATIENCE).__class__, crust.AlreadyConnected)

    def test_known_by_gossip(self) -> None:
        network = new_network()
        with (
            new_service(network, role=crust.Role.CLIENT, gossip=crust.Gossip.ON) as one,
            new_service(network) as other,
            new_service(network) as third,
            new_service(network, gossip=crust.Gossip.ANSWER) as shy,
        ):
            link(one, third)
            link(other, third)
            link(shy, third)
            while wait_for(one, crust.Discovered).peer != other.id:
                pass
            known = {k.peer: k for k in one.known()}
            self.assertEqual(list(known), sorted(known))
            found = known[other.id]
            self.assertEqual((found.role, found.relays), (crust.Role.NODE, False))
            self.assertEqual(found.endpoints, tuple(other.listeners()))
            self.assertTrue(0 < found.expires < 86400, found)
            self.assertEqual(shy.known(), [])
        with self.fails(crust.Closed):
            one.known()

    def test_wrong_peer_ids(self) -> None:
        with new_service(new_network()) as one:
            with self.fails(crust.SelfConnect, "our own service"):
                one.connect_peer(one.id)
            with self.fails(crust.Invalid, "zero"):
                one.connect_peer(bytes(32))
            with self.fails(crust.Invalid, "32"):
                one.connect_peer(b"short")
        with self.fails(crust.Closed):
            one.connect_peer(b"\1" * 32)

    def test_relaying_is_refused_when_off(self) -> None:
        network = new_network()
        with (
            new_service(network, connect_timeout=1.0, gossip=crust.Gossip.OFF) as one,
            new_service(network) as other,
            new_service(network, relay=crust.Relay.OFF) as third,
        ):
            # Who takes part in gossip would know where the other one is.
            link(one, third)
            link(other, third)
            with self.fails(crust.Timeout):
                one.connect_peer(other.id).result(PATIENCE)

    def test_malformed_info(self) -> None:
        with new_service(new_network()) as one:
            info = one.prepare_connection_info().result(PATIENCE)
            for bad in (b"", b"nonsense", info[:-1], bytes([info[0] ^ 1]) + info[1:], info + b"x"):
                with self.subTest(bad=bad), self.fails(crust.BadInfo, "connection info"):
                    one.connect(bad)
                with self.subTest(bad=bad), self.fails(crust.BadInfo, "connection info"):
                    crust.connection_info_peer(bad)
            with self.assertRaises(TypeError):
                one.connect("text")  # type: ignore[arg-type]

    def test_wrong_network_name(self) -> None:
        with new_service(new_network()) as one, new_service(new_network(), handshake_timeout=0.3) as other:
            endpoint = one.listeners()[0]
            with self.fails(crust.NetworkNameError, endpoint):
                other.connect_endpoint(endpoint).result(PATIENCE)
            failed = wait_for(other, crust.ConnectFailed)
            self.assertEqual((failed.code, failed.name), (crust.Code.NETWORK_NAME, "network_name"))
            self.assertEqual(one.peers(), [])

    def test_wrong_peer(self) -> None:
        network = new_network()
        with new_service(network) as one, new_service(network) as other:
            contact = f"{other.listeners()[0]}#{crust.generate_identity()[1]}"
            call = one.connect_endpoint(contact)
            with self.fails(crust.WrongPeer):
                call.result(PATIENCE)

    def test_nobody_listens(self) -> None:
        with socket.socket() as reserved, new_service(new_network()) as one:
            reserved.bind(("127.0.0.1", 0))
            port = reserved.getsockname()[1]
            with self.fails(crust.Refused, f"127.0.0.1:{port}"):
                one.connect_endpoint(f"tcp://127.0.0.1:{port}").result(PATIENCE)

    def test_malformed_endpoint(self) -> None:
        with new_service(new_network()) as one:
            for bad in (
                "",
                "nonsense",
                "tcp://127.0.0.1",
                "carrier-pigeon://127.0.0.1:1",
                "tcp://1.2.3.4:5#zz",
                "a\0b",
            ):
                with self.subTest(bad=bad), self.fails(crust.Invalid):
                    one.connect_endpoint(bad)

    def test_refused_by_the_peer(self) -> None:
        network = new_network()
        with new_service(network) as one, new_service(network) as other:
            other.set_accept(False)
            endpoint = other.listeners()[0]
            with self.fails(crust.NotAllowed):
                one.connect_endpoint(endpoint).result(PATIENCE)
            other.set_accept(True)
            self.assertEqual(one.connect_endpoint(endpoint).result(PATIENCE).peer, other.id)

    def test_result_in_no_time(self) -> None:
        # A listener of the system that never answers a handshake.
        with socket.create_server(("127.0.0.1", 0)) as silent, new_service(new_network()) as one:
            call = one.connect_endpoint(f"tcp://127.0.0.1:{silent.getsockname()[1]}")
            with self.fails(crust.Timeout, "0.01 seconds"):
                call.result(0.01)
            self.assertFalse(call.done())

    def test_closing_ends_a_call(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent, new_service(new_network()) as one:
            call = one.connect_endpoint(f"tcp://127.0.0.1:{silent.getsockname()[1]}")
            one.close()
            with self.fails(crust.Closed):
                call.result(PATIENCE)


class Bootstrapping(TestCase):
    def test_first_that_answers(self) -> None:
        network = new_network()
        with new_service(network) as seed, socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            dead = f"tcp://127.0.0.1:{reserved.getsockname()[1]}"
            contacts = [dead, f"{seed.listeners()[0]}#{seed.id}"]
            with new_service(network, contacts=contacts) as one:
                call = one.bootstrap()
                outcome = call.result(PATIENCE)
                self.assertEqual((outcome.peer, outcome.token), (seed.id, call.token))
                self.assertEqual(outcome.endpoint, seed.listeners()[0])
                self.assertEqual(wait_for(one, crust.Connected).peer, seed.id)
                self.assertEqual(wait_for(one, crust.Bootstrapped), outcome)

    def test_nobody_answers(self) -> None:
        with socket.socket() as reserved:
            reserved.bind(("127.0.0.1", 0))
            endpoint = f"tcp://127.0.0.1:{reserved.getsockname()[1]}"
            with new_service(new_network(), contacts=[endpoint]) as one:
                with self.assertRaisesRegex(crust.CrustError, "127.0.0.1"):
                    one.bootstrap().result(PATIENCE)
                self.assertIn(endpoint, wait_for(one, crust.BootstrapFailed).text)

    def test_who_is_excluded_is_left_out(self) -> None:
        network = new_network()
        with new_service(network) as one, new_service(network) as two:
            contacts = [one.listeners()[0], two.listeners()[0]]
            with new_service(network, contacts=contacts) as node:
                with self.fails(crust.NotAllowed):
                    node.bootstrap(excluding=[contacts[0], f"#{two.id}"]).result(PATIENCE)
                self.assertEqual(node.bootstrap(excluding=[contacts[0]]).result(PATIENCE).peer, two.id)
                with self.fails(crust.Invalid, "contact 1"):
                    node.bootstrap(excluding=["nowhere"])

    def test_no_contacts(self) -> None:
        with new_service(new_network()) as one, self.fails(crust.NoEndpoint):
            one.bootstrap().result(PATIENCE)

    def test_given_up(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            contact = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
            with new_service(new_network(), contacts=[contact]) as one:
                call = one.bootstrap()
                with self.fails(crust.StateError):
                    one.bootstrap()
                one.stop_bootstrap()
                with self.fails(crust.Canceled):
                    call.result(PATIENCE)


class Cache(TestCase):
    def test_a_node_comes_back_by_its_cache(self) -> None:
        network = new_network()
        with tempfile.TemporaryDirectory() as directory, new_service(network) as other:
            cache = Path(directory) / "cache"
            with new_service(network, cache=cache, cache_peers=20, contacts=[other.listeners()[0]]) as one:
                self.assertEqual(one.bootstrap().result(PATIENCE).peer, other.id)
            with new_service(network, cache=cache) as again:
                self.assertEqual(again.bootstrap().result(PATIENCE).peer, other.id)

    def test_trouble_is_an_event(self) -> None:
        with tempfile.TemporaryDirectory() as directory, new_service(new_network(), cache=directory) as one:
            trouble = wait_for(one, crust.CacheTrouble)
            self.assertIn("it is a directory; going on in memory only", trouble.text)
            self.assertEqual(trouble.name, "io")


class Lan(TestCase):
    def test_two_on_one_machine(self) -> None:
        code = """
import os
import crust
from support import LOOPBACK, wait_for

port = 20000 + os.getpid() % 10000  # none that sockets get at random
options = dict(network_name="lan of test_service", listen=[LOOPBACK], beacon_port=port)
with crust.Service(**options, role=crust.Role.CLIENT) as one:
    with crust.Service(**options) as other, crust.Service(**options, beacon=crust.Beacon.OFF):
        found = wait_for(one, crust.Discovered)
        assert (found.peer, found.role, found.by) == (other.id, crust.Role.NODE, crust.By.BEACON), found
        assert found.endpoint == other.listeners()[0], found
        back = wait_for(other, crust.Discovered)
        assert (back.peer, back.role) == (one.id, crust.Role.CLIENT), back
        (peer,) = one.peers_on_lan()
        assert (peer.peer, peer.role, peer.endpoints) == (other.id, crust.Role.NODE, (found.endpoint,)), peer
        assert 0 <= peer.heard < 60, peer
    gone = wait_for(one, crust.Forgotten)
    assert (gone.peer, gone.by) == (found.peer, crust.By.BEACON), gone
    assert one.peers_on_lan() == []
"""
        done = run_python(code, environment={"CRUST_BEACON": ""})
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_off(self) -> None:
        with new_service(new_network()) as one:
            self.assertEqual(one.peers_on_lan(), [])
        with self.fails(crust.Invalid):
            crust.Service(beacon=4, listen=[LOOPBACK])  # type: ignore[arg-type]


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


class Groups(TestCase):
    def test_a_group_is_kept_until_it_is_released(self) -> None:
        network = new_network()
        with new_service(network) as one, new_service(network) as other, new_service(network) as third:
            info = third.prepare_connection_info().result(PATIENCE)
            one.keep("friends", contacts=[f"{other.listeners()[0]}#{other.id}"], infos=[info])
            trying = wait_for(one, crust.GroupChanged)
            self.assertEqual((trying.group, trying.state), ("friends", crust.GroupState.TRYING))
            self.assertEqual((trying.up, trying.wanted), (0, 2))
            up = 0
            while up < 2:
                event = wait_for(one, crust.GroupChanged)
                if event.state == crust.GroupState.UP:
                    up += 1
                    self.assertEqual((event.up, event.wanted, event.code, event.next), (up, 2, 0, 0.0))
            one.disconnect(other.id)
            while event.state != crust.GroupState.DROPPED:
                event = wait_for(one, crust.GroupChanged)
            self.assertEqual((event.peer, event.up, event.name), (other.id, 1, "disconnected"))
            (group,) = one.groups()
            self.assertEqual((group.name, group.any_of, group.up, group.wanted), ("friends", 0, 1, 2))
            states = {peer.peer: peer.state for peer in group.peers}
            self.assertEqual(states, {other.id: crust.GroupState.DROPPED, third.id: crust.GroupState.UP})
            one.keep("some", any_of=1)
            some = one.groups()[1]
            self.assertEqual((some.any_of, some.role), (1, crust.Role.NODE))
            self.assertEqual([peer.peer for peer in some.peers], [third.id])
            one.release("friends")
            one.release("some")
            self.assertEqual(one.groups(), [])
            with self.fails(crust.Invalid, "no group"):
                one.release("friends")

    def test_who_cannot_be_kept(self) -> None:
        with new_service(new_network()) as one:
            with self.fails(crust.Invalid, "of nobody"):
                one.keep("friends")
            with self.fails(crust.SelfConnect):
                one.keep("friends", [one.id])
            with self.fails(crust.Invalid, "want one of the two"):
                one.keep("friends", [bytes(31) + b"x"], any_of=3)
            with self.fails(crust.Invalid, "does not name its peer"):
                one.keep("friends", contacts=["tcp://127.0.0.1:1"])
            with self.fails(crust.BadInfo):
                one.keep("friends", infos=[b"x"])
            with self.fails(crust.Invalid, "32"):
                one.keep("friends", [b"x"])
            with self.assertRaises(TypeError):
                one.keep("friends", contacts="tcp://127.0.0.1:1")
            self.assertEqual(one.groups(), [])


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
