"""The demo: a C program and this Python program meet over libcrust, talk and stream.

Both are linked against the same libcrust.so. The pipe to the C program (peer.c) carries the
connection infos and the stage directions; everything else goes over libcrust, and then over
plain TCP between the same two processes for comparison.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import queue
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import crust

CHUNK = 65536
PATIENCE = 120.0
MEGABYTE = 1e6


class Failure(Exception):
    """The demo cannot go on; the text is one sentence for people."""


class Progress:
    """A bar on a terminal, a line per quarter elsewhere."""

    WIDTH = 32

    def __init__(self, label: str, total: int) -> None:
        self._label = label
        self._total = total
        self._begin = self._shown = time.perf_counter()
        self._quarter = 0
        self._terminal = sys.stdout.isatty()

    def show(self, done: int) -> None:
        """Show how far it is, ten times a second at most."""
        now = time.perf_counter()
        if self._terminal:
            if now - self._shown < 0.1 and done < self._total:
                return
            self._shown = now
            full = done * self.WIDTH // self._total
            rate = done / MEGABYTE / max(now - self._begin, 1e-9)
            print(
                f"\r  {self._label:<24} [{'#' * full}{'.' * (self.WIDTH - full)}] "
                f"{done * 100 // self._total:3d} %  {done >> 20} of {self._total >> 20} MiB "
                f"{rate:7,.0f} MB/s ",
                end="" if done < self._total else "\n",
                flush=True,
            )
        elif done * 4 // self._total > self._quarter:
            self._quarter = done * 4 // self._total
            print(f"  {self._label:<24} {self._quarter * 25:3d} %", flush=True)


class Peer:
    """The C program and the pipe to it."""

    def __init__(self, program: str, network: str, mib: int) -> None:
        self._process = subprocess.Popen(
            [program, network, str(mib)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put("error the C program ended")

    def tell(self, line: str) -> None:
        """Give a command."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            self.hear("nothing more")

    def hear(self, word: str) -> str:
        """Wait for a line that begins with word, and return what follows."""
        try:
            line = self._lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise Failure(f'the C program did not say "{word}" within two minutes') from None
        first, _, rest = line.partition(" ")
        if first != word:
            raise Failure(f'the C program said "{line}" in place of "{word}"')
        return rest

    def quit(self) -> None:
        """End it in order."""
        self.tell("quit")
        self.hear("bye")
        status = self._process.wait(PATIENCE)
        if status != 0:
            raise Failure(f"the C program ended with status {status}")

    def kill(self) -> None:
        """End it whatever it does."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@dataclass
class Stream:
    """One measured stream."""

    seconds: float
    sent: str
    received: str

    def rate(self, size: int) -> float:
        """Return bytes sent in MB/s."""
        return size / MEGABYTE / self.seconds


class Stage:
    """Both programs, connected, and a buffer as large as a stream."""

    def __init__(self, service: crust.Service, peer: Peer, size: int) -> None:
        self.service = service
        self.peer = peer
        self.peer_id = crust.PeerId(bytes(32))
        self.size = size
        self.buffer = bytearray(size)

    def next_message(self, what: str) -> bytes:
        """Wait for one message of the peer."""
        for event in self.service.events(timeout=PATIENCE):
            if isinstance(event, crust.Message):
                return event.data
            if isinstance(event, crust.Lost):
                raise Failure(f"the C program was lost while waiting for {what}: {event.text or event.name}")
        raise Failure(f"{what} did not come within two minutes")

    def digest(self) -> str:
        """Return the SHA-256 of the buffer."""
        return hashlib.sha256(self.buffer).hexdigest()

    def fill(self) -> None:
        """Fill the buffer with fresh random bytes."""
        self.buffer[:] = os.urandom(self.size)

    # Over libcrust.

    def receive(self) -> Stream:
        """C to Python. The C program measures, from its first send to our answer."""
        self.buffer[:] = bytes(self.size)
        self.peer.tell("send")
        self.peer.hear("ready")
        progress = Progress("C to Python, libcrust", self.size)
        at = 0
        while at < self.size:
            batch = self.service.receive_messages(timeout=PATIENCE, copy=False)
            for _, _, data in batch:
                self.buffer[at : at + len(data)] = data
                at += len(data)
            progress.show(min(at, self.size))
            if not batch or any(isinstance(event, crust.Lost) for event in batch.events):
                raise Failure(f"the stream from C stopped after {at} bytes")
        self.service.send(self.peer_id, b"all", 0)
        seconds = float(self.peer.hear("time"))
        if at != self.size:
            raise Failure(f"C sent {self.size} bytes and {at} arrived")
        return Stream(seconds, sent=self.peer.hear("digest"), received=self.digest())

    def send(self) -> Stream:
        """Python to C, from our first send to the C program's answer."""
        self.fill()
        view = memoryview(self.buffer)
        self.peer.tell("receive")
        self.peer.hear("ready")
        progress = Progress("Python to C, libcrust", self.size)
        begin = time.perf_counter()
        for at in range(0, self.size, CHUNK):
            self.service.send_wait(self.peer_id, view[at : at + CHUNK], 1, timeout=PATIENCE)
            progress.show(at + CHUNK)
        if self.next_message("the answer of the C program") != b"all":
            raise Failure("the C program answered something unexpected")
        seconds = time.perf_counter() - begin
        return Stream(seconds, sent=self.digest(), received=self.peer.hear("digest"))

    # Over plain TCP.

    def tcp_receive(self, stream: socket.socket) -> Stream:
        """C to Python over TCP, measured in the same way."""
        self.buffer[:] = bytes(self.size)
        view = memoryview(self.buffer)
        self.peer.tell("tcp-send")
        self.peer.hear("ready")
        progress = Progress("C to Python, raw TCP", self.size)
        at = 0
        while at < self.size:
            count = stream.recv_into(view[at : at + CHUNK])
            if count == 0:
                raise Failure(f"the TCP stream from C stopped after {at} bytes")
            at += count
            progress.show(at)
        stream.sendall(b"!")
        seconds = float(self.peer.hear("time"))
        return Stream(seconds, sent=self.peer.hear("digest"), received=self.digest())

    def tcp_send(self, stream: socket.socket) -> Stream:
        """Python to C over TCP."""
        self.fill()
        view = memoryview(self.buffer)
        self.peer.tell("tcp-receive")
        self.peer.hear("ready")
        progress = Progress("Python to C, raw TCP", self.size)
        begin = time.perf_counter()
        for at in range(0, self.size, CHUNK):
            stream.sendall(view[at : at + CHUNK])
            progress.show(at + CHUNK)
        if stream.recv(1) != b"!":
            raise Failure("the TCP stream to C broke")
        seconds = time.perf_counter() - begin
        return Stream(seconds, sent=self.digest(), received=self.peer.hear("digest"))


