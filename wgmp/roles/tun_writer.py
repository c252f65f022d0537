"""tun_writer: opened packets and super-packets from the workers to the TUN."""

from __future__ import annotations

from wgmp.counters import Counter
from wgmp.protocol.outcome import DropReason
from wgmp.role import Role, RoleContext

# Records written from one ring in one step.
_BURST = 16


class TunWriter(Role):
    """Writes. A packet that the interface refuses (it is down) is counted as WRITE_FAILED."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._tun = context.devices.tun

    def step(self, now: float) -> bool:
        """Write some records of each ring."""
        for ring in self.inputs:
            for _ in range(_BURST):
                record = ring.peek()
                if record is None:
                    break
                self._write(record.packets())
                ring.release()
        return self.has_input()

    def _write(self, packets: list[memoryview]) -> None:
        self.counters.add(Counter.RECORDS_IN)
        self.counters.add(Counter.PACKETS_IN, len(packets))
        for packet in packets:
            self.counters.add(Counter.BYTES_IN, len(packet))
            try:
                self._tun.write(packet)
            except OSError:
                self.counters.drop(DropReason.WRITE_FAILED)
            else:
                self.counters.add(Counter.PACKETS_OUT)
                self.counters.add(Counter.BYTES_OUT, len(packet))
