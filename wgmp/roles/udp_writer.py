"""udp_writer: sealed datagrams from the workers, and admission's cookie replies, to the network."""

from __future__ import annotations

import socket

from wgmp.counters import Counter
from wgmp.events import OffloadDisabled
from wgmp.orders import ForgetSources, Order, SetSockets
from wgmp.role import Role, RoleContext


class UdpWriter(Role):
    """Sends. A datagram that the network refuses is counted as SEND_FAILED."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        devices = context.devices
        self._segments = devices.offloads.udp_segment
        self._writer = context.fastpath.datagram_writer(
            devices.sockets, self._segments, self.counters
        )
        self.part = self._writer
        self._blocked: int | None = None
        self.counters.store(Counter.UDP_SEGMENT, self._segments)

    def blocked_on(self) -> int | None:
        """The socket whose send buffer is full."""
        return self._blocked

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Change over to new sockets, or to other paths."""
        if isinstance(order, SetSockets):
            self._writer.use(sockets)
            self._blocked = None
        elif isinstance(order, ForgetSources):
            self._writer.forget_paths()

    def step(self, now: float) -> bool:
        """Send some records of each ring, until the socket takes no more."""
        self._blocked = None
        for place, ring in enumerate(self.inputs):
            self._blocked = self._writer.burst(ring)
            if self._blocked is not None:
                # The others come before it the next time.
                self.inputs.append(self.inputs.pop(place))
                break
        if self._segments and not self._writer.segments:
            self._segments = False
            self.counters.store(Counter.UDP_SEGMENT, 0)
            self.emit(OffloadDisabled(offload="udp_segment", reason="the kernel says EIO"))
        return self._blocked is None and self.has_input()
