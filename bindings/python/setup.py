"""Building wheels that bring the library along.

With the environment variable CRUST_BUNDLE naming a libcrust, such as
``../../build/lib/libcrust.so.1``, the wheel contains it as ``crust/_lib/`` and is tagged for this
platform. Without it the wheel is pure Python and finds libcrust on the machine.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # before setuptools 70.1 the command lived in wheel
    from wheel.bdist_wheel import bdist_wheel

BUNDLE = os.environ.get("CRUST_BUNDLE")


class BuildWithLibrary(build_py):
    """Copies the library beside the modules."""

    def run(self) -> None:
        """Build, then copy."""
        super().run()
        if BUNDLE:
            library = Path(BUNDLE)
            if not library.is_file():
                raise SystemExit(f"CRUST_BUNDLE names {BUNDLE}, which is no file")
            target = Path(self.build_lib) / "crust" / "_lib"
            target.mkdir(parents=True, exist_ok=True)
            # The loader looks for the name with the ABI number, whatever the file is called.
            name = "libcrust.so.1" if ".so" in library.name else library.name
            shutil.copyfile(library, target / name)


class PlatformWheel(bdist_wheel):
    """Tags a wheel with a library for its platform, but for any Python 3."""

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag of the wheel."""
        python, abi, platform = super().get_tag()
        return ("py3", "none", platform) if BUNDLE else (python, abi, platform)


class MaybeBinary(Distribution):
    """Says whether the wheel belongs to one platform."""

    def has_ext_modules(self) -> bool:
        """Return whether it brings a library."""
        return bool(BUNDLE)


setup(distclass=MaybeBinary, cmdclass={"build_py": BuildWithLibrary, "bdist_wheel": PlatformWheel})
