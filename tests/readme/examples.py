"""Writes the programs of README.md to files: examples.py README DIRECTORY.

The block of a language follows the heading of its name under "In four languages". Every
language must have one, so that the tests cannot pass on an empty page.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

FILES = {"go": "example.go", "c": "example.c", "rust": "main.rs", "python": "example.py", "sh": "compile.sh"}
SECTION = "## In four languages"


def main() -> int:
    """Read, write, and name what was found."""
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    target = Path(sys.argv[2])
    section = text.partition(SECTION)[2].partition("\n## ")[0]
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    found = [language for language, _ in blocks]
    if sorted(found) != sorted(FILES):
        print(f"{SECTION!r} has blocks of {found}, not one of each of {sorted(FILES)}", file=sys.stderr)
        return 1
    for language, program in blocks:
        (target / FILES[language]).write_text(program, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
