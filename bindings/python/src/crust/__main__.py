"""A small tool: what is installed, an identity, and two peers that say whether they reach each other.

::

    python -m crust version
    python -m crust keygen node.identity
    python -m crust echo --network example
    python -m crust ping --network example tcp://192.0.2.7:5483#PEER

It ends with status 0, with 1 when something failed, which it says in one sentence, and with 2 when
it is used wrongly. The command ``crust`` of the library can much more.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, Optional

import crust

_ANY_ADDRESS = ("://0.0.0.0:", "://[::]:")
_SEQUENCE = 8  # bytes of the number in a ping, after as many that are random
_LEAST = 2 * _SEQUENCE


class _Failure(Exception):
    """What ends the tool with one sentence."""


def _version(_: argparse.Namespace) -> None:
    features = " ".join(name for name in ("tcp", "utp", "fd") if crust.has(name))
    print(f"crust    {crust.__version__}, {Path(crust.__file__).parent}")
    print(f"library  {crust.version()}, {crust.library_path}, with {features}")
    print(f"Python   {platform.python_version()}, {platform.platform()}")


def _keygen(arguments: argparse.Namespace) -> None:
    if os.path.lexists(arguments.file):
        raise _Failure(f"keygen: {arguments.file} exists already and is left as it is; choose another name")
    with crust.Service(identity_file=arguments.file, listen=[], accept=False, port_map=False) as service:
        print(service.id)


def _service(arguments: argparse.Namespace, **options: object) -> crust.Service:
    return crust.Service(
        network_name=arguments.network,
        identity_file=arguments.identity,
        **options,  # type: ignore[arg-type]
    )


def _echo(arguments: argparse.Namespace) -> None:
    """Send back what comes, as it came, until it is interrupted."""
    with _service(arguments, listen=arguments.listen) as service:
        for event in service.events():
            try:
                if isinstance(event, crust.Message):
                    service.send(event.peer, event.data, event.priority)
                elif isinstance(event, crust.Datagram):
                    service.send_datagram(event.peer, event.data)
                else:
                    _tell(service, event)
            except (crust.WouldBlock, crust.UnknownPeer, crust.TooBig):
                continue  # who does not read its answers gets fewer


def _tell(service: crust.Service, event: crust.Event) -> None:
    """Say what happens to an echo peer."""
    if isinstance(event, crust.ListenerStarted):
        note = "  (with an address of this machine)" if any(a in event.endpoint for a in _ANY_ADDRESS) else ""
        print(f"{event.endpoint}#{service.id}{note}", flush=True)
    elif isinstance(event, crust.ListenerFailed):
        print(f"cannot listen at {event.endpoint}: {event.text}", file=sys.stderr, flush=True)
    elif isinstance(event, crust.Connected):
        print(f"{event.peer.short} connected from {event.endpoint}", flush=True)
    elif isinstance(event, crust.Lost):
        print(f"{event.peer.short} is gone: {event.name}", flush=True)


def _ping(arguments: argparse.Namespace) -> None:
    """Measure round trips to an echo peer."""
    with _service(arguments, listen=[], port_map=False, beacon=crust.Beacon.OFF) as service:
        peer = service.connect_endpoint(arguments.contact).result(arguments.timeout).peer
        info = service.peer(peer)
        print(f"connected to {peer} at {info.endpoint}, {info.cipher}", flush=True)
        took: list[float] = []
        for number in range(1, arguments.count + 1):
            if number > 1:
                time.sleep(arguments.interval)
            seconds = _round_trip(service, peer, number, arguments)
            if seconds is None:
                print(f"no answer to {number} within {arguments.timeout:g} s", flush=True)
                continue
            took.append(seconds * 1e3)
            print(
                f"{arguments.size} bytes from {peer.short}: seq={number} time={took[-1]:.3f} ms", flush=True
            )
    print(f"{arguments.count} sent, {len(took)} answered", end="")
    if took:
        print(
            f"; round trip min/median/max {min(took):.3f}/{statistics.median(took):.3f}/{max(took):.3f} ms",
            end="",
        )
    print()
    if len(took) < arguments.count:
        raise _Failure(f"ping: {arguments.count - len(took)} of {arguments.count} messages were not answered")


def _round_trip(
    service: crust.Service, peer: crust.PeerId, number: int, arguments: argparse.Namespace
) -> Optional[float]:
    """Return the seconds until a message has come back; None when it has not in time."""
    head = os.urandom(_SEQUENCE) + number.to_bytes(_SEQUENCE, "big")
    message = head + bytes(arguments.size - len(head))
    begin = time.perf_counter()
    service.send(peer, message, 0)
    while True:
        rest = arguments.timeout - (time.perf_counter() - begin)
        for event in service.poll(max(rest, 0)):
            if isinstance(event, crust.Message) and event.data == message:
                return time.perf_counter() - begin
            if isinstance(event, crust.Lost):
                raise _Failure(f"ping: the peer is gone: {event.text or event.name}")
        if rest <= 0:
            return None


def _number(least: float, kind: Callable[[str], float]) -> Callable[[str], float]:
    """Return what argparse reads a number with."""

    def read(text: str) -> float:
        value = kind(text)
        if not least <= value < float("inf"):
            raise ValueError(text)
        return value

    read.__name__ = f"number from {least:g}"
    return read


def _size(text: str) -> int:
    value = int(text)
    if not _LEAST <= value <= crust.MAX_MESSAGE:
        raise argparse.ArgumentTypeError(f"{text} is not from {_LEAST} to {crust.MAX_MESSAGE}")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m crust", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser("version", help="versions, and where the library is")
    command.set_defaults(run=_version)

    command = commands.add_parser("keygen", help="make an identity and print its peer id")
    command.add_argument("file", metavar="FILE", help="where its secret goes; it must not exist")
    command.set_defaults(run=_keygen)

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--network", default="", metavar="NAME", help="the network's name; the public one")
    shared.add_argument("--identity", metavar="FILE", help="secret of the identity; a fresh one")

    command = commands.add_parser("echo", parents=[shared], help="a peer that sends everything back")
    command.add_argument("--listen", action="append", metavar="ENDPOINT", help="such as tcp://0.0.0.0:5483")
    command.set_defaults(run=_echo)

    command = commands.add_parser("ping", parents=[shared], help="measure round trips to an echo peer")
    command.add_argument("contact", metavar="CONTACT", help="ENDPOINT#PEER as echo says it, or ENDPOINT")
    command.add_argument("--count", type=_number(1, int), default=4, metavar="N", help="how many; 4")
    command.add_argument("--size", type=_size, default=64, metavar="BYTES", help="of a message; 64")
    command.add_argument("--interval", type=_number(0, float), default=1.0, metavar="SECONDS", help="1")
    command.add_argument("--timeout", type=_number(0, float), default=10.0, metavar="SECONDS", help="10")
    command.set_defaults(run=_ping)
    return parser


def main() -> NoReturn:
    """Run the tool."""
    arguments = _parser().parse_args()
    try:
        arguments.run(arguments)
    except (_Failure, crust.CrustError) as failure:
        print(f"python -m crust: {failure}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


if __name__ == "__main__":
    main()
