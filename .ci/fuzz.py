"""Fuzzes every target for a stated CPU time, and keeps account of it in a document.

fuzz.py [--seconds N] [--list] [TARGET...]

Each target gets N seconds of CPU time, 10 unless said: of the fuzzing process and its
workers, without compiling. A target is named as in the document, by the last part of its
directory and its function, as in wire.FuzzFrames; without names, all that the module has,
the least fuzzed first. After each minute the document is written anew, so that what was done
counts when the rest is interrupted. --list only writes down which targets there are.

A find is left in testdata/fuzz beside the target, and ends the run with status 1.
"""

from __future__ import annotations

import argparse
import datetime
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / "docs" / "FUZZING.md"
PLACES = ("core", "capi", "cmd", "tests")
BEGINS = re.compile(r"^func (Fuzz\w+)\(", re.MULTILINE)
ROW = re.compile(r"^\| `([\w/.-]+\.Fuzz\w+)` \| ([\d,]+) s \| ([\d,]+) \| (\S+) \|$", re.MULTILINE)
EXECS = re.compile(r"execs: (\d+)")
# A target that mostly waits, as for a lock or a disk, gets up to so many workers, and is given up
# after so many times the CPU time that it should take.
WORKERS = 8
WALL = 20
# After so many seconds it is looked at whether a target waits, and after so many others what was
# done is written down.
TRIAL = 20
ROUND = 60
# Files that a target makes are in memory where that can be: there is no disk to wait for.
MEMORY = Path("/dev/shm")  # noqa: S108

HEAD = """# How long what takes foreign input was fuzzed

Made by `./build.sh fuzz`, which adds up the CPU time of the fuzzing processes, in seconds, and the
inputs, and notes the date of the last time; not to be edited. Each target is one of those of
[SECURITY.md](SECURITY.md#11-fuzz-targets), or belongs to a tool or a laboratory. What was found is
mended, and its input kept in `testdata/fuzz` beside the target, where every run of the tests tries
it again. Counted is what was done since this account is kept, from 2026-11-30 on.

    ./build.sh fuzz --seconds 600                     # each target for ten minutes of CPU time
    ./build.sh fuzz --seconds 60 wire.FuzzFrames      # one of them

| target | CPU time | inputs | last |
|---|---|---|---|
"""


@dataclass
class Account:
    """What was done for one target."""

    directory: Path
    function: str
    seconds: float = 0
    inputs: int = 0
    last: str = "never"


def targets() -> dict[str, Account]:
    """Finds all fuzz targets of the module, by their names."""
    found: dict[str, Account] = {}
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*_test.go")):
            if (ROOT / "tests" / "bench") in path.parents:  # modules of their own
                continue
            for function in BEGINS.findall(path.read_text(encoding="utf-8")):
                directory = path.parent
                name = f"{directory.name}.{function}"
                if name in found and found[name].directory != directory:
                    name = f"{directory.parent.name}/{name}"
                found[name] = Account(directory, function)
    return found


def load(accounts: dict[str, Account]) -> None:
    """Takes over what the document says. Targets that are gone are dropped."""
    if not DOCUMENT.exists():
        return
    for name, seconds, inputs, last in ROW.findall(DOCUMENT.read_text(encoding="utf-8")):
        if name in accounts:
            account = accounts[name]
            account.seconds, account.inputs, account.last = (
                float(seconds.replace(",", "")),
                int(inputs.replace(",", "")),
                last,
            )


def save(accounts: dict[str, Account]) -> None:
    """Writes the document."""
    rows = [
        f"| `{name}` | {a.seconds:,.0f} s | {a.inputs:,} | {a.last} |\n"
        for name, a in sorted(accounts.items())
    ]
    total = sum(a.seconds for a in accounts.values())
    text = HEAD + "".join(rows) + f"\n{len(accounts)} targets, {total:,.0f} s of CPU time in all.\n"
    aside = DOCUMENT.with_suffix(".tmp")
    aside.write_text(text, encoding="utf-8")
    aside.replace(DOCUMENT)


def spent() -> float:
    """Returns the CPU time of all processes that have ended, and their children."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(command: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end."""
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)  # noqa: S603


def failed(output: str) -> bool:
    """Says whether a run that did not end well has found something.

    Go's fuzzer now and then calls it a failure when its time is over.
    """
    return (
        "Failing input written" in output or "context deadline exceeded" not in output or "panic:" in output
    )


def fuzz(name: str, accounts: dict[str, Account], seconds: float, cache: Path) -> bool:
    """Fuzzes one target for so many seconds of CPU time, and reports whether it stood that."""
    account = accounts[name]
    program = cache / (name.replace("/", "-") + ".test")
    built = run(["go", "test", "-c", "-fuzz=.", "-o", str(program), "."], account.directory)
    if built.returncode != 0:
        sys.exit(built.stdout + built.stderr)
    corpus = run(["go", "env", "GOCACHE"], account.directory).stdout.strip()
    done, inputs = 0.0, 0
    workers, waits, well = 1, True, True
    end = time.monotonic() + WALL * seconds
    while well and seconds - done > 0.5 and time.monotonic() < end:
        most = TRIAL if waits and workers < WORKERS else ROUND
        command = [
            str(program),
            "-test.run=^$",
            f"-test.fuzz=^{account.function}$",
            f"-test.parallel={workers}",
            "-test.fuzzminimizetime=100x",
            f"-test.fuzztime={max(1.0, min(most, seconds - done)):.0f}s",
            f"-test.fuzzcachedir={corpus}/fuzz/{name}",
        ]
        before, began = spent(), time.monotonic()
        ended = run(command, account.directory)
        output = ended.stdout + ended.stderr
        if ended.returncode == 0 and "fuzz: " not in output:  # it has skipped
            print(f"{name:40} cannot be fuzzed on this machine", flush=True)
            return True
        used = max(spent() - before, 0.1)
        if waits := used < (time.monotonic() - began) / 3:
            workers = min(2 * workers, WORKERS)
        tried = max((int(n) for n in EXECS.findall(output)), default=0)
        done, inputs = done + used, inputs + tried
        account.seconds += used
        account.inputs += tried
        account.last = datetime.datetime.now(datetime.UTC).date().isoformat()
        save(accounts)
        if ended.returncode != 0 and failed(output):
            print(output)
            well = False
    print(f"{name:40} {done:7.1f} s {inputs:12,} inputs{'' if well else '  FAILED'}", flush=True)
    return well


def main() -> int:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(
        prog="build.sh fuzz", description="fuzz each target for a stated CPU time"
    )
    parser.add_argument(
        "--seconds", type=float, default=10, metavar="N", help="of CPU time for each target (10)"
    )
    parser.add_argument("--list", action="store_true", help="only write down which targets there are")
    parser.add_argument("target", nargs="*", help="as in docs/FUZZING.md; without any, all")
    options = parser.parse_args()
    accounts = targets()
    load(accounts)
    if unknown := [name for name in options.target if name not in accounts]:
        parser.error(f"there is no target {', '.join(unknown)}; docs/FUZZING.md lists them")
    if options.seconds < 1:
        parser.error("a target needs a second at least")
    save(accounts)
    if options.list:
        return 0
    names = options.target or sorted(accounts, key=lambda name: (accounts[name].seconds, name))
    well = True
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            well = fuzz(name, accounts, options.seconds, Path(directory)) and well
    return 0 if well else 1


if __name__ == "__main__":
    os.environ.setdefault("GOMAXPROCS", "2")
    if os.access(MEMORY, os.W_OK):
        os.environ.setdefault("TMPDIR", str(MEMORY))
    sys.exit(main())
