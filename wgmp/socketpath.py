"""The path of a gateway's UAPI socket. As with wireguard-go, deleting it stops the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

log = logging.getLogger("wgmp")

_CHECK_S = 0.5


class SocketPath:
    """The path that `listener` is bound to."""

    def __init__(self, listener: socket.socket) -> None:
        self._path = Path(listener.getsockname())
        self._deleted = False

    async def watch(self, stopping: asyncio.Event) -> None:
        """Return when `stopping` is set, or the path is deleted or another socket's."""
        inode = self._path.stat().st_ino
        while not stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _CHECK_S)
            try:
                alive = self._path.stat().st_ino == inode
            except FileNotFoundError:
                alive = False
            if not alive:
                log.info("%s was deleted: stopping", self._path)
                self._deleted = True
                return

    def remove(self) -> None:
        """Delete the path, unless somebody has, and it may be another's by now."""
        if not self._deleted and self._path.is_socket():
            self._path.unlink()
