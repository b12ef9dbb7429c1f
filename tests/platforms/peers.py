#!/usr/bin/env python3
"""Let two crust tools talk: ``peers.py THEIR-CRUST... -- OUR-CRUST...``.

Theirs echoes what it gets. Ours connects with it, sends lines and bulk, and gets all of it back.
Ends with status 1 and says what both said when that does not come about.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any

PATIENCE = 60.0  # seconds for all of it
LINES = 100
BULK = (50, 20000)  # messages, bytes of each


class Peer:
    """A running crust peer."""

    def __init__(self, name: str, command: list[str], *flags: str) -> None:
        self.name = name
        self.said: list[dict[str, Any]] = []
        self.news = threading.Condition()
        everything = [*command, "peer", "--json", "--network", "platforms", "--listen", "tcp://127.0.0.1:0", *flags]
        self.process = subprocess.Popen(everything, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self.news:
                self.said.append(json.loads(line))
                self.news.notify_all()

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def wait(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many events of a kind."""

        def found() -> list[dict[str, Any]]:
            return [e for e in self.said if e["event"] == event]

        with self.news:
            if not self.news.wait_for(lambda: len(found()) >= count, deadline - time.monotonic()):
                raise TimeoutError(f"{self.name} has said {event!r} {len(found())} times, want {count}")
            return found()


def talk(theirs: Peer, ours: Peer) -> None:
    theirs.wait("listener_started")
    theirs.tell("info")
    ours.tell("connect " + theirs.wait("info")[0]["info"])
    peer = ours.wait("connected")[0]["peer"]
    if peer != theirs.wait("started")[0]["peer"]:
        raise ValueError("connected with somebody else")
    want = [f"line {i}: größer" for i in range(LINES)]
    for line in want:
        ours.tell(f"send {peer} {line}")
    got = [e.get("text") for e in ours.wait("message", LINES)]
    if got != want:
        raise ValueError(f"sent {want}, got {got} back")
    ours.tell(f"bulk {peer} {BULK[0]} {BULK[1]}")
    sizes = {e["len"] for e in ours.wait("message", LINES + BULK[0])[LINES:]}
    if sizes != {BULK[1]}:
        raise ValueError(f"got messages of {sizes} bytes back, want {BULK[1]}")
    ours.tell(f"disconnect {peer}")
    if theirs.wait("lost")[0]["code"] != "disconnected":
        raise ValueError("the loss has another code than disconnected")
    for peer_tool in (ours, theirs):
        peer_tool.tell("quit")
        peer_tool.wait("stopped")
        status = peer_tool.process.wait(deadline - time.monotonic())
        if status != 0:
            raise ValueError(f"{peer_tool.name} ended with {status}")


def main() -> int:
    at = sys.argv.index("--")
    theirs = Peer("theirs", sys.argv[1:at], "--echo")
    ours = Peer("ours", sys.argv[at + 1 :])
    try:
        talk(theirs, ours)
    except (TimeoutError, ValueError, OSError, subprocess.TimeoutExpired) as failure:
        print(failure)
        for peer in (theirs, ours):
            print(peer.name, "said:", *map(json.dumps, peer.said[-20:]), sep="\n    ")
            peer.process.kill()
        return 1
    return 0


deadline = time.monotonic() + PATIENCE
if __name__ == "__main__":
    sys.exit(main())
