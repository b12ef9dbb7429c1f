"""Reads `go test -json` on standard input and says what happened, briefly.

One line for each package, the output of tests that failed, the tests that took longest, and a
closing line with the counts.
Ends with status 1 when anything failed or did not build.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict

SLOWEST = 10  # so many tests are named at most
WORTH_NAMING = 5.0  # seconds
LAST_WORDS = 12  # lines at the end of a package that failed as a whole


def main() -> int:
    """Read to the end and report."""
    output: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    tests: Counter[str] = Counter()
    packages: Counter[str] = Counter()
    per_package: defaultdict[str, Counter[str]] = defaultdict(Counter)
    skipped: list[str] = []
    failures: list[str] = []
    slow: list[tuple[float, str]] = []
    for line in sys.stdin:
        try:
            event = json.loads(line)
        except ValueError:
            print(line, end="")
            continue
        action = event["Action"]
        package, test = event.get("Package", ""), event.get("Test", "")
        if action == "build-output":
            print(event["Output"], end="", flush=True)
        elif action == "output":
            output[package, test].append(event["Output"])
        elif action in ("pass", "fail", "skip") and test:
            tests[action] += 1
            per_package[package][action] += 1
            if "/" not in test:
                slow.append((event["Elapsed"], f"{package} {test}"))
            text = "".join(output.pop((package, test), []))
            if action == "fail":
                print(text, end="", flush=True)
                failures.append(f"FAILED {package} {test}")
            elif action == "skip":
                skipped.append(f"{package} {test}")
        elif action in ("pass", "fail", "skip"):
            packages[action] += 1
            own = output.pop((package, ""), [])
            if action == "fail":
                # What a crash printed may hang at a test that never ended.
                unfinished = [key for key in output if key[0] == package]
                text = "".join(own + [text for key in unfinished for text in output.pop(key)])
                print(text, end="")
                if not per_package[package]["fail"]:
                    failures.append(f"FAILED {package} without a failed test; it ended with")
                    failures += text.splitlines()[-LAST_WORDS:]
            if action != "skip":
                word = {"pass": "ok  ", "fail": "FAIL"}[action]
                print(
                    f"{word} {package}  {sum(per_package[package].values())} tests, {event['Elapsed']:.1f} s",
                    flush=True,
                )
    report(tests, packages, skipped, slow, failures)
    return 1 if tests["fail"] + packages["fail"] or not packages["pass"] else 0


def report(
    tests: Counter[str],
    packages: Counter[str],
    skipped: list[str],
    slow: list[tuple[float, str]],
    failures: list[str],
) -> None:
    """Say what there was, and last the sum."""
    for name in skipped:
        print(f"skipped: {name}")
    for seconds, name in sorted(slow, reverse=True)[:SLOWEST]:
        if seconds >= WORTH_NAMING:
            print(f"{seconds:6.1f} s  {name}")
    print("\n".join(failures), end="\n" if failures else "")
    if packages["fail"] and not tests["fail"]:
        print(f"{packages['fail']} packages did not build or crashed")
    print(
        f"{tests['pass']} tests passed, {tests['fail']} failed, {tests['skip']} skipped "
        f"in {packages['pass'] + packages['fail']} packages"
    )


if __name__ == "__main__":
    sys.exit(main())
