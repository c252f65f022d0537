"""The path of a listening socket. As with wireguard-go, deleting that of UAPI stops the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from pathlib import Path

log = logging.getLogger("wgmp")

_CHECK_S = 0.5


class SocketPath:
    """The path that `listener` is bound to, for as long as nobody deletes it."""

    def __init__(self, listener: socket.socket) -> None:
        self._path = Path(listener.getsockname())
        self._inode = self._present_inode()

    async def watch(self, stopping: asyncio.Event) -> None:
        """Return when `stopping` is set, or the path is deleted or another socket's."""
        while not stopping.is_set():
            if not self._is_ours():
                log.info("%s was deleted: stopping", self._path)
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_S):
                    await stopping.wait()

    def remove(self) -> None:
        """Delete the path, unless somebody has, and it may be another's by now."""
        if self._is_ours():
            self._path.unlink()

    def _is_ours(self) -> bool:
        return self._inode is not None and self._present_inode() == self._inode

    def _present_inode(self) -> int | None:
        """Return which file is at the path, None when there is none."""
        try:
            return self._path.stat().st_ino
        except FileNotFoundError:
            return None
