"""Topology: which roles there are, in which processes they run, and the rings between them.

```
out:  TUN -> tun_reader -> worker[k] -> udp_writer -> UDP
in:   UDP -> udp_reader -> worker[k] -> tun_writer -> TUN
hs:   UDP -> udp_reader -> admission -> worker[k]        (cookies: admission -> udp_writer)
```

A TUN of several queues has a reader for each: tun_reader0, tun_reader1 and so on.

The rows below are all that the supervisor, the statistics and the documents know of the shape.
`pipeline` gives every role a process; `compact` fuses all but the second and later workers
into one, because on one or two cores a wake-up costs more than the work it hands over. A role
does not know which of the two it is in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from wgmp.record import SLOT_BYTES, SMALL_SLOT_BYTES

RoleKind = Literal["tun_reader", "udp_reader", "admission", "worker", "udp_writer", "tun_writer"]

MAX_WORKERS = 64
MAX_QUEUES = 16  # of the TUN; the kernel has up to 256 (drivers/net/tun.c, MAX_TAP_QUEUES)
MAX_ROLES = 4 + MAX_QUEUES + MAX_WORKERS


class Shape(StrEnum):
    """How roles are put into processes; `AUTO` leaves it to the number of cores."""

    AUTO = "auto"
    PIPELINE = "pipeline"
    COMPACT = "compact"


# Records a ring holds. Between processes a ring rides out a few scheduling delays; within one
# process its reader is next in the loop, and fewer slots stay in the cache.
_SLOTS_BETWEEN = 64
# Of several readers each brings a part of what one would, and has a ring to each worker.
_SLOTS_OF_SEVERAL = 32
_SLOTS_WITHIN = 16
# Handshake messages. "Under load" begins at an eighth of it, which is room for a thousand that
# wait for admission: so many peers may shake hands at once, as after an outage, before anybody is
# asked for a cookie and made to wait for 5 s.
_HANDSHAKE_SLOTS = 1024


@dataclass(frozen=True, slots=True)
class RoleRow:
    """One role. `number` tells those of one kind apart: workers, and readers of several queues."""

    name: str
    kind: RoleKind
    number: int = 0


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process and the roles that share its loop, by name, in the order of a packet's way."""

    name: str
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RingRow:
    """One ring, from the role `producer` to the role `consumer`."""

    producer: str
    consumer: str
    slots: int
    slot_bytes: int

    @property
    def name(self) -> str:
        """The ring's name in statistics."""
        return f"{self.producer}>{self.consumer}"


@dataclass(frozen=True, slots=True)
class Topology:
    """All rows of one gateway."""

    shape: Shape
    workers: int
    queues: int
    roles: tuple[RoleRow, ...]
    processes: tuple[ProcessRow, ...]
    rings: tuple[RingRow, ...]

    def __str__(self) -> str:
        """Describe it for an operator, as in "pipeline, 3 workers, 8 processes"."""
        return (
            f"{self.shape}, {self.workers} worker{'s' * (self.workers > 1)}, "
            f"{len(self.processes)} process{'es' * (len(self.processes) > 1)}"
        )

    def role(self, name: str) -> RoleRow:
        """Return the role of that name."""
        return next(row for row in self.roles if row.name == name)

    def process_of(self, role: str) -> str:
        """Return the name of the process that the role runs in."""
        return next(row.name for row in self.processes if role in row.roles)


def choose(shape: Shape, workers: int | None, cores: int, queues: int = 1) -> Topology:
    """Return the topology for a machine: `None` workers and `Shape.AUTO` go by its cores.

    One or two cores: compact, one worker. More, or several TUN `queues`: pipeline, a worker per
    core but one, which the readers and writers share.
    """
    if shape is Shape.AUTO:
        shape = Shape.COMPACT if cores <= 2 and queues == 1 else Shape.PIPELINE
    if workers is None:
        workers = 1 if shape is Shape.COMPACT else min(MAX_WORKERS, max(2, cores - 1))
    return build(shape, workers, queues)


def build(shape: Shape, workers: int, queues: int = 1) -> Topology:
    """Return the rows for `workers` workers (1..64), pipeline or compact.

    `queues`: of the TUN (1..16), each read by a tun_reader.
    """
    names = [f"worker{number}" for number in range(workers)]
    readers = [f"tun_reader{number}" for number in range(queues)] if queues > 1 else ["tun_reader"]
    roles = (
        *(RoleRow(name, "tun_reader", number) for number, name in enumerate(readers)),
        RoleRow("udp_reader", "udp_reader"),
        RoleRow("admission", "admission"),
        *(RoleRow(name, "worker", number) for number, name in enumerate(names)),
        RoleRow("udp_writer", "udp_writer"),
        RoleRow("tun_writer", "tun_writer"),
    )
    if shape is Shape.PIPELINE:
        processes = tuple(ProcessRow(row.name, (row.name,)) for row in roles)
    else:
        fused = (*readers, "udp_reader", "admission", names[0], "udp_writer", "tun_writer")
        extra = (ProcessRow(name, (name,)) for name in names[1:])
        processes = (ProcessRow("gateway", fused), *extra)
    home = {role: process.name for process in processes for role in process.roles}
    rings = tuple(_rings(readers, names, home))
    return Topology(shape, workers, queues, roles, processes, rings)


def _rings(readers: list[str], workers: list[str], home: dict[str, str]) -> Iterator[RingRow]:
    def data(producer: str, consumer: str, between: int = _SLOTS_BETWEEN) -> RingRow:
        within = home[producer] == home[consumer]
        slots = _SLOTS_WITHIN if within else between
        return RingRow(producer, consumer, slots, SLOT_BYTES)

    yield RingRow("udp_reader", "admission", _HANDSHAKE_SLOTS, SMALL_SLOT_BYTES)
    yield RingRow("admission", "udp_writer", _HANDSHAKE_SLOTS, SMALL_SLOT_BYTES)
    for worker in workers:
        for reader in readers:
            yield data(reader, worker, _SLOTS_BETWEEN if len(readers) == 1 else _SLOTS_OF_SEVERAL)
        yield data("udp_reader", worker)
        yield RingRow("admission", worker, _HANDSHAKE_SLOTS, SMALL_SLOT_BYTES)
        yield data(worker, "udp_writer")
        yield data(worker, "tun_writer")
