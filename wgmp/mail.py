"""The supervisor's mail: orders to its processes, and what they report.

Nobody waits: what a process has not read yet is queued with it, and sent when its socket takes
more. All of it runs on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from wgmp.child import Child
from wgmp.errors import UNDECODABLE
from wgmp.orders import (
    LoopOrder,
    Order,
    Report,
    decode_report,
    encode_orders,
)

log = logging.getLogger("wgmp")


class Mail:
    """Sends orders; calls `heed` with each report, and the process it comes from."""

    def __init__(self, heed: Callable[[Child, Report], None]) -> None:
        self._heed = heed

    def begin(self, child: Child) -> None:
        """Hear a process from now on."""
        asyncio.get_running_loop().add_reader(child.control.fileno(), self._take_reports, child)

    def end(self, child: Child) -> None:
        """Take what a process that has ended had to say; send and hear no more."""
        loop = asyncio.get_running_loop()
        loop.remove_writer(child.control.fileno())
        self._take_reports(child)
        loop.remove_reader(child.control.fileno())

    def send(
        self,
        children: Sequence[Child],
        orders: Sequence[Order | LoopOrder],
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send orders to some processes; `descriptors` go with the first message."""
        # Encoded once: with thousands of peers it is megabytes.
        messages = encode_orders(orders)
        for child in children:
            if child.send(messages, list(descriptors)):
                loop = asyncio.get_running_loop()
                loop.add_writer(child.control.fileno(), self._flush, child)

    def _flush(self, child: Child) -> None:
        if not child.flush():
            asyncio.get_running_loop().remove_writer(child.control.fileno())

    def _take_reports(self, child: Child) -> None:
        """Take all that a process has reported by now."""
        while True:
            try:
                message, _ = child.control.receive()
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                asyncio.get_running_loop().remove_reader(child.control.fileno())
                return
            try:
                report = decode_report(message)
            except UNDECODABLE as error:
                log.error("%s reports nonsense, and is ended: %s", child.row.name, error)
                child.kill()
            else:
                self._heed(child, report)
