"""`wgmp stats` for people: every figure stands in the column of its name."""

from __future__ import annotations

import re

from top.snapshots import peer, snapshot

from wgmp.observe.balance import Stage
from wgmp.observe.report import report
from wgmp.observe.snapshot import (
    HandshakeFigures,
    ProcessFigures,
    Rate,
    RingFigures,
    RoleFigures,
    Snapshot,
    WorkerFigures,
)


def tables(told: Snapshot) -> dict[str, list[dict[str, str]]]:
    """Return the rows of each table by its first column's title, each cell by its own."""
    found = {}
    for part in report(told).split("\n\n")[1:]:
        head, *rows = (re.split(r" {2,}", line) for line in part.splitlines())
        found[head[0]] = [dict(zip(head, row, strict=True)) for row in rows]
    return found


def test_the_heading_says_what_runs_and_what_became_of_handshakes() -> None:
    told = snapshot(7300.0, [])
    told.offloads = {"tun_tcp": True, "udp_gro": False}
    told.handshakes = HandshakeFigures(1, 2, 3, 4, 5, 6, True, {"bad_mac1": 7, "no_handshake": 8})
    assert report(told).split("\n\n")[0].splitlines() == [
        "wg0: wgmp 1.2.3, compact, 1 worker(s), native fast path, AEAD ring, UDP port 51820, up 2h",
        "offloads: tun_tcp on, udp_gro off",
        "sandbox: off",
        "handshakes: 1 begun, 2 answered, 3 completed, 4 given up; "
        "dropped: 7 bad_mac1, 8 no_handshake",
        "cookies: 5 sent, 6 received; under load: yes",
    ]
    told.handshakes = HandshakeFigures(0, 0, 0, 0, 0, 0, False, {})
    assert "0 given up\ncookies: 0 sent, 0 received; under load: no" in report(told)


def test_processes_and_rings_have_a_column_for_each_figure() -> None:
    told = snapshot(1.0, [])
    told.processes = [
        ProcessFigures("worker0", ["worker0"], 4711, 1, 0, 0.1, 12.34, 3 << 20, 2 << 20, 55, 6),
        ProcessFigures("admission", ["admission"], 0, 2),
    ]
    told.rings = [RingFigures("worker0>tun_writer", 64, 3, 900, 33, 4, 5, 6)]
    shown = tables(told)
    assert shown["process"] == [
        {
            "process": "worker0",
            "pid": "4711",
            "CPU %": "12.3",
            "RSS": "3.0 MiB",
            "PSS": "2.0 MiB",
            "switches": "55",
            "threads": "6",
            "restarts": "1",
        },
        {
            "process": "admission",
            "pid": "0",
            "CPU %": "0.0",
            "RSS": "0 B",
            "PSS": "-",
            "switches": "0",
            "threads": "0",
            "restarts": "2",
        },
    ]
    assert shown["ring"] == [
        {
            "ring": "worker0>tun_writer",
            "depth": "3",
            "slots": "64",
            "high water": "33",
            "published": "900",
            "full": "4",
            "corrupt": "6",
            "wakes": "5",
        }
    ]


def test_rates_books_workers_and_drops_have_a_column_for_each_figure() -> None:
    told = snapshot(1.0, [])
    assert "per second" not in report(told), "there is nothing to compare with yet"
    told.rates = [
        Rate("worker0 out", 1500.0, 22_000.0, 125_000_000.0, 14.67),
        Rate("worker0 in", 0.0, 0.0, 0.0, 0.0),
    ]
    told.stages = [Stage("worker0 out", *range(1, 14))]
    told.workers = [WorkerFigures("worker0", 1, 2, 3)]
    told.roles = [
        RoleFigures("worker0", {}, {"bad_tag": 4, "replayed": 5}),
        RoleFigures("admission", {}, {}),
        RoleFigures("tun_reader", {}, {"no_route": 6}),
    ]
    shown = tables(told)
    assert [list(row.values()) for row in shown["per second"]] == [
        ["worker0 out", "1.5k", "22k", "1.0 Gbit/s", "14.7"],
        ["worker0 in", "0", "0", "0 bit/s", "-"],
    ]
    assert shown["packets"] == [
        {
            "packets": "worker0 out",
            "in": "1",
            "+made": "2",
            "+cut": "3",
            "=out": "4",
            "+joined": "5",
            "+taken": "6",
            "+staged": "7",
            "+dropped": "8",
            "+unexplained": "9",
        }
    ]
    assert shown["worker"] == [{"worker": "worker0", "peers": "1", "sealed": "2", "opened": "3"}]
    assert [list(row.values()) for row in shown["drops: role"]] == [
        ["worker0", "bad_tag", "4"],
        ["worker0", "replayed", "5"],
        ["tun_reader", "no_route", "6"],
    ]


def test_peers_say_what_was_received_and_what_was_sent() -> None:
    busy = peer(1, rx_bytes=3 << 10, tx_bytes=5 << 20, worker="worker1", handshake_age_s=61.0)
    busy.drops = {"bad_tag": 2, "replayed": 3}
    told = snapshot(1.0, [busy, peer(2, endpoint="", handshake_age_s=None)])
    first, second = tables(told)["peer"]
    assert first == {
        "peer": busy.public_key,
        "endpoint": "192.0.2.1:51820",
        "handshake": "61s ago",
        "received": "3.0 KiB",
        "sent": "5.0 MiB",
        "worker": "worker1",
        "dropped": "5",
    }
    assert (second["endpoint"], second["handshake"]) == ("(none)", "never")
    busy.name = "office"
    report_with_names = report(told)
    assert re.search(r"^peer +name +endpoint", report_with_names, re.MULTILINE)
    assert re.search(rf"^{busy.public_key} +office +192\.0\.2\.1", report_with_names, re.MULTILINE)
