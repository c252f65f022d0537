"""`wgmp stats`: what a gateway's processes, rings, workers and peers are doing.

The supervisor reads the shared counters and answers with a `Snapshot`; the data path is not
asked. The caller adds what psutil knows of the processes, and prints.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import msgspec
import psutil

from wgmp import __version__
from wgmp.addresses import format_endpoint, format_prefix
from wgmp.counters import Counter
from wgmp.keys import to_base64
from wgmp.observe.balance import Stage, books
from wgmp.offload import Offloads
from wgmp.orders import row_of

if TYPE_CHECKING:
    from wgmp.device import PeerEntry
    from wgmp.supervisor import Supervisor


class ProcessFigures(msgspec.Struct):
    """One process. From psutil, zeros until `measure`: CPU in percent of one core, memory in
    bytes, context switches since its start."""

    name: str
    roles: list[str]
    pid: int
    restarts: int
    hangs: int = 0
    cpu_percent: float = 0.0
    rss_bytes: int = 0
    pss_bytes: int = 0
    context_switches: int = 0
    threads: int = 0


class RingFigures(msgspec.Struct):
    """One ring, in records. `full`: records that found no slot; `corrupt`: failed their check."""

    name: str
    slots: int
    depth: int
    published: int
    high_water: int
    full: int
    wake_ups: int
    corrupt: int


class RoleFigures(msgspec.Struct):
    """One role's counters by name (`counters.Counter`), and its drops by reason."""

    name: str
    counters: dict[str, int]
    drops: dict[str, int]


class WorkerFigures(msgspec.Struct):
    """One worker: peers it owns, packets it sealed, datagrams it opened."""

    name: str
    peers: int
    sealed: int
    opened: int


class PeerFigures(msgspec.Struct):
    """One peer. `handshake_age_s`: None before the first; `endpoint`: "" when not known; `drops`:
    those that its worker counted, by reason."""

    public_key: str
    endpoint: str
    allowed_ips: list[str]
    handshake_age_s: float | None
    rx_bytes: int
    tx_bytes: int
    worker: str
    drops: dict[str, int]


class Snapshot(msgspec.Struct):
    """Everything at one moment. `stages`: the books of each; `drops`: the sum over all roles, by
    reason."""

    interface: str
    version: str
    shape: str
    workers_count: int
    listen_port: int
    fwmark: int
    fastpath: str
    offloads: dict[str, bool]
    sandbox: str
    processes: list[ProcessFigures]
    rings: list[RingFigures]
    roles: list[RoleFigures]
    stages: list[Stage]
    workers: list[WorkerFigures]
    peers: list[PeerFigures]
    drops: dict[str, int]


def collect(supervisor: Supervisor) -> Snapshot:
    """Read a running gateway's shared memory and configuration."""
    topology, fabric, device = supervisor.topology, supervisor.fabric, supervisor.device
    processes = [ProcessFigures("supervisor", [], supervisor.pid, 0)]
    for row in topology.processes:
        child = supervisor.children.get(row.name)
        pid = 0 if child is None else child.pid
        restarts = supervisor.restarts[row.name]
        hangs = supervisor.hangs[row.name]
        processes.append(ProcessFigures(row.name, list(row.roles), pid, restarts, hangs))
    roles = [
        RoleFigures(name, counters.figures(), counters.drops())
        for name, counters in fabric.counters.items()
    ]
    drops: Tally[str] = Tally()
    for role in roles:
        drops.update(role.drops)
    workers = []
    for role_row in topology.roles:
        if role_row.kind == "worker":
            block = fabric.counters[role_row.name]
            figures = (block.value(c) for c in (Counter.PEERS, Counter.SEALED, Counter.OPENED))
            workers.append(WorkerFigures(role_row.name, *figures))
    now_ns = time.time_ns()
    return Snapshot(
        interface=supervisor.interface,
        version=__version__,
        shape=topology.shape,
        workers_count=topology.workers,
        listen_port=device.listen_port,
        fwmark=device.fwmark,
        fastpath=fabric.fastpath.NAME,
        offloads=_offloads(supervisor),
        sandbox=str(supervisor.sandbox),
        processes=processes,
        rings=[RingFigures(**figures) for figures in fabric.ring_figures()],
        roles=roles,
        stages=books(fabric.counters),
        workers=workers,
        peers=[_peer(supervisor, entry, now_ns) for entry in device.peers.values()],
        drops=dict(drops),
    )


