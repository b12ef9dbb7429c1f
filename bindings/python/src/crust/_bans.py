"""Who is not wanted: the blacklist and the whitelists of a service."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

from . import _ffi
from ._errors import Code, error


@dataclass(frozen=True)
class Ban:
    """A ban, as `Service.bans` saw it.

    Attributes:
        who: a peer id of 64 hexadecimal digits, an IP address or a prefix.
        left: seconds until it ends; None: with the service.
        reason: what the program gave as its reason.
    """

    who: str
    left: Optional[float]
    reason: str


def ban_of(raw: _ffi.BanInfoStruct) -> Ban:
    """Return what a struct says."""
    left = raw.left_ms / 1000 if raw.left_ms else None
    return Ban(raw.who.decode(), left, raw.reason.decode(errors="replace"))


def texts(values: Iterable[object], what: str) -> Any:
    """Make an array of C strings: a peer id stands for its text, anything else for its str."""
    if isinstance(values, (str, bytes)):
        raise error(Code.INVALID, f"{what} must be a sequence, not {type(values).__name__}")
    encoded = [_ffi.c_string(v.hex() if isinstance(v, bytes) else str(v), what) for v in values]
    return (ctypes.c_char_p * len(encoded))(*encoded)
