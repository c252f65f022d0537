"""tun_reader: packets from the TUN to the workers that own their peers.

1. Read a packet from the TUN.
2. Find its peer: longest prefix match of the destination address.
3. Put it into the open record of that peer and ECN field; a packet of another, or a full
   record, publishes the open one first.
4. Nothing left to read: publish what is open. Nothing waits for a record to fill.

A packet without a peer, or longer than the MTU, is answered with an ICMP error.
"""

from __future__ import annotations

import os
import socket

from wgmp.counters import Counter
from wgmp.orders import AddAllowedIP, Order, RemoveAllowedIP, RemovePeer, SetLink, row_of
from wgmp.protocol import ecn, ip
from wgmp.protocol.allowedips import AllowedIPs
from wgmp.protocol.icmp import ErrorLimiter
from wgmp.protocol.outcome import DropReason
from wgmp.record import Kind, Record, ecn_flags
from wgmp.ring import RingWriter
from wgmp.role import Role, RoleContext
from wgmp.tun import DEFAULT_MTU, current_mtu

# Packets read in one step, so that the other roles of a fused process get their turn.
_BURST = 64
_MAX_PACKET_BYTES = 65_535
_CACHE_ENTRIES = 65_536


class TunReader(Role):
    """Reads the TUN. Each drop is counted: bad packet, no route, too big, ring full."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._tun = context.tun
        self._peers = context.peers
        self._outputs = [context.outputs[f"worker{n}"] for n in range(context.workers)]
        self._allowed_ips = AllowedIPs()
        self._routes: dict[bytes, int] = {}
        self._buffer = memoryview(bytearray(_MAX_PACKET_BYTES))
        self._device_gone = False
        self._mtu = DEFAULT_MTU
        # Apart, so that a flood of the one does not silence the other.
        self._unreachable = ErrorLimiter()
        self._too_big = ErrorLimiter()
        self._record: Record | None = None  # the open record, of one peer and ECN field
        self._ring: RingWriter | None = None  # and the ring it is in
        self._key = (-1, ecn.NOT_ECT)

    def descriptors(self) -> list[int]:
        """The TUN queue."""
        return [] if self._device_gone else [self._tun]

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Keep the device-wide routes, and the MTU."""
        match order:
            case AddAllowedIP(network, length, peer):
                self._allowed_ips.insert(network, length, peer)
            case RemoveAllowedIP(network, length, peer):
                self._allowed_ips.remove(network, length, peer)
            case RemovePeer(peer):
                self._allowed_ips.remove_owner(peer)
            case SetLink(_, mtu):
                self._mtu = mtu
                return
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
            self._take(self._buffer[:length], now)
        self._publish()
        return True

    def _take(self, packet: memoryview, now: float) -> None:
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
            self._answer(self._unreachable.unreachable(packet, now))
            return
        if length > self._mtu and self._is_too_big(packet, now):
            return
        key = (peer, ecn.of_packet(packet))
        if key != self._key or self._record is None or not self._record.fits(length):
            self._publish()
            self._open(*key)
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

    def _is_too_big(self, packet: memoryview, now: float) -> bool:
        """Drop and answer a packet longer than the MTU; return False when it is not, after all.

        The interface's MTU may have grown before the order that says so is here; the sender
        would believe the smaller one for minutes.
        """
        self._mtu = max(self._mtu, current_mtu(self._tun))
        if len(packet) <= self._mtu:
            return False
        self.counters.drop(DropReason.PACKET_TOO_BIG)
        self._answer(self._too_big.too_big(packet, self._mtu, now))
        return True

    def _answer(self, error: bytes | None) -> None:
        """Write an ICMP error back to the TUN, if there is one to give."""
        if error is None:
            return
        try:
            os.write(self._tun, error)
        except OSError:
            self.counters.drop(DropReason.WRITE_FAILED)
        else:
            self.counters.add(Counter.ICMP_ERRORS)

    def _open(self, peer: int, congestion: int) -> None:
        self._ring = self._outputs[self._peers.owner(row_of(peer))]
        self._record = self._ring.reserve()
        self._key = (peer, congestion)
        if self._record is not None:
            self._record.begin(Kind.PACKETS, peer, ecn_flags(congestion))

    def _publish(self) -> None:
        record, ring = self._record, self._ring
        self._record = None
        if record is None or ring is None:
            return
        self.counters.add(Counter.RECORDS_OUT)
        self.counters.add(Counter.PACKETS_OUT, record.count)
        self.counters.add(Counter.BYTES_OUT, record.used)
        ring.publish()
