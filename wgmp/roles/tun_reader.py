"""tun_reader: packets from the TUN to the workers that own their peers.

1. Read a packet, or a super-packet of up to 64 KiB, straight into the record filled last.
2. Find its peer: longest prefix match of the destination address.
3. It belongs to the record of that peer and ECN field. If it lies in another, it is moved.
4. Nothing left to read: publish what is open. Nothing waits for a record to fill.

A packet without a peer, or longer than the MTU, is answered with an ICMP error.
"""

from __future__ import annotations

import socket

from wgmp.counters import Counter
from wgmp.fastpath import virtio
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.orders import AddAllowedIP, Order, RemoveAllowedIP, RemovePeer, SetLink, row_of
from wgmp.protocol import ecn, ip
from wgmp.protocol.allowedips import AllowedIPs
from wgmp.protocol.icmp import ErrorLimiter
from wgmp.protocol.outcome import DropReason
from wgmp.record import Kind, ecn_flags
from wgmp.role import Role, RoleContext
from wgmp.stream import Intake, Label, RecordStream
from wgmp.tap import Point
from wgmp.tun import DEFAULT_MTU

_MAX_READ_BYTES = virtio.SIZE + 65_535
_CACHE_ENTRIES = 65_536


class TunReader(Role):
    """Reads the TUN. Each drop is counted: bad packet, no route, too big, ring full."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._tun = context.devices.tun
        self._peers = context.peers
        self._workers = [
            RecordStream(context.outputs[f"worker{n}"], self.counters)
            for n in range(context.workers)
        ]
        self._intake = Intake(self._workers, _MAX_READ_BYTES)
        self._allowed_ips = AllowedIPs()
        self._routes: dict[bytes, int] = {}
        self._labels: dict[tuple[int, int], Label] = {}
        self._device_gone = False
        self._mtu = DEFAULT_MTU
        # Apart, so that a flood of the one does not silence the other.
        self._unreachable = ErrorLimiter()
        self._too_big = ErrorLimiter()

    def descriptors(self) -> list[int]:
        """The TUN queue."""
        return [] if self._device_gone else [self._tun.descriptor]

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
        self._labels.clear()

    def step(self, now: float) -> bool:
        """Read a burst of packets into records."""
        if not self.readable:
            return False
        while self._intake.turn():
            try:
                length = self._tun.read(self._intake.buffers())
            except BlockingIOError:
                self.readable = False
                break
            except OSError:
                # The interface was deleted; the supervisor hears it from the kernel and stops.
                self.readable = False
                self._device_gone = True
                break
            self._take(self._intake.view(length), now)
        self._intake.flush()
        return self.readable

    def _take(self, packet: memoryview, now: float) -> None:
        """Route one packet, behind its virtio header, and put it into its peer's record."""
        body = packet[virtio.SIZE :]
        self.counters.add(Counter.PACKETS_IN)
        self.counters.add(Counter.BYTES_IN, len(body))
        destination = ip.destination(body)
        if isinstance(destination, DropReason):
            self._drop(destination, packet)
            return
        peer = self._route(destination)
        if peer is None:
            self.catch_up()
            peer = self._route(destination)
        if peer is None:
            self._drop(DropReason.NO_ROUTE, packet)
            self._answer(self._unreachable.unreachable(body, now))
            return
        if len(body) > self._mtu and self._is_too_big(packet, now):
            return
        label = self._label(peer, ecn.of_packet(body))
        worker = self._workers[self._peers.owner(row_of(peer))]
        self._intake.put(worker, label, packet, [len(packet)])

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

    def _label(self, peer: int, congestion: int) -> Label:
        key = (peer, congestion)
        label = self._labels.get(key)
        if label is None:
            label = self._labels[key] = Label(Kind.PACKETS, peer, ecn_flags(congestion))
        return label

    def _is_too_big(self, packet: memoryview, now: float) -> bool:
        """Drop and answer a packet longer than the MTU; return False when it is not, after all.

        A super-packet is as long as its segments. And the interface's MTU may have grown before
        the order that says so is here; the sender would believe the smaller one for minutes.
        """
        header, body = VirtioHeader.unpack(packet), packet[virtio.SIZE :]
        longest = header.wire_length(body)
        if longest <= self._mtu:
            return False
        self._mtu = max(self._mtu, self._tun.current_mtu())
        if longest <= self._mtu:
            return False
        self._drop(DropReason.PACKET_TOO_BIG, packet)
        self._answer(self._too_big.too_big(body, self._mtu, now))
        return True

    def _drop(self, reason: DropReason, packet: memoryview) -> None:
        """Count a packet that goes no further, and let a capture see it."""
        self.counters.drop(reason)
        if self.tap is not None and self.tap.on:
            self.tap.packets(Kind.PACKETS, packet, [len(packet)], Point.INNER_OUT, reason=reason)

    def _answer(self, error: bytes | None) -> None:
        """Write an ICMP error back to the TUN, if there is one to give."""
        if error is None:
            return
        try:
            self._tun.write(virtio.PLAIN + error)
        except OSError:
            return  # the packet it is about has been counted as a drop
        self.counters.add(Counter.ICMP_ERRORS)
