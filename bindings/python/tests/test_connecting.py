"""Connecting, bootstrapping, groups, and who is found nearby."""

from __future__ import annotations

import socket
import tempfile
import unittest
from pathlib import Path

import crust
from support import (
    LOOPBACK,
    PATIENCE,
    TestCase,
    link,
    new_network,
    new_service,
    run_python,
    wait_for,
)


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
            one.connect_peer(other.id, first=[b"one", b"t\0wo", b""]).result(PATIENCE)
            for said in (b"one", b"t\0wo", b""):
                self.assertEqual(wait_for(other, crust.Message), crust.Message(one.id, said, 1))

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
            with self.fails(crust.Invalid, "16384"):
                one.connect_peer(b"\1" * 32, first=[bytes(16_385)])
            with self.fails(crust.Invalid, "64"):
                one.connect_peer(b"\1" * 32, first=[b""] * 65)
            with self.assertRaises(TypeError):
                one.connect_peer(b"\1" * 32, first=["text"])  # type: ignore[list-item]
            for whole in (b"one", b"", "text", bytearray(3), memoryview(b"one")):
                with self.assertRaisesRegex(TypeError, "first"):
                    one.connect_peer(b"\1" * 32, first=whole)  # type: ignore[arg-type]
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


if __name__ == "__main__":
    unittest.main()
