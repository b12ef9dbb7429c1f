"""Who a service is connected to: calls, groups, and who is not wanted."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable, Sequence
from typing import Optional, Union

from . import _ffi
from ._bans import Ban, ban_of, texts
from ._base import Base, check_peer
from ._errors import Code, error
from ._events import AlreadyConnected, Bootstrapped, Connected
from ._groups import GroupInfo, GroupPeer, RawGroup, group_info, group_peer
from ._inbox import Call
from ._types import Buffer, Role


class Connecting(Base):
    """Connecting to peers, keeping groups of them, and refusing others."""

    def prepare_connection_info(self) -> Call[bytes]:
        """Gather where this service can be reached.

        Returns:
            A call whose outcome are the bytes to give to the other peer by any channel; they are
            signed and hold for 24 hours. A `ConnectionInfo` event tells the same.
        """
        return self._call("connection info", _ffi.crust_prepare_connection_info)

    async def connection_info(self) -> bytes:
        """Gather where this service can be reached, and return the bytes for the other peer."""
        return await self.prepare_connection_info()

    def connect(self, info: Buffer) -> Call[Union[Connected, AlreadyConnected]]:
        """Connect to the peer that made a connection info. One side or both may do it.

        Returns:
            A call whose outcome is the `Connected` or `AlreadyConnected` event; it raises the
            error of `ConnectFailed`.

        Raises:
            BadInfo: the info is malformed, forged or expired.
            SelfConnect: it is this service's own.
            Limit: too many connects in flight.
            Closed: the service is closed.
        """
        data = bytes(memoryview(info))
        return self._call("connect", _ffi.crust_connect, data, len(data))

    def connect_endpoint(self, contact: str) -> Call[Union[Connected, AlreadyConnected]]:
        """Connect to ``ENDPOINT`` or ``ENDPOINT#PEER``, such as ``tcp://203.0.113.5:5483``.

        With a peer id nobody else is accepted there.

        Returns:
            As `connect`.

        Raises:
            Invalid: the contact is malformed.
            Limit, Closed: as `connect`.
        """
        return self._call("connect", _ffi.crust_connect_endpoint, _ffi.c_string(contact, "contact"))

    def connect_peer(
        self, peer: bytes, *, first: Sequence[bytes] = ()
    ) -> Call[Union[Connected, AlreadyConnected]]:
        """Connect to a peer of which only the id is known.

        Peers that are connected to this service introduce the two, over up to six peers in a row.
        Both open their NATs; where that fails, a peer that relays carries the link.

        Args:
            peer: its id.
            first: what is to be said at once, at most 64 messages of 16,384 bytes together: the
                first ones of the session, in their order, at priority 1. Over a relay that has a
                key which the peer has left with it they are there after one round trip, when the
                call has its outcome; otherwise as soon as what is sent then, but with a session
                that there is already at once. When the call fails they are not delivered, but who
                was cut off in the last moment may have taken them, and a relay that lies can bring
                them up to ten minutes later.

        Returns:
            As `connect`. It raises `NoEndpoint` when no peer is connected, and `Timeout` when
            nobody knows the peer.

        Raises:
            Invalid: the peer id is zero, or there is more in `first`.
            SelfConnect: it is this service's own.
            Limit, Closed: as `connect`.
        """
        check_peer(peer)
        if isinstance(first, (str, bytes, bytearray, memoryview)):
            raise TypeError(f"first is a sequence of messages, not {type(first).__name__}")
        if not first:
            return self._call("connect", _ffi.crust_service_connect_peer, peer)
        messages = [bytes(memoryview(message)) for message in first]
        at = (ctypes.c_char_p * len(messages))(*messages)
        sizes = (ctypes.c_size_t * len(messages))(*map(len, messages))
        return self._call("connect", _ffi.crust_service_connect_peer_with, peer, at, sizes, len(messages))

    def bootstrap(self, *, excluding: Sequence[str] = ()) -> Call[Bootstrapped]:
        """Try all `Config.contacts` at once and keep the first that answers.

        Args:
            excluding: contacts that are left out this once, for instance those that have refused
                the program. Nothing is sent to an ``ENDPOINT``, whoever has a ``#PEER`` is not the
                one that is kept, and ``ENDPOINT#PEER`` is that peer there.

        Returns:
            A call whose outcome is the `Bootstrapped` event; it raises the error of
            `BootstrapFailed`.

        Raises:
            StateError: a bootstrap is running.
            Invalid: a contact of `excluding` is malformed.
            Closed: the service is closed.
        """
        if not excluding:
            return self._call("bootstrap", _ffi.crust_bootstrap)
        texts = (ctypes.c_char_p * len(excluding))(*(_ffi.c_string(text, "contact") for text in excluding))
        return self._call("bootstrap", _ffi.crust_bootstrap_except, texts, len(excluding))

    def stop_bootstrap(self) -> None:
        """Give up a running bootstrap, which then fails with `Canceled`. Without one, do nothing."""
        self._check(_ffi.crust_stop_bootstrap(self._handle), "stop_bootstrap")

    def disconnect(self, peer: bytes) -> None:
        """End a session in order; `Lost` with `Code.DISCONNECTED` follows on both sides.

        Raises:
            UnknownPeer: not connected to that peer.
        """
        check_peer(peer)
        self._check(_ffi.crust_disconnect(self._handle, peer), "disconnect")

    # Groups.

    def keep(
        self,
        name: str,
        peers: Sequence[bytes] = (),
        *,
        contacts: Sequence[str] = (),
        infos: Sequence[Buffer] = (),
        any_of: int = 0,
        role: Role = Role.NODE,
    ) -> None:
        """Connect to the peers of a group, and again whenever one is lost, until `release`.

        They are dialled where they were last, and where the group, the cache and other peers say,
        over either transport; and peers that are connected to both introduce or relay. A group of
        the same name is replaced. Sessions that there are count, and those that the peers begin.
        After a loss and after each attempt in vain comes a pause of random length that doubles, from
        1 s to 1 minute at most. A peer that `disconnect` disconnects, connected or not, stays so:
        nothing is tried, and the sessions that it begins are refused, until the program connects to it
        or names it in a call of this. Each change is a `GroupChanged`.

        Args:
            name: 1 to 64 bytes of UTF-8.
            peers: who is to be connected.
            contacts: ``ENDPOINT#PEER``, more of them and where they may be; with `any_of` where peers
                may be, also ``ENDPOINT``.
            infos: connection infos of more of them.
            any_of: how many peers of `role` are to be connected, whoever they are; without `peers`.
            role: of `any_of`.

        Raises:
            Invalid: the name, or the group is of nobody, or both `peers` and `any_of` are given.
            SelfConnect: this service is one of them.
            BadInfo: an info is malformed, forged or expired.
            Limit: more than 64 groups, or than 4,096 peers altogether.
            Closed: the service is closed.
        """
        group = RawGroup(name, peers, contacts, infos, any_of, role)
        self._check(_ffi.crust_service_keep(self._handle, ctypes.byref(group.struct)), "keep")

    def release(self, name: str) -> None:
        """End that a group is kept, and the attempts for it that are under way. Sessions live on.

        Raises:
            Invalid: there is no such group.
        """
        self._check(_ffi.crust_service_release(self._handle, _ffi.c_string(name, "name")), "release")

    def groups(self) -> list[GroupInfo]:
        """Return the groups that are kept, in the order in which they came."""
        found: list[GroupInfo] = []
        for raw in self._list(_ffi.crust_service_group, _ffi.GroupInfoStruct, "groups"):
            peers: list[GroupPeer] = []
            while True:
                one = _ffi.GroupPeerStruct(struct_size=ctypes.sizeof(_ffi.GroupPeerStruct))
                count = _ffi.crust_service_group_peer(self._handle, raw.name, len(peers), ctypes.byref(one))
                if count == Code.INVALID:  # released meanwhile
                    break
                self._check(count, "groups")
                if len(peers) >= count:
                    break
                peers.append(group_peer(one))
            found.append(group_info(raw, peers))
        return found

    # Who is not wanted.

    def ban(self, who: Iterable[object], seconds: Optional[float] = None, reason: str = "") -> None:
        """Blacklist peers and addresses, one or ten thousand.

        It holds at once: sessions are `Lost` with `Banned`, without waiting for what is queued, and
        the peers are told; what is being connected fails with `Banned`; and then nothing is sent to
        those who are banned nor taken from them, by whatever way they come.

        Args:
            who: peer ids, IP addresses and prefixes such as ``203.0.113.0/24``, also as text or as
                objects of `ipaddress`. Who is banned already is so anew.
            seconds: for how long; None: as long as the service lives.
            reason: kept for `bans`, up to 256 bytes.

        Raises:
            Invalid: somebody of `who` is malformed, or the reason is too long.
            SelfConnect: it is this service itself.
            Limit: more than `Config.max_bans`.
            Closed: the service is closed.
        """
        list_ = texts(who, "who")
        if seconds is not None and not 0 < seconds < 2**63 / 1e9:
            raise error(Code.INVALID, f"seconds must be above 0, not {seconds!r}")
        milliseconds = 0 if seconds is None else max(math.ceil(seconds * 1000), 1)
        self._check(
            _ffi.crust_ban(self._handle, list_, len(list_), milliseconds, _ffi.c_string(reason, "reason")),
            "ban",
        )

    def unban(self, who: Iterable[object]) -> int:
        """Lift bans of the very peers, addresses and prefixes, and return how many there were.

        An address in a banned prefix stays banned.

        Raises:
            Invalid: somebody of `who` is malformed.
        """
        list_ = texts(who, "who")
        lifted: int = _ffi.crust_unban(self._handle, list_, len(list_))
        self._check(lifted, "unban")
        return lifted

    def bans(self) -> list[Ban]:
        """Return the blacklist: peers by their ids, then prefixes by their addresses, IPv4 first."""
        room = ctypes.c_size_t(64)
        while True:
            raw = (_ffi.BanInfoStruct * max(room.value, 1))()
            raw[0].struct_size = ctypes.sizeof(_ffi.BanInfoStruct)
            code = _ffi.crust_bans(self._handle, raw, ctypes.byref(room))
            if code != Code.BUFFER_TOO_SMALL:
                self._check(code, "bans")
                return [ban_of(raw[i]) for i in range(room.value)]

    def set_allowed(self, nodes: Iterable[object] = (), clients: Iterable[object] = ()) -> None:
        """Replace `Config.allow_nodes` and `Config.allow_clients`.

        Others are refused, before they can say anything when their address is on neither list, and
        not dialled; so are links that others carry, whose address is not known. Sessions with peers
        that are not allowed any more are `Lost` with `NotAllowed`.

        Raises:
            Invalid: an address or a prefix is malformed.
            Limit: a list has more than 1,024.
            Closed: the service is closed.
        """
        lists = texts(nodes, "nodes"), texts(clients, "clients")
        self._check(
            _ffi.crust_set_allowed(self._handle, lists[0], len(lists[0]), lists[1], len(lists[1])),
            "set_allowed",
        )
