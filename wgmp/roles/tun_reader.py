"""tun_reader: packets from the TUN to the workers that own their peers.

1. Read a packet from the TUN.
2. Find its peer: longest prefix match of the destination address.
3. Put it into the open record of that peer; a packet of another peer, or a full record,
   publishes the open one first.
4. Nothing left to read: publish what is open. Nothing waits for a record to fill.
"""

from __future__ import annotations

import os
import socket

from wgmp.counters import Counter
from wgmp.orders import AddAllowedIP, Order, RemoveAllowedIP, RemovePeer, row_of
from wgmp.protocol import ip
from wgmp.protocol.allowedips import AllowedIPs
from wgmp.protocol.outcome import DropReason
from wgmp.record import Kind, Record
from wgmp.ring import RingWriter
from wgmp.role import Role, RoleContext

# Packets read in one step, so that the other roles of a fused process get their turn.
_BURST = 64
_MAX_PACKET_BYTES = 65_535
_CACHE_ENTRIES = 65_536


class TunReader(Role):
    """Reads the TUN. Each drop is counted: bad packets, no route, ring full."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._tun = context.tun
        self._peers = context.peers
        self._outputs = [context.outputs[f"worker{n}"] for n in range(context.workers)]
        self._allowed_ips = AllowedIPs()
        self._routes: dict[bytes, int] = {}
        self._buffer = memoryview(bytearray(_MAX_PACKET_BYTES))
        self._device_gone = False
        self._record: Record | None = None  # the open record, of one peer
        self._ring: RingWriter | None = None  # and the ring it is in
        self._peer = -1

    def descriptors(self) -> list[int]:
        """The TUN queue."""
        return [] if self._device_gone else [self._tun]

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Keep the device-wide routes."""
        match order:
            case AddAllowedIP(network, length, peer):
                self._allowed_ips.insert(network, length, peer)
            case RemoveAllowedIP(network, length, peer):
                self._allowed_ips.remove(network, length, peer)
            case RemovePeer(peer):
                self._allowed_ips.remove_owner(peer)
            case _:
                return
        self._routes.clear()

    def step(self, now: float) -> bool:
        """Read a burst of packets into records."""
        if not self.readable:
            return False
        for _ in range(_BURST):
            try:
                length = os.readv(self._tun, [self._buffer])
            except BlockingIOError:
                self.readable = False
                break
            except OSError:
                # The interface was deleted; the supervisor hears it from the kernel and stops.
                self.readable = False
                self._device_gone = True
                break
            self._take(self._buffer[:length])
        self._publish()
        return True

    def _take(self, packet: memoryview) -> None:
        """Route one packet and append it to its peer's record."""
        length = len(packet)
        self.counters.add(Counter.PACKETS_IN)
        self.counters.add(Counter.BYTES_IN, length)
        destination = ip.destination(packet)
        if isinstance(destination, DropReason):
            self.counters.drop(destination)
            return
        peer = self._route(destination)
        if peer is None:
            self.counters.drop(DropReason.NO_ROUTE)
            return
        if peer != self._peer or self._record is None or not self._record.fits(length):
            self._publish()
            self._open(peer)
        if self._record is None:
            self.counters.drop(DropReason.RING_FULL)
            return
        self._record.append(packet)

    def _route(self, destination: bytes) -> int | None:
        peer = self._routes.get(destination)
        if peer is None:
            peer = self._allowed_ips.lookup(destination)
            if peer is None:
                return None
            if len(self._routes) >= _CACHE_ENTRIES:
                self._routes.clear()
            self._routes[destination] = peer
        return peer

    def _open(self, peer: int) -> None:
        self._ring = self._outputs[self._peers.owner(row_of(peer))]
        self._record = self._ring.reserve()
        self._peer = peer
        if self._record is not None:
            self._record.begin(Kind.PACKETS, peer)

    def _publish(self) -> None:
        record, ring = self._record, self._ring
        self._record = None
        if record is None or ring is None:
            return
        self.counters.add(Counter.RECORDS_OUT)
        self.counters.add(Counter.PACKETS_OUT, record.count)
        self.counters.add(Counter.BYTES_OUT, record.used)
        ring.publish()
