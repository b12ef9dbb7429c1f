"""What a process started by multiprocessing runs."""

from __future__ import annotations

from multiprocessing.connection import Connection

import crust
from support import LOOPBACK, PATIENCE, wait_for


def echo(network: str, pipe: Connection) -> None:
    """Tell the connection info, answer one message, and end when the peer is lost."""
    with crust.Service(network_name=network, listen=[LOOPBACK]) as service:
        pipe.send(service.prepare_connection_info().result(PATIENCE))
        message = wait_for(service, crust.Message)
        service.send(message.peer, b"echo " + message.data)
        pipe.send(wait_for(service, crust.Lost))
