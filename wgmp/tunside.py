"""The TUN side of a gateway: the interface, which the supervisor holds, and the watch over it."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

from wgmp import netlink, offload, tun
from wgmp.errors import TunDeviceError
from wgmp.offload import Offloads
from wgmp.orders import Order, SetLink
from wgmp.tundevice import LinkWatch, queue_of

log = logging.getLogger("wgmp")


class TunSide:
    """`interface` on `descriptors` (`tun.open_tun`), which are this object's from now on.

    `queues`: one for each of them. `offloads`: those in use. `known`: what a predecessor
    knew of the link (`LinkWatch`).

    `tell` is called with orders when the link or the routes change, `gone` when the interface was
    deleted. Raises TunDeviceError when there is none.
    """

    def __init__(
        self,
        interface: str,
        descriptors: Sequence[int],
        offloads: Offloads,
        tell: Callable[[list[Order]], None],
        gone: Callable[[], None],
        known: tuple[int, int] | None,
    ) -> None:
        asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.queues = [queue_of(descriptor, interface, asking) for descriptor in descriptors]
        self._offloads = offloads
        self._tell = tell
        self._watch = LinkWatch(self.queues[0].interface, self._changed, gone, known)
        self._limit_super_packets()

    @property
    def link(self) -> SetLink:
        """The interface's state as last heard."""
        return self._watch.link

    @property
    def known(self) -> tuple[int, int] | None:
        """What a successor may need to know of the link."""
        return self._watch.known

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear the kernel from now on. Raises OSError."""
        self._watch.start(loop)

    def stop(self) -> None:
        """Hear no more. May be called without a `start`, and again."""
        self._watch.stop()

    def close(self) -> None:
        """Close the descriptors; the interface is gone with the last copy of them."""
        for queue in self.queues:
            queue.close()

    def _changed(self, orders: list[Order]) -> None:
        self._limit_super_packets()
        self._tell(orders)

    def _limit_super_packets(self) -> None:
        """Keep super-packets as long as one train, for the MTU there is."""
        if not self._offloads.tun_tcp:
            return
        size = offload.super_packet_bytes(self.link.mtu)
        try:
            netlink.set_gso_max_size(tun.index_of(self.queues[0].interface()), size)
        except (OSError, TunDeviceError) as error:
            log.info("gso_max_size stays as it is: %s", error)
