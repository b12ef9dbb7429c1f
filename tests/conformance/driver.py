#!/usr/bin/env python3
"""The conformance driver of the Python binding: ``driver.py NETWORKNAME [LISTEN...]``.

Reads commands from standard input and prints what happens, one a line, as the drivers of the
other languages do.
"""

from __future__ import annotations

import base64
import os
import queue
import selectors
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "bindings" / "python" / "src"))

import crust

AT_ONCE = 4 << 20  # bytes of messages made for one send_many


# The pattern repeats every 256 bytes and every 256 messages.
PERIODS = [bytes((k * 31 + i * 7 + 3) & 0xFF for i in range(256)) for k in range(256)]


def pattern(number: int, size: int) -> bytes:
    """Return message number k: byte i is (k*31 + i*7 + 3) & 0xff."""
    return (PERIODS[number & 0xFF] * (size // 256 + 1))[:size]


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def say(*words: object) -> None:
    print(*words, flush=True)


@dataclass
class Sending:
    """A pattern command in progress."""

    count: int
    size: int
    priority: int
    done: int = 0


@dataclass
class Verifying:
    """A verify command that waits for its messages."""

    count: int
    size: int


class Peer:
    """What is going on with one peer; its numbers run on across commands and sessions."""

    def __init__(self) -> None:
        self.next_sent = 0
        self.next_checked = 0
        self.sending: deque[Sending] = deque()
        self.verifying: deque[Verifying] = deque()
        self.received: deque[bytes] = deque()


class Driver:
    def __init__(self, service: crust.Service, listeners: int) -> None:
        self.service = service
        self.starting = listeners
        self.peers: defaultdict[crust.PeerId, Peer] = defaultdict(Peer)
        self.commands: dict[str, Callable[..., None]] = {
            "info": self.info,
            "connect": self.connect,
            "pattern": self.pattern,
            "verify": self.verify,
            "toobig": self.toobig,
            "disconnect": self.disconnect,
        }

    # Commands.

    def command(self, line: str) -> bool:
        """Run one command; False when it was the last."""
        words = line.split()
        if not words:
            return True
        if words[0] == "quit":
            return False
        known = self.commands.get(words[0])
        if known is None:
            say("error unknown command", words[0])
            return True
        try:
            known(*words[1:])
        except crust.CrustError as failure:
            say("error", failure.name, failure)
        except (TypeError, ValueError) as failure:
            say("error invalid", words[0] + ":", failure)
        return True

    def info(self) -> None:
        self.service.prepare_connection_info()

    def connect(self, word: str) -> None:
        info = base64.urlsafe_b64decode(word + "=" * (-len(word) % 4))
        try:
            self.service.connect(info)
        except crust.CrustError as failure:
            say("connect_failed", failure.name, failure)

    def pattern(self, peer: str, count: str, size: str, priority: str) -> None:
        who = crust.PeerId(peer)
        self.peers[who].sending.append(Sending(int(count), int(size), int(priority)))
        self.send_more(who)

    def verify(self, peer: str, count: str, size: str) -> None:
        who = crust.PeerId(peer)
        self.peers[who].verifying.append(Verifying(int(count), int(size)))
        self.check(self.peers[who])

    def toobig(self, peer: str) -> None:
        try:
            self.service.send(crust.PeerId(peer), bytes(crust.MAX_MESSAGE + 1))
        except crust.CrustError as failure:
            say("refused", failure.name)
        else:
            say("error accepted a message that is too big")

    def disconnect(self, peer: str) -> None:
        self.service.disconnect(crust.PeerId(peer))

    # Work in progress.

    def send_more(self, who: crust.PeerId) -> None:
        """Send until everything is sent or the queue is full."""
        peer = self.peers[who]
        while peer.sending:
            job = peer.sending[0]
            while job.done < job.count:
                batch = min(job.count - job.done, max(AT_ONCE // max(job.size, 1), 1), 1024)
                messages = [pattern(peer.next_sent + k, job.size) for k in range(batch)]
                try:
                    accepted = self.service.send_many(who, messages, job.priority)
                except crust.CrustError as failure:
                    peer.sending.clear()
                    say("error", failure.name, failure)
                    return
                job.done += accepted
                peer.next_sent += accepted
                if accepted < batch:
                    return  # a Writable event follows
            peer.sending.popleft()
            say("sent", job.count)

    def check(self, peer: Peer) -> None:
        """Answer the verify commands whose messages have come."""
        while peer.verifying and len(peer.received) >= peer.verifying[0].count:
            job = peer.verifying.popleft()
            wrong: Optional[int] = None
            for _ in range(job.count):
                if peer.received.popleft() != pattern(peer.next_checked, job.size) and wrong is None:
                    wrong = peer.next_checked
                peer.next_checked += 1
            if wrong is None:
                say("verified", job.count)
            else:
                say(f"error message {wrong} differs from the pattern")

    # Events.

    def event(self, event: crust.Event) -> None:
        if isinstance(event, crust.Message):
            peer = self.peers[event.peer]
            peer.received.append(event.data)
            if peer.verifying:
                self.check(peer)
        elif isinstance(event, crust.Writable):
            self.send_more(event.peer)
        elif isinstance(event, crust.ListenerStarted):
            self.starting -= 1
            if self.starting == 0:
                say("ready", self.service.id)
        elif isinstance(event, crust.ConnectionInfo):
            say("info", unpadded(event.data))
        elif isinstance(event, crust.Connected):
            say("connected", event.peer, event.endpoint.split(":")[0])
        elif isinstance(event, crust.AlreadyConnected):
            say("error already connected to", event.peer)
        elif isinstance(event, crust.ConnectFailed):
            say("connect_failed", event.name, event.text)
        elif isinstance(event, crust.Lost):
            say("lost", event.peer, event.name)
            if self.peers[event.peer].sending:
                self.peers[event.peer].sending.clear()
                say("error", event.name, event.text)
        elif isinstance(event, (crust.ListenerFailed, crust.Stopped)):
            say("error", event.name, event.text)


def run(service: crust.Service, listeners: int) -> None:
    driver = Driver(service, listeners)
    typed = b""
    with selectors.DefaultSelector() as selector:
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        selector.register(service, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if service in ready:
                for event in service.poll(0):
                    driver.event(event)
            if sys.stdin.fileno() in ready:
                piece = os.read(sys.stdin.fileno(), 65536)
                *lines, typed = (typed + piece).split(b"\n")
                if not piece:
                    lines.append(typed)
                for line in lines:
                    if not driver.command(line.decode("utf-8", "replace")):
                        return
                if not piece:
                    return


def run_polling(service: crust.Service, listeners: int) -> None:
    """Do what run does, on Windows, where neither a service nor a pipe is for select."""
    driver = Driver(service, listeners)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        lines.put("quit")

    threading.Thread(target=read, daemon=True).start()
    while True:
        for event in service.poll(0.005):
            driver.event(event)
        while not lines.empty():
            if not driver.command(lines.get()):
                return


def main() -> int:
    if len(sys.argv) < 2:
        print("usage: driver.py NETWORKNAME [LISTEN...]", file=sys.stderr)
        return 2
    listen = sys.argv[2:] or ["tcp://127.0.0.1:0"]
    with crust.Service(network_name=sys.argv[1], listen=listen) as service:
        (run_polling if sys.platform == "win32" else run)(service, len(listen))
    say("bye")
    return 0


if __name__ == "__main__":
    sys.exit(main())
