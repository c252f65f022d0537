"""What every role is: an object with inputs, outputs, a bounded step and a teardown.

The run loop (process.py) calls `step` on each of its roles in turn. A step does a bounded
amount of work and says whether it left any; when none of a process's roles did, the process
sleeps until a descriptor is ready, a producer rings, or a role's deadline comes.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from wgmp.counters import Counters
from wgmp.events import AnyEvent
from wgmp.fastpath.interface import FastPath, Part
from wgmp.offload import Offloads
from wgmp.orders import Order
from wgmp.peertable import IndexTable, PeerTable
from wgmp.protocol.outcome import DropReason
from wgmp.ring import RingReader, RingWriter
from wgmp.sessions import SessionMemory
from wgmp.tap import Tap
from wgmp.tun import TunQueue


@dataclass(frozen=True, slots=True)
class Devices:
    """What connects a gateway to the outside. It belongs to the supervisor; roles borrow it.

    `tun`: the TUN's queues, the one of its number for each tun_reader; the last one is written.
    `sockets`: the UDP sockets, one per family. `offloads`: those in use when the gateway
    started.
    """

    tun: Sequence[TunQueue]
    sockets: list[socket.socket]
    offloads: Offloads


@dataclass(slots=True)
class RoleContext:
    """What a role works with. Rings are by the name of the role at the other end.

    `sessions`: None for roles that are no workers, and where sessions are private.
    """

    name: str
    number: int
    workers: int
    inputs: dict[str, RingReader]
    outputs: dict[str, RingWriter]
    counters: Counters
    peers: PeerTable
    indices: IndexTable
    sessions: SessionMemory | None
    devices: Devices
    tap: Tap | None
    fastpath: FastPath


def _nothing_to_catch_up() -> None:
    """Stand in for the loop's `catch_up` where there is no loop."""


def _nobody_listens(event: AnyEvent) -> None:
    """Stand in for the loop's `emit` where there is no loop."""


class Role:
    """The base of all roles. `readable` is set by the loop when one of `descriptors` is ready.

    `part`: what of its work needs no decision, for turns in which nothing else is done.
    """

    def __init__(self, context: RoleContext) -> None:
        self.name = context.name
        self.inputs = list(context.inputs.values())
        self.counters = context.counters
        self.tap = context.tap
        self.readable = False
        self.part: Part = None
        # Set by the loop. An order may be on its way to this role while what it is about came
        # quicker, through a ring: whoever misses something catches up and looks once more.
        self.catch_up: Callable[[], None] = _nothing_to_catch_up
        # Set by the loop: sends an event to the supervisor. Never waits; not for the packets' way.
        self.emit: Callable[[AnyEvent], None] = _nobody_listens

    def step(self, now: float) -> bool:
        """Do a bounded amount of work at `now` (monotonic seconds); return whether some is left.

        Raises only on a broken invariant, which ends the process.
        """
        raise NotImplementedError

    def settle(self, now: float) -> None:
        """Take note of what was done in turns without Python, before anything else is."""

    def skip_records(self) -> None:
        """Drop the oldest record of each ring: it may be what predecessors died of."""
        for ring in self.inputs:
            record = ring.peek()
            if record is not None:
                self.counters.drop(DropReason.RING_CORRUPT, record.count)
                ring.release()

    def has_input(self) -> bool:
        """Return whether records wait in the role's rings."""
        return any(map(RingReader.waiting, self.inputs))

    def obey(self, order: Order, now: float, sockets: list[socket.socket]) -> None:
        """Take one of the supervisor's orders. `sockets`: those that came with it."""

    def descriptors(self) -> list[int]:
        """Return the descriptors whose readability wakes the role."""
        return []

    def blocked_on(self) -> int | None:
        """Return the descriptor that must become writable before the role can go on, if any."""
        return None

    def deadline(self) -> float | None:
        """Return when `step` must be called even if nothing arrives (monotonic seconds)."""
        return None

    def teardown(self) -> None:
        """The process ends in order; the descriptors are not the role's to close."""
