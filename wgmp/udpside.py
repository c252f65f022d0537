"""The UDP side of a gateway: the sockets on its port, which the supervisor holds.

The processes borrow them, so that none that dies takes the port along. Another port is another
pair of sockets, which go to the processes with an order. The old port is free when the last of
them has obeyed it: whoever asked for the change is answered then (`let_go`).
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Coroutine

from wgmp import inheritance, udp
from wgmp.child import Child
from wgmp.children import Children
from wgmp.events import ConfigurationChanged
from wgmp.orders import SetSockets
from wgmp.systemd import Manager

log = logging.getLogger("wgmp")

# A process that hangs is killed within that.
_LET_GO_LIMIT_S = 5.0


class UdpSide:
    """No sockets yet. `gro`: receive trains; `children` borrow what is opened, `manager` keeps it.

    `inherited`: sockets of an earlier life, which the first `open_port` takes. `sockets`: those
    that are open, IPv4 first.
    """

    def __init__(
        self, gro: bool, inherited: list[socket.socket], children: Children, manager: Manager
    ) -> None:
        self.sockets: list[socket.socket] = []
        self._gro = gro
        self._inherited = inherited
        self._children = children
        self._manager = manager

    def open_port(self, port: int) -> int:
        """Move to UDP `port`, 0 for any; return the one bound.

        Raises OSError, and the old sockets stay open.
        """
        if self._inherited:  # the first time, for any port
            bound, sockets = udp.adopt_sockets(self._inherited, self._gro)
            self._inherited = []
        else:
            bound, sockets = udp.open_sockets(port, self.fwmark, self._gro)
        self.close()
        self.sockets = sockets
        self._manager.keep(inheritance.UDP, self.descriptors())
        for child in self._children.everybody():
            child.move()
        self._children.tell([self._order()], self.descriptors())
        self._children.events.publish(ConfigurationChanged(listen_port=bound))
        return bound

    def let_go(self) -> Coroutine[None, None, None] | None:
        """Return what ends when no process has an earlier port any more; None if that is now."""
        moving = [child for child in self._children.everybody() if not child.moved.is_set()]
        return _all_moved(moving) if moving else None

    @property
    def fwmark(self) -> int:
        """The mark of outgoing datagrams, 0 for none."""
        return udp.mark_of(self.sockets[0]) if self.sockets else 0

    def set_fwmark(self, mark: int) -> None:
        """Mark outgoing datagrams from now on. Raises OSError."""
        for sock in self.sockets:
            udp.set_mark(sock, mark)

    def descriptors(self) -> list[int]:
        """Return the sockets' descriptors, which stay this process's."""
        return [sock.fileno() for sock in self.sockets]

    def _order(self) -> SetSockets:
        return SetSockets(tuple(4 if sock.family == socket.AF_INET else 6 for sock in self.sockets))

    def close(self) -> None:
        """Close the sockets; the processes' copies stay open."""
        for sock in self.sockets:
            sock.close()


async def _all_moved(processes: list[Child]) -> None:
    """Wait until processes have closed the sockets they had, or have ended; but not long."""
    try:
        async with asyncio.timeout(_LET_GO_LIMIT_S):
            for child in processes:
                await child.moved.wait()
    except TimeoutError:
        late = [child.row.name for child in processes if not child.moved.is_set()]
        log.warning("%s did not let go of the old port yet", ", ".join(late))
