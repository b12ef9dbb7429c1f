"""Makes one coverage report of what build.sh coverage has gathered: coverage.py DIRECTORY.

Reads DIRECTORY/data/go.out, data/sources, c/*.gcov, data/python.json and data/rust.json, and writes
report.txt and index.html. A language without data is named as not counted.
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

MODULE = "github.com/libcrust/libcrust/"


@dataclass
class Row:
    """How much of one part was run."""

    name: str
    covered: int
    total: int

    @property
    def percent(self) -> str:
        """The share, for people."""
        return f"{100 * self.covered / self.total:5.1f} %" if self.total else "    - "


@dataclass
class Language:
    """The parts of one language and where they can be looked at."""

    title: str
    unit: str
    page: str
    rows: list[Row]

    def sum(self) -> Row:
        """All parts together."""
        return Row(self.title, sum(row.covered for row in self.rows), sum(row.total for row in self.rows))


def go(root: Path) -> Language:
    """Read a Go profile: file:from,to statements count. A block may occur several times."""
    blocks: dict[str, tuple[int, bool]] = {}
    for line in (root / "data/go.out").read_text().splitlines()[1:]:
        block, number, count = line.rsplit(" ", 2)
        hit = blocks.get(block, (0, False))[1]
        blocks[block] = int(number), hit or count != "0"
    packages: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for where, (statements, hit) in blocks.items():
        package = where.partition(":")[0].removeprefix(MODULE).rpartition("/")[0]
        packages[package][0] += statements if hit else 0
        packages[package][1] += statements
    rows = [Row(name, *counts) for name, counts in sorted(packages.items())]
    return Language("Go", "statements", "go.html", rows)


def c(root: Path) -> Language:
    """Read gcov's listings, whose lines begin with a count, #### or -, and make a page of each."""
    rows = []
    links = []
    sources = {Path(name).name: name for name in (root / "data/sources").read_text().split()}
    for listing in sorted((root / "c").glob("*.c.gcov")):
        name = sources[listing.name.removesuffix(".gcov")]
        covered = total = 0
        lines = []
        for line in listing.read_text(errors="replace").splitlines():
            count, _, _ = line.partition(":")
            mark = ""
            if "#####" in count or "=====" in count:
                total, mark = total + 1, ' style="background:#fcc"'
            elif re.fullmatch(r" *\d+\*?", count):
                covered, total, mark = covered + 1, total + 1, ' style="background:#dfd"'
            lines.append(f"<span{mark}>{html.escape(line)}</span>")
        rows.append(Row(name, covered, total))
        target = listing.with_suffix(".html")
        title = f'<!doctype html><meta charset="utf-8"><title>{name}</title>'
        target.write_text(f"{title}<pre>\n{chr(10).join(lines)}\n</pre>\n")
        links.append(f'<li><a href="{target.name}">{name}</a>')
    (root / "c/index.html").write_text(
        f'<!doctype html><meta charset="utf-8"><title>C</title><ul>{chr(10).join(links)}</ul>\n'
    )
    return Language("C", "lines", "c/index.html", rows)


def python(root: Path) -> Language:
    """Read coverage.py's summary."""
    files = json.loads((root / "data/python.json").read_text())["files"]
    rows = []
    for name, about in sorted(files.items()):
        summary = about["summary"]
        covered = summary["covered_lines"] + summary["covered_branches"]
        rows.append(Row(name, covered, summary["num_statements"] + summary["num_branches"]))
    return Language("Python", "statements and branches", "python/index.html", rows)


def rust(root: Path) -> Language:
    """Read llvm-cov's summary."""
    files = json.loads((root / "data/rust.json").read_text())["data"][0]["files"]
    rows = []
    for about in files:
        lines = about["summary"]["lines"]
        name = about["filename"].rpartition("bindings/rust/")[2]
        rows.append(Row(name, lines["covered"], lines["count"]))
    return Language("Rust", "lines", "rust/index.html", sorted(rows, key=lambda row: row.name))


def main() -> int:
    """Read all languages and write both reports."""
    root = Path(sys.argv[1])
    text: list[str] = []
    page = ['<!doctype html><meta charset="utf-8"><title>Coverage</title><h1>Coverage of libcrust</h1>']
    closing = []
    for name, read in (("Go", go), ("C", c), ("Python", python), ("Rust", rust)):
        try:
            language = read(root)
        except FileNotFoundError:
            language = None
        if language is None or not language.rows:
            text += [f"{name}: not counted", ""]
            page.append(f"<h2>{name}</h2><p>not counted")
            closing.append(f"{name} not counted")
            continue
        total = language.sum()
        text.append(f"{name} ({language.unit})")
        page.append(f'<h2><a href="{language.page}">{name}</a></h2><table>')
        for row in [*language.rows, Row("together", total.covered, total.total)]:
            text.append(f"  {row.percent}  {row.covered:6d} of {row.total:6d}  {row.name}")
            page.append(f"<tr><td>{row.percent}<td>{row.covered} of {row.total} {language.unit}")
            page.append(f"<td>{html.escape(row.name)}")
        text.append("")
        page.append("</table>")
        closing.append(f"{name} {total.percent.strip()}")
    (root / "report.txt").write_text("\n".join(text))
    (root / "index.html").write_text("\n".join(page) + "\n")
    print("\n".join(text))
    print(f"{root}/index.html: {', '.join(closing)}")
    return 0 if "not counted" not in " ".join(closing[:3]) else 1


if __name__ == "__main__":
    sys.exit(main())
