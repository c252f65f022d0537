"""tun_writer: opened packets and super-packets from the workers to the TUN."""

from __future__ import annotations

from wgmp.role import Role, RoleContext


class TunWriter(Role):
    """Writes. A packet that the interface refuses (it is down) is counted as WRITE_FAILED."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._writer = context.fastpath.packet_writer(context.devices.tun[-1], self.counters)
        self.part = self._writer

    def step(self, now: float) -> bool:
        """Write some records of each ring."""
        for ring in self.inputs:
            self._writer.burst(ring)
        return self.has_input()
