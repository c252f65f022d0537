"""tun_reader: packets from a queue of the TUN to the workers that own their peers.

1. Read packets, or super-packets of up to 64 KiB, straight into records.
2. Find each one's peer: longest prefix match of the destination address.
3. Packets of one peer and ECN field share a record.
4. Nothing left to read: publish what is open. Nothing waits for a record to fill.

That is the fast path's `PacketIntake`. A packet without a peer, or longer than the MTU, comes back
from it and is answered here with an ICMP error.
"""

from __future__ import annotations

import socket

from wgmp.counters import Counter
from wgmp.fastpath import virtio
from wgmp.orders import AddAllowedIP, Order, RemoveAllowedIP, RemovePeer, SetLink
from wgmp.protocol import ip
from wgmp.protocol.constants import DEFAULT_MTU
from wgmp.protocol.icmp import ErrorLimiter
from wgmp.protocol.outcome import DropReason
from wgmp.record import Kind
from wgmp.role import Role, RoleContext
from wgmp.tap import Point


class TunReader(Role):
    """Reads the TUN. Each drop is counted: bad packet, no route, too big, ring full."""

    def __init__(self, context: RoleContext) -> None:
        super().__init__(context)
        self._tun = context.devices.tun[context.number]
        self._tun_out = context.devices.tun[-1]
        self._allowed_ips = context.fastpath.allowed_ips()
        workers = [context.outputs[f"worker{n}"] for n in range(context.workers)]
        self._intake = context.fastpath.packet_intake(
            self._tun, workers, context.peers, self._allowed_ips, self.counters
        )
        self._intake.mtu = DEFAULT_MTU
        self.part = self._intake
        self._device_gone = False
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
                self._intake.mtu = mtu
            case _:
                return

    def step(self, now: float) -> bool:
        """Read a burst of packets into records."""
        if not self.readable:
            return False
        try:
            self.readable, refused = self._intake.burst()
        except OSError:
            # The interface was deleted; the supervisor hears it from the kernel and stops.
            self.readable = False
            self._device_gone = True
            return False
        for packet in refused:
            self._look_at(packet, now)
        return self.readable

    def _look_at(self, packet: bytes, now: float) -> None:
        """Drop a packet that is none, has no route, or is too long, and answer the latter two.

        But an order may be on its way that gives it a peer; and the interface's MTU may have grown
        before the order that says so is here: the sender would believe the smaller one for
        minutes.
        """
        body = memoryview(packet)[virtio.SIZE :]
        destination = ip.destination(body)
        if isinstance(destination, DropReason):
            self._drop(destination, packet)
            return
        peer = self._allowed_ips.lookup(destination)
        if peer is None:
            self.catch_up()
            peer = self._allowed_ips.lookup(destination)
        if peer is None:
            self._drop(DropReason.NO_ROUTE, packet)
            self._answer(self._unreachable.unreachable(body, now))
            return
        longest = virtio.VirtioHeader.unpack(packet).wire_length(body)
        if longest > self._intake.mtu:
            self._intake.mtu = max(self._intake.mtu, self._tun.current_mtu())
        if longest > self._intake.mtu:
            self._drop(DropReason.PACKET_TOO_BIG, packet)
            self._answer(self._too_big.too_big(body, self._intake.mtu, now))
            return
        self._intake.put(peer, packet)

    def _drop(self, reason: DropReason, packet: bytes) -> None:
        """Count a packet that goes no further, and let a capture see it."""
        self.counters.drop(reason)
        if self.tap is not None and self.tap.on:
            self.tap.packets(Kind.PACKETS, packet, [len(packet)], Point.INNER_OUT, reason=reason)

    def _answer(self, error: bytes | None) -> None:
        """Write an ICMP error back to the TUN, if there is one to give."""
        if error is None:
            return
        try:
            self._tun_out.write(virtio.PLAIN + error)
        except OSError:
            return  # the packet it is about has been counted as a drop
        self.counters.add(Counter.ICMP_ERRORS)
