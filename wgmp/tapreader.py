"""Reading the tap rings of a running gateway: what roles copied, as whole IP packets in order.

Inner packets lose their virtio header, and super-packets become the packets they stand for. Outer
datagrams get IP and UDP headers as they had on the wire: the kernel keeps those to itself, so
checksums are computed anew, and where the local address was left to its routing, so it is here.
"""

from __future__ import annotations

import os
import struct
import time

import msgspec

from wgmp import localaddress
from wgmp.fastpath import checksum, seal, virtio
from wgmp.protocol.constants import HANDSHAKE_TRAFFIC_CLASS
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import HANDSHAKE, MAX_TRAIN_BYTES, Kind, Record
from wgmp.ring import RingReader, RingView
from wgmp.shm import Segment
from wgmp.tap import Annotation, Point
from wgmp.taphost import CaptureStarted

_UDP = 17
_HOP_LIMIT = 64

# How long a copy waits for one that is older but comes later, from another ring.
_SETTLE_S = 0.05


class Captured(msgspec.Struct):
    """One record's packets. `role`: whose tap; `packets`: whole IP packets; `count`: of the
    record, of which some may not be written."""

    role: str
    note: Annotation
    packets: list[bytes]
    count: int


class TapReader:
    """Reads the rings that came with `started`; `descriptors` are closed."""

    def __init__(self, started: CaptureStarted, descriptors: list[int]) -> None:
        self._started = started
        segments = [Segment.of(descriptor) for descriptor in descriptors]
        for descriptor in descriptors:
            os.close(descriptor)
        self._rings = list(zip(started.rings, map(RingReader, segments), strict=True))
        self._views = [RingView(segment) for segment in segments]
        self._lost_before = self._full()
        # With the monotonic time at which each was read.
        self._waiting: list[tuple[float, Captured]] = []

    @property
    def lost(self) -> int:
        """Records that found a tap ring full."""
        return self._full() - self._lost_before

    def poll(self, everything: bool = False) -> list[Captured]:
        """Return what has come, the oldest first, as far as nothing older can follow.

        `everything`: also what came just now, at the end.
        """
        now = time.monotonic()
        for role, ring in self._rings:
            while (record := ring.peek()) is not None:
                captured = self._read(role, record)
                if captured is not None:
                    self._waiting.append((now, captured))
                ring.release()
        # The clock may be set meanwhile: what has waited takes along what has an older time.
        self._waiting.sort(key=lambda waiting: waiting[1].note.time_ns)
        settled = [everything or now - read_at >= _SETTLE_S for read_at, _ in self._waiting]
        count = len(settled) - settled[::-1].index(True) if any(settled) else 0
        ready = [captured for _, captured in self._waiting[:count]]
        del self._waiting[:count]
        return ready

    def _full(self) -> int:
        return sum(view.figures()["full"] for view in self._views)

    def _read(self, role: str, record: Record) -> Captured | None:
        try:
            note = Annotation.of(record)
        except ValueError:
            return None
        raw = record.packets()
        if note.point is Point.SECRET:
            packets = [bytes(key) for key in raw]
            record.wipe()
        elif record.kind == Kind.PACKETS:
            packets = [packet for each in raw for packet in _plain(each)]
        else:
            endpoint = record.endpoint() or Endpoint(bytes(4), 0)
            traffic_class = HANDSHAKE_TRAFFIC_CLASS if record.flags & HANDSHAKE else record.ecn
            port = self._started.listen_port
            outgoing = note.point is Point.OUTER_OUT
            packets = [
                wire_packet(bytes(each), endpoint, port, outgoing, traffic_class)
                for each in raw
                if len(each) <= MAX_TRAIN_BYTES  # no datagram is longer
            ]
        return Captured(role, note, packets, record.count)


def _plain(packet: memoryview) -> list[bytes]:
    """Return the packets that one from or to the TUN stands for; itself where it is nonsense."""
    if len(packet) <= virtio.SIZE:
        return []
    plain = seal.plain_packets(packet)
    return [bytes(packet[virtio.SIZE :])] if isinstance(plain, DropReason) else plain


def wire_packet(
    datagram: bytes, endpoint: Endpoint, port: int, outgoing: bool, traffic_class: int
) -> bytes:
    """Return the IP packet that carries an outer datagram.

    `datagram`: at most MAX_TRAIN_BYTES. `endpoint`: the peer's, with our address where that is
    known; `port`: ours.
    """
    theirs = endpoint.address
    ours = endpoint.source or localaddress.toward(theirs, endpoint.scope_id)
    source, destination = (ours, theirs) if outgoing else (theirs, ours)
    ports = (port, endpoint.port) if outgoing else (endpoint.port, port)
    length = len(datagram) + 8
    udp = struct.pack("!HHHH", *ports, length, 0) + datagram
    pseudo = source + destination + struct.pack("!HH", _UDP, length)
    total = checksum.finish(checksum.sum_words(pseudo) + checksum.sum_words(udp)) or 0xFFFF
    udp = udp[:6] + struct.pack("!H", total) + udp[8:]
    if len(theirs) == 16:
        version = 6 << 28 | traffic_class << 20
        return struct.pack("!IHBB", version, length, _UDP, _HOP_LIMIT) + source + destination + udp
    head = struct.pack("!BBHHHBBH", 0x45, traffic_class, length + 20, 0, 0, _HOP_LIMIT, _UDP, 0)
    total = checksum.finish(checksum.sum_words(head + source + destination))
    return head[:10] + struct.pack("!H", total) + source + destination + udp
