"""Snapshots of a gateway that never ran, for frames."""

from __future__ import annotations

from wgmp.observe.balance import Stage
from wgmp.observe.snapshot import (
    HandshakeFigures,
    PeerFigures,
    ProcessFigures,
    RingFigures,
    Snapshot,
)


def peer(number: int, **changes: object) -> PeerFigures:
    """A peer whose key begins with its number."""
    fields: dict[str, object] = {
        "public_key": f"{number:04}".ljust(43, "k") + "=",
        "name": "",
        "endpoint": f"192.0.2.{number}:51820",
        "allowed_ips": [f"10.0.0.{number}/32"],
        "handshake_age_s": float(number),
        "rx_bytes": 0,
        "tx_bytes": 0,
        "worker": "worker0",
        "drops": {},
    }
    return PeerFigures(**(fields | changes))  # type: ignore[arg-type]


def stage(name: str, packets: int = 0) -> Stage:
    """A stage through which packets of 1000 bytes went, ten to a record."""
    records, size = packets // 10, packets * 1000
    return Stage(name, packets, 0, 0, packets, 0, 0, 0, 0, 0, records, records, size, size)


def snapshot(at: float, peers: list[PeerFigures], packets: int = 0) -> Snapshot:
    """A compact gateway at `at` seconds."""
    return Snapshot(
        interface="wg0",
        version="1.2.3",
        shape="compact",
        workers_count=1,
        listen_port=51820,
        fwmark=0,
        fastpath="native",
        aead="ring",
        taken_at=at,
        uptime_s=at,
        offloads={},
        sandbox="off",
        handshakes=HandshakeFigures(1, 2, 3, 0, 0, 0, False, {}),
        processes=[
            ProcessFigures("supervisor", [], 100, 0, cpu_percent=1.0, rss_bytes=50 << 20),
            ProcessFigures(
                "gateway", ["worker0", "udp_writer"], 101, 2, cpu_percent=98.0, rss_bytes=1 << 30
            ),
        ],
        rings=[
            RingFigures("tun_reader>worker0", 16, 4, 900, 8, 0, 0, 0),
            RingFigures("worker0>udp_writer", 16, 12, 900, 16, 3, 0, 0),
        ],
        roles=[],
        stages=[stage("udp_reader", packets), stage("udp_writer", packets)],
        workers=[],
        peers=peers,
        drops={"bad_tag": 5},
    )
