"""Packs a directory so that the same files give the same bytes.

    pack.py DIRECTORY ARCHIVE    ARCHIVE ends in .tar.gz or .zip

The entries are in order of their names, belong to nobody, and bear SOURCE_DATE_EPOCH and
modes that say of a file only whether it can be executed. Of links, zip keeps what they lead to.
"""

from __future__ import annotations

import gzip
import io
import os
import sys
import tarfile
import time
import zipfile
from pathlib import Path

EARLIEST = 315532800  # 1980-01-01, the first day of zip


def mode(path: Path) -> int:
    """Return the mode that a file or directory gets."""
    return 0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644


def entries(directory: Path) -> list[tuple[str, Path]]:
    """Return what is in a directory, and itself, with the names of the archive."""
    found = [directory, *directory.rglob("*")]
    return sorted((str(Path(directory.name) / path.relative_to(directory)), path) for path in found)


def tar(directory: Path, archive: Path, date: int) -> None:
    """Write a .tar.gz."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as out:
        for name, path in entries(directory):
            entry = out.gettarinfo(path, name)
            if entry.islnk():  # a second name of a file is a file
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = "root"
            entry.mtime = date
            entry.mode = 0o777 if entry.issym() else mode(path)
            if entry.isreg():
                with path.open("rb") as file:
                    out.addfile(entry, file)
            else:
                out.addfile(entry)
    with archive.open("wb") as raw, gzip.GzipFile("", "wb", 9, raw, mtime=date) as packed:
        packed.write(content.getbuffer())


def pack_zip(directory: Path, archive: Path, date: int) -> None:
    """Write a .zip."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for name, path in entries(directory):
            if path.is_dir():
                continue
            entry = zipfile.ZipInfo(name, time.gmtime(max(date, EARLIEST))[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3  # Unix, of which the modes are
            entry.external_attr = (0o100000 | mode(path)) << 16
            out.writestr(entry, path.read_bytes())


def main(arguments: list[str]) -> None:
    """Pack."""
    if len(arguments) != 2 or not arguments[1].endswith((".tar.gz", ".zip")):
        raise SystemExit(__doc__)
    directory, archive = Path(arguments[0]).resolve(), Path(arguments[1])
    date = int(os.environ["SOURCE_DATE_EPOCH"])
    (pack_zip if archive.suffix == ".zip" else tar)(directory, archive, date)


if __name__ == "__main__":
    main(sys.argv[1:])
