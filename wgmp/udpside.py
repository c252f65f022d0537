"""The UDP side of a gateway: the sockets on its port, which the supervisor holds.

The processes borrow them, so that none that dies takes the port along. Another port is another
pair of sockets, which go to the processes with an order.
"""

from __future__ import annotations

import socket

from wgmp import inheritance, udp
from wgmp.orders import SetSockets
from wgmp.systemd import Manager


class UdpSide:
    """No sockets yet. `gro`: receive trains; `manager` keeps what is opened.

    `inherited`: sockets of an earlier life, which the first `open` takes. `sockets`: those that
    are open, IPv4 first.
    """

    def __init__(self, gro: bool, inherited: list[socket.socket], manager: Manager) -> None:
        self.sockets: list[socket.socket] = []
        self._gro = gro
        self._inherited = inherited
        self._manager = manager

    def open(self, port: int, mark: int) -> int:
        """Move to UDP `port`, 0 for any; return the one bound.

        `mark`: fwmark of outgoing datagrams. Raises OSError, and the old sockets stay open.
        """
        if self._inherited:  # the first time, for any port
            bound, sockets = udp.adopt_sockets(self._inherited, self._gro)
            self._inherited = []
        else:
            bound, sockets = udp.open_sockets(port, mark, self._gro)
        self.close()
        self.sockets = sockets
        self._manager.keep(inheritance.UDP, self.descriptors())
        return bound

    @property
    def fwmark(self) -> int:
        """The mark of outgoing datagrams, 0 for none."""
        return udp.mark_of(self.sockets[0])

    def set_fwmark(self, mark: int) -> None:
        """Mark outgoing datagrams from now on. Raises OSError."""
        for sock in self.sockets:
            udp.set_mark(sock, mark)

    def descriptors(self) -> list[int]:
        """Return the sockets' descriptors, which stay this process's."""
        return [sock.fileno() for sock in self.sockets]

    def order(self) -> SetSockets:
        """Return the order that goes with the descriptors."""
        return SetSockets(tuple(4 if sock.family == socket.AF_INET else 6 for sock in self.sockets))

    def close(self) -> None:
        """Close the sockets; the processes' copies stay open."""
        for sock in self.sockets:
            sock.close()
