"""Building wheels that bring the library along, and source distributions that can make it.

What the wheel holds, by the environment variable CRUST_BUNDLE:

- the path of a libcrust, such as ``../../build/lib/libcrust.so.1``: that one, as ``crust/_lib/``. The wheel
  is tagged for this platform.
- ``none``: no library. The wheel is pure Python and finds libcrust on the machine.
- not set: in a source distribution the library is built from the sources that it brings, which
  takes Go, C and C++ compilers and libsodium; in a checkout it is as with ``none``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Optional

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before setuptools 70.1 the command lived in wheel
    from wheel.bdist_wheel import bdist_wheel

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
SOURCES = HERE / "libcrust"  # in a source distribution: what the library is built from
BUNDLE = os.environ.get("CRUST_BUNDLE", "")
WITH_LIBRARY = BUNDLE != "none" and bool(BUNDLE or SOURCES.is_dir())

GO_MINOR = 26  # Go 1.26 or newer
TOOLS = ("bash", "sed", "sha256sum", "nm", "readelf", "pkg-config", "go")
# What of a checkout the library is built from, and what of that is only for its tests.
PARTS = ("go.mod", "go.sum", "LICENSE-APACHE", "LICENSE-MIT", "core", "capi", "include")
NOT_SOURCE = ("*_test.go", "testdata", "testhooks.go", "__pycache__")


def refuse(why: str) -> SystemExit:
    """Say in one sentence why the library cannot be built, and what to do."""
    return SystemExit(
        f"crust: libcrust cannot be built here, because {why}: install Go 1.{GO_MINOR} or newer, C and C++ "
        "compilers, binutils, pkg-config and libsodium 1.0.18 or newer with its headers, or take a wheel, or "
        'set CRUST_BUNDLE to the path of a libcrust.so.1, or to "none" when libcrust is on the machine.'
    )


def check_tools() -> None:
    """Refuse to begin what cannot end well."""
    compilers = [
        os.environ.get(name, default).split()[0] for name, default in (("CC", "gcc"), ("CXX", "g++"))
    ]
    missing = [tool for tool in (*TOOLS, *compilers) if shutil.which(tool) is None]
    if missing:
        raise refuse(f"there is no {', no '.join(missing)} in PATH")
    asked = ["pkg-config", "--exists", "libsodium >= 1.0.18"]
    if not os.environ.get("CRUST_SODIUM") and subprocess.run(asked, check=False).returncode:
        raise refuse("pkg-config knows of no libsodium 1.0.18 or newer")
    # A Go from 1.21 on may fetch the version that go.mod asks for; in that directory it says so.
    go = subprocess.run(["go", "env", "GOVERSION"], cwd=SOURCES, capture_output=True, text=True, check=False)
    version = re.match(r"go1\.(\d+)", go.stdout)
    if go.returncode or version is None:
        raise refuse(f"go fails ({(go.stderr.strip().splitlines() or ['it says nothing'])[-1]})")
    if int(version[1]) < GO_MINOR:
        raise refuse(f"go is {go.stdout.strip()}")


def build_library(directory: Path) -> Path:
    """Build libcrust from the sources of the source distribution and return it."""
    check_tools()
    directory.mkdir(parents=True, exist_ok=True)
    # Archives keep no promise about execute bits.
    made = subprocess.run(["bash", str(SOURCES / "capi" / "build-lib.sh"), str(directory)], check=False)
    library = directory / "lib" / "libcrust.so.1"
    if made.returncode or not library.is_file():
        raise refuse(f"capi/build-lib.sh ended with status {made.returncode}, see above")
    return library


class BuildWithLibrary(build_py):
    """Copies the library beside the modules."""

    def run(self) -> None:
        """Build, then copy."""
        library: Optional[Path] = None
        if WITH_LIBRARY:
            if not BUNDLE:
                library = build_library(HERE / "build" / "libcrust")
            else:
                library = Path(BUNDLE)
                if not library.is_file():
                    raise SystemExit(f"CRUST_BUNDLE names {BUNDLE}, which is no file")
        super().run()
        if library is not None:
            target = Path(self.build_lib) / "crust" / "_lib"
            target.mkdir(parents=True, exist_ok=True)
            # The loader looks for the name with the ABI number, whatever the file is called.
            name = "libcrust.so.1" if ".so" in library.name else library.name
            shutil.copyfile(library, target / name)


class SourcesWithLibrary(sdist):
    """Adds what libcrust is built from."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        """Copy the files of the package, then those of the library."""
        super().make_release_tree(base_dir, files)
        source = SOURCES if SOURCES.is_dir() else CHECKOUT
        if not (source / "include" / "crust.h").is_file():
            raise SystemExit(f"a source distribution is made in a checkout of libcrust, and {source} is none")
        for part in PARTS:
            target = Path(base_dir) / "libcrust" / part
            if (source / part).is_dir():
                shutil.copytree(
                    source / part, target, ignore=shutil.ignore_patterns(*NOT_SOURCE), dirs_exist_ok=True
                )
            else:
                target.parent.mkdir(exist_ok=True)
                shutil.copy(source / part, target)


class PlatformWheel(bdist_wheel):
    """Tags a wheel with a library for its platform, but for any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag of the wheel."""
        python, abi, platform = super().get_tag()
        return ("py3", "none", platform) if WITH_LIBRARY else (python, abi, platform)


class MaybeBinary(Distribution):
    """Says whether the wheel belongs to one platform."""

    def has_ext_modules(self) -> bool:
        """Return whether it brings a library."""
        return WITH_LIBRARY


setup(
    distclass=MaybeBinary,
    cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel, "sdist": SourcesWithLibrary},
)
