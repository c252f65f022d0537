"""What a role does in a turn without it (turns.py): the batch functions, on leased sessions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Final

from wgmp.counters import Counter
from wgmp.fastpath.interface import Part, WorkerPart
from wgmp.fastpath.leases import Leases
from wgmp.fastpath.open import Opener
from wgmp.fastpath.seal import Sealer
from wgmp.fastpath.tun_io import PacketIntake, PacketWriter
from wgmp.fastpath.udp_io import DatagramIntake, DatagramWriter
from wgmp.record import Kind, Record
from wgmp.ring import RingReader

# How a step ended: nothing is left to do, or something for the next turn, or for the role.
DONE: Final = 0
BUSY: Final = 1
ROLE: Final = 2

# Calls for one ring in one turn.
_BURST: Final = 16


class Turn:
    """One turn. `ready`: descriptors, and how they are (poll's bits); `now`: when it began."""

    __slots__ = ("now", "ready")

    def __init__(self, ready: dict[int, int], now: float) -> None:
        self.ready = ready
        self.now = now


class Step:
    """What one role does. `rings`: those that it consumes."""

    def __init__(self, rings: list[RingReader]) -> None:
        self.rings = rings

    def reads(self, descriptor: int) -> bool:
        """Return whether it is one that the role reads from."""
        return False

    def has_input(self) -> bool:
        """Return whether records wait in the role's rings."""
        return any(map(RingReader.waiting, self.rings))

    @abstractmethod
    def take(self, turn: Turn) -> int:
        """Do a bounded amount of work; return how it ended.

        What was read to its end is `ready` no more; what the role is to look at still is.
        """


class Reading(Step):
    """A reader's. `is_asked`: whether the intake has something for the role to look at."""

    def __init__(self, intake: PacketIntake | DatagramIntake, is_asked: Callable[[], bool]) -> None:
        super().__init__([])
        self._intake = intake
        self._is_asked = is_asked

    def reads(self, descriptor: int) -> bool:
        """Return whether it is one of the intake's."""
        return descriptor in self._intake.descriptors

    def take(self, turn: Turn) -> int:
        """Read a burst."""
        intake = self._intake
        mine = [descriptor for descriptor in intake.descriptors if descriptor in turn.ready]
        if not mine:
            return DONE
        try:
            more = intake.fill(mine)
        except OSError:
            return ROLE  # which meets it once more
        if self._is_asked():
            return ROLE
        for descriptor in mine:
            del turn.ready[descriptor]
        return BUSY if more else DONE


class Working(Step):
    """The worker's."""

    def __init__(
        self, rings: list[RingReader], sealer: Sealer, opener: Opener, leases: Leases
    ) -> None:
        super().__init__(rings)
        self._sealer = sealer
        self._opener = opener
        self._leases = leases

    def take(self, turn: Turn) -> int:
        """Seal and open what is leased."""
        for ring in self.rings:
            for _ in range(_BURST):
                record = ring.peek()
                if record is None:
                    break
                if record.kind == Kind.PACKETS and record.used:
                    leased = self._seal(ring, record, turn.now)
                else:
                    leased = self._open(ring, turn.now)
                if not leased:
                    return ROLE
        return BUSY if self.has_input() else DONE

    def _seal(self, ring: RingReader, record: Record, now: float) -> bool:
        """Seal the ring's oldest records of one peer; return False when it has no lease."""
        lease = self._leases.of_peer(record.peer, now)
        if lease is None:
            return False
        sealer = self._sealer
        packets, length = sealer.seal(ring, lease.keypair, lease.peer, lease.endpoint, lease.mtu)
        sealer.counters.add(Counter.SEALED, packets)
        self._leases.note_sent(lease, packets, length)
        return True

    def _open(self, ring: RingReader, now: float) -> bool:
        """Open the ring's oldest records of datagrams; return False when there is none leased."""
        leases, counters = self._leases, self._opener.counters
        results = self._opener.burst(ring, leases.session, lambda record: leases.cover(record, now))
        for each in results.received:
            _, packets, keepalives, _, _ = each
            counters.add(Counter.OPENED, packets + keepalives)
            if keepalives:
                counters.add(Counter.KEEPALIVES_RECEIVED, keepalives)
            leases.note_received(each)
        return results.records > 0


class Writing(Step):
    """A writer's. `burst`: writes a ring's oldest records; not None where it has to wait."""

    def __init__(self, rings: list[RingReader], burst: Callable[[RingReader], int | None]) -> None:
        super().__init__(rings)
        self._burst = burst

    def take(self, turn: Turn) -> int:
        """Write some records of each ring."""
        for ring in self.rings:
            if self._burst(ring) is not None:
                return ROLE
        return BUSY if self.has_input() else DONE


class Nothing(Step):
    """That of a role which decides about everything that comes in its rings."""

    def take(self, turn: Turn) -> int:
        """Leave it to the role."""
        return ROLE if self.has_input() else DONE


def step_of(part: Part, rings: list[RingReader]) -> Step:
    """Return what a role with this part does."""
    match part:
        case PacketIntake() as packets:
            return Reading(packets, lambda: packets.has_refused)
        case DatagramIntake() as datagrams:
            return Reading(datagrams, lambda: datagrams.has_messages)
        case WorkerPart(Sealer() as sealer, Opener() as opener, Leases() as leases):
            return Working(rings, sealer, opener, leases)
        case DatagramWriter() | PacketWriter():
            return Writing(rings, part.burst)
        case _:
            return Nothing(rings)
