#!/usr/bin/env python3
"""An overlay that somebody else has published, over libcrust: its own join, set and get, and a loss.

Twenty nodes of the package `kademlia`, as PyPI has it, in four processes, connected by libcrust
through the adapter of bindings/python/examples. Every node joins by one other, every node sets a
value, and every node gets those of all. Then one process, that of the node by which all have joined,
is killed: a quarter of the nodes is gone without a word. Everybody who is left gets every value
again. Nothing sleeps, and each step has a time after which it has failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import time
from typing import Any

import crust
import kademlia_over_crust
from kademlia.utils import digest
from kademlia_over_crust import CrustServer, contact_of

PROCESSES = 4
NODES = 5  # of a process
COPIES = 8  # nodes that hold a value: more than are killed
STEP = 60.0  # seconds until a step has failed
LOOPBACK = "tcp://127.0.0.1:0"


class Host:
    """The nodes of one process, which does what it reads, a line at a time, and answers each."""

    def __init__(self, network: str) -> None:
        self.network = network
        self.nodes: list[CrustServer] = []

    async def serve(self) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(NODES):
            # Whoever was killed takes nothing any more: nobody waits long for it at the end.
            service = crust.Service(network_name=self.network, listen=[LOOPBACK], close_timeout=1)
            self.nodes.append(CrustServer(service, ksize=COPIES))
            await self.nodes[-1].listen()
        print(json.dumps([await contact_of(node.service) for node in self.nodes]), flush=True)
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            name, argument = json.loads(line)
            print(json.dumps(await getattr(self, name)(argument)), flush=True)
        for node in self.nodes:
            node.stop()
        await asyncio.gather(*(node.service.aclose() for node in self.nodes))

    async def join(self, contact: str) -> list[int]:
        """Join by another node; return how many each has found."""
        others = [node for node in self.nodes if str(node.service.id) not in contact]
        return [len(found) for found in await asyncio.gather(*(node.join(contact) for node in others))]

    async def set(self, values: list[list[str]]) -> list[bool]:
        """Set one value by each node."""
        return list(await asyncio.gather(*(node.set(*value) for node, value in zip(self.nodes, values))))

    async def count(self, _: None) -> list[int]:
        """Return the messages and the sessions of all nodes so far, as libcrust has counted them."""
        stats = [node.service.stats() for node in self.nodes]
        return [sum(one.sent_messages for one in stats), sum(one.sessions_total for one in stats)]

    async def get(self, values: list[list[str]]) -> dict[str, Any]:
        """Get all values by each node; return what came, and how much of it from others."""
        asked = [(node, key, value) for node in self.nodes for key, value in values]
        remote = sum(node.storage.get(digest(key)) is None for node, key, _ in asked)
        took: list[float] = []

        async def one(node: CrustServer, key: str) -> Any:
            begin = time.monotonic()
            value = await node.get(key)
            took.append(time.monotonic() - begin)
            return value

        got = await asyncio.gather(*(one(node, key) for node, key, _ in asked))
        wrong = [
            f"{node.service.id.short} got {value!r} for {key}"
            for (node, key, wanted), value in zip(asked, got)
            if value != wanted
        ]
        return {"asked": len(asked), "remote": remote, "wrong": wrong, "longest": max(took)}


class Hosts:
    """The processes, asked all at once."""

    def __init__(self) -> None:
        self.processes: list[asyncio.subprocess.Process] = []

    async def start(self, network: str) -> list[list[str]]:
        for _ in range(PROCESSES):
            self.processes.append(
                await asyncio.create_subprocess_exec(
                    *(sys.executable, __file__, "--host", network),
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                )
            )
        return await self._step(*map(self._answer, self.processes))

    async def ask(self, command: str, *arguments: Any) -> list[Any]:
        """Give each process a command, with the same argument or each its own."""
        if len(arguments) == 1:
            arguments *= len(self.processes)
        for process, argument in zip(self.processes, arguments):
            assert process.stdin is not None
            process.stdin.write(f"{json.dumps([command, argument])}\n".encode())
        return await self._step(*map(self._answer, self.processes))

    async def _step(self, *answers: Any) -> list[Any]:
        return await asyncio.wait_for(asyncio.gather(*answers), STEP)

    async def _answer(self, process: asyncio.subprocess.Process) -> Any:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            raise SystemExit(f"a process of nodes ended with status {await process.wait()}")
        return json.loads(line)

    async def kill(self, index: int) -> None:
        process = self.processes.pop(index)
        process.kill()
        await process.wait()

    async def end(self) -> None:
        """Let everybody leave; whoever does not is killed."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in self.processes:
            try:
                await asyncio.wait_for(process.wait(), STEP)
            except asyncio.TimeoutError:
                process.kill()
                raise SystemExit("a process of nodes does not end") from None


