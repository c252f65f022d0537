"""The supervisor: holds the descriptors, spawns the roles, and keeps them running.

1. Open the TUN, the UDP sockets and the UAPI socket; make the shared memory.
2. Fork every process of the topology; each says it is ready, or why it cannot be, which stops
   the whole start.
3. Serve UAPI: changes go from the device to all roles as orders.
4. A role that dies is replaced at once, by one that inherits the same rings and descriptors
   and is sent the whole configuration; so is one that hangs, after it was killed. One that
   keeps dying waits longer each time, and in the end stops the gateway, with the reason.
5. Another number of workers is a second generation of processes (`resharding.py`).
6. SIGINT, SIGTERM, the end of the interface or of the UAPI socket: stop in order.

The data path never waits for the supervisor; it parses nothing that comes from the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path

from wgmp import inheritance, logs, memory, netlink, offload, tun, udp
from wgmp.child import Child, spawn
from wgmp.device import Device
from wgmp.errors import ControlError, RoleError, WgmpError
from wgmp.eventhub import DropWatch, EventHub, changes_in
from wgmp.events import ConfigurationChanged, RoleRestarted
from wgmp.fabric import Fabric
from wgmp.fastpath.interface import FastPath
from wgmp.hangwatch import ABORT_GRACE_S, LOOK_EVERY_S, HangWatch
from wgmp.inheritance import Inheritance
from wgmp.linkwatch import LinkWatch
from wgmp.logs import LogLevel
from wgmp.observe.names import Names, default_file
from wgmp.orders import (
    MAX_MESSAGE_BYTES,
    Begin,
    Drained,
    Failed,
    Happened,
    LoopOrder,
    Order,
    Ready,
    Report,
    SetLogLevel,
    SetPeer,
    SetSockets,
    decode_report,
    encode_orders,
    row_of,
)
from wgmp.peertable import ROWS
from wgmp.process import boottime
from wgmp.rehearsal import rehearse
from wgmp.resharding import are_ready, leave, reshard
from wgmp.role import Devices
from wgmp.sandbox import OFF, Sandbox
from wgmp.shm import LastingMemory
from wgmp.succession import Predecessor, guarding
from wgmp.systemd import NOBODY, Manager
from wgmp.topology import ProcessRow, Topology
from wgmp.uapi_server import UapiServer

log = logging.getLogger("wgmp")

_BOOT_LIMIT_S = 20.0
_STOP_LIMIT_S = 2.0
_SOCKET_CHECK_S = 0.5
_TICK_S = 1.0

# Later than this by so much, the loop was busy with something.
_LATE_S = 0.5

# A change of this size leaves megabytes behind.
_MANY_ORDERS = 1000
_GIVE_BACK_AFTER_S = 1.0

# A role that died before it was _STABLE_S old waits 0, 0.1, 0.2, 0.4 ... s; after _MAX_DEATHS in
# a row there is no hope in one more.
_STABLE_S = 3.0
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
_MAX_DEATHS = 10


class Supervisor:
    """One gateway: `interface` on `tun_descriptor` (the supervisor owns it from now on).

    `uapi`: the listening socket and its path. `offloads_wanted`: use those the kernel has.
    `silent`: roles print nothing (a daemon's). `limits`: what roles run under. `shared_sessions`:
    they outlive a worker. `inherited`: UDP sockets and memory to begin with, instead of new ones;
    `manager` keeps the sockets. `fastpath`: None for the best there is. Raises SocketError,
    RingError at once; `run` raises RoleError when a role cannot start or keeps dying.
    """

    def __init__(
        self,
        interface: str,
        tun_descriptor: int,
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
        self.interface = interface
        inherited = inherited or Inheritance()
        self._inherited = inherited.udp
        self._manager = manager
        self.sandbox = limits
        self.pid = os.getpid()
        self.started_at = boottime()
        self.names = Names([default_file(interface)])
        self._silent = silent
        self.topology = topology
        rehearse()
        self.memory = LastingMemory(inherited.memory)
        self.fabric = Fabric(
            topology,
            shared_sessions,
            fastpath=fastpath,
            memory=self.memory,
            roles=inherited.roles,
        )
        self.events = EventHub()
        self._drop_watch = DropWatch(self.fabric.counters, self.events)
        self.device = Device(self, capacity=ROWS)
        self.children: dict[str, Child] = {}
        self._newcomers: list[Child] = []
        self._leaving = False
        self._changing = asyncio.Lock()
        self.restarts: dict[str, int] = {row.name: 0 for row in topology.processes}
        self.hangs: dict[str, int] = {row.name: 0 for row in topology.processes}
        self._hang_watch = HangWatch(self.fabric.counters)
        self.offloads = offload.set_up(tun_descriptor, offloads_wanted)
        self._tun = tun.TunQueue(
            tun_descriptor,
            tun.has_virtio_header(tun_descriptor),
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
        )
        self._link_watch = LinkWatch(interface, self._tell_link, self._link_gone)
        self._limit_super_packets()
        self._uapi = uapi
        self._uapi_path = Path(uapi.getsockname())
        self._sockets: list[socket.socket] = []
        self._deaths: dict[str, int] = {}
        self._failure: WgmpError | None = None
        self._stopping = asyncio.Event()
        self._all_ready = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.device.set_listen_port(0)
        self.device.set_fwmark(udp.mark_of(self._sockets[0]))
        self.device.take_orders()

    # --- what the device needs done outside itself (device.Outside) ---

    def open_port(self, port: int) -> int:
        """Move to UDP `port`, 0 for any; return the one bound. Raises OSError."""
        if self._inherited:  # the first time, for any port
            bound, sockets = udp.adopt_sockets(self._inherited, self.offloads.udp_gro)
            self._inherited = []
        else:
            bound, sockets = udp.open_sockets(port, self.device.fwmark, self.offloads.udp_gro)
        for old in self._sockets:
            old.close()
        self._sockets = sockets
        self._manager.keep(inheritance.UDP, [sock.fileno() for sock in sockets])
        self._broadcast([self._sockets_order()], [sock.fileno() for sock in sockets])
        self.events.publish(ConfigurationChanged(listen_port=bound))
        return bound

    def set_fwmark(self, mark: int) -> None:
        """Mark outgoing datagrams from now on. Raises OSError."""
        for sock in self._sockets:
            udp.set_mark(sock, mark)

    def descriptors(self) -> list[tuple[str, int]]:
        """Return what can be handed on, each with its name; they stay this process's."""
        return [
            (inheritance.TUN, self._tun.descriptor),
            *((inheritance.UDP, sock.fileno()) for sock in self._sockets),
            (inheritance.UAPI, self._uapi.fileno()),
        ]

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
        self._server = UapiServer(self.device, self.fabric.peers.figures, self.publish)
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, self.stop)
            self._link_watch.start(loop)
            self._tick(loop.time())
            self._look_for_hangs()
            if predecessor is None:
                for row in self.topology.processes:
                    self._spawn(row)
                await self._wait_until_ready()
            else:
                await self._follow(predecessor)
            if not self._stopping.is_set():
                await self._server.start(self._uapi)
                async with up:
                    log.info("%s is up: %s", self.interface, describe(self.topology))
                    await self._watch_socket()
        finally:
            self._manager.stopping()
            self._link_watch.stop()
            self._remove_socket()
            self.events.close()
            await self._server.stop()
            await self._stop_children()
            for sock in self._sockets:
                sock.close()
            self._tun.close()
        if self._failure is not None:
            raise self._failure

    def stop(self, failure: WgmpError | None = None) -> None:
        """Begin the end; `failure` says why if it is not an ordered one."""
        self._failure = self._failure or failure
        self._stopping.set()
        self._all_ready.set()

    def set_log_level(self, level: LogLevel) -> None:
        """Let all processes log so much from now on."""
        logs.set_level(level)
        self._broadcast([SetLogLevel(level)])

    async def set_workers(self, count: int) -> None:
        """Let there be `count` workers. Raises ControlError, and nothing has changed."""
        async with self.change_of_processes():
            await reshard(self, count)

    def publish(self) -> None:
        """Send the roles what changed in the device."""
        with logs.timed("sending orders"):
            orders = self.device.take_orders()
            self._assign(orders)
            self._broadcast(orders)
        change = changes_in(orders)
        if change is not None:
            self.events.publish(change)
        if len(orders) >= _MANY_ORDERS and self._loop is not None:
            # The request and the reply are still being held.
            self._loop.call_later(_GIVE_BACK_AFTER_S, memory.give_back)

    async def _wait_until_ready(self) -> None:
        try:
            await asyncio.wait_for(self._all_ready.wait(), _BOOT_LIMIT_S)
        except TimeoutError:
            late = [name for name, child in self.children.items() if not child.ready]
            raise RoleError(f"not ready after {_BOOT_LIMIT_S:.0f} s: {', '.join(late)}") from None

    async def _watch_socket(self) -> None:
        """Wait for the stop; the deletion of the UAPI socket's path is one."""
        inode = self._uapi_path.stat().st_ino
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _SOCKET_CHECK_S)
            try:
                alive = self._uapi_path.stat().st_ino == inode
            except FileNotFoundError:
                alive = False
            if not alive:
                log.info("%s was deleted: stopping", self._uapi_path)
                self._uapi_path = Path(os.devnull)
                self.stop()

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

    def _remove_socket(self) -> None:
        if self._uapi_path.is_socket():
            self._uapi_path.unlink()

    # --- roles ---

    def _spawn(self, row: ProcessRow) -> None:
        assert row.name not in self.children
        child = self.children[row.name] = self._fork(row, self.fabric)
        self.send_all([child], [Begin(deaths=self._deaths.get(row.name, 0))])

    def _fork(self, row: ProcessRow, fabric: Fabric) -> Child:
        """Return a new process that knows the configuration and waits for the order to begin."""
        assert self._loop is not None
        devices = Devices(self._tun, self._sockets, self.offloads)
        with logs.timed(f"starting {row.name}"):
            child = spawn(row, fabric, devices, self._silent, self.sandbox)
        self._loop.add_reader(child.pidfd, self._bury, child)
        self._loop.add_reader(child.control.fileno(), self._take_reports, child)
        orders: list[Order] = [self._link_watch.link, *self.device.snapshot()]
        self._assign(orders)
        self.send_all([child], orders)
        return child

    # --- a second generation of processes (resharding.py) ---

    def recruit(self, fabric: Fabric) -> list[Child]:
        """Fork the processes of another fabric. They wait, and hear of all that changes.

        Raises ControlError when there cannot be so many; those that were forked have no part.
        """
        self.fabric.keep_from_children()
        try:
            for row in fabric.topology.processes:
                self._newcomers.append(self._fork(row, fabric))
        except OSError as error:
            for child in self._newcomers:
                child.kill()
            self._newcomers = []
            raise ControlError(f"no more processes can be started: {error.strerror}") from error
        finally:
            self.fabric.keep_from_children(False)
        return self._newcomers

    async def dismiss(self, newcomers: Sequence[Child]) -> None:
        """End processes that were recruited."""
        self._newcomers = []
        for child in newcomers:
            if not child.ended.is_set():
                child.kill()
                await child.ended.wait()

    def hand_over(self) -> list[Child]:
        """Replace nobody until `begin`; return the processes that are to leave."""
        self._leaving = True
        return list(self.children.values())

    def begin(self, fabric: Fabric, newcomers: Sequence[Child], orderly: bool) -> None:
        """Let the newcomers begin in the place of those who have ended, in order or not."""
        self.fabric, self.topology = fabric, fabric.topology
        self.children = {child.row.name: child for child in newcomers}
        self._newcomers = []
        self._leaving = False
        for name in self.children:
            self.restarts.setdefault(name, 0)
            self.hangs.setdefault(name, 0)
        for row in range(ROWS):
            self.fabric.peers.set_owner(row, row % self.topology.workers)
        self.send_all(newcomers, [Begin(orderly)])
        for child in newcomers:
            if child.ended.is_set():
                del self.children[child.row.name]
                self._replace(child.row)

    # --- another supervisor before us or after us (handover.py, succession.py) ---

    async def _follow(self, predecessor: Predecessor) -> None:
        """Let our processes begin where those of another supervisor have ended."""
        with guarding(predecessor):
            newcomers = self._newcomers = [
                self._fork(row, self.fabric) for row in self.topology.processes
            ]
            if not await are_ready(newcomers):
                raise RoleError("a process did not start: see the log")
            self.begin(self.fabric, newcomers, await predecessor.give_way())
            await predecessor.go()

    @contextlib.asynccontextmanager
    async def change_of_processes(self) -> AsyncIterator[None]:
        """Keep other changes of all processes away. Raises ControlError when one goes on."""
        if self._changing.locked():
            raise ControlError("the processes are being changed already: wait a moment")
        async with self._changing:
            yield

    async def hold(self) -> None:
        """Take no change of the configuration from now on: whoever asks waits."""
        self._uapi = self._uapi.dup()
        await self._server.stop()

    async def leave(self) -> bool:
        """End all processes; return whether all ended in order."""
        return await leave(self)

    async def resume(self) -> None:
        """Undo `hold`, and `leave`."""
        self._leaving = False
        for row in self.topology.processes:
            if row.name not in self.children:
                self._spawn(row)
        await self._server.start(self._uapi)

    def _take_reports(self, child: Child) -> None:
        """Take all that a role has reported by now."""
        assert self._loop is not None
        while True:
            try:
                message = child.control.recv(MAX_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._loop.remove_reader(child.control.fileno())
                return
            self._heed(child, decode_report(message))

    def _heed(self, child: Child, report: Report) -> None:
        match report:
            case Ready():
                child.ready = True
                child.started.set()
                if all(each.ready for each in self.children.values()):
                    self._all_ready.set()
            case Drained():
                child.drained.set()
            case Happened(event):
                self.events.publish(event)
            case Failed(text):
                if child.ready or child in self._newcomers:
                    log.error("%s: %s", child.row.name, text)
                else:
                    self.stop(RoleError(f"{child.row.name} cannot start: {text}"))

    def _bury(self, child: Child) -> None:
        """A role's process has ended: collect it, and replace it unless we are stopping."""
        assert self._loop is not None
        self._loop.remove_reader(child.pidfd)
        self._loop.remove_writer(child.control.fileno())
        self._take_reports(child)
        self._loop.remove_reader(child.control.fileno())
        name = child.row.name
        how = child.reap()
        if self.children.get(name) is not child:
            return  # it never began
        del self.children[name]
        if self._stopping.is_set() or self._leaving:
            return
        if not child.ready and not self.restarts[name]:
            self.stop(RoleError(f"{name} {how} before it was ready"))
            return
        young = boottime() - child.started_at < _STABLE_S
        count = self._deaths[name] = self._deaths.get(name, 0) + 1 if young else 0
        if count > _MAX_DEATHS:
            self.stop(RoleError(f"{name} {how}, for the {count}th time in a row: giving up"))
            return
        self.restarts[name] += 1
        delay = min(_LONGEST_BACKOFF_S, _FIRST_BACKOFF_S * 2 ** (count - 2)) if count > 1 else 0.0
        self.events.publish(RoleRestarted(process=name, how=how, delay_s=delay))
        self._loop.call_later(delay, self._replace, child.row)

    def _look_for_hangs(self) -> None:
        """End the processes whose loops do not turn; `_bury` replaces them."""
        assert self._loop is not None
        for child in self._hang_watch.look(self.children.values(), time.monotonic()):
            self.hangs[child.row.name] += 1
            child.abort()
            self._loop.call_later(ABORT_GRACE_S, child.kill)
        self._loop.call_later(LOOK_EVERY_S, self._look_for_hangs)

    def _replace(self, row: ProcessRow) -> None:
        """Start a successor, unless its place is taken by now, or there is none any more.

        Two of one role would write the same rings.
        """
        vacant = row in self.topology.processes and row.name not in self.children
        if vacant and not self._leaving and not self._stopping.is_set():
            self._spawn(row)

    async def _stop_children(self) -> None:
        self._stopping.set()
        for child in (*self.children.values(), *self._newcomers):
            child.stop()
        for _ in range(int(_STOP_LIMIT_S / 0.02)):
            if not self.children:
                return
            await asyncio.sleep(0.02)
        for child in self.children.values():
            log.warning("%s does not stop: killing it", child.row.name)
            child.kill()
        while self.children:
            await asyncio.sleep(0.02)

    # --- orders ---

    def _assign(self, orders: Iterable[Order]) -> None:
        """Give each peer its owner, before any role hears of it."""
        for order in orders:
            if isinstance(order, SetPeer):
                owner = row_of(order.peer) % self.topology.workers
                self.fabric.peers.set_owner(order.peer, owner)

    def _broadcast(
        self, orders: Sequence[Order | LoopOrder], descriptors: Sequence[int] = ()
    ) -> None:
        self.send_all([*self.children.values(), *self._newcomers], orders, descriptors)

    def send_all(
        self,
        children: Sequence[Child],
        orders: Sequence[Order | LoopOrder],
        descriptors: Sequence[int] = (),
    ) -> None:
        """Send orders to some of the processes."""
        # Encoded once: with thousands of peers it is megabytes.
        messages = encode_orders(orders)
        for child in children:
            self._send(child, messages, descriptors)

    def _send(
        self, child: Child, messages: Iterable[bytes], descriptors: Sequence[int] = ()
    ) -> None:
        if child.send(messages, list(descriptors)):
            assert self._loop is not None
            self._loop.add_writer(child.control.fileno(), self._flush, child)

    def _flush(self, child: Child) -> None:
        if not child.flush():
            assert self._loop is not None
            self._loop.remove_writer(child.control.fileno())

    def _sockets_order(self) -> SetSockets:
        families = tuple(4 if sock.family == socket.AF_INET else 6 for sock in self._sockets)
        return SetSockets(families)

    def _tell_link(self, orders: list[Order]) -> None:
        """The interface or the routes changed."""
        self._limit_super_packets()
        self._broadcast(orders)

    def _limit_super_packets(self) -> None:
        """Keep super-packets as long as one train, for the MTU there is."""
        if not self.offloads.tun_tcp:
            return
        size = offload.super_packet_bytes(self._link_watch.link.mtu)
        try:
            netlink.set_gso_max_size(tun.index_of(self.interface), size)
        except OSError as error:
            log.info("gso_max_size of %s stays as it is: %s", self.interface, error)

    def _link_gone(self) -> None:
        log.info("interface %s was deleted: stopping", self.interface)
        self.stop()


def describe(topology: Topology) -> str:
    """Return the topology in a few words."""
    return (
        f"{topology.shape}, {topology.workers} worker{'s' * (topology.workers > 1)}, "
        f"{len(topology.processes)} process{'es' * (len(topology.processes) > 1)}"
    )
