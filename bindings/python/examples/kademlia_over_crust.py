#!/usr/bin/env python3
"""Somebody else's overlay over libcrust: the package `kademlia` of PyPI, as it is.

It speaks UDP by an asyncio datagram endpoint, and gets one whose addresses are peer ids (see
crust_endpoint.py): what it sends to ``(peer id, 0)`` goes to that peer. Nodes that have only heard
of each other are introduced by the node that told, which is connected to both.

::

    pip install kademlia==2.2.2
    python kademlia_over_crust.py --network example --listen tcp://192.0.2.7:5483   # prints its contact
    python kademlia_over_crust.py --network example --join tcp://192.0.2.7:5483#PEER --set colour blue
    python kademlia_over_crust.py --network example --join tcp://192.0.2.7:5483#PEER --get colour
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from typing import Any, Optional

from crust_endpoint import CrustEndpoint
from kademlia.network import Server
from kademlia.utils import digest

import crust


class CrustServer(Server):  # type: ignore[misc]
    """A node of the package `kademlia` that listens with a service in place of a UDP port."""

    def __init__(self, service: crust.Service, **options: Any) -> None:
        # The id in the overlay follows from the one that is proved to whoever is connected.
        super().__init__(node_id=digest(bytes(service.id)), **options)
        self.service = service

    async def listen(self, port: int = 0, interface: str = "") -> None:
        """Begin; port and interface are the service's."""
        self.protocol = self._create_protocol()
        self.transport = CrustEndpoint(self.service, self.protocol)
        self.refresh_table()

    async def join(self, contact: str) -> list[Any]:
        """Connect to a node at ``ENDPOINT`` or ``ENDPOINT#PEER``, and bootstrap from it."""
        peer = (await self.service.connect_endpoint(contact)).peer
        found: list[Any] = await self.bootstrap([(str(peer), 0)])
        return found


async def contact_of(service: crust.Service) -> str:
    """Return where a service that listens is, for `CrustServer.join`."""
    await service.connection_info()  # the listeners have started then
    return f"{service.listeners()[0]}#{service.id}"


async def run(arguments: argparse.Namespace) -> Optional[str]:
    """Be a node: join, set, get, or serve until interrupted."""
    async with crust.Service(network_name=arguments.network, listen=arguments.listen) as service:
        node = CrustServer(service)
        await node.listen()
        try:
            if arguments.join and not await node.join(arguments.join):
                return f"there is no node at {arguments.join}"
            if arguments.set and not await node.set(*arguments.set):
                return f"no node took {arguments.set[0]}"
            if arguments.get:
                value = await node.get(arguments.get)
                if value is None:
                    return f"no node has {arguments.get}"
                print(value)
            if not arguments.set and not arguments.get:
                print(await contact_of(service), flush=True)
                await asyncio.get_running_loop().create_future()
        finally:
            node.stop()
    return None


def main() -> None:
    """Run one node."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--network", default="", metavar="NAME", help="the network's name")
    parser.add_argument("--listen", action="append", metavar="ENDPOINT", help="such as tcp://0.0.0.0:5483")
    parser.add_argument("--join", metavar="CONTACT", help="what another node has printed")
    parser.add_argument("--set", nargs=2, metavar=("KEY", "VALUE"), help="store a value and end")
    parser.add_argument("--get", metavar="KEY", help="look a value up, print it and end")
    with contextlib.suppress(KeyboardInterrupt):
        raise SystemExit(asyncio.run(run(parser.parse_args())))


if __name__ == "__main__":
    main()
