"""What the tests share. They run under pytest, and without it:
``PYTHONPATH=src python -m unittest discover -s tests``.
"""

from __future__ import annotations

import contextlib
import importlib
import itertools
import os
import shutil
import subprocess
import sys
import time
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import crust

os.environ.setdefault("CRUST_PORTMAP", "off")  # no test asks the router of this machine
os.environ.setdefault("CRUST_BEACON", "off")  # nor broadcasts

TESTS = Path(__file__).resolve().parent
SOURCE = Path(crust.__file__).resolve().parents[1]  # the package under test, installed or not
REPOSITORY = TESTS.parents[2]
LOOPBACK = "tcp://127.0.0.1:0"
PATIENCE = 30.0  # seconds until something that must happen counts as missing

E = TypeVar("E", bound=crust.Event)
_numbers = itertools.count()


def new_network() -> str:
    """Return a network name that no other test uses."""
    return f"python-test-{os.getpid()}-{next(_numbers)}"


def new_service(network: str, **options: Any) -> crust.Service:
    """Make a service on the loopback address."""
    options.setdefault("listen", [LOOPBACK])
    return crust.Service(network_name=network, **options)


def wait_for(service: crust.Service, kind: type[E]) -> E:
    """Take events until one of a kind comes, and return it."""
    seen = []
    for event in service.events(PATIENCE):
        if isinstance(event, kind):
            return event
        seen.append(event)
    raise AssertionError(f"no {kind.__name__} within {PATIENCE} s, only {seen[-20:]}")


def receive(service: crust.Service, count: int) -> list[tuple[crust.PeerId, int, bytes]]:
    """Take that many messages the fast way; other events are dropped."""
    messages: list[tuple[crust.PeerId, int, bytes]] = []
    while len(messages) < count:
        batch = service.receive_messages(PATIENCE)
        if not batch:
            raise AssertionError(f"{len(messages)} of {count} messages within {PATIENCE} s")
        messages += batch
    return messages


def wait_until(condition: Callable[[], bool]) -> None:
    """Look again and again until something is so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not so within {PATIENCE} s")


def link(dialler: crust.Service, acceptor: crust.Service) -> None:
    """Connect two services and take the events until both know."""
    dialler.connect(acceptor.prepare_connection_info().result(PATIENCE)).result(PATIENCE)
    wait_for(dialler, crust.Connected)
    wait_for(acceptor, crust.Connected)


@contextlib.contextmanager
def pair(**options: Any) -> Iterator[tuple[crust.Service, crust.Service]]:
    """Make two connected services whose events so far are taken."""
    network = new_network()
    with new_service(network, **options) as one, new_service(network, **options) as other:
        link(one, other)
        yield one, other


def run_python(
    code: str, *arguments: str, environment: dict[str, str | None] | None = None, timeout: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run a program in a new interpreter that uses the same library."""
    variables = dict(os.environ, PYTHONPATH=os.pathsep.join([str(SOURCE), str(TESTS)]))
    variables["CRUST_LIBRARY"] = str(Path(crust.library_path).resolve())
    for name, value in (environment or {}).items():
        variables.pop(name, None)
        if value is not None:
            variables[name] = value
    return subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, *arguments],
        env=variables,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def compiler() -> list[str]:
    """Return the command of the C compiler; a test that needs one is left out where there is none."""
    command = os.environ.get("CC", "cc").split()
    if shutil.which(command[0]) is None:
        raise unittest.SkipTest(f"there is no C compiler {command[0]} in PATH")
    return command


def example(name: str) -> Any:
    """Import one of the examples."""
    directory = str(TESTS.parent / "examples")
    if directory not in sys.path:
        sys.path.append(directory)
    return importlib.import_module(name)


class Fails:
    """Expects an error of exactly one class whose one sentence contains certain words."""

    def __init__(self, test: unittest.TestCase, kind: type[crust.CrustError], words: tuple[str, ...]) -> None:
        self._test, self._kind, self._words = test, kind, words

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, failure: BaseException | None, _traceback: object) -> bool:
        if failure is None:
            self._test.fail(f"{self._kind.__name__} was not raised")
        if type(failure) is not self._kind:
            return False
        sentence = str(failure)
        self._test.assertNotIn("\n", sentence)
        for word in self._words:
            self._test.assertIn(word, sentence)
        return True


class TestCase(unittest.TestCase):
    """Assertions on errors of the library."""

    def fails(self, kind: type[crust.CrustError], *words: str) -> Fails:
        """Expect an error of exactly this class whose one sentence contains the words."""
        return Fails(self, kind, words)
