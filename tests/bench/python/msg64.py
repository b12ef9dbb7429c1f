#!/usr/bin/env python3
"""Messages per second between two Python processes.

One process sends N messages of 64 bytes with send_many, the other counts them with
receive_messages and answers with one message when all have arrived. The time is from the first
send to that answer. Prints one JSON object whose value is the median of five runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bindings" / "python" / "src"))

import crust

SIZE = 64
RUNS = 5
LIST = 16384  # messages handed to one send_many
TIMEOUT = 120.0


def receiver(network: str, count: int) -> None:
    with crust.Service(network_name=network, listen=["tcp://127.0.0.1:0"]) as service:
        info = service.prepare_connection_info().result(TIMEOUT)
        print(info.hex(), flush=True)
        received = 0
        lost = False
        while not lost:
            batch = service.receive_messages(TIMEOUT)
            if not batch:
                raise SystemExit(f"receiver: nothing came for {TIMEOUT} s after {received} messages")
            if batch.data:
                # The columns are all there: what a program would do with a message starts here.
                if {*map(len, batch.data)} != {SIZE}:
                    raise SystemExit("receiver: a message of another size came")
                received += len(batch)
                while received >= count:
                    received -= count
                    service.send(batch.peers[-1], b"all", 0)
            lost = any(isinstance(event, crust.Lost) for event in batch.events)


def one_run(service: crust.Service, peer: crust.PeerId, payloads: list[bytes], count: int) -> float:
    start = time.perf_counter()
    sent = 0
    while sent < count:
        chunk = payloads if count - sent >= len(payloads) else payloads[: count - sent]
        accepted = service.send_many(peer, chunk)
        sent += accepted
        if accepted < len(chunk):
            wait_for(service, crust.Writable)
    wait_for(service, crust.Message)
    return count / (time.perf_counter() - start)


def wait_for(service: crust.Service, kind: type[crust.Event]) -> None:
    for event in service.events(TIMEOUT):
        if isinstance(event, kind):
            return
        if isinstance(event, crust.Lost):
            raise SystemExit(f"sender: the peer was lost: {event.text}")
    raise SystemExit(f"sender: no {kind.__name__} came for {TIMEOUT} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("count", nargs="?", type=int, default=2_000_000, help="messages in a run")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--receiver", metavar="NETWORK", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.receiver:
        receiver(arguments.receiver, arguments.count)
        return
    network = f"msg64-python-{os.getpid()}"
    command = [sys.executable, __file__, str(arguments.count), "--receiver", network]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        info = bytes.fromhex(child.stdout.readline())
        with crust.Service(network_name=network, listen=[]) as service:
            peer = service.connect(info).result(TIMEOUT).peer
            payloads = [bytes([index & 0xFF]) * SIZE for index in range(LIST)]
            runs = [one_run(service, peer, payloads, arguments.count) for _ in range(arguments.runs)]
    result = {
        "transport": "secure-tcp",
        "test": "msg64-python",
        "value": round(statistics.median(runs)),
        "unit": "msg/s",
        "runs": [round(run) for run in runs],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
