"""The watch over the interface and the routes: from the kernel's events to orders.

| the kernel says | the roles are told |
|---|---|
| our link went up or down, has another MTU | `SetLink` |
| our link was deleted | nothing: the gateway stops |
| it is in another network namespace now | that it is up, and nothing more: we cannot see it there |
| routes, rules or another link changed | `ForgetSources`, not more often than once a second |
| so much at once that events were lost | a second later, whatever of the above is true then |
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

from wgmp import netlink, tun
from wgmp.errors import TunDeviceError
from wgmp.orders import ForgetSources, Order, SetLink

log = logging.getLogger("wgmp")

# A router's tables change all the time, and forgetting costs every peer a little.
_FORGET_INTERVAL_S = 1.0
_READ_AFTER_S = 1.0


class LinkWatch:
    """Watches an interface; `tell` is called with orders, `gone` when it was deleted.

    `interface`: returns its name, which may change, and raises TunDeviceError when it is gone.
    `link`: the interface's state as last heard. Raises TunDeviceError when there is none.
    `known`: what a watch before this one knew, in case it is in another network namespace by now:
    its index, and its MTU in bytes.
    """

    def __init__(
        self,
        interface: Callable[[], str],
        tell: Callable[[list[Order]], None],
        gone: Callable[[], None],
        known: tuple[int, int] | None = None,
    ) -> None:
        self._interface = interface
        self._name = interface()
        self._is_here = True
        if known is None:
            self.link = read_link(self._name)
            self._index = tun.index_of(self._name)
        else:
            self._index, mtu = known
            self.link = self._link_here() or SetLink(True, mtu)
        self._tell = tell
        self._gone = gone
        self._monitor: socket.socket | None = None
        self._forget_again_at = 0.0
        self._forgetting = False
        self._reading_later = False

    @property
    def known(self) -> tuple[int, int]:
        """What a watch after this one may need to know."""
        return self._index, self.link.mtu

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hear the kernel from now on; what happened before is read now. Raises OSError."""
        self._loop = loop
        self._monitor = netlink.open_monitor()
        loop.add_reader(self._monitor.fileno(), self._take_events, self._monitor)
        self._read()

    def stop(self) -> None:
        """Hear no more. May be called without a `start`, and again."""
        if self._monitor is not None:
            self._loop.remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None

    def _take_events(self, monitor: socket.socket) -> None:
        routes_changed = False
        for event in netlink.read_events(monitor):
            match event:
                case netlink.LinkDeleted(self._index):
                    self._read()
                case netlink.LinkChanged(self._index, up, mtu):
                    self._take(SetLink(up, mtu or self.link.mtu))
                case _:
                    # A link that fails takes its IPv4 routes with it and says only that.
                    routes_changed = True
        if routes_changed:
            self._forget_sources()
        # Events are only lost while others wait, so that a later look misses nothing.
        self._look_again()

    def _look_again(self) -> None:
        if not self._reading_later:
            self._reading_later = True
            self._loop.call_later(_READ_AFTER_S, self._read_later)

    def _read_later(self) -> None:
        self._reading_later = False
        if self._monitor is not None:
            self._read()

    def _read(self) -> None:
        try:
            name = self._interface()
        except TunDeviceError:
            self._gone()
            return
        if name != self._name:
            log.warning("interface %s is called %s now; `wg` does not know it so", self._name, name)
            self._name = name
        link = self._link_here()
        if self._is_here and link is None:
            log.warning("interface %s is in another network namespace now", name)
        self._is_here = link is not None
        if link is None:
            link = SetLink(True, self.link.mtu)
            self._look_again()
        self._take(link)

    def _link_here(self) -> SetLink | None:
        """Return the interface's state, None when it is in another network namespace."""
        try:
            return read_link(self._name) if tun.index_of(self._name) == self._index else None
        except (OSError, TunDeviceError):
            return None

    def _take(self, link: SetLink) -> None:
        if link != self.link:
            self.link = link
            self._tell([link])

    def _forget_sources(self) -> None:
        """Tell the roles at once, or when the interval since the last time is over."""
        now = self._loop.time()
        if now >= self._forget_again_at:
            self._forget_again_at = now + _FORGET_INTERVAL_S
            self._tell([ForgetSources()])
        elif not self._forgetting:
            self._forgetting = True
            self._loop.call_at(self._forget_again_at, self._forget_later)

    def _forget_later(self) -> None:
        self._forgetting = False
        if self._monitor is not None:
            self._forget_sources()


def read_link(interface: str) -> SetLink:
    """Return the interface's state. Raises TunDeviceError when there is none."""
    try:
        return SetLink(tun.is_up(interface), tun.mtu_of(interface))
    except OSError as error:
        raise TunDeviceError(f"there is no interface {interface} here", error.errno or 0) from error
