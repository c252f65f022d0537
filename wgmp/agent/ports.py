"""The UDP ports of gateways that run: refused in plain words, let go of, taken back."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import time

from wgmp import udp
from wgmp.agent import uapi_client
from wgmp.agent.settings import NetworkSettings
from wgmp.agent.uapi_client import GatewayRefusedError
from wgmp.errors import SocketError, WgmpError

log = logging.getLogger("wgmp")

_LIMIT_S = 2.0
_POLL_S = 0.01


async def tell(settings: NetworkSettings, lines: bytearray) -> None:
    """Have the network's gateway apply lines, its port among them, as `uapi_client.change` does.

    Raises SocketError for a port that cannot be had.
    """
    try:
        await uapi_client.change(settings.interface, lines)
    except GatewayRefusedError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reason = os.strerror(error.errno)
        port = settings.listen_port
        raise SocketError(
            f"UDP port {port}: {reason}: choose another listen_port", error.errno
        ) from None


async def let_go(settings: NetworkSettings) -> None:
    """Have the gateway on any other port, so that this one is free. Raises ControlError."""
    await uapi_client.change(settings.interface, bytearray(b"listen_port=0\n"))


async def take_back(name: str, settings: NetworkSettings) -> None:
    """Have the gateway on its port again, which may have gone with a change that failed."""
    interface, port = settings.interface, settings.listen_port
    try:
        if port not in (0, (await uapi_client.get(interface)).listen_port):
            await _freed(port)
            await tell(settings, bytearray(b"listen_port=%d\n" % port))
    except WgmpError as error:
        log.warning("%s: it has another port now: %s", name, error)


async def _freed(port: int) -> None:
    """Wait until nobody has the port, for another network may be about to give it back."""
    deadline = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline:
        try:
            _, sockets = udp.open_sockets(port, 0)
        except OSError:
            await asyncio.sleep(_POLL_S)
        else:
            for sock in sockets:
                sock.close()
            return
