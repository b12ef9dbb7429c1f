"""Looking at a service."""

from __future__ import annotations

import ctypes

from . import _ffi
from ._base import Base, check_peer
from ._errors import Code
from ._info import KnownPeer, LanPeer, PeerInfo, Stats, known_peer, lan_peer, peer_info, stats
from ._nat import Nat, mapped_port, nat, nat_seen, nat_server
from ._types import PeerId


class Looking(Base):
    """What a service knows of itself, its peers and the network."""

    def peers(self) -> list[PeerId]:
        """Return the connected peers, in the order of their ids."""
        room = ctypes.c_size_t(64)
        while True:
            buffer = ctypes.create_string_buffer(max(room.value, 1) * _ffi.PEER_ID_SIZE)
            code = _ffi.crust_peers(self._handle, buffer, ctypes.byref(room))
            if code != Code.BUFFER_TOO_SMALL:
                self._check(code, "peers")
                step = _ffi.PEER_ID_SIZE
                return [PeerId(buffer.raw[i * step : (i + 1) * step]) for i in range(room.value)]

    def peer(self, peer: bytes) -> PeerInfo:
        """Describe one session.

        Raises:
            UnknownPeer: not connected to that peer.
        """
        check_peer(peer)
        raw = _ffi.PeerInfoStruct(struct_size=ctypes.sizeof(_ffi.PeerInfoStruct))
        self._check(_ffi.crust_peer(self._handle, peer, ctypes.byref(raw)), "peer")
        return peer_info(raw)

    def stats(self) -> Stats:
        """Return the counters."""
        raw = _ffi.StatsStruct(struct_size=ctypes.sizeof(_ffi.StatsStruct))
        self._check(_ffi.crust_service_stats(self._handle, ctypes.byref(raw)), "stats")
        return stats(raw)

    def nat(self) -> Nat:
        """Return what is known of the NATs between this service and others. It sends nothing.

        It comes from connected peers, and is forgotten when this machine's addresses change.
        """
        raw = _ffi.NatStruct(struct_size=ctypes.sizeof(_ffi.NatStruct))
        udp, tcp = (_ffi.NatFlowStruct(struct_size=ctypes.sizeof(_ffi.NatFlowStruct)) for _ in range(2))
        code = _ffi.crust_service_nat(self._handle, ctypes.byref(raw), ctypes.byref(udp), ctypes.byref(tcp))
        self._check(code, "nat")
        servers = self._list(_ffi.crust_service_nat_server, _ffi.NatServerStruct, "nat")
        mapped = self._list(_ffi.crust_service_nat_port, _ffi.NatPortStruct, "nat")
        seen = self._list(_ffi.crust_service_nat_seen, _ffi.NatSeenStruct, "nat")
        said = [nat_server(s) for s in servers]
        return nat(raw, udp, tcp, said, [mapped_port(m) for m in mapped], [nat_seen(s) for s in seen])

    def peers_on_lan(self) -> list[LanPeer]:
        """Return the peers whose beacons were heard on the networks of this machine, by their ids.

        It asks nobody and returns at once. See `Config.beacon`.
        """
        found = self._list(_ffi.crust_service_lan_peer, _ffi.LanPeerStruct, "peers on LAN")
        return [lan_peer(raw) for raw in found]

    def known(self) -> list[KnownPeer]:
        """Return the peers of which gossip has told, connected ones too, by their ids: up to 16,384.

        There are none unless `Config.gossip` is on.
        """
        room = 256
        raw = (_ffi.KnownPeerStruct * room)()
        raw[0].struct_size = ctypes.sizeof(_ffi.KnownPeerStruct)
        found: list[KnownPeer] = []
        while True:
            count = ctypes.c_size_t(room)
            after = found[-1].peer if found else None
            code = _ffi.crust_service_known(self._handle, after, raw, ctypes.byref(count))
            self._check(code, "known")
            found.extend(known_peer(raw[i]) for i in range(count.value))
            if count.value < room:
                return found
