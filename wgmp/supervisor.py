"""The supervisor: the life of one gateway, from its first descriptor to its end.

1. Open what is not inherited, and make the shared memory.
2. Fork every process of the topology; each says it is ready, or why it cannot be, which stops
   the whole start.
3. Serve UAPI: changes go from the device to all roles as orders.
4. SIGINT, SIGTERM, the end of the interface or of the UAPI socket: stop in order.

| where | what |
|---|---|
| `children.py` | the processes: forked, sent orders, replaced when they die or hang |
| `tunside.py`, `udpside.py` | the descriptors they borrow, and the link |
| `device.py`, `uapi_server.py` | what is configured, and who changes it |
| `fabric.py` | the shared memory |
| `resharding.py` | another number of workers |
| `handover.py`, `succession.py` | another supervisor after this one, or before it |

The data path never waits for the supervisor; it parses nothing that comes from the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence

from wgmp import inheritance, logs, memory, offload, system
from wgmp.child import Child, spawn
from wgmp.children import Children
from wgmp.device import Device
from wgmp.errors import ControlError, RoleError, SocketError, WgmpError
from wgmp.eventhub import DropWatch, EventHub, changes_in
from wgmp.fabric import Fabric
from wgmp.fastpath.interface import FastPath
from wgmp.inheritance import Inheritance
from wgmp.logs import LogLevel
from wgmp.observe.names import Names, default_file
from wgmp.orders import Order, SetLogLevel
from wgmp.peertable import ROWS
from wgmp.rehearsal import rehearse
from wgmp.resharding import are_ready, leave, reshard
from wgmp.role import Devices
from wgmp.sandbox import OFF, Sandbox
from wgmp.shm import LastingMemory
from wgmp.socketpath import SocketPath
from wgmp.succession import Predecessor, guarding
from wgmp.system import boottime
from wgmp.systemd import NOBODY, Manager
from wgmp.topology import ProcessRow, Topology
from wgmp.tunside import TunSide
from wgmp.uapi_server import UapiServer
from wgmp.udpside import UdpSide

log = logging.getLogger("wgmp")

_TICK_S = 1.0

# Later than this by so much, the loop was busy with something.
_LATE_S = 0.5

# A change of this size leaves megabytes behind.
_MANY_ORDERS = 1000
_GIVE_BACK_AFTER_S = 1.0


class Supervisor:
    """One gateway: `interface` on `tun_descriptors` (the supervisor owns them from now on).

    `uapi`: the listening socket and its path. `offloads_wanted`: use those the kernel has.
    `silent`: roles print nothing (a daemon's). `limits`: what roles run under. `shared_sessions`:
    they outlive a worker. `inherited`: UDP sockets and memory to begin with, instead of new ones;
    `manager` keeps the sockets. `fastpath`: None for the best there is. Raises SocketError,
    RingError, OSError without memory; `run`: RoleError when a role cannot start or keeps dying.

    `holding`: no change of the configuration is taken now, for a successor has it already.
    `stopping`: it has been told to stop, or has to.
    """

    def __init__(
        self,
        interface: str,
        tun_descriptors: Sequence[int],
        uapi: socket.socket,
        topology: Topology,
        offloads_wanted: bool = True,
        silent: bool = False,
        limits: Sandbox = OFF,
        shared_sessions: bool = True,
        inherited: Inheritance | None = None,
        manager: Manager = NOBODY,
        fastpath: FastPath | None = None,
    ) -> None:
        inherited = inherited or Inheritance()
        self.interface = interface
        self.sandbox = limits
        self.pid = os.getpid()
        self.started_at = boottime()
        self.names = Names([default_file(interface)])
        self.holding = False
        self._silent = silent
        self._manager = manager
        rehearse()
        self.memory = LastingMemory(inherited.memory)
        lasting = self.memory, inherited.roles
        fabric = Fabric(topology, shared_sessions, None, fastpath, *lasting)
        self.events = EventHub()
        self._drop_watch = DropWatch(fabric.counters, self.events)
        self.children = Children(self, fabric, self.events)
        self._changing = asyncio.Lock()
        self.offloads = offload.set_up(tun_descriptors[0], offloads_wanted)
        self._tun = TunSide(
            interface,
            tun_descriptors,
            self.offloads,
            self.children.tell,
            self._link_gone,
            inherited.link,
        )
        self._udp = UdpSide(self.offloads.udp_gro, inherited.udp, self.children, manager)
        self._uapi = uapi
        self._uapi_path = SocketPath(uapi)
        self._failure: WgmpError | None = None
        self.stopping = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.device = Device(self._udp, capacity=ROWS)
        try:
            self.device.set_listen_port(0)
        except OSError as error:
            raise SocketError(f"cannot open the UDP sockets: {error.strerror}") from error
        self.device.set_fwmark(self._udp.fwmark)
        self.device.take_orders()

    @property
    def fabric(self) -> Fabric:
        """The shared memory of the processes that work."""
        return self.children.fabric

    @property
    def topology(self) -> Topology:
        """Which processes there are, and what joins them."""
        return self.fabric.topology

    def descriptors(self) -> list[tuple[str, int]]:
        """Return what can be handed on, each with its name; they stay this process's."""
        return [
            *((inheritance.TUN, queue.descriptor) for queue in self._tun.queues),
            *((inheritance.UDP, descriptor) for descriptor in self._udp.descriptors()),
            (inheritance.UAPI, self._uapi.fileno()),
        ]

    @property
    def known_link(self) -> tuple[int, int] | None:
        """What goes along of the link (`tunside.TunSide`)."""
        return self._tun.known

    # --- the whole run ---

    async def run(
        self,
        up: contextlib.AbstractAsyncContextManager[None],
        predecessor: Predecessor | None = None,
    ) -> None:
        """Run until told to stop. `up` is entered when traffic can flow, left before it stops.

        `predecessor`: works until our processes are ready, and has gone before `up` is entered.
        Everything is taken down on every way out. Raises WgmpError for what ended it otherwise
        than in order.
        """
        self._loop = loop = asyncio.get_running_loop()
        self._server = UapiServer(self.device, self.fabric.peers.figures, self._changed)
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.stop)
            self._tun.start(loop)
            self._tick(loop.time())
            self.children.watch_for_hangs()
            if predecessor is None:
                self.children.fill()
                await self.children.wait_until_ready()
            else:
                await self._follow(predecessor)
            if not self.stopping.is_set():
                await self._server.start(self._uapi)
                async with up:
                    log.info("%s is up: %s", self.interface, self.topology)
                    await self._uapi_path.watch(self.stopping)
                    self.stop()
        finally:
            self._manager.stopping()
            self._tun.stop()
            self._uapi_path.remove()
            self.events.close()
            await self._server.stop()
            await self.children.stop()
            self._udp.close()
            self._tun.close()
        if self._failure is not None:
            raise self._failure

    def stop(self, failure: WgmpError | None = None) -> None:
        """Begin the end; `failure` says why if it is not an ordered one."""
        self._failure = self._failure or failure
        self.stopping.set()
        self.children.replace_nobody()

    def _tick(self, due: float) -> None:
        """Do what is done once a second, `due` by the loop's clock."""
        assert self._loop is not None
        late = self._loop.time() - due
        if late > _LATE_S:
            log.info("slow: the supervisor was busy or not let run for %.2f s", late)
        self._drop_watch.look()
        logs.report_suppressed()
        due = self._loop.time() + _TICK_S
        self._loop.call_at(due, self._tick, due)

    def _link_gone(self) -> None:
        log.info("interface %s was deleted: stopping", self.interface)
        self.stop()

    # --- what the processes have from us (children.Parent) ---

    def fork(self, row: ProcessRow, fabric: Fabric) -> Child:
        """Return a new process with its descriptors. Raises OSError."""
        devices = Devices(self._tun.queues, self._udp.sockets, self.offloads)
        return spawn(row, fabric, devices, self._silent, self.sandbox)

    def configuration(self) -> Iterator[Order]:
        """Yield all that a process has to know before it begins."""
        yield self._tun.link
        yield from self.device.snapshot()

    # --- changes while it runs ---

    def _changed(self) -> Coroutine[None, None, None] | None:
        """Send the roles what `wg` has changed; return what it waits for, if anything."""
        self.publish()
        return self._udp.let_go()

    def publish(self) -> None:
        """Send the roles what changed in the device."""
        with logs.timed("sending orders"):
            orders = self.device.take_orders()
            self.children.tell(orders)
        change = changes_in(orders)
        if change is not None:
            self.events.publish(change)
        if len(orders) >= _MANY_ORDERS and self._loop is not None:
            # The request and the reply are still being held.
            self._loop.call_later(_GIVE_BACK_AFTER_S, memory.give_back)

    def set_log_level(self, level: LogLevel) -> None:
        """Let all processes log so much from now on."""
        logs.set_level(level)
        self.children.tell([SetLogLevel(level)])

    async def set_workers(self, count: int) -> None:
        """Let there be `count` workers. Raises ControlError, and nothing has changed."""
        if not system.FULL:
            raise ControlError("only on Linux can there be more than one worker")
        async with self.change_of_processes():
            await reshard(self.children, count)

    @contextlib.asynccontextmanager
    async def change_of_processes(self) -> AsyncIterator[None]:
        """Keep other changes of all processes away. Raises ControlError when one goes on."""
        if self._changing.locked():
            raise ControlError("the processes are being changed already: wait a moment")
        async with self._changing:
            yield

    # --- another supervisor before us (succession.py) or after us (handover.py) ---

    async def _follow(self, predecessor: Predecessor) -> None:
        """Let our processes begin where those of another supervisor have ended."""
        with guarding(predecessor):
            newcomers = self.children.recruit(self.fabric)
            if not await are_ready(newcomers):
                raise RoleError("a process did not start: see the log")
            self.children.begin(self.fabric, newcomers, await predecessor.give_way())
            await predecessor.go()

    async def hold(self) -> None:
        """Take no change of the configuration from now on: whoever asks waits."""
        self.holding = True
        self._uapi = self._uapi.dup()
        await self._server.stop()

    async def leave(self) -> bool:
        """End all processes; return whether all ended in order."""
        return await leave(self.children)

    async def resume(self) -> None:
        """Undo `hold`, and `leave`."""
        self.holding = False
        self.children.fill()
        await self._server.start(self._uapi)