def look(what: str, answers: list[dict[str, Any]], begin: float) -> None:
    """Say what look-ups have brought, and fail when one has failed."""
    asked, remote = (sum(answer[name] for answer in answers) for name in ("asked", "remote"))
    longest = max(answer["longest"] for answer in answers)
    wrong = [line for answer in answers for line in answer["wrong"]]
    print(
        f"{what}: {asked - len(wrong)} of {asked} look-ups found the value, {remote} of them at other nodes, "
        f"the longest in {longest:.1f} s, all in {time.monotonic() - begin:.1f} s",
        flush=True,
    )
    if wrong or remote < asked // 4:
        raise SystemExit("\n".join([*wrong[:20], f"{len(wrong)} look-ups failed"]))


async def overlay(hosts: Hosts) -> None:
    """Join, set, get, kill a quarter, get again."""
    begin = time.monotonic()
    contacts = await hosts.start(f"overlay-{time.time_ns()}")
    found = [count for counts in await hosts.ask("join", contacts[0][0]) for count in counts]
    took = time.monotonic() - begin
    print(f"{len(found)} nodes have joined by one, and found {min(found)} others at least, in {took:.1f} s")
    if len(found) != PROCESSES * NODES - 1 or not min(found):
        raise SystemExit(f"a node has found nobody: {found}")
    values = [[[f"key {h} {n}", f"value {h} {n}"] for n in range(NODES)] for h in range(PROCESSES)]
    begin = time.monotonic()
    taken = [one for process in await hosts.ask("set", *values) for one in process]
    print(f"{sum(taken)} of {len(taken)} values were taken, in {time.monotonic() - begin:.1f} s")
    if not all(taken):
        raise SystemExit("a value was not taken")
    everything = [pair for part in values for pair in part]
    begin = time.monotonic()
    look("20 nodes", await hosts.ask("get", everything), begin)
    messages, sessions = (sum(counts) for counts in zip(*await hosts.ask("count", None)))
    print(f"libcrust has carried {messages} messages over {sessions // 2} sessions", flush=True)
    if not messages:
        raise SystemExit("the overlay has not used libcrust")
    await hosts.kill(0)
    begin = time.monotonic()
    look("15 nodes, after 5 were killed", await hosts.ask("get", everything), begin)


async def test_overlay() -> None:
    hosts = Hosts()
    try:
        await overlay(hosts)
    except BaseException:
        for process in hosts.processes:
            process.kill()
        raise
    await hosts.end()


async def run(*arguments: str) -> asyncio.subprocess.Process:
    """Run the example as a program."""
    command = (sys.executable, kademlia_over_crust.__file__, *arguments)
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)


async def test_program() -> None:
    """The example as its words say: one node that stays, one that sets and one that gets."""
    network = ("--network", f"overlay-program-{time.time_ns()}")
    first = await run(*network, "--listen", LOOPBACK)
    try:
        assert first.stdout is not None
        contact = (await asyncio.wait_for(first.stdout.readline(), STEP)).decode().strip()
        join = (*network, "--listen", LOOPBACK, "--join", contact)
        for what, said in (("--set", "colour", "blue"), ""), (("--get", "colour"), "blue\n"):
            node = await run(*join, *what)
            out, _ = await asyncio.wait_for(node.communicate(), STEP)
            if node.returncode or out.decode() != said:
                raise SystemExit(f"{' '.join(what)} ended with {node.returncode} and said {out!r}")
    finally:
        first.kill()
        await first.wait()
    print("the program of the example sets a value, and gets it in another process")


async def test() -> None:
    begin = time.monotonic()
    await asyncio.gather(test_program(), test_overlay())
    print(
        f"kademlia over libcrust: 20 nodes, 5 killed, no look-up failed, in {time.monotonic() - begin:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--host", metavar="NETWORK", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)  # the package says of each silent node that it is silent
    asyncio.run(Host(arguments.host).serve() if arguments.host else test())


if __name__ == "__main__":
    main()
