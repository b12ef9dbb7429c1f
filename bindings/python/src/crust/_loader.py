"""Finding and loading libcrust.

The library is loaded once and never unloaded: a Go runtime cannot be.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import os
import sys
from pathlib import Path

ABI_VERSION = 1
"""The CRUST_ABI_VERSION this binding was written for."""

if sys.platform == "win32":
    LIBRARY_NAMES = ("crust.dll", "libcrust.dll")
elif sys.platform == "darwin":
    LIBRARY_NAMES = ("libcrust.1.dylib", "libcrust.dylib")
else:
    LIBRARY_NAMES = ("libcrust.so.1", "libcrust.so")

_HERE = Path(__file__).resolve().parent


def _bundled() -> list[str]:
    return [str(_HERE / "_lib" / name) for name in LIBRARY_NAMES]


def _in_repository() -> list[str]:
    """The build tree, when this file lies in a checkout of libcrust."""
    if len(_HERE.parents) < 4 or not (_HERE.parents[3] / "include" / "crust.h").is_file():
        return []
    return [str(_HERE.parents[3] / "build" / "lib" / name) for name in LIBRARY_NAMES]


def _from_system() -> list[str]:
    return [LIBRARY_NAMES[0]]


def _found_by_name() -> list[str]:
    found = ctypes.util.find_library("crust")
    return [found] if found else []


class _Search:
    """One search, remembering what was tried and why it failed."""

    def __init__(self) -> None:
        self.failures: list[tuple[str, str]] = []

    def attempt(self, path: str) -> ctypes.CDLL | None:
        if Path(path).name != path and not Path(path).is_file():
            self.failures.append((path, "no such file"))
            return None
        try:
            library = ctypes.CDLL(path)
            abi = library.crust_abi_version
        except OSError as failure:
            self.failures.append((path, str(failure)))
            return None
        except AttributeError:
            self.failures.append((path, "is not libcrust: it has no crust_abi_version"))
            return None
        abi.restype, abi.argtypes = ctypes.c_uint32, []
        found = abi()
        if found != ABI_VERSION:
            self.failures.append(
                (path, f"has ABI version {found}, this binding needs ABI version {ABI_VERSION}")
            )
            return None
        return library

    def report(self, headline: str, advice: str) -> ImportError:
        lines = [headline, *(f"  {path}: {reason}" for path, reason in self.failures), advice]
        return ImportError("\n".join(lines))


def load() -> tuple[ctypes.CDLL, str]:
    """Load libcrust and return it with the path or name it was loaded by.

    The order is: the file named by the environment variable CRUST_LIBRARY, and then nothing
    else, because a program that names its library must not silently get another one; the
    library bundled with the package; the build tree of the checkout this file lies in; the
    system loader; ``ctypes.util.find_library``.

    Raises:
        ImportError: listing every path tried, why each failed and what to do.
    """
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        raise ImportError("crust needs a 64-bit Python; this one is 32-bit")
    search = _Search()
    named = os.environ.get("CRUST_LIBRARY")
    if named:
        library = search.attempt(str(Path(named).absolute()))
        if library is not None:
            return library, named
        raise search.report(
            "libcrust cannot be loaded from the file that CRUST_LIBRARY names:",
            "Set CRUST_LIBRARY to a libcrust of the right version, or unset it to search: "
            + ", ".join([*_bundled()[:1], *_in_repository()[:1], *_from_system()])
            + ".",
        )
    for source in (_bundled, _in_repository, _from_system, _found_by_name):
        for path in source():
            library = search.attempt(path)
            if library is not None:
                return library, path
    if not _found_by_name():
        search.failures.append(("ctypes.util.find_library('crust')", "found nothing"))
    raise search.report(
        "libcrust cannot be loaded. Tried:",
        "Run ./build.sh lib in a checkout of libcrust, or install libcrust, or set CRUST_LIBRARY "
        "to the full path of " + LIBRARY_NAMES[0] + ".",
    )
