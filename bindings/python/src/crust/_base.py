"""What the parts of a service share: its handle, its events, and how its calls fail."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from . import _ffi
from ._errors import Code, error
from ._inbox import Call, Inbox
from ._types import PeerId

if TYPE_CHECKING:
    from ._aio import Pump

_forked = False


def forked() -> None:
    """Note that this process is a child that was forked after the library was loaded."""
    global _forked
    _forked = True


class Base:
    """The handle of a service, 0 when it is closed, and the place where its events arrive."""

    _handle: int
    _id: PeerId
    _inbox: Inbox
    _guard: threading.Lock
    _closing: threading.Lock
    _pump: Optional[Pump]

    def _attach(self) -> Pump:
        """Return the pump of the running event loop."""
        raise NotImplementedError

    def _ensure_pump(self) -> None:
        """Have some event loop read the events, the running one if no other does."""
        pump = self._pump
        if pump is None or not pump.loop.is_running():
            self._attach()

    def _call(self, kind: str, function: Any, *arguments: Any) -> Call[Any]:
        call = self._inbox.start(kind, self)
        try:
            self._check(function(self._handle, *arguments, call.token), kind)
        except BaseException:
            self._inbox.forget(call)
            raise
        return call

    def _check(self, code: int, operation: str) -> None:
        """Raise the exception of a negative result; a stale handle means a closed service."""
        if code < 0:
            if not self._handle:
                self._fail_closed(operation)
            raise _ffi.failure(code)

    def _list(self, call: Callable[..., int], kind: type[Any], what: str) -> list[Any]:
        """Return what a function of the library gives one by one."""
        found: list[Any] = []
        while True:
            raw = kind(struct_size=ctypes.sizeof(kind))
            count = call(self._handle, len(found), ctypes.byref(raw))
            self._check(count, what)
            if len(found) >= count:
                return found
            found.append(raw)

    def _fail_closed(self, operation: str) -> NoReturn:
        if _forked:
            raise error(
                Code.FORKED,
                f"{operation}: this process was forked after crust was imported; use spawn instead",
            )
        raise error(Code.CLOSED, f"{operation}: the service is closed")


def check_peer(peer: bytes) -> None:
    """Refuse what the library would read beyond or ctypes would take for something else."""
    if not isinstance(peer, bytes):
        raise error(Code.INVALID, f"a peer id is bytes or PeerId, not {type(peer).__name__}")
    if len(peer) != _ffi.PEER_ID_SIZE:
        raise error(Code.INVALID, f"a peer id has {_ffi.PEER_ID_SIZE} bytes, not {len(peer)}")
