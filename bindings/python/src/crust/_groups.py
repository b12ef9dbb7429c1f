"""Groups of peers that a service keeps itself connected to."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Optional

from . import _ffi
from ._base import check_peer
from ._errors import CrustError, error
from ._show import Shown
from ._types import Buffer, GroupState, PeerId, Role


@dataclass(frozen=True)
class GroupPeer(Shown):
    """A peer of a group.

    Attributes:
        peer: who.
        state: how it stands with it.
        tries: how many attempts were in vain since the last session that lasted.
        next: seconds until the next attempt; None: none is due.
        error: why there is no session; None when there is one.
    """

    peer: PeerId
    state: GroupState
    tries: int
    next: Optional[float]
    error: Optional[CrustError]


@dataclass(frozen=True)
class GroupInfo(Shown):
    """A group that is kept, as `Service.groups` saw it.

    Attributes:
        name: as in `Service.keep`.
        any_of: how many peers of `role`, whoever they are; 0: those that it names.
        role: of `any_of`.
        up: how many peers of it are connected.
        wanted: how many should be.
        next: of `any_of`: seconds until the next search; None: now, or none is due.
        error: of `any_of`: why the last search did not find enough.
        peers: its peers in the order of their ids; of `any_of` those that are connected, and those
            that the program has disconnected.
    """

    name: str
    any_of: int
    role: Role
    up: int
    wanted: int
    next: Optional[float]
    error: Optional[CrustError]
    peers: tuple[GroupPeer, ...]


def group_info(raw: _ffi.GroupInfoStruct, peers: Sequence[GroupPeer]) -> GroupInfo:
    """Convert a crust_group_info."""
    return GroupInfo(
        name=_ffi.text(raw.name),
        any_of=raw.any,
        role=Role(raw.role),
        up=raw.up,
        wanted=raw.wanted,
        next=raw.next_ms / 1e3 if raw.next_ms else None,
        error=error(raw.code, _ffi.text(raw.text)) if raw.code else None,
        peers=tuple(peers),
    )


def group_peer(raw: _ffi.GroupPeerStruct) -> GroupPeer:
    """Convert a crust_group_peer."""
    return GroupPeer(
        peer=PeerId(bytes(raw.peer.bytes)),
        state=GroupState(raw.state),
        tries=raw.tries,
        next=raw.next_ms / 1e3 if raw.next_ms else None,
        error=error(raw.code, _ffi.text(raw.text)) if raw.code else None,
    )


class RawGroup:
    """A crust_group and the memory that it points to."""

    def __init__(
        self,
        name: str,
        peers: Sequence[bytes],
        contacts: Sequence[str],
        infos: Sequence[Buffer],
        any_of: int,
        role: Role,
    ) -> None:
        for what, value in (("peers", peers), ("contacts", contacts), ("infos", infos)):
            if isinstance(value, (str, bytes)):
                raise TypeError(f"{what} is a sequence, not {type(value).__name__}")
        if not 0 <= any_of < 1 << 32:
            raise ValueError(f"any_of is {any_of}, want 0 or more")
        for peer in peers:
            check_peer(peer)
        blobs = [bytes(memoryview(info)) for info in infos]
        self._ids = ctypes.create_string_buffer(b"".join(bytes(peer) for peer in peers))
        self._contacts = (ctypes.c_char_p * len(contacts))(*(_ffi.c_string(c, "contact") for c in contacts))
        self._infos = (ctypes.c_char_p * len(blobs))(*blobs)
        self._lens = (ctypes.c_size_t * len(blobs))(*(len(blob) for blob in blobs))
        self.struct = _ffi.GroupStruct(
            struct_size=ctypes.sizeof(_ffi.GroupStruct),
            any=any_of,
            role=int(role),
            name=_ffi.c_string(name, "name"),
            peers=ctypes.addressof(self._ids),
            n_peers=len(peers),
            contacts=ctypes.addressof(self._contacts),
            n_contacts=len(contacts),
            infos=ctypes.addressof(self._infos),
            info_lens=ctypes.addressof(self._lens),
            n_infos=len(blobs),
        )
