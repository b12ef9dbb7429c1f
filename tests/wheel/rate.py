#!/usr/bin/env python3
"""64-byte messages through libcrust beside plain asyncio TCP, by what they cost the processor.

Two processes each time: one sends, the other counts and checks, and answers with one message when
all have come. The figure is messages per second of processor time of both processes together, all
threads counted: what one core sends and receives. A machine that does other things meanwhile
changes it little, and both sides of the comparison alike.

    crust      Service.send_many and Service.receive_messages, encrypted and authenticated
    asyncio    asyncio.start_server and open_connection: a length of 4 bytes and the message by
               write, with drain every 256 messages; readexactly twice
    by hand    the same bytes, for comparison: joined by the sender, cut by the receiver, in the
               blocks in which they come

Prints one line for each, of the best of its runs, and last how many times as many messages libcrust
carries as asyncio; status 1 when that is less than ``--least``.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import struct
import subprocess
import sys
import time

import crust

SIZE = 64
LIST = 16384  # messages handed to one send_many, or joined by hand
DRAIN = 256  # messages between two drains, so that the sender's memory is bounded
TIMEOUT = 60.0
LENGTH = struct.Struct("!I")
PAYLOADS = [bytes([index & 0xFF]) * SIZE for index in range(LIST)]


def chunks(count: int) -> list[list[bytes]]:
    """Cut a run into the lists that are handed over."""
    return [PAYLOADS[: min(LIST, count - start)] for start in range(0, count, LIST)]


# Over libcrust.


def crust_receiver(count: int, network: str) -> float:
    with crust.Service(network_name=network, listen=["tcp://127.0.0.1:0"]) as service:
        print(service.prepare_connection_info().result(TIMEOUT).hex(), flush=True)
        begin = time.process_time()
        received = 0
        while received < count:
            batch = service.receive_messages(TIMEOUT)
            if not batch:
                raise SystemExit(f"nothing came for {TIMEOUT} s after {received} messages")
            if batch.data and {*map(len, batch.data)} != {SIZE}:
                raise SystemExit("a message of another size came")
            received += len(batch)
        spent = time.process_time() - begin
        service.send(batch.peers[-1], b"all", 0)
        while not any(isinstance(event, crust.Lost) for event in service.poll(TIMEOUT)):
            pass
        return spent


def crust_sender(count: int, network: str, greeting: str) -> float:
    with crust.Service(network_name=network, listen=[]) as service:
        peer = service.connect(bytes.fromhex(greeting)).result(TIMEOUT).peer
        begin = time.process_time()
        for chunk in chunks(count):
            if service.send_many(peer, chunk, timeout=TIMEOUT) < len(chunk):
                raise SystemExit(f"the queue stayed full for {TIMEOUT} s")
        for event in service.events(TIMEOUT):
            if isinstance(event, crust.Message):
                return time.process_time() - begin
        raise SystemExit("no answer came")


# Over asyncio.


async def read_each(reader: asyncio.StreamReader, count: int) -> None:
    for _ in range(count):
        (length,) = LENGTH.unpack(await reader.readexactly(LENGTH.size))
        if len(await reader.readexactly(length)) != SIZE:
            raise SystemExit("a message of another size came")


async def read_blocks(reader: asyncio.StreamReader, count: int) -> None:
    rest, messages = b"", 0
    while messages < count:
        block = rest + await reader.read(1 << 18)
        at, end = 0, len(block)
        while end - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(block, at)
            if end - at < LENGTH.size + length:
                break
            data = block[at + LENGTH.size : at + LENGTH.size + length]
            if len(data) != SIZE:
                raise SystemExit("a message of another size came")
            at += LENGTH.size + length
            messages += 1
        rest = block[at:]


async def write_each(writer: asyncio.StreamWriter, count: int) -> None:
    for chunk in chunks(count):
        for index, payload in enumerate(chunk):
            writer.write(LENGTH.pack(len(payload)) + payload)
            if index % DRAIN == 0:
                await writer.drain()


async def write_blocks(writer: asyncio.StreamWriter, count: int) -> None:
    for chunk in chunks(count):
        writer.write(b"".join([LENGTH.pack(len(payload)) + payload for payload in chunk]))
        await writer.drain()


async def asyncio_receiver(count: int, by_hand: bool) -> float:
    done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begin = time.process_time()
        await (read_blocks if by_hand else read_each)(reader, count)
        done.set_result(time.process_time() - begin)
        writer.write(b"all")
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    spent = await asyncio.wait_for(done, TIMEOUT)
    server.close()
    return spent


async def asyncio_sender(count: int, by_hand: bool, greeting: str) -> float:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(greeting))
    begin = time.process_time()
    await (write_blocks if by_hand else write_each)(writer, count)
    await reader.readexactly(3)
    spent = time.process_time() - begin
    writer.close()
    return spent


# Both ends of one run.


def receive(way: str, count: int, network: str) -> None:
    if way == "crust":
        spent = crust_receiver(count, network)
    else:
        spent = asyncio.run(asyncio_receiver(count, way == "by hand"))
    print(spent, flush=True)


def measure(way: str, count: int) -> tuple[float, float]:
    """Return messages per second of processor time, and per second."""
    network = f"rate-{os.getpid()}"
    command = [sys.executable, __file__, "--count", str(count), "--receive", way, "--network", network]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        greeting = child.stdout.readline().strip()
        start = time.perf_counter()
        if way == "crust":
            spent = crust_sender(count, network, greeting)
        else:
            spent = asyncio.run(asyncio_sender(count, way == "by hand", greeting))
        took = time.perf_counter() - start
        theirs = float(child.stdout.readline())
    if child.returncode:
        raise SystemExit(f"the receiver of {way} ended with status {child.returncode}")
    return count / (spent + theirs), count / took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--count", type=int, default=200_000, help="messages of asyncio in a run; libcrust: 5 times"
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each, by turns")
    parser.add_argument("--least", type=float, default=0.0, help="times as many that it must be")
    parser.add_argument("--receive", help=argparse.SUPPRESS)
    parser.add_argument("--network", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receive:
        receive(arguments.receive, arguments.count, arguments.network)
        return
    ways = {"crust": 5 * arguments.count, "asyncio": arguments.count, "by hand": 5 * arguments.count}
    results: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
    for _ in range(arguments.runs):
        for way, count in ways.items():
            results[way].append(measure(way, count))
    per_core = {}
    for way, runs in results.items():
        per_core[way] = max(run[0] for run in runs)
        elapsed = max(run[1] for run in runs)
        print(f"{way:8} {per_core[way]:12,.0f} messages a second and core, {elapsed:12,.0f} a second")
    times = per_core["crust"] / per_core["asyncio"]
    print(f"libcrust carries {times:.1f} times as many 64-byte messages as asyncio, by processor time")
    if times < arguments.least:
        raise SystemExit(f"that is less than {arguments.least:g} times")


if __name__ == "__main__":
    main()
