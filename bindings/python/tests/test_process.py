"""Loading the library, forking, spawning, and leaving the interpreter."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import crust
import spawned
from support import (
    PATIENCE,
    REPOSITORY,
    SOURCE,
    TestCase,
    compiler,
    new_network,
    new_service,
    run_python,
    wait_for,
)

EXIT_TIME = 2.0


class Loading(TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def compile(self, name: str, code: str) -> Path:
        """Make a shared library from C."""
        source, library = self.directory / f"{name}.c", self.directory / f"{name}.so"
        source.write_text(code)
        subprocess.run([*compiler(), "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
        return library

    def import_with(self, library: str) -> str:
        """Import with CRUST_LIBRARY set, and return what the ImportError says."""
        result = run_python(
            "try:\n import crust\nexcept ImportError as failure:\n print(failure)",
            environment={"CRUST_LIBRARY": library},
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_named_file_does_not_exist(self) -> None:
        missing = self.directory / "nowhere.so"
        said = self.import_with(str(missing))
        self.assertIn(f"{missing}: no such file", said)
        self.assertIn("CRUST_LIBRARY", said)
        self.assertIn("_lib", said)

    def test_named_file_is_no_library(self) -> None:
        text = self.directory / "text.so"
        text.write_text("not a library")
        self.assertIn(f"  {text}: ", self.import_with(str(text)))

    def test_named_file_is_another_library(self) -> None:
        other = self.compile("other", "int nothing(void) { return 0; }\n")
        self.assertIn(f"{other}: is not libcrust", self.import_with(str(other)))

    def test_other_abi_version(self) -> None:
        other = self.compile("newer", "unsigned crust_abi_version(void) { return 99; }\n")
        said = self.import_with(str(other))
        self.assertIn(f"{other}: has ABI version 99, this binding needs ABI version 1", said)

    def test_older_library(self) -> None:
        older = self.compile("older", "unsigned crust_abi_version(void) { return 1; }\n")
        said = self.import_with(str(older))
        self.assertIn(f"{older} has no crust_version_string: it is older", said)

    def test_nothing_anywhere(self) -> None:
        """A copy of the package outside of a checkout, on a machine without libcrust."""
        shutil.copytree(SOURCE / "crust", self.directory / "crust", ignore=shutil.ignore_patterns("_lib"))
        loader = self.directory / "crust" / "_loader.py"
        # A name that no machine has, should libcrust be installed on this one.
        text = (
            loader.read_text()
            .replace("libcrust.so", "libcrust-absent.so")
            .replace('"crust"', '"crust-absent"')
        )
        loader.write_text(text)
        result = run_python(
            "try:\n import crust\nexcept ImportError as failure:\n print(failure)",
            environment={"CRUST_LIBRARY": None, "PYTHONPATH": str(self.directory)},
        )
        said = result.stdout.splitlines()
        self.assertEqual(said[0], "libcrust cannot be loaded. Tried:", result.stderr)
        bundled = self.directory / "crust" / "_lib" / "libcrust-absent.so"
        self.assertEqual(said[1:3], [f"  {bundled}.1: no such file", f"  {bundled}: no such file"])
        self.assertTrue(said[3].startswith("  libcrust-absent.so.1: "), said[3])
        self.assertIn("cannot open shared object file", said[3])
        self.assertTrue(said[4].startswith("  ctypes.util.find_library("), said[4])
        self.assertIn("found nothing", said[4])
        self.assertTrue(said[5].startswith("Run ./build.sh lib "), said[5])
        self.assertIn("CRUST_LIBRARY", said[5])

    def test_bundled_library(self) -> None:
        shutil.copytree(SOURCE / "crust", self.directory / "crust", ignore=shutil.ignore_patterns("_lib"))
        bundle = self.directory / "crust" / "_lib"
        bundle.mkdir()
        shutil.copy(Path(crust.library_path).resolve(), bundle / "libcrust.so.1")
        result = run_python(
            "import crust; print(crust.library_path)",
            environment={"CRUST_LIBRARY": None, "PYTHONPATH": str(self.directory)},
        )
        self.assertEqual(result.stdout.strip(), str(bundle / "libcrust.so.1"), result.stderr)

    def test_library_of_the_system_loader(self) -> None:
        shutil.copytree(SOURCE / "crust", self.directory / "crust", ignore=shutil.ignore_patterns("_lib"))
        installed = self.directory / "lib"
        installed.mkdir()
        shutil.copy(Path(crust.library_path).resolve(), installed / "libcrust.so.1")
        result = run_python(
            "import crust; print(crust.library_path, crust.version())",
            environment={
                "CRUST_LIBRARY": None,
                "PYTHONPATH": str(self.directory),
                "LD_LIBRARY_PATH": str(installed),
            },
        )
        self.assertEqual(result.stdout.split(), ["libcrust.so.1", crust.version()], result.stderr)


class Leaving(TestCase):
    def leave(self, code: str, status: int = 0) -> str:
        """Run a program that ends with a live service; return what it printed."""
        result = run_python("import time, crust, support\n" + code + "\nprint(time.time())")
        done = time.time()
        self.assertEqual(result.returncode, status, result.stderr)
        *printed, left = result.stdout.split("\n")[:-1]
        self.assertLess(done - float(left), EXIT_TIME)
        return result.stderr

    def test_with_a_live_service(self) -> None:
        stderr = self.leave("service = support.new_service('exit')")
        self.assertEqual(stderr, "")

    def test_with_a_connected_pair(self) -> None:
        self.leave(
            "one, other = support.new_service('exit'), support.new_service('exit')\n"
            "support.link(one, other)\none.send(other.id, b'x')"
        )

    def test_with_threads_that_wait(self) -> None:
        self.leave(
            "import threading\nservice = support.new_service('exit')\n"
            "threading.Thread(target=service.poll, daemon=True).start()\n"
            "threading.Thread(target=lambda: list(service.events()), daemon=True).start()"
        )

    def test_with_an_event_loop_left_behind(self) -> None:
        self.leave(
            "import asyncio\nservice = support.new_service('exit')\n"
            "async def program():\n"
            "    task = asyncio.ensure_future(service.__aiter__().__anext__())\n"
            "    await service.connection_info()\n"
            "asyncio.run(program())"
        )

    def test_with_a_batch_still_viewed(self) -> None:
        self.leave(
            "one, other = support.new_service('exit'), support.new_service('exit')\n"
            "support.link(one, other)\none.send(other.id, b'x')\n"
            "batch = other.receive_messages(support.PATIENCE, copy=False)\n"
            "assert bytes(batch.data[0]) == b'x'"
        )

    def test_interrupt_while_waiting(self) -> None:
        result = run_python(
            "import os, signal, threading, time, crust, support\n"
            "signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in background\n"
            "with support.new_service('interrupt', listen=[]) as service:\n"
            "    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))\n"
            "    timer.start()\n"
            "    start = time.monotonic()\n"
            "    try:\n"
            "        service.poll(support.PATIENCE)\n"
            "    except KeyboardInterrupt:\n"
            "        print(time.monotonic() - start)\n"
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertLess(float(result.stdout), 5)


FORK = """
import os, sys, crust, support
one, other = support.new_service('fork'), support.new_service('fork')
support.link(one, other)
one.send(other.id, b'before')
batch = other.receive_messages(support.PATIENCE, copy=False)
child = os.fork()
if child == 0:
    tries = [
        lambda: one.send(other.id, b'x'), lambda: one.send_many(other.id, [b'x']), lambda: one.poll(),
        lambda: one.receive_messages(), lambda: one.connect(b'x'), lambda: one.peers(), lambda: one.stats(),
        lambda: one.prepare_connection_info(), lambda: crust.Service(), lambda: crust.generate_identity(),
    ]
    for attempt in tries:
        try:
            attempt()
        except crust.Forked as failure:
            assert 'fork' in str(failure), failure
        else:
            raise SystemExit('a call in the forked child succeeded')
    assert list(one.events()) == []
    assert bytes(batch.data[0]) == b'before'
    assert crust.PeerId(str(one.id)) == one.id
    del batch
    one.close()
    other.close()
    sys.exit(7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
one.send(other.id, b'after')
assert support.receive(other, 1) == [(one.id, 1, b'after')]
one.close()
other.close()
print('done')
"""


class Forking(TestCase):
    @unittest.skipUnless(hasattr(os, "fork"), "this system has no fork")
    def test_child_gets_errors_and_parent_goes_on(self) -> None:
        result = run_python("import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n" + FORK)
        self.assertEqual((result.returncode, result.stdout), (0, "done\n"), result.stderr)

    def test_spawned_process(self) -> None:
        context = multiprocessing.get_context("spawn")
        network = new_network()
        pipe, theirs = context.Pipe()
        os.environ.setdefault("CRUST_LIBRARY", str(Path(crust.library_path).resolve()))
        process = context.Process(target=spawned.echo, args=(network, theirs))
        process.start()
        theirs.close()
        try:
            with new_service(network) as service:
                self.assertTrue(pipe.poll(PATIENCE), "the spawned process says nothing")
                peer = service.connect(pipe.recv()).result(PATIENCE).peer
                service.send(peer, b"hello")
                self.assertEqual(wait_for(service, crust.Message), crust.Message(peer, b"echo hello", 1))
                identity = service.id
            self.assertTrue(pipe.poll(PATIENCE), "the spawned process does not see the loss")
            lost = pipe.recv()
            self.assertEqual((lost.peer, lost.code), (identity, crust.Code.DISCONNECTED))
        finally:
            process.join(PATIENCE)
            pipe.close()
        self.assertEqual(process.exitcode, 0)

    def test_service_cannot_be_pickled(self) -> None:
        with (
            new_service(new_network()) as service,
            self.assertRaisesRegex(TypeError, "make one in each process"),
        ):
            multiprocessing.reduction.ForkingPickler.dumps(service)


class Driver(TestCase):
    def test_wrong_use(self) -> None:
        driver = str(REPOSITORY / "tests" / "conformance" / "driver.py")
        environment = dict(os.environ, CRUST_LIBRARY=str(Path(crust.library_path).resolve()))
        result = subprocess.run(
            [sys.executable, driver],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual((result.returncode, result.stdout), (2, ""))
        result = subprocess.run(
            [sys.executable, driver, new_network()],
            input="bogus\nconnect\npattern x 1 1 1\n\nquit\n",
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        lines = [line for line in result.stdout.splitlines() if not line.startswith("ready ")]
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual([line.split()[0] for line in lines], ["error", "error", "error", "bye"])


if __name__ == "__main__":
    unittest.main()
