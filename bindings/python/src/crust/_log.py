"""What a service logs, for the module logging."""

from __future__ import annotations

import contextlib
import json
import logging
from typing import Any

from . import _ffi
from ._errors import Code, error

logger = logging.getLogger("crust")

# The levels of logging by their numbers in C.
_LEVELS = {
    _ffi.LOG_ERROR: logging.ERROR,
    _ffi.LOG_WARN: logging.WARNING,
    _ffi.LOG_INFO: logging.INFO,
    _ffi.LOG_DEBUG: logging.DEBUG,
}


def log_number(level: Any) -> int:
    """Turn a level of logging into the number that C has for it, or for the next one below."""
    if isinstance(level, bool) or not isinstance(level, int):
        raise error(
            Code.INVALID, f"log_level must be a level of logging, such as logging.INFO, not {level!r}"
        )
    return next((number for number, ours in _LEVELS.items() if level >= ours), _ffi.LOG_DEBUG)


class Record:
    """A record as it has left the library."""

    __slots__ = ("_attrs", "_level", "_name", "_when")

    def __init__(self, level: int, when: float, name: str, attrs: bytes) -> None:
        self._level = _LEVELS.get(level, logging.DEBUG)
        self._when = when
        self._name = name
        self._attrs = attrs

    def tell(self) -> None:
        """Hand it on. It must be called with no lock held: handlers may call the service."""
        # What a filter or a handler of the program raises must not stop events.
        with contextlib.suppress(Exception):
            if not logger.isEnabledFor(self._level):
                return
            attrs: dict[str, Any] = json.loads(self._attrs)
            text = " ".join([self._name, *(f"{key}={_shown(value)}" for key, value in attrs.items())])
            extra = {"crust_name": self._name, "crust_attrs": attrs}
            record = logger.makeRecord(logger.name, self._level, "(crust)", 0, text, (), None, None, extra)
            record.created, record.msecs = self._when, self._when % 1 * 1000
            logger.handle(record)


def _shown(value: Any) -> str:
    """Show a value in one word, or in quotes."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text if text and not set(text) & set(' "=\n') else json.dumps(text)