def _offloads(supervisor: Supervisor) -> dict[str, bool]:
    """Return which offloads are in use now: the writer may have had to turn one off."""
    in_use = {row.name: getattr(supervisor.offloads, row.name) for row in fields(Offloads)}
    writer = supervisor.fabric.counters["udp_writer"]
    in_use["udp_segment"] = bool(writer.value(Counter.UDP_SEGMENT))
    return in_use


def _peer(supervisor: Supervisor, entry: PeerEntry, now_ns: int) -> PeerFigures:
    peers = supervisor.fabric.peers
    figures = peers.figures(entry.peer)
    endpoint = figures.endpoint or entry.endpoint
    age = (now_ns - figures.last_handshake_ns) / 1e9 if figures.last_handshake_ns else None
    return PeerFigures(
        public_key=to_base64(entry.public_key),
        endpoint="" if endpoint is None else format_endpoint(endpoint),
        allowed_ips=[format_prefix(prefix) for prefix in entry.allowed_ips],
        handshake_age_s=age,
        rx_bytes=figures.rx_bytes,
        tx_bytes=figures.tx_bytes,
        worker=f"worker{peers.owner(row_of(entry.peer))}",
        drops=peers.drops(entry.peer),
    )


def measure(processes: Iterable[ProcessFigures], interval_s: float) -> None:
    """Fill in what psutil knows, with CPU use over `interval_s` seconds from now.

    A process that ends meanwhile keeps its zeros.
    """
    watched: list[tuple[ProcessFigures, psutil.Process]] = []
    for figures in processes:
        try:
            process = psutil.Process(figures.pid)
            process.cpu_percent()
        except (psutil.Error, ValueError):
            continue
        watched.append((figures, process))
    time.sleep(interval_s)
    for figures, process in watched:
        try:
            with process.oneshot():
                figures.cpu_percent = process.cpu_percent()
                switches = process.num_ctx_switches()
                figures.context_switches = switches.voluntary + switches.involuntary
                figures.threads = process.num_threads()
                figures.rss_bytes = process.memory_info().rss
                # Other users' processes show it to CAP_SYS_PTRACE alone.
                figures.pss_bytes = process.memory_full_info().pss
        except psutil.Error:
            continue


def render(snapshot: Snapshot) -> str:
    """Return the snapshot as text for a terminal."""
    return "\n\n".join(
        [
            f"{snapshot.interface}: wgmp {snapshot.version}, {snapshot.shape}, "
            f"{snapshot.workers_count} worker(s), {snapshot.fastpath} fast path, "
            f"UDP port {snapshot.listen_port}",
            "offloads: "
            + ", ".join(f"{name} {'on' if on else 'off'}" for name, on in snapshot.offloads.items())
            + f"\nsandbox: {snapshot.sandbox}",
            _table(
                ["process", "pid", "CPU %", "RSS", "PSS", "switches", "threads", "restarts"],
                [
                    [
                        p.name,
                        str(p.pid),
                        f"{p.cpu_percent:.1f}",
                        _size(p.rss_bytes),
                        _size(p.pss_bytes),
                        str(p.context_switches),
                        str(p.threads),
                        str(p.restarts),
                    ]
                    for p in snapshot.processes
                ],
            ),
            _table(
                ["ring", "depth", "slots", "high water", "published", "full", "corrupt", "wakes"],
                [
                    [
                        r.name,
                        *(str(n) for n in (r.depth, r.slots, r.high_water, r.published)),
                        *(str(n) for n in (r.full, r.corrupt, r.wake_ups)),
                    ]
                    for r in snapshot.rings
                ],
            ),
            _table(
                ["worker", "peers", "sealed", "opened"],
                [[w.name, str(w.peers), str(w.sealed), str(w.opened)] for w in snapshot.workers],
            ),
            _table(
                ["peer", "endpoint", "handshake", "received", "sent", "worker"],
                [
                    [
                        p.public_key,
                        p.endpoint or "(none)",
                        _age(p.handshake_age_s),
                        _size(p.rx_bytes),
                        _size(p.tx_bytes),
                        p.worker,
                    ]
                    for p in snapshot.peers
                ],
            ),
            _table(
                ["drops: role", "reason", "count"],
                [
                    [role.name, reason, str(count)]
                    for role in snapshot.roles
                    for reason, count in role.drops.items()
                ],
            ),
        ]
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns, the first one to the left, the others to the right."""
    if not rows:
        return f"{head[0]}: none"
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = []
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _age(seconds: float | None) -> str:
    return "never" if seconds is None else f"{seconds:.0f} s ago"
