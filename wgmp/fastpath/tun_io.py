"""The reference fast path at the TUN: packets in, routed into records; packets out.

A packet is read straight into the record filled last. It belongs to the record of its peer and
ECN field; if it lies in another, it is moved.
"""

from __future__ import annotations

from typing import Final

from wgmp.counters import Block
from wgmp.fastpath import virtio
from wgmp.fastpath.interface import AllowedIPs
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.orders import row_of
from wgmp.peertable import PeerTable
from wgmp.protocol import ecn, ip
from wgmp.protocol.constants import DEFAULT_MTU
from wgmp.protocol.outcome import DropReason
from wgmp.record import Kind, ecn_flags
from wgmp.ring import RingReader, RingWriter
from wgmp.stream import Intake, Label, RecordStream
from wgmp.tun import TunQueue

_MAX_READ_BYTES: Final = virtio.SIZE + 65_535
# Records written from one ring in one call.
_BURST: Final = 16
_LABELS: Final = 65_536


class PacketIntake:
    """Reads the TUN. See `interface.PacketIntake`."""

    def __init__(
        self,
        tun: TunQueue,
        workers: list[RingWriter],
        peers: PeerTable,
        routes: AllowedIPs,
        counters: Block,
    ) -> None:
        self.mtu = DEFAULT_MTU
        self._tun = tun
        self._peers = peers
        self._routes = routes
        self._counters = counters
        self._workers = [RecordStream(ring, counters) for ring in workers]
        self._intake = Intake(self._workers, _MAX_READ_BYTES)
        self._labels: dict[tuple[int, int], Label] = {}
        self._refused: list[bytes] = []
        self.descriptors = [tun.descriptor]

    def burst(self) -> tuple[bool, list[bytes]]:
        """Read a burst of packets into records."""
        more = self.fill(self.descriptors)
        refused, self._refused = self._refused, []
        return more, refused

    @property
    def has_refused(self) -> bool:
        """Whether packets that were refused wait for the next `burst`."""
        return bool(self._refused)

    def fill(self, ready: list[int]) -> bool:
        """Do what `burst` does, and keep the packets that are refused."""
        more = True
        try:
            while self._intake.turn():
                packet = self._intake.view(self._tun.read(self._intake.buffers()))
                if not self._take(packet):
                    self._refused.append(bytes(packet))
        except BlockingIOError:
            more = False
        finally:
            self._intake.flush()
        return more

    def put(self, peer: int, packet: bytes) -> None:
        """Hand on a packet that was refused, after all."""
        view = memoryview(packet)
        self._enter(peer, view, view[virtio.SIZE :])
        self._intake.flush()

    def _take(self, packet: memoryview) -> bool:
        """Hand on one packet, behind its virtio header; return False when it is refused."""
        body = packet[virtio.SIZE :]
        self._counters.packets_in(1, len(body))
        destination = ip.destination(body)
        if isinstance(destination, DropReason):
            return False
        peer = self._routes.lookup(destination)
        if peer is None:
            return False
        if len(body) > self.mtu and VirtioHeader.unpack(packet).wire_length(body) > self.mtu:
            return False
        self._enter(peer, packet, body)
        return True

    def _enter(self, peer: int, packet: memoryview, body: memoryview) -> None:
        label = self._label(peer, ecn.of_packet(body))
        worker = self._workers[self._peers.owner(row_of(peer))]
        self._intake.put(worker, label, packet, [len(packet)])

    def _label(self, peer: int, congestion: int) -> Label:
        key = (peer, congestion)
        label = self._labels.get(key)
        if label is None:
            if len(self._labels) >= _LABELS:
                self._labels.clear()
            label = self._labels[key] = Label(Kind.PACKETS, peer, ecn_flags(congestion))
        return label


class PacketWriter:
    """Writes to the TUN. See `interface.PacketWriter`."""

    def __init__(self, tun: TunQueue, counters: Block) -> None:
        self._tun = tun
        self._counters = counters

    def burst(self, ring: RingReader) -> None:
        """Write the packets of some of the ring's records."""
        for _ in range(_BURST):
            record = ring.peek()
            if record is None:
                return
            self._counters.record_in(record.count, record.used)
            for packet in record.packets():
                self._write(packet)
            ring.release()

    def _write(self, packet: memoryview) -> None:
        try:
            self._tun.write(packet)
        except OSError:
            self._counters.drop(DropReason.WRITE_FAILED)
        else:
            self._counters.packets_out(1, len(packet))
