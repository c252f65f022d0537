"""A gateway of real processes that do no more than a test asks of them, for a supervisor's part."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterable

from wgmp import system
from wgmp.child import Child
from wgmp.children import Children
from wgmp.errors import WgmpError
from wgmp.eventhub import EventHub
from wgmp.events import RoleRestarted
from wgmp.fabric import Fabric
from wgmp.orders import Drain, Drained, Order, Ready, SetLink, decode_orders, encode_report
from wgmp.system.line import PacketLine
from wgmp.topology import ProcessRow, Shape, build

NAME = "gateway"
LINK = SetLink(up=True, mtu=1380)


def report_and_obey(control: socket.socket) -> None:
    """Be ready, drain when told to, and end when the supervisor hangs up."""
    control.send(encode_report(Ready()))
    while message := control.recv(1 << 16):
        if Drain() in decode_orders(message):
            control.send(encode_report(Drained()))


class Home:
    """The supervisor's part: it forks, as often as it can, and hears how the gateway ends.

    `parts`: what the processes forked next do with their control sockets before they end, one
    after the other; all others report and obey. `no_memory`: how many forks fail before one works.
    """

    def __init__(self) -> None:
        self.parts: list[Callable[[socket.socket], None]] = []
        self.no_memory = 0
        self.failure: WgmpError | None = None
        self.events = EventHub()
        self.told = self.events.subscribe()
        self.fabric = Fabric(build(Shape.COMPACT, 1))
        self.children = Children(self, self.fabric, self.events)

    def fork(self, row: ProcessRow, fabric: Fabric) -> Child:
        """Fork a process that plays the part."""
        if self.no_memory:
            self.no_memory -= 1
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        part = self.parts.pop(0) if self.parts else report_and_obey
        pid = os.fork()
        if not pid:
            try:
                signal.alarm(20)
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                ours.close()
                part(theirs)
            finally:
                os._exit(0)
        theirs.close()
        ended = system.Lifeline().in_parent(pid)
        return Child(row, pid, ended, PacketLine(ours), os.memfd_create("trace"))

    def configuration(self) -> Iterable[Order]:
        """A link is all there is."""
        return [LINK]

    def stop(self, failure: WgmpError) -> None:
        """Note why the gateway ends."""
        self.failure = failure
        self.children.replace_nobody()

    @property
    def living(self) -> Child:
        """The one process that there is."""
        return self.children.living[NAME]

    async def ends(self, count: int = 1) -> list[str]:
        """Wait until processes have ended, so many, and a successor works; return how they did."""
        told: list[RoleRestarted] = []
        while len(told) < count:
            events = await self.told.take()
            told += (event for event in events if isinstance(event, RoleRestarted))
        while NAME not in self.children.living or not self.living.ready:
            await asyncio.sleep(0.01)
        return [event.how for event in told]


def play(scene: Callable[[Home], Awaitable[None]]) -> None:
    """Play a scene that begins with a process that is ready, and take it all down."""

    async def run() -> None:
        home = Home()
        try:
            home.children.fill()
            await home.children.wait_until_ready()
            async with asyncio.timeout(20):
                await scene(home)
        finally:
            await home.children.stop()
            home.fabric.close()

    asyncio.run(run())
