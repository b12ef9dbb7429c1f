"""``python -m crust``, and how values look in a notebook."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import crust
from crust._show import ROWS, table
from support import LOOPBACK, PATIENCE, SOURCE, TestCase, new_network, new_service, pair

ENVIRONMENT = dict(os.environ, PYTHONPATH=str(SOURCE), CRUST_LIBRARY=str(Path(crust.library_path).resolve()))


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m crust`` to its end."""
    return subprocess.run(
        [sys.executable, "-X", "dev", "-m", "crust", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Tool(TestCase):
    def test_version(self) -> None:
        result = tool("version")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertIn(f"crust    {crust.__version__}, {SOURCE / 'crust'}\n", result.stdout)
        self.assertIn(
            f"library  {crust.version()}, {ENVIRONMENT['CRUST_LIBRARY']}, with tcp utp", result.stdout
        )

    def test_wrong_use(self) -> None:
        for arguments, words in (
            ((), "required: COMMAND"),
            (("dance",), "invalid choice: 'dance'"),
            (("ping",), "required: CONTACT"),
            (("ping", "--count", "0", "tcp://127.0.0.1:1"), "invalid number from 1 value: '0'"),
            (("ping", "--timeout", "nan", "tcp://127.0.0.1:1"), "invalid number from 0 value: 'nan'"),
            (("ping", "--size", "15", "tcp://127.0.0.1:1"), f"15 is not from 16 to {crust.MAX_MESSAGE}"),
        ):
            with self.subTest(arguments=arguments):
                result = tool(*arguments)
                self.assertEqual(result.returncode, 2)
                self.assertIn(words, result.stderr)

    def test_keygen(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "node.identity"
            made = tool("keygen", str(file))
            self.assertEqual((made.returncode, made.stderr), (0, ""))
            self.assertEqual(file.stat().st_mode & 0o777, 0o600)
            with crust.Service(identity_file=file, listen=[]) as service:
                self.assertEqual(made.stdout, f"{service.id}\n")
            secret = file.read_bytes()
            again = tool("keygen", str(file))
            self.assertEqual((again.returncode, again.stdout), (1, ""))
            self.assertIn(f"keygen: {file} exists already and is left as it is", again.stderr)
            self.assertEqual(file.read_bytes(), secret)

    def test_ping_and_echo(self) -> None:
        # Ignored in background, and in what is started from there.
        interrupted = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.addCleanup(signal.signal, signal.SIGINT, interrupted)
        network = new_network()
        command = [sys.executable, "-m", "crust", "echo", "--network", network, "--listen", LOOPBACK]
        with subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True) as echo:
            try:
                assert echo.stdout is not None
                contact = echo.stdout.readline().strip()
                self.assertRegex(contact, r"^tcp://127\.0\.0\.1:\d+#[0-9a-f]{64}$")
                arguments = ("--network", network, "--count", "3", "--interval", "0", "--size", "4000")
                result = tool("ping", *arguments, contact)
                self.assertEqual((result.returncode, result.stderr), (0, ""))
                lines = result.stdout.splitlines()
                self.assertTrue(
                    lines[0].startswith(f"connected to {contact[-64:]} at tcp://127.0.0.1:"), lines
                )
                for number, line in enumerate(lines[1:4], 1):
                    self.assertRegex(
                        line, rf"^4000 bytes from {contact[-64:-56]}: seq={number} time=[0-9.]+ ms$"
                    )
                self.assertRegex(
                    lines[4], r"^3 sent, 3 answered; round trip min/median/max [0-9.]+/[0-9.]+/[0-9.]+ ms$"
                )
                self.assertRegex(
                    echo.stdout.readline(), r"^[0-9a-f]{8} connected from tcp://127\.0\.0\.1:\d+\n$"
                )
                self.assertRegex(echo.stdout.readline(), r"^[0-9a-f]{8} is gone: disconnected\n$")
            finally:
                echo.send_signal(signal.SIGINT)
                echo.wait(PATIENCE)
        self.assertEqual(echo.returncode, 130)

    def test_ping_without_answers(self) -> None:
        network = new_network()
        with new_service(network) as deaf:
            arguments = (
                "--network",
                network,
                "--count",
                "1",
                "--timeout",
                "0.2",
                f"{deaf.listeners()[0]}#{deaf.id}",
            )
            result = tool("ping", *arguments)
        self.assertEqual(result.returncode, 1)
        self.assertIn("1 sent, 0 answered\n", result.stdout)
        self.assertIn("python -m crust: ping: 1 of 1 messages were not answered\n", result.stderr)

    def test_failures_are_one_sentence(self) -> None:
        result = tool("ping", "nonsense")
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertRegex(result.stderr, r"^python -m crust: .*nonsense.*\n$")


class Notebook(TestCase):
    def test_values(self) -> None:
        with pair() as (one, other):
            one.send(other.id, b"x")
            shown = one._repr_html_()
            self.assertIn(f"<caption>Service {one.id.short}: 1 peers, listens at tcp://127.0.0.1:", shown)
            self.assertIn(f'<code title="{other.id}">{other.id.short}</code>', shown)
            self.assertIn("<td>dialed</td>", shown)
            self.assertIn("<tr><th>peers</th><td>1</td></tr>", one.stats()._repr_html_())
            self.assertIn("<tr><th>suspended</th><td>no</td></tr>", one.peer(other.id)._repr_html_())
            self.assertIn("<caption>NatFlow</caption>", one.nat()._repr_html_())
        self.assertIn(f"<caption>Service {one.id.short}: closed</caption>", one._repr_html_())

    def test_what_others_say_is_escaped(self) -> None:
        shown = table("<b>", ["<i>"], [["<script>alert(1)</script>"], [("<p>", "&")], [crust.Timeout("<q>")]])
        self.assertEqual(set(re.findall(r"</?(\w+)", shown)), {"table", "caption", "tr", "th", "td", "br"})

    def test_long_tables_end(self) -> None:
        shown = table("many", ["n"], ([n] for n in range(ROWS + 1234)))
        self.assertEqual(shown.count("<tr>"), ROWS + 2)
        self.assertIn("and 1,234 more", shown)


if __name__ == "__main__":
    unittest.main()
