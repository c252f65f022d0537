"""Prometheus' view of a gateway: true to `wg`, for every peer, and hard to hold up."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmp import control
from wgmp.netns import wait_for
from wgmp.protocol.outcome import DropReason

from .site import Site, text
from .wire import inside

pytestmark = [pytest.mark.root, pytest.mark.alone]

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def named(site: Site) -> Iterator[str]:
    """A peer with a session and a name in the interface's file; give its public key."""
    known = site.peer()
    session = known.connect()
    assert known.answered(session)
    key = text(known.raw.public)
    file = Path("/etc/wireguard") / f"{site.gateway.interface}.conf"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'[Peer]\n# friendly_name = Anna "A\\B" phone\nPublicKey = {key}\n')
    yield key
    file.unlink()


def test_both_exporters_metrics_say_of_each_peer_what_wg_says(site: Site, named: str) -> None:
    shown = site.gateway.peers()
    metrics = site.scrape()
    for name, field in (
        ("wireguard_sent_bytes_total", "sent"),
        ("wireguard_received_bytes_total", "received"),
        ("wireguard_latest_handshake_seconds", "handshake"),
        ("wireguard_peer_transmit_bytes_total", "sent"),
        ("wireguard_peer_receive_bytes_total", "received"),
        ("wireguard_peer_last_handshake_seconds", "handshake"),
    ):
        values = {sample.labels["public_key"]: sample.value for sample in metrics[name]}
        assert values == {key: getattr(peer, field) for key, peer in shown.items()}, name
    assert shown[named].sent > 0
    (sample,) = (
        s for s in metrics["wireguard_sent_bytes_total"] if s.labels["public_key"] == named
    )
    assert sample.labels == {
        "interface": site.gateway.interface,
        "public_key": named,
        "allowed_ips": shown[named].allowed_ips,
        "friendly_name": 'Anna "A\\B" phone',
    }
    (info,) = (s for s in metrics["wireguard_peer_info"] if s.labels["public_key"] == named)
    assert info.labels["endpoint"] == shown[named].endpoint
    assert info.labels["name"] == 'Anna "A\\B" phone'
    (device,) = metrics["wireguard_device_info"]
    assert device.labels["public_key"] == site.gateway.public_key


def test_metrics_and_statistics_count_the_same(site: Site) -> None:
    known = site.peer()
    session = known.connect()
    known.wire.send(session.seal()[:-1] + b"\0")
    key = text(known.raw.public)

    def dropped() -> bool:
        return any(
            s.labels["public_key"] == key for s in site.scrape().get("wgmp_peer_drops_total", [])
        )

    wait_for(dropped, 5, "the drop is the peer's")
    stats, metrics = site.gateway.stats(), site.scrape()
    by_reason = {s.labels["reason"]: s.value for s in metrics["wgmp_drops_total"]}
    assert by_reason.keys() == {reason.name.lower() for reason in DropReason}
    assert {reason: n for reason, n in by_reason.items() if n} == stats["drops"]
    handshakes = {s.labels["result"]: s.value for s in metrics["wgmp_handshakes_total"]}
    assert handshakes["completed"] == stats["handshakes"]["completed"] >= 1
    restarts = {s.labels["process"]: s.value for s in metrics["wgmp_process_restarts_total"]}
    assert restarts == {p["name"]: p["restarts"] for p in stats["processes"]}
    published = {s.labels["ring"]: s.value for s in metrics["wgmp_ring_records_total"]}
    assert published == {ring["name"]: ring["published"] for ring in stats["rings"]}
    assert {s.labels["stage"] for s in metrics["wgmp_stage_staged_packets"]} == {
        stage["name"] for stage in stats["stages"]
    }


def test_every_metric_has_its_help_and_type_once(site: Site) -> None:
    body = site.http(b"GET /metrics HTTP/1.0\r\n\r\n").decode()
    names = re.findall(r"^# HELP (\S+) \S", body, re.MULTILINE)
    assert names == re.findall(r"^# TYPE (\S+) (?:counter|gauge)$", body, re.MULTILINE)
    assert len(names) == len(set(names)) > 30
    assert all(re.fullmatch(r"(wgmp|wireguard)_[a-z_]+", name) for name in names)


def test_dashboard_and_alerts_use_no_metric_that_is_not_there(site: Site) -> None:
    there = site.scrape().keys() | {"up"}
    for file in (DOCS / "grafana-dashboard.json", DOCS / "prometheus-alerts.yml"):
        used = set(re.findall(r"\b(?:wgmp|wireguard)_[a-z_]+\b", _expressions(file)))
        assert used, file
        assert used <= there, file


def _expressions(file: Path) -> str:
    if file.suffix == ".yml":
        return "\n".join(re.findall(r"expr: (.*)", file.read_text()))
    panels = json.loads(file.read_text())["panels"]
    return "\n".join(target["expr"] for panel in panels for target in panel.get("targets", []))


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /metrics HTTP/1.1", b"200"),
        (b"GET /metrics?x=1 HTTP/1.1", b"200"),
        (b"HEAD /metrics HTTP/1.1", b"200"),
        (b"GET /healthz HTTP/1.1", b"200"),
        (b"GET / HTTP/1.1", b"404"),
        (b"GET /metrics/../../etc/passwd HTTP/1.1", b"404"),
        (b"POST /metrics HTTP/1.1", b"405"),
        (b"GET /metrics", b"400"),
        (b"\x16\x03\x01\x00\xa5", b"400"),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1", b"400"),
    ],
)
def test_each_request_is_answered_and_the_connection_closed(
    site: Site, request_line: bytes, status: bytes
) -> None:
    answer = site.http(request_line + b"\r\nHost: x\r\n\r\n")
    assert answer.split(b" ", 2)[1] == status
    if request_line.startswith(b"HEAD"):
        assert answer.endswith(b"\r\n\r\n")
    if request_line == b"GET /metrics HTTP/1.1":
        assert answer.endswith(b"\r\n0\r\n\r\n"), "the last chunk says that it is all"


def test_clients_that_say_nothing_hold_nobody_up_and_are_few(site: Site) -> None:
    with inside(site.gateway.namespace):
        idle = [socket.create_connection(("127.0.0.1", 9586)) for _ in range(8)]
    try:
        time.sleep(0.2)
        assert b"503" in site.http(b"GET /healthz HTTP/1.1\r\n\r\n")
        assert site.gateway.peers(), "`wg` is served"
    finally:
        for sock in idle:
            sock.close()
    wait_for(lambda: b"200" in site.http(b"GET /healthz HTTP/1.1\r\n\r\n"), 5, "they are gone")


def test_health_names_a_process_that_keeps_dying(site: Site) -> None:
    def health() -> bytes:
        return site.http(b"GET /healthz HTTP/1.1\r\n\r\n")

    def pid() -> int:
        processes = control.ask_stats(site.gateway.interface).processes
        return next(process.pid for process in processes if process.name == "tun_writer")

    assert health().endswith(b"ok\n")
    # Each death within ten seconds makes the successor wait twice as long: 0.8 s after the fifth.
    for _ in range(5):
        victim = wait_for(pid, 5, "there is a tun_writer")
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda victim=victim: pid() != victim, 5, "it is dead")
    answer = health()
    assert b" 503 " in answer
    assert answer.endswith(b"tun_writer is being replaced\n")
    wait_for(lambda: health().endswith(b"ok\n"), 5, "the successor is healthy")
    restarts = site.scrape()["wgmp_process_restarts_total"]
    assert [s.value for s in restarts if s.labels["process"] == "tun_writer"] == [5]
