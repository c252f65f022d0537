"""The fabric of one gateway: all its shared memory, made before the first fork.

A role's process, and each of its successors, inherits the mappings and attaches the ends that
its topology rows give it. Another topology has rings, doorbells and taps of its own; counters,
tables and sessions go on from the old fabric to the new one (`Fabric.succeed`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Container, Sequence
from typing import Any

from wgmp.counters import Counter, Counters, create_counters
from wgmp.fastpath.choice import Choice, load
from wgmp.fastpath.interface import FastPath
from wgmp.peertable import IndexTable, PeerTable
from wgmp.protocol.outcome import DropReason
from wgmp.ring import Doorbell, RingReader, RingView, RingWriter, create_ring
from wgmp.role import Devices, RoleContext
from wgmp.sessions import SessionMemory
from wgmp.shm import WORD_BYTES, LastingMemory, Segment, require_ordered_stores
from wgmp.tap import Taps
from wgmp.topology import MAX_ROLES, Topology

log = logging.getLogger("wgmp")

_WORDS_PER_LINE = 8

# The workers see all packets that go through; the others those that they drop.
_TAPPED = ("tun_reader", "udp_reader", "admission", "worker")


class Fabric:
    """Rings, doorbells, counters and tables for `topology`; `fastpath`: what works on them.

    `shared_sessions`: sessions outlive the worker that made them. `memory`: what outlives the
    supervisor is there; `roles`: whose counters a predecessor left in it, in order. Raises
    RingError on a CPU that the fast path cannot order, OSError without memory.
    """

    def __init__(
        self,
        topology: Topology,
        shared_sessions: bool = True,
        predecessor: Fabric | None = None,
        fastpath: FastPath | None = None,
        memory: LastingMemory | None = None,
        roles: Sequence[str] = (),
    ) -> None:
        """Make all of it; without `fastpath`, for the best one there is."""
        self.fastpath = load(Choice.AUTO) if fastpath is None else fastpath
        if len(topology.processes) > 1:
            require_ordered_stores()
        self.topology = topology
        self.rings = {
            row.name: create_ring(row.name, row.slots, row.slot_bytes) for row in topology.rings
        }
        # One cache line per process holds its asleep word.
        line_bytes = _WORDS_PER_LINE * WORD_BYTES
        self._bells = Segment("doorbells", len(topology.processes) * line_bytes)
        self.doorbells: dict[str, Doorbell] = {}
        with contextlib.ExitStack() as undo:
            for number, process in enumerate(topology.processes):
                bell = Doorbell(self._bells, number * _WORDS_PER_LINE)
                undo.callback(bell.close)
                self.doorbells[process.name] = bell
            self.taps = Taps([row.name for row in topology.roles if row.kind in _TAPPED])
            undo.pop_all()
        if predecessor is None:
            self._counters = create_counters(MAX_ROLES, memory)
            self.counters = {
                name: Counters(self._counters, number) for number, name in enumerate(roles)
            }
            self.peers = PeerTable(memory)
            self.indices = IndexTable(memory)
            self.sessions = SessionMemory(memory) if shared_sessions else None
        else:
            self._counters, self.counters = predecessor._counters, predecessor.counters
            self.peers, self.indices = predecessor.peers, predecessor.indices
            self.sessions = predecessor.sessions
        # A role that is no more keeps its counters: sums over all roles never fall.
        for row in topology.roles:
            if row.name not in self.counters:
                self.counters[row.name] = Counters(self._counters, len(self.counters))

    def succeed(self, topology: Topology) -> Fabric:
        """Return the fabric of another topology, which is to take this one's place."""
        return Fabric(topology, predecessor=self, fastpath=self.fastpath)

    def keep_from_children(self, keep: bool = True) -> None:
        """Let processes forked from now on not inherit this topology's rings; or let them."""
        for segment in (*self.rings.values(), *self.taps.rings.values()):
            segment.keep_from_children(keep)

    def waiting(self, processes: Container[str]) -> int:
        """Return how many records wait in the rings that these processes, by name, consume."""
        return sum(
            RingView(self.rings[row.name]).figures()["depth"]
            for row in self.topology.rings
            if self.topology.process_of(row.consumer) in processes
        )

    def close(self) -> None:
        """Close what is open; processes of this topology that still run have their own copies."""
        for bell in self.doorbells.values():
            bell.close()
        self.taps.close()

    def retire(self, successor: Fabric) -> None:
        """All processes of this topology have ended: close what is open, and the books."""
        self.close()
        remaining = {row.name for row in successor.topology.roles}
        for row in self.topology.roles:
            if row.name not in remaining:
                counters = self.counters[row.name]
                counters.drop(DropReason.WORKER_DIED, counters.value(Counter.STAGED))
                counters.store(Counter.STAGED, 0)
                counters.store(Counter.PEERS, 0)

    def context(self, role: str, devices: Devices) -> RoleContext:
        """Attach the role's ends of its rings. Called in the role's own process."""
        topology = self.topology
        inputs = {
            row.producer: RingReader(self.rings[row.name])
            for row in topology.rings
            if row.consumer == role
        }
        outputs = {
            row.consumer: RingWriter(
                self.rings[row.name], self.doorbells[topology.process_of(row.consumer)]
            )
            for row in topology.rings
            if row.producer == role
        }
        is_worker = topology.role(role).kind == "worker"
        return RoleContext(
            name=role,
            number=topology.role(role).number,
            workers=topology.workers,
            inputs=inputs,
            outputs=outputs,
            counters=self.counters[role],
            peers=self.peers,
            indices=self.indices,
            sessions=self.sessions if is_worker else None,
            devices=devices,
            tap=self.taps.tap(role),
            fastpath=self.fastpath,
        )

    def guard_sessions(self, roles: Sequence[str]) -> None:
        """Called in a role's process, before anything else is: lock session memory there, or
        unmap it when none of its roles is a worker."""
        if self.sessions is None:
            return
        if any(self.topology.role(role).kind == "worker" for role in roles):
            if not self.sessions.lock():
                log.debug("session memory cannot be locked: it may go to swap")
        else:
            self.sessions.close()
            self.sessions = None

    def ring_figures(self) -> list[dict[str, Any]]:
        """Return every ring's figures, with its name."""
        return [
            {"name": name, **RingView(segment).figures()} for name, segment in self.rings.items()
        ]