@contextmanager
def tcp_stream(peer: Peer) -> Iterator[socket.socket]:
    """Connect to the C program over plain TCP."""
    peer.tell("tcp")
    port = int(peer.hear("port"))
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield stream


def meet(stage: Stage) -> None:
    """Exchange connection infos through the pipe, connect, compare identities."""
    service, peer = stage.service, stage.peer
    for event in service.events(timeout=PATIENCE):
        if isinstance(event, crust.ListenerFailed):
            raise Failure(f"cannot listen: {event.text}")
        if isinstance(event, crust.ListenerStarted):
            break
    c_id = peer.hear("id")
    c_info = bytes.fromhex(peer.hear("info"))
    our_info = service.prepare_connection_info().result(PATIENCE)
    print("Meeting")
    print(f"  C program       {c_id}")
    print(f"  Python program  {service.id}")
    peer.tell(f"info {our_info.hex()}")
    service.connect(c_info)
    for event in service.events(timeout=PATIENCE):
        if isinstance(event, crust.Connected):
            break
        if isinstance(event, crust.ConnectFailed):
            raise Failure(f"cannot connect: {event.text or event.name}")
    else:
        raise Failure("the two programs did not connect within two minutes")
    seen_by_c = peer.hear("connected")
    stage.peer_id = event.peer
    about = service.peer(event.peer)
    print(f"  They swapped connection infos ({len(c_info)} and {len(our_info)} bytes) through a pipe,")
    print(f"  and connected over {event.endpoint} with {about.cipher}.")
    print(f'  Python sees     {event.peer}, "{bytes(event.app_id).decode()}"')
    print(f"  C sees          {seen_by_c}")
    if str(event.peer) != c_id or seen_by_c != str(service.id):
        raise Failure("an identity is not the one that was announced")
    print("  Each has proved to the other that it holds the key of its id.\n")


