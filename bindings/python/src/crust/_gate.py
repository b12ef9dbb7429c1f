"""The program's own policy about peers."""

from __future__ import annotations

import ctypes
import itertools
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Optional

from . import _ffi
from ._types import How, PeerId, Role

_log = logging.getLogger("crust")


@dataclass(frozen=True)
class GateRequest:
    """A peer that has proved its key, and with which there is no session.

    Attributes:
        peer: who.
        app_id: what the peer's service hands to every peer.
        role: what it is to the network.
        endpoint: the peer's end of the link, or of the link to its relay.
        how: how the link came about.
        outbound: whether we have dialled.
    """

    peer: PeerId
    app_id: bytes
    role: Role
    endpoint: str
    how: How
    outbound: bool


# What the library may still call, by the number that it is called with.
_held: dict[int, Any] = {}
_numbers = itertools.count(1)


def _release(user: Optional[int]) -> None:
    _held.pop(user or 0, None)


_RELEASE = _ffi.RELEASE_FN(_release)


def set_gate(handle: ctypes.c_void_p, gate: Callable[[GateRequest], bool]) -> None:
    """Have a crust_config ask a function."""

    def ask(_: Optional[int], request: Any) -> int:
        raw = request.contents
        try:
            app_id = ctypes.string_at(raw.app_id, raw.app_id_len)
            peer = PeerId(bytes(raw.peer.bytes))
            role, how = Role(raw.role), How(raw.how)
            asked = GateRequest(peer, app_id, role, raw.endpoint.decode(), how, raw.outbound == 1)
            return 1 if gate(asked) is True else 0
        except Exception:  # must not cross the C frames above
            _log.exception("the gate raised an exception, which refuses the peer")
            return 0

    number = next(_numbers)
    _held[number] = _ffi.GATE_FN(ask)
    code = _ffi.crust_config_set_gate(handle, _held[number], number, _RELEASE)
    if code < 0:
        del _held[number]
    _ffi.check(code)
