"""The service: one node of the network."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import math
import os
import threading
import warnings
import weakref
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, Optional, Union, overload

from . import _base, _ffi
from ._aio import Pump
from ._bans import Ban, ban_of, texts
from ._base import check_peer
from ._batch import MessageBatch, with_copy
from ._errors import Closed, Code, CrustError, UnknownPeer, error
from ._events import AlreadyConnected, Bootstrapped, Connected, Event, Stopped
from ._groups import GroupInfo, GroupPeer, RawGroup, group_info, group_peer
from ._inbox import Call, Inbox, deadline_of
from ._nat import Nat, mapped_port, nat, nat_seen, nat_server
from ._sending import Sending
from ._show import table
from ._types import (
    Beacon,
    Buffer,
    Config,
    KnownPeer,
    LanPeer,
    PeerId,
    PeerInfo,
    Role,
    Stats,
    apply_config,
    known_peer,
    lan_peer,
    peer_info,
    stats,
)

if TYPE_CHECKING:
    from typing import Literal

    from typing_extensions import Self, Unpack

    from ._options import Options

_open: weakref.WeakSet[Service] = weakref.WeakSet()


def _close_all() -> None:
    for service in list(_open):
        service.close()


def _after_fork_in_child() -> None:
    """The threads of the library do not exist in a child; whatever needs them fails at once."""
    _base.forked()
    for service in list(_open):
        service._abandon()


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def _new(config: Config) -> int:
    handle, service = ctypes.c_void_p(), ctypes.c_uint64()
    _ffi.check(_ffi.crust_config_new(ctypes.byref(handle)))
    try:
        apply_config(handle, config)
        _ffi.check(_ffi.crust_service_new(handle, None, ctypes.byref(service)))
    finally:
        _ffi.crust_config_free(handle)
    return service.value


class Service(Sending):
    """One node: an identity, its listeners, its peers and one queue of events.

    Made from a `Config`, from keyword arguments named as its fields, or from both, the keywords
    winning. Close it, best by ``with`` or ``async with``.

    Every method may be called from any thread at any time. Only `poll`, `events`,
    `receive_messages`, `send_wait`, `send_many` and `send_batch` with a timeout, `Call.result`
    and `close` block; none of them holds the interpreter lock meanwhile.

    Events are taken by `poll`, `events`, `receive_messages` or ``async for event in service``;
    each goes to one taker. Someone must take them: when too many wait, the service stops
    reading from its peers.

    In a process made by ``os.fork`` after the import, every call raises `Forked`; multiprocessing
    works with the start methods "spawn" and "forkserver".

    Raises:
        Invalid: an option is malformed or out of bounds.
        PermissionDenied, IoError: the identity file cannot be read or made.
    """

    def __init__(self, config: Optional[Config] = None, **options: Unpack[Options]) -> None:
        self._handle = 0
        self._pump = None
        self._handle = _new(replace(config or Config(), **options))
        self._inbox = Inbox(self._handle)
        self._guard = threading.Lock()
        self._closing = threading.Lock()
        _open.add(self)
        raw = ctypes.create_string_buffer(_ffi.PEER_ID_SIZE)
        _ffi.check(_ffi.crust_service_id(self._handle, raw))
        self._id = PeerId(raw.raw)

    # Life.

    @property
    def id(self) -> PeerId:
        """Who the service is; known also after it was closed."""
        return self._id

    @property
    def closed(self) -> bool:
        """Whether the service was closed."""
        return not self._handle

    def stop(self) -> None:
        """Begin to close and return at once.

        The events that remain can still be taken: one `Lost` for each session, `Stopped` last.
        """
        self._check(_ffi.crust_service_close(self._handle), "stop")

    def close(self) -> None:
        """Close in order and free everything; events not taken yet are dropped.

        Waits until queued messages are sent, at most `Config.close_timeout`. Threads that wait in
        a method of this service get `Closed`. It may be called again, from any thread.

        Raises:
            Panicked: a fault inside the library kept it from closing.
        """
        if not hasattr(self, "_closing"):
            return  # construction failed
        with self._closing:  # who comes second waits until the first is done
            with self._guard:
                handle, self._handle = self._handle, 0
                pump, self._pump = self._pump, None
            _open.discard(self)
            if not handle:
                return
            if pump is not None:
                pump.stop_soon()
            code = _ffi.crust_service_free(handle)
            self._inbox.end()
        if code == Code.PANICKED:
            raise _ffi.failure(code)

    async def aclose(self) -> None:
        """Do what `close` does without blocking the event loop."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.stop()
        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        self._attach()
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_handle", 0):
            with contextlib.suppress(Exception):
                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            with contextlib.suppress(Exception):
                self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Service cannot be pickled: make one in each process")

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Service {self._id.short} {state}>" if hasattr(self, "_id") else "<Service>"

    def _repr_html_(self) -> str:
        heads = ("peer", "endpoint", "how", "role", "round trip, ms", "sent", "received", "queued bytes")
        rows: list[tuple[object, ...]] = []
        state = "closed"
        with contextlib.suppress(CrustError):  # closed meanwhile, or in a forked child
            for peer in self.peers():
                with contextlib.suppress(UnknownPeer):
                    i = self.peer(peer)
                    trip = None if i.rtt is None else i.rtt * 1e3
                    counts = (i.sent_messages, i.received_messages, i.queued_bytes)
                    rows.append((i.peer, i.endpoint, i.how, i.role, trip, *counts))
            state = f"{len(rows)} peers, listens at {', '.join(self.listeners()) or 'nothing'}"
        return table(f"Service {self._id.short}: {state}", heads, rows)

    def _abandon(self) -> None:
        """In a forked child: leave everything as it is, it belongs to the parent."""
        self._handle = 0
        self._pump = None
        self._guard = threading.Lock()
        self._closing = threading.Lock()
        self._inbox.abandon()

    # Taking events.

    def poll(self, timeout: Optional[float] = None, max_events: int = 0, *, copy: bool = True) -> list[Event]:
        """Take the events that wait, or wait for some.

        Args:
            timeout: seconds to wait at most; 0 not at all, None for ever.
            max_events: how many to take at most; 0 as many as come together.
            copy: False gives `MessageView` in place of `Message`, which shares the library's memory.

        Returns:
            The events in order; an empty list when none came in time or `wakeup` was called.

        Raises:
            Closed: the service was closed, or `Stopped` has been taken.
        """
        if not 0 <= max_events <= 0xFFFFFFFF:
            raise error(Code.INVALID, f"max_events is a whole number from 0, not {max_events!r}")
        if not self._handle:
            self._fail_closed("poll")
        return self._inbox.take(deadline_of(timeout), max_events, copy)

    def events(self, timeout: Optional[float] = None, *, copy: bool = True) -> Iterator[Event]:
        """Iterate over the events.

        Several threads may iterate; each event goes to one of them.

        Args:
            timeout: the iteration ends when nothing happened for that many seconds; None never.
            copy: as for `poll`.

        Returns:
            An iterator that also ends after `Stopped`, or when the service is closed.
        """
        deadline_of(timeout)  # refuses a bad timeout here and not at the first step
        return self._events(timeout, copy)

    def _events(self, timeout: Optional[float], copy: bool) -> Iterator[Event]:
        inbox = self._inbox
        while self._handle:
            try:
                event = inbox.backlog.popleft()
            except IndexError:
                try:
                    if inbox.refill(deadline_of(timeout), copy):
                        continue
                except Closed:
                    pass
                return
            yield with_copy(event, copy)
            if type(event) is Stopped:
                return

    @overload
    def receive_messages(
        self, timeout: Optional[float] = None, max_events: int = 0, *, copy: Literal[True] = True
    ) -> MessageBatch[bytes]: ...

    @overload
    def receive_messages(
        self, timeout: Optional[float] = None, max_events: int = 0, *, copy: Literal[False]
    ) -> MessageBatch[memoryview]: ...

    @overload
    def receive_messages(
        self, timeout: Optional[float] = None, max_events: int = 0, *, copy: bool
    ) -> MessageBatch[Any]: ...

    def receive_messages(
        self, timeout: Optional[float] = None, max_events: int = 0, *, copy: bool = True
    ) -> MessageBatch[Any]:
        """Take messages the fast way: as columns, without an object for each.

        Args:
            timeout: as for `poll`.
            max_events: as for `poll`.
            copy: False gives views of the library's memory in place of `bytes`. A view keeps its
                whole batch alive.

        Returns:
            The messages, and in ``events`` what happened right after them. It is false when
            nothing came in time or `wakeup` was called.

        Raises:
            Closed: the service was closed, or `Stopped` has been taken.
        """
        if not 0 <= max_events <= 0xFFFFFFFF:
            raise error(Code.INVALID, f"max_events is a whole number from 0, not {max_events!r}")
        if not self._handle:
            self._fail_closed("receive_messages")
        return self._inbox.take_messages(deadline_of(timeout), max_events, copy)

    def wakeup(self) -> None:
        """Make the `poll` or `receive_messages` that waits now, or else the next one, return empty."""
        self._inbox.wake()
        self._check(_ffi.crust_wakeup(self._handle), "wakeup")

    def fileno(self) -> int:
        """Return a descriptor that is readable while events wait in the library.

        For ``select`` and ``selectors``. Poll it; never read or close it. After it was readable,
        call `poll` with timeout 0 until that returns nothing.

        Raises:
            Unsupported: this platform has none.
        """
        fd = ctypes.c_ssize_t(-1)
        self._check(_ffi.crust_service_fd(self._handle, ctypes.byref(fd)), "fileno")
        return fd.value

    def stream(self, *, copy: bool = True) -> AsyncIterator[Event]:
        """Iterate over the events in asyncio code; ``async for event in service`` is the same.

        Ends after `Stopped`, or when the service is closed. While 4,096 events or 16 MiB of
        messages wait unread, nothing more is read, also not the answer to an awaited call.
        """
        return EventStream(self, copy)

    def __aiter__(self) -> AsyncIterator[Event]:
        return EventStream(self, True)

    def _attach(self) -> Pump:
        """Return the pump of the running event loop."""
        loop = asyncio.get_running_loop()
        with self._guard:
            if not self._handle:
                self._fail_closed("attach")
            pump = self._pump
            if pump is not None and pump.loop is not loop:
                if pump.loop.is_running():
                    raise error(Code.STATE, "another event loop reads the events of this service")
                pump.stop()
                pump = None
            if pump is None:
                try:
                    fd: Optional[int] = self.fileno()
                except CrustError:
                    fd = None
                pump = self._pump = Pump(self._inbox, self._handle, loop, fd)
            return pump

    # Connecting.

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

    def connect_peer(self, peer: bytes) -> Call[Union[Connected, AlreadyConnected]]:
        """Connect to a peer of which only the id is known.

        Peers that are connected to this service introduce the two, over up to six peers in a row.
        Both open their NATs; where that fails, a peer that relays carries the link.

        Returns:
            As `connect`. It raises `NoEndpoint` when no peer is connected, and `Timeout` when
            nobody knows the peer.

        Raises:
            Invalid: the peer id is zero.
            SelfConnect: it is this service's own.
            Limit, Closed: as `connect`.
        """
        check_peer(peer)
        return self._call("connect", _ffi.crust_service_connect_peer, peer)

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

    # Listeners.

    def listen(self, endpoint: str) -> None:
        """Start one more listener; `ListenerStarted` or `ListenerFailed` follows.

        Raises:
            Invalid: the endpoint is malformed.
            AddressInUse, AddressError, PermissionDenied: the system refused.
            Closed: the service is closed.
        """
        self._check(_ffi.crust_listen(self._handle, _ffi.c_string(endpoint, "endpoint")), "listen")

    def stop_listening(self, endpoint: str) -> None:
        """Stop the listener at an endpoint of `listeners`. Sessions live on.

        Raises:
            Invalid: nothing listens there.
        """
        self._check(
            _ffi.crust_stop_listening(self._handle, _ffi.c_string(endpoint, "endpoint")), "stop_listening"
        )

    def listeners(self) -> list[str]:
        """Return where the service listens."""
        size = ctypes.c_size_t(1024)
        while True:
            buffer = ctypes.create_string_buffer(size.value)
            code = _ffi.crust_listeners(self._handle, buffer, ctypes.byref(size))
            if code != Code.BUFFER_TOO_SMALL:
                self._check(code, "listeners")
                return _ffi.text(buffer.value).splitlines()

    def set_accept(self, accept: bool) -> None:
        """Accept or refuse sessions that peers begin."""
        self._check(_ffi.crust_set_accept(self._handle, 1 if accept else 0), "set_accept")

    def set_beacon(self, beacon: Beacon) -> None:
        """Change `Config.beacon` of a service that runs.

        A beacon that is turned off says goodbye, and `peers_on_lan` knows nobody any more; one that
        is turned on begins anew.
        """
        self._check(_ffi.crust_set_beacon(self._handle, int(beacon)), "set_beacon")

    def network_changed(self) -> None:
        """Say that this machine's network has changed, or that it has slept.

        It is for programs that know before the system tells, or where it does not. Every session
        proves its link, and those without one are dialled at once. `NetworkChanged` follows; calls
        within half a second are one.
        """
        self._check(_ffi.crust_service_network_changed(self._handle), "network_changed")

    # Looking.

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


class EventStream(AsyncIterator[Event]):
    """The events of a service in asyncio code."""

    def __init__(self, service: Service, copy: bool) -> None:
        self._service = service
        self._copy = copy
        self._pump: Optional[Pump] = None

    async def __anext__(self) -> Event:
        if self._pump is None:
            try:
                self._pump = self._service._attach()
            except Closed:
                raise StopAsyncIteration from None
        return await self._pump.next_event(self._copy)
