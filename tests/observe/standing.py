"""A gateway that stands still: its memory and its configuration are real, and nobody is at work.

So everything that is told of it is what a test has written, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

from wgmp.addresses import parse_prefix
from wgmp.child import Child
from wgmp.children import Children, Parent
from wgmp.counters import Counter, Counters
from wgmp.device import Device
from wgmp.eventhub import EventHub
from wgmp.fabric import Fabric
from wgmp.observe.collect import collect
from wgmp.observe.names import Names
from wgmp.observe.snapshot import Snapshot
from wgmp.offload import Offloads
from wgmp.peerentry import PeerEntry
from wgmp.peertable import PeerRow
from wgmp.sandbox import Sandbox
from wgmp.supervisor import Supervisor
from wgmp.system import boottime
from wgmp.topology import Shape, Topology, build

PRIVATE = b"\x40" + bytes(30) + b"\x40"


class Anything:
    """A world in which every port and mark can be had."""

    def open_port(self, port: int) -> int:
        """Grant the port."""
        return port or 51820

    def set_fwmark(self, mark: int) -> None:
        """Grant the mark."""


@dataclass
class Standing:
    """Has of a supervisor what is looked at. A process that works is put into `children.living`."""

    shape: Shape = Shape.PIPELINE
    workers: int = 2
    interface: str = "wg0"
    pid: int = 1000
    started_at: float = field(default_factory=lambda: boottime() - 3600)

    def __post_init__(self) -> None:
        self.fabric = Fabric(build(self.shape, self.workers))
        self.events = EventHub()
        self.children = Children(cast(Parent, self), self.fabric, self.events)
        self.holding = False
        self.names = Names([])
        self.sandbox = Sandbox(on=True, user="nobody", seccomp=True)
        self.offloads = Offloads(tun_tcp=True, udp_gro=True)
        self.device = Device(Anything())
        self.device.set_private_key(PRIVATE)
        self.device.set_listen_port(51821)

    @property
    def topology(self) -> Topology:
        """Which processes there are."""
        return self.fabric.topology

    @property
    def supervisor(self) -> Supervisor:
        """Itself, for whoever looks at it."""
        return cast(Supervisor, self)

    @property
    def counters(self) -> dict[str, Counters]:
        """The counters of each role."""
        return self.fabric.counters

    def snapshot(self) -> Snapshot:
        """What is told of it now."""
        return collect(self.supervisor)

    def run(self, process: str, pid: int) -> None:
        """Let a process be there whose roles have just turned."""
        (row,) = (row for row in self.topology.processes if row.name == process)
        self.children.living[process] = cast(Child, SimpleNamespace(pid=pid))
        for role in row.roles:
            self.counters[role].store(Counter.HEARTBEAT, int(boottime() * 1e9))

    def peer(self, number: int, *prefixes: str, worker: int = 0) -> PeerEntry:
        """Configure a peer, to be owned by a worker."""
        entry = self.device.add_peer(bytes([number]) * 32)
        assert entry is not None
        for prefix in prefixes:
            self.device.add_allowed_ip(entry, parse_prefix(prefix))
        self.fabric.peers.set_owner(entry.peer, worker)
        return entry

    def row(self, entry: PeerEntry) -> PeerRow:
        """The peer's row of the shared table, as its worker has it."""
        row = self.fabric.peers.row(entry.peer)
        row.adopt()
        return row

    def close(self) -> None:
        """Close doorbells and taps."""
        self.fabric.close()
