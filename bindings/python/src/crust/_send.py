"""Packing many messages for one call into the library.

An array of crust_message is filled column by column with strided copies. Small messages are
joined into one run of bytes first, so that their addresses are sums of lengths and no ctypes
object is made per message; large ones are passed where they lie. Messages of one size to one peer
are joined where those before were, so that what the array says of them stays as it is.
"""

from __future__ import annotations

import ctypes
import sys
from array import array
from collections import deque
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from . import _ffi
from ._errors import Code, error
from ._types import Buffer

# Messages of one call; the array is 32 KiB.
CHUNK = 1024
# Messages larger than this on average are not joined.
_JOIN_BELOW = 4096
# Messages of one size are joined in the packer's own memory up to so many bytes.
_ROOM = 1 << 18

_CELLS = ctypes.sizeof(_ffi.MessageStruct) // 8
_PRIORITY_SHIFT = 0 if sys.byteorder == "little" else 56
_PLAIN: frozenset[type] = frozenset((bytes, bytearray))
if _CELLS != 4:
    raise ImportError("crust does not know how this platform lays out crust_message")


def pin(data: Buffer) -> tuple[Any, int]:
    """Return something ctypes passes as the address of data, and the length.

    Writable buffers are passed where they lie. Read-only views are copied, because ctypes
    offers no address of theirs, and so are views with gaps.
    """
    if isinstance(data, bytes):
        return data, len(data)
    view = _view(data)
    if view.readonly or not view.nbytes or not view.c_contiguous:
        return view.tobytes(), view.nbytes
    return ctypes.byref(ctypes.c_char.from_buffer(view)), view.nbytes


def _view(data: Any) -> memoryview:
    try:
        return memoryview(data)
    except TypeError:
        raise error(Code.INVALID, f"a message is bytes-like, not {type(data).__name__}") from None


def check_priority(priority: int) -> None:
    """Refuse what ctypes would silently truncate."""
    if not 0 <= priority <= 255:
        raise error(Code.INVALID, f"a priority is a whole number from 0 to 255, not {priority!r}")


class _Packer:
    """An array of crust_message and a view of its cells."""

    def __init__(self) -> None:
        self.messages = (_ffi.MessageStruct * CHUNK)()
        self.cells = memoryview(self.messages).cast("B").cast("Q")
        # What messages of one size are joined in, and of what size and priority the first so
        # many cells say that they are.
        self.room = bytearray()
        self.base = 0
        self.alike = (0, 0, 0)
        self.why = ctypes.c_int32()
        self.why_ref = ctypes.byref(self.why)


# Packers at rest; appending and popping are atomic.
_resting: deque[_Packer] = deque(maxlen=16)


def send(handle: int, peers: Sequence[bytes], payloads: Sequence[Buffer], priorities: Any) -> tuple[int, int]:
    """Queue up to CHUNK messages; return how many were accepted and the code of the next one.

    Args:
        handle: the service.
        peers: one for each message, or one for all.
        payloads: the messages.
        priorities: a sequence, one for each message, or one number for all.
    """
    try:
        packer = _resting.pop()
    except IndexError:
        packer = _Packer()
    count = len(payloads)
    kept = _pack(packer, count, peers, payloads, priorities)
    accepted = _ffi.check(_ffi.crust_send_batch(handle, packer.messages, count, packer.why_ref))
    why: int = packer.why.value
    del kept
    _resting.append(packer)
    return accepted, why


def _join(parts: Sequence[Buffer], size: int) -> bytes:
    joined = b"".join(parts)
    if len(joined) != size:
        raise error(Code.INVALID, "a message changed its length while it was being sent")
    return joined


def _pack_alike(
    packer: _Packer, count: int, size: int, peer: bytes, payloads: Sequence[Buffer], priority: int
) -> None:
    """Fill the cells for messages of one size to one peer."""
    joined = _join([peer, *payloads], len(peer) + size * count)
    if not packer.room:
        packer.room = bytearray(_ROOM)
        packer.base = ctypes.addressof(ctypes.c_char.from_buffer(packer.room))
    packer.room[: len(joined)] = joined
    if packer.alike[0] >= count and packer.alike[1:] == (size, priority):
        return
    cells, base = packer.cells[: count * _CELLS], packer.base
    cells[0::_CELLS] = memoryview(array("Q", [base]) * count)
    start = base + len(peer)
    cells[1::_CELLS] = memoryview(array("Q", range(start, start + count * size, size)))
    cells[2::_CELLS] = memoryview(array("Q", [size]) * count)
    cells[3::_CELLS] = memoryview(array("Q", [priority << _PRIORITY_SHIFT]) * count)
    packer.alike = count, size, priority


def _pack(
    packer: _Packer, count: int, peers: Sequence[bytes], payloads: Sequence[Buffer], priorities: Any
) -> Any:
    """Fill the cells and return what must stay alive during the call."""
    if not set(map(type, payloads)) <= _PLAIN:
        payloads = [data if isinstance(data, bytes) else _view(data).tobytes() for data in payloads]
    sizes = set(map(len, payloads))
    if len(sizes) == len(peers) == 1 and isinstance(priorities, int):
        (size,) = sizes
        if 0 < size and _ffi.PEER_ID_SIZE + size * count <= _ROOM:
            _pack_alike(packer, count, size, peers[0], payloads, priorities)
            return None
    packer.alike = 0, 0, 0
    cells = packer.cells[: count * _CELLS]
    lengths = array("Q", map(len, payloads))
    total = sum(lengths)
    unique = [peers[0]] if len(peers) == 1 else list(dict.fromkeys(peers))
    room = len(unique) * _ffi.PEER_ID_SIZE
    if total < _JOIN_BELOW * count:
        joined = _join([*unique, *payloads], room + total)
        base = _address(joined)
        cells[1::_CELLS] = memoryview(array("Q", accumulate(lengths, initial=base + room)))[:count]
        kept: Any = joined
    else:
        joined = b"".join(unique)
        base = _address(joined)
        solid = [data if isinstance(data, bytes) else _pinned(data) for data in payloads]
        addresses = [_address(data) if isinstance(data, bytes) else ctypes.addressof(data) for data in solid]
        cells[1::_CELLS] = memoryview(array("Q", addresses))
        kept = joined, solid
    if len(unique) == 1:
        cells[0::_CELLS] = memoryview(array("Q", [base]) * count)
    else:
        where = {peer: base + index * _ffi.PEER_ID_SIZE for index, peer in enumerate(unique)}
        cells[0::_CELLS] = memoryview(array("Q", [where[peer] for peer in peers]))
    cells[2::_CELLS] = memoryview(lengths)
    if isinstance(priorities, int):
        cells[3::_CELLS] = memoryview(array("Q", [priorities << _PRIORITY_SHIFT]) * count)
    else:
        cells[3::_CELLS] = memoryview(array("Q", [number << _PRIORITY_SHIFT for number in priorities]))
    return kept


def _address(data: bytes) -> int:
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def _pinned(data: Any) -> Any:
    return ctypes.c_char.from_buffer(data) if len(data) else b""
