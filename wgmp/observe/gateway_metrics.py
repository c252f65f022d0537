"""Metrics about a gateway itself: its processes, rings, stages, drops and handshakes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from wgmp import __version__
from wgmp.keys import to_base64
from wgmp.observe import collect
from wgmp.observe.balance import Stage, books
from wgmp.observe.exposition import Family, Sample, labels
from wgmp.protocol.outcome import DropReason
from wgmp.system import boottime

if TYPE_CHECKING:
    from wgmp.supervisor import Supervisor

_RING_METRICS = (
    ("slots", "wgmp_ring_slots", "gauge", "Records that the ring holds"),
    ("depth", "wgmp_ring_depth", "gauge", "Records that wait in the ring"),
    ("high_water", "wgmp_ring_high_water", "gauge", "The most records that ever waited"),
    ("published", "wgmp_ring_records_total", "counter", "Records that went through the ring"),
    ("full", "wgmp_ring_full_total", "counter", "Records that found no slot"),
    ("corrupt", "wgmp_ring_corrupt_total", "counter", "Records that failed their check"),
    ("wake_ups", "wgmp_ring_wake_ups_total", "counter", "Times the consumer had to be woken"),
)
_STAGE_TERMS = (
    *(("packets_in", "in"), ("made", "made"), ("cut", "cut"), ("packets_out", "out")),
    *(("joined", "joined"), ("taken", "taken"), ("dropped", "dropped")),
)


def gateway_families(supervisor: Supervisor) -> Iterator[Family]:
    """Yield all families that are not about single peers."""
    interface = supervisor.interface
    key = supervisor.device.public_key
    public_key = to_base64(key) if key else ""
    yield Family(
        "wireguard_device_info",
        "gauge",
        "Always 1; the device's public key",
        [(labels(device=interface, public_key=public_key), 1)],
    )
    fastpath = supervisor.fabric.fastpath
    build = labels(
        interface=interface,
        version=__version__,
        shape=str(supervisor.topology.shape),
        fastpath=fastpath.NAME,
        aead=fastpath.AEAD,
    )
    yield Family("wgmp_info", "gauge", "Always 1; what runs", [(build, 1)])
    own = labels(interface=interface)
    uptime_s = boottime() - supervisor.started_at
    yield Family("wgmp_uptime_seconds", "gauge", "Since the gateway started", [(own, uptime_s)])
    yield Family("wgmp_peers", "gauge", "Peers configured", [(own, len(supervisor.device.peers))])
    yield Family(
        "wgmp_offload_in_use",
        "gauge",
        "1 for an offload that is in use",
        [
            (labels(interface=interface, offload=name), int(on))
            for name, on in collect.offloads(supervisor).items()
        ],
    )
    yield from _processes(supervisor)
    yield from _rings(supervisor)
    yield from _stages(interface, books(supervisor.fabric.counters))
    yield from _drops(supervisor)
    yield from _handshakes(supervisor)


def _processes(supervisor: Supervisor) -> Iterator[Family]:
    rows = [
        (labels(interface=supervisor.interface, process=process.name), process)
        for process in collect.processes(supervisor)
    ]
    yield Family(
        "wgmp_process_up",
        "gauge",
        "1 while the process runs, 0 while it is being replaced",
        [(labelled, int(process.pid > 0)) for labelled, process in rows],
    )
    yield Family(
        "wgmp_process_restarts_total",
        "counter",
        "Times the process died and was replaced",
        [(labelled, process.restarts) for labelled, process in rows],
    )
    yield Family(
        "wgmp_process_heartbeat_age_seconds",
        "gauge",
        "Since the last turn of the process's loop; a second when it is idle",
        [(labelled, process.heartbeat_age_s) for labelled, process in rows[1:]],
    )


def _rings(supervisor: Supervisor) -> Iterator[Family]:
    rings = [
        (labels(interface=supervisor.interface, ring=figures["name"]), figures)
        for figures in supervisor.fabric.ring_figures()
    ]
    for field, name, kind, text in _RING_METRICS:
        samples = [(labelled, figures[field]) for labelled, figures in rings]
        yield Family(name, "counter" if kind == "counter" else "gauge", text, samples)


def _stages(interface: str, stages: list[Stage]) -> Iterator[Family]:
    def each(field: str) -> Iterable[Sample]:
        for stage in stages:
            yield labels(interface=interface, stage=stage.name), getattr(stage, field)

    yield Family(
        "wgmp_stage_packets_total",
        "counter",
        "Packets of the stage's books: in + made + cut = out + joined + taken + dropped + staged",
        [
            (labels(interface=interface, stage=stage.name, term=term), getattr(stage, field))
            for stage in stages
            for field, term in _STAGE_TERMS
        ],
    )
    yield Family(
        "wgmp_stage_staged_packets",
        "gauge",
        "Packets that wait in the stage for a session",
        each("staged"),
    )
    yield Family(
        "wgmp_stage_unexplained_packets",
        "gauge",
        "What the books miss; 0 while nothing is on its way",
        each("unexplained"),
    )
    for field, name in (("records_in", "in"), ("records_out", "out")):
        yield Family(
            f"wgmp_stage_records_{name}_total",
            "counter",
            f"Records that came {name}: bursts of packets that share every step",
            each(field),
        )
    for field, name in (("bytes_in", "in"), ("bytes_out", "out")):
        yield Family(
            f"wgmp_stage_bytes_{name}_total",
            "counter",
            f"Bytes of the packets that came {name}",
            each(field),
        )


def _drops(supervisor: Supervisor) -> Iterator[Family]:
    interface = supervisor.interface
    drops = collect.all_drops(supervisor)
    yield Family(
        "wgmp_drops_total",
        "counter",
        "Packets and datagrams that went no further, each for one reason",
        [
            (labels(interface=interface, reason=name), drops.get(name, 0))
            for name in (reason.name.lower() for reason in DropReason)
        ],
    )
    yield Family(
        "wgmp_role_drops_total",
        "counter",
        "The same by the role that dropped them, where there are any",
        [
            (labels(interface=interface, role=role, reason=reason), count)
            for role, counters in supervisor.fabric.counters.items()
            for reason, count in counters.drops().items()
        ],
    )


def _handshakes(supervisor: Supervisor) -> Iterator[Family]:
    interface = supervisor.interface
    shakes = collect.handshakes(supervisor, {})
    yield Family(
        "wgmp_handshakes_total",
        "counter",
        "Handshakes by what became of them; one that completes was begun or answered before",
        [
            (labels(interface=interface, result=result), getattr(shakes, result))
            for result in ("begun", "answered", "completed", "given_up")
        ],
    )
    yield Family(
        "wgmp_cookies_total",
        "counter",
        "Cookie replies",
        [
            (labels(interface=interface, direction="sent"), shakes.cookies_sent),
            (labels(interface=interface, direction="received"), shakes.cookies_received),
        ],
    )
    yield Family(
        "wgmp_under_load",
        "gauge",
        "1 while cookies are asked for",
        [(labels(interface=interface), int(shakes.under_load))],
    )
