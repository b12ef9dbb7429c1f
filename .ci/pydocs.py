#!/usr/bin/env python3
"""Writes the reference page of the Python package: ``pydocs.py DIRECTORY``.

pdoc shows what a class says itself, and only the names of what it inherits. Here the classes of
which users know nothing (`crust._sending.Sending`) are shown as parts of those that they use.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from pathlib import Path

import crust
import pdoc


def show_inherited(shown: type) -> None:
    """Give a class of its own what it has from classes of private modules."""
    for base in shown.__mro__[1:]:
        if not base.__module__.startswith("crust._"):
            continue
        for name, member in vars(base).items():
            if not name.startswith("_") and name not in vars(shown):
                setattr(shown, name, member)


def main() -> None:
    """Write crust.html, its index and what its search needs."""
    if len(sys.argv) != 2:
        raise SystemExit(f"usage: {sys.argv[0]} DIRECTORY")
    show_inherited(crust.Service)
    missing = [name for name in crust.__all__ if not inspect.getdoc(getattr(crust, name))]
    if missing:
        raise SystemExit(f"crust has no words for {', '.join(missing)}")
    pdoc.render.configure(docformat="google", show_source=False)
    warnings.filterwarnings("ignore", "Cannot determine where crust.*")  # of annotations of bases
    warnings.filterwarnings("ignore", "The default value of crust.library_path.*")  # it is no secret
    pdoc.pdoc("crust", output_directory=Path(sys.argv[1]))


if __name__ == "__main__":
    main()
