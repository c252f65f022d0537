"""The watch over the interface where the kernel is not asked to tell: a look now and then.

Often while the link is down, for a handshake that comes between its being set up and the next look
is dropped, and its sender waits for 5 s before it tries again. There are no sources to forget when
routes change: where this is used, the system chooses each datagram's source address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from wgmp.errors import TunDeviceError
from wgmp.linkwatch import read_link
from wgmp.orders import Order

_LOOK_EVERY_S = 0.5
_LOOK_EVERY_S_WHILE_DOWN = 0.05


class LinkPoll:
    """Looks at an interface; see `linkwatch.LinkWatch`. There is no watch before or after it."""

    known = None

    def __init__(
        self,
        interface: Callable[[], str],
        tell: Callable[[list[Order]], None],
        gone: Callable[[], None],
        known: tuple[int, int] | None = None,
    ) -> None:
        self.link = read_link(interface())
        self._interface = interface
        self._tell = tell
        self._gone = gone
        self._next: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look from now on."""
        self._loop = loop
        self._look()

    def stop(self) -> None:
        """Look no more. May be called without a `start`, and again."""
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        try:
            link = read_link(self._interface())
        except TunDeviceError:
            self._next = None
            self._gone()
            return
        if link != self.link:
            self.link = link
            self._tell([link])
        pause_s = _LOOK_EVERY_S if link.up else _LOOK_EVERY_S_WHILE_DOWN
        self._next = self._loop.call_later(pause_s, self._look)