def talk(stage: Stage) -> None:
    """Greet both ways."""
    print("Talking")
    stage.service.send(stage.peer_id, b"Good day, C. This is Python.", 0)
    stage.peer.tell("greet Hello, Python. This is C.")
    print(f'  C to Python     "{stage.next_message("the greeting").decode()}"')
    print(f'  Python to C     "{stage.peer.hear("heard")}"\n')


def report(rows: list[tuple[str, Stream, Stream]], size: int) -> None:
    """Print what came out."""
    print(f"\nResult for {size >> 20} MiB each way (1 MB = 1,000,000 bytes)\n")
    print("  direction      libcrust      raw TCP       ratio   what arrived")
    intact = True
    for direction, ours, raw in rows:
        same = ours.sent == ours.received and raw.sent == raw.received
        intact = intact and same
        print(
            f"  {direction:<13}{ours.rate(size):7,.0f} MB/s  {raw.rate(size):7,.0f} MB/s   "
            f"{ours.rate(size) / raw.rate(size):6.2f}   "
            + (f"as sent, SHA-256 {ours.received[:16]}..." if same else "NOT as sent")
        )
    if not intact:
        raise Failure("the SHA-256 of what arrived is not that of what was sent")
    rates = " and ".join(f"{ours.rate(size):,.0f}" for _, ours, _ in rows)
    print(f"\nAll well: {size >> 20} MiB each way arrived as sent, at {rates} MB/s.")


def run(program: str, mib: int) -> None:
    """Play the whole demo."""
    size = mib << 20
    network = "demo " + secrets.token_hex(8)
    print(f"libcrust {crust.version()}: a C program and a Python program, each with its own service\n")
    peer = Peer(program, network, mib)
    try:
        with crust.Service(
            network_name=network, app_id=b"demo in Python", listen=["tcp://127.0.0.1:0"]
        ) as service:
            stage = Stage(service, peer, size)
            meet(stage)
            talk(stage)
            print(f"Streaming {mib} MiB each way in messages of 64 KiB, and the same over plain TCP")
            with tcp_stream(peer) as stream:
                rows = [
                    ("C to Python", stage.receive(), stage.tcp_receive(stream)),
                    ("Python to C", stage.send(), stage.tcp_send(stream)),
                ]
            report(rows, size)
            peer.quit()
    finally:
        peer.kill()


def main() -> int:
    """Read the arguments and play."""
    parser = argparse.ArgumentParser(
        prog="demo", description="Let a C and a Python program meet over libcrust."
    )
    parser.add_argument("program", help="the compiled peer.c")
    parser.add_argument("--mib", type=int, default=256, help="how much to stream each way (default 256)")
    arguments = parser.parse_args()
    if not 1 <= arguments.mib <= 4096:
        parser.error("--mib is from 1 to 4096")
    try:
        run(arguments.program, arguments.mib)
    except (Failure, crust.CrustError) as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
