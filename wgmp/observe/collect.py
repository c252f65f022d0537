"""Read a running gateway's shared memory and configuration. The data path is not asked."""

from __future__ import annotations

import time
from collections import Counter as Tally
from dataclasses import fields
from typing import TYPE_CHECKING

from wgmp import __version__
from wgmp.addresses import format_endpoint, format_prefix
from wgmp.counters import Counter
from wgmp.keys import to_base64
from wgmp.observe.balance import books
from wgmp.observe.snapshot import (
    HandshakeFigures,
    PeerFigures,
    ProcessFigures,
    RingFigures,
    RoleFigures,
    Snapshot,
    WorkerFigures,
)
from wgmp.offload import Offloads
from wgmp.orders import row_of
from wgmp.protocol.outcome import DropReason
from wgmp.system import boottime

if TYPE_CHECKING:
    from wgmp.peerentry import PeerEntry
    from wgmp.supervisor import Supervisor

# Why a handshake message goes no further; transport data never has these.
_OF_HANDSHAKES = frozenset(
    reason.name.lower()
    for reason in DropReason
    if DropReason.BAD_MAC1 <= reason <= DropReason.BAD_COOKIE_REPLY
)


def collect(supervisor: Supervisor) -> Snapshot:
    """Return everything there is to know at this moment."""
    topology, fabric, device = supervisor.topology, supervisor.fabric, supervisor.device
    names = supervisor.names.current()
    now_ns = time.time_ns()
    drops = all_drops(supervisor)
    return Snapshot(
        interface=supervisor.interface,
        version=__version__,
        shape=topology.shape,
        workers_count=topology.workers,
        listen_port=device.listen_port,
        fwmark=device.fwmark,
        fastpath=fabric.fastpath.NAME,
        aead=fabric.fastpath.AEAD,
        taken_at=time.monotonic(),
        uptime_s=boottime() - supervisor.started_at,
        offloads=offloads(supervisor),
        sandbox=str(supervisor.sandbox),
        handshakes=handshakes(supervisor, drops),
        processes=processes(supervisor),
        rings=[RingFigures(**figures) for figures in fabric.ring_figures()],
        roles=[
            RoleFigures(name, counters.figures(), counters.drops())
            for name, counters in fabric.counters.items()
        ],
        stages=books(fabric.counters),
        workers=_workers(supervisor),
        peers=[_peer(supervisor, entry, names, now_ns) for entry in device.peers.values()],
        drops=drops,
    )


def processes(supervisor: Supervisor) -> list[ProcessFigures]:
    """Return the supervisor and every process of the topology, without what psutil knows."""
    now = boottime()
    rows = [ProcessFigures("supervisor", [], supervisor.pid, 0)]
    for row in supervisor.topology.processes:
        child = supervisor.children.living.get(row.name)
        beats = [supervisor.fabric.counters[role].value(Counter.HEARTBEAT) for role in row.roles]
        rows.append(
            ProcessFigures(
                name=row.name,
                roles=list(row.roles),
                pid=0 if child is None else child.pid,
                restarts=supervisor.children.deaths.restarts[row.name],
                hangs=supervisor.children.deaths.hangs[row.name],
                heartbeat_age_s=max(0.0, now - min(beats) / 1e9),
            )
        )
    return rows


def all_drops(supervisor: Supervisor) -> dict[str, int]:
    """Return the drops of all roles that happened, by reason."""
    drops: Tally[str] = Tally()
    for counters in supervisor.fabric.counters.values():
        drops.update(counters.drops())
    return dict(drops)


def handshakes(supervisor: Supervisor, drops: dict[str, int]) -> HandshakeFigures:
    """Return what became of handshakes. `drops`: all of them, by reason."""
    every = supervisor.fabric.counters.values()

    def total(counter: Counter) -> int:
        return sum(counters.value(counter) for counters in every)

    loaded_until = supervisor.fabric.counters["admission"].value(Counter.LOADED_UNTIL)
    return HandshakeFigures(
        begun=total(Counter.HANDSHAKES_BEGUN),
        answered=total(Counter.HANDSHAKES_ANSWERED),
        completed=total(Counter.HANDSHAKES_COMPLETED),
        given_up=total(Counter.HANDSHAKES_GIVEN_UP),
        cookies_sent=total(Counter.COOKIES_SENT),
        cookies_received=total(Counter.COOKIES_TAKEN),
        under_load=boottime() < loaded_until / 1e9,
        dropped={reason: count for reason, count in drops.items() if reason in _OF_HANDSHAKES},
    )


def offloads(supervisor: Supervisor) -> dict[str, bool]:
    """Return which offloads are in use now: the writer may have had to turn one off."""
    in_use = {row.name: getattr(supervisor.offloads, row.name) for row in fields(Offloads)}
    writer = supervisor.fabric.counters["udp_writer"]
    in_use["udp_segment"] = bool(writer.value(Counter.UDP_SEGMENT))
    return in_use


def _workers(supervisor: Supervisor) -> list[WorkerFigures]:
    rows = []
    for role in supervisor.topology.roles:
        if role.kind == "worker":
            block = supervisor.fabric.counters[role.name]
            figures = (block.value(c) for c in (Counter.PEERS, Counter.SEALED, Counter.OPENED))
            rows.append(WorkerFigures(role.name, *figures))
    return rows


def _peer(
    supervisor: Supervisor, entry: PeerEntry, names: dict[str, str], now_ns: int
) -> PeerFigures:
    peers = supervisor.fabric.peers
    figures = peers.figures(entry.peer)
    endpoint = figures.endpoint or entry.endpoint
    age = (now_ns - figures.last_handshake_ns) / 1e9 if figures.last_handshake_ns else None
    public_key = to_base64(entry.public_key)
    return PeerFigures(
        public_key=public_key,
        name=names.get(public_key, ""),
        endpoint="" if endpoint is None else format_endpoint(endpoint),
        allowed_ips=[format_prefix(prefix) for prefix in entry.allowed_ips],
        handshake_age_s=age,
        rx_bytes=figures.rx_bytes,
        tx_bytes=figures.tx_bytes,
        worker=f"worker{peers.owner(row_of(entry.peer))}",
        drops=peers.drops(entry.peer),
    )
