"""The keyword arguments of `Service`, for type checkers: the fields of `Config`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Optional, TypedDict, Union

from ._gate import GateRequest
from ._types import Beacon, Cipher, Gossip, How, Relay, Role


class Options(TypedDict, total=False):
    """See `Config`."""

    network_name: str
    identity_file: Union[str, os.PathLike[str], None]
    identity_seed: Optional[bytes]
    app_id: bytes
    role: Role
    listen: Optional[Sequence[str]]
    live_port: int
    port_rotation: Optional[float]
    accept: bool
    network_watch: bool
    port_map: bool
    external_port: int
    beacon: Beacon
    beacon_port: int
    relay: Relay
    stun: Sequence[str]
    only: Sequence[How]
    allow_nodes: Sequence[str]
    allow_clients: Sequence[str]
    bans: Sequence[str]
    max_bans: int
    gate: Optional[Callable[[GateRequest], bool]]
    gate_timeout: Optional[float]
    max_gates: int
    contacts: Sequence[str]
    cache: Union[str, os.PathLike[str], None]
    cache_peers: int
    gossip: Gossip
    tracer: bool
    key_log: Union[str, os.PathLike[str], None]
    log_level: Optional[int]
    cipher: Cipher
    connect_timeout: Optional[float]
    bootstrap_timeout: Optional[float]
    handshake_timeout: Optional[float]
    heartbeat: Optional[float]
    lost_after: Optional[float]
    resume: bool
    resume_window: Optional[float]
    close_timeout: Optional[float]
    message_max_age: Optional[float]
    send_queue: int
    resend_buffer: int
    event_queue: int
    max_peers: int
    max_handshakes: int
    max_handshakes_per_address: int
    max_connects: int
    json: Optional[str]
