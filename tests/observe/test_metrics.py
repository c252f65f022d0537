"""`/metrics` of a gateway that stands still: each figure under its name and with its labels."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wgmp import __version__
from wgmp.addresses import parse_endpoint
from wgmp.counters import Counter
from wgmp.hangwatch import HANG_LIMIT_S
from wgmp.keys import public_key_of, to_base64
from wgmp.observe.metrics_server import ailments, metrics
from wgmp.observe.names import Names
from wgmp.protocol.outcome import DropReason
from wgmp.ring import (
    CORRUPT_WORD,
    FULL_WORD,
    HEAD_WORD,
    HIGH_WATER_WORD,
    SLOTS_WORD,
    TAIL_WORD,
    WAKE_UPS_WORD,
)
from wgmp.system import boottime

from .standing import PRIVATE, Standing

NOW = int(time.time())


@pytest.fixture
def gateway() -> Iterator[Standing]:
    """A pipeline of two workers."""
    made = Standing()
    yield made
    made.close()


def scraped(gateway: Standing, name: str) -> dict[tuple[str, ...], float]:
    """Return a metric's values by its labels but the interface, which all have."""
    values = {}
    for family in text_string_to_metric_families("".join(metrics(gateway.supervisor))):
        for sample in family.samples:
            if sample.name == name:
                labels = dict(sample.labels)
                assert "wg0" in (labels.pop("interface", ""), labels.pop("device", ""))
                values[tuple(labels.values())] = sample.value
    return values


def test_a_peer_s_bytes_are_received_and_sent_as_its_worker_counted_them(
    gateway: Standing, tmp_path: Path
) -> None:
    named, other = gateway.peer(1, "10.0.0.2/32", "fd00::/64"), gateway.peer(2)
    key, other_key = to_base64(named.public_key), to_base64(other.public_key)
    (tmp_path / "names").write_text(f"[Peer]\n# friendly_name = office\nPublicKey = {key}\n")
    gateway.names = Names([tmp_path / "names"])
    other.endpoint = parse_endpoint("192.0.2.2:6")
    row = gateway.row(named)
    row.add_received(1111)
    row.add_sent(2222)
    row.set_endpoint(parse_endpoint("192.0.2.1:5"), 1)
    row.set_last_handshake(NOW * 10**9 + 999_999_999)
    row.drop(DropReason.REPLAYED, 3)
    prefixes = "10.0.0.2/32,fd00::/64"
    one_s = (key, prefixes, "office"), (other_key,)
    other_s = (key,), (other_key,)
    for exporter, labels in (
        (("received_bytes_total", "sent_bytes_total", "latest_handshake_seconds"), one_s),
        (
            (
                "peer_receive_bytes_total",
                "peer_transmit_bytes_total",
                "peer_last_handshake_seconds",
            ),
            other_s,
        ),
    ):
        for name, value in zip(exporter, (1111, 2222, NOW), strict=True):
            expected = dict(zip(labels, (value, 0), strict=True))
            assert {
                tuple(filter(None, labelled)): each
                for labelled, each in scraped(gateway, f"wireguard_{name}").items()
            } == expected
    assert scraped(gateway, "wireguard_peer_info") == {
        (key, "192.0.2.1:5", prefixes, "office"): 1,
        (other_key, "192.0.2.2:6", "", ""): 1,
    }
    assert scraped(gateway, "wgmp_peer_drops_total") == {(key, "replayed"): 3}


def test_the_gateway_says_what_it_is(gateway: Standing) -> None:
    public_key = to_base64(public_key_of(PRIVATE))
    assert scraped(gateway, "wireguard_device_info") == {(public_key,): 1}
    fastpath = gateway.fabric.fastpath
    runs = __version__, "pipeline", fastpath.NAME, fastpath.AEAD
    assert scraped(gateway, "wgmp_info") == {runs: 1}
    (uptime_s,) = scraped(gateway, "wgmp_uptime_seconds").values()
    assert 3600 <= uptime_s < 3660
    gateway.peer(1)
    gateway.peer(2)
    assert scraped(gateway, "wgmp_peers") == {(): 2}
    assert scraped(gateway, "wgmp_offload_in_use") == {
        ("tun_tcp",): 1,
        ("tun_udp",): 0,
        ("udp_segment",): 0,
        ("udp_gro",): 1,
    }
    gateway.device.set_private_key(b"")
    assert scraped(gateway, "wireguard_device_info") == {(): 1}


def test_processes_say_whether_they_are_up_and_how_often_they_died(gateway: Standing) -> None:
    gateway.run("tun_writer", 1234)
    gateway.children.deaths.died("udp_writer", 100.0)
    up, restarts, age = (
        scraped(gateway, f"wgmp_process_{name}")
        for name in ("up", "restarts_total", "heartbeat_age_seconds")
    )
    assert {name for (name,), value in up.items() if value} == {"supervisor", "tun_writer"}
    assert {name: value for (name,), value in restarts.items() if value} == {"udp_writer": 1}
    assert up.keys() == restarts.keys() == age.keys() | {("supervisor",)}
    assert age["tun_writer",] < 5


def test_stages_have_the_terms_of_their_books(gateway: Standing) -> None:
    worker = gateway.counters["worker1"]
    for block, unit in ((worker.outward, 1), (worker.inward, 1000)):
        for number, counter in enumerate(
            (
                *(Counter.PACKETS_IN, Counter.CUT, Counter.PACKETS_OUT, Counter.JOINED),
                *(Counter.MESSAGES_TAKEN, Counter.STAGED, Counter.RECORDS_IN),
                *(Counter.RECORDS_OUT, Counter.BYTES_IN, Counter.BYTES_OUT),
            ),
            start=1,
        ):
            block.store(counter, number * unit)
    worker.outward.add(Counter.KEEPALIVES_SENT, 11)
    worker.inward.add(Counter.ICMP_ERRORS, 11_000)
    worker.outward.drop(DropReason.NO_ENDPOINT, 12)
    worker.inward.drop(DropReason.BAD_TAG, 12_000)
    packets = scraped(gateway, "wgmp_stage_packets_total")
    for stage, unit in (("worker1 out", 1), ("worker1 in", 1000)):
        terms = {term: value / unit for (of, term), value in packets.items() if of == stage}
        assert terms == {
            "in": 1,
            "made": 11,
            "cut": 2,
            "out": 3,
            "joined": 4,
            "taken": 5,
            "dropped": 12,
        }
        for name, value in (
            *(("staged_packets", 6), ("unexplained_packets", 14 - 30)),
            *(("records_in_total", 7), ("records_out_total", 8)),
            *(("bytes_in_total", 9), ("bytes_out_total", 10)),
        ):
            assert scraped(gateway, f"wgmp_stage_{name}")[stage,] == value * unit, name


def test_drops_handshakes_and_cookies_are_counted_by_what_they_were(gateway: Standing) -> None:
    admission = gateway.counters["admission"]
    admission.drop(DropReason.BAD_MAC1, 4)
    gateway.counters["worker0"].drop(DropReason.BAD_MAC1, 1)
    admission.add(Counter.COOKIES_SENT, 5)
    admission.add(Counter.COOKIES_TAKEN, 6)
    for number, counter in enumerate(
        (
            *(Counter.HANDSHAKES_BEGUN, Counter.HANDSHAKES_ANSWERED),
            *(Counter.HANDSHAKES_COMPLETED, Counter.HANDSHAKES_GIVEN_UP),
        ),
        start=1,
    ):
        gateway.counters["worker0"].add(counter, number)
    total = scraped(gateway, "wgmp_drops_total")
    assert len(total) == len(DropReason), "those that never happened, too"
    assert {reason: count for (reason,), count in total.items() if count} == {"bad_mac1": 5}
    assert scraped(gateway, "wgmp_role_drops_total") == {
        ("admission", "bad_mac1"): 4,
        ("worker0", "bad_mac1"): 1,
    }
    assert scraped(gateway, "wgmp_handshakes_total") == {
        ("begun",): 1,
        ("answered",): 2,
        ("completed",): 3,
        ("given_up",): 4,
    }
    assert scraped(gateway, "wgmp_cookies_total") == {("sent",): 5, ("received",): 6}
    assert scraped(gateway, "wgmp_under_load") == {(): 0}
    admission.store(Counter.LOADED_UNTIL, int((boottime() + 30) * 1e9))
    assert scraped(gateway, "wgmp_under_load") == {(): 1}


def test_rings_have_a_metric_for_each_of_their_figures(gateway: Standing) -> None:
    name = "worker0>tun_writer"
    words = gateway.fabric.rings[name].words
    figures = {HEAD_WORD: 900, TAIL_WORD: 897, HIGH_WATER_WORD: 33}
    for word, value in {**figures, FULL_WORD: 4, WAKE_UPS_WORD: 5, CORRUPT_WORD: 6}.items():
        words[word] = value
    for metric, value in (
        *(("slots", words[SLOTS_WORD]), ("depth", 3), ("high_water", 33)),
        *(("records_total", 900), ("full_total", 4)),
        *(("wake_ups_total", 5), ("corrupt_total", 6)),
    ):
        assert scraped(gateway, f"wgmp_ring_{metric}")[name,] == value, metric


def test_health_names_what_is_gone_and_what_does_not_turn(gateway: Standing) -> None:
    names = [row.name for row in gateway.topology.processes]
    for number, name in enumerate(names):
        gateway.run(name, 2000 + number)
    assert ailments(gateway.supervisor) == []
    silent_s = HANG_LIMIT_S + 40
    gateway.counters["admission"].store(Counter.HEARTBEAT, int((boottime() - silent_s) * 1e9))
    del gateway.children.living["tun_reader"]
    gone, silent = sorted(ailments(gateway.supervisor), reverse=True)
    assert gone == "tun_reader is being replaced"
    assert silent.startswith("admission has not turned for 42.")


def test_thousands_of_peers_come_in_pieces_between_which_others_are_served(
    gateway: Standing,
) -> None:
    for number in range(600):
        gateway.device.add_peer(number.to_bytes(32, "big"))
    pieces = list(metrics(gateway.supervisor))
    assert pieces.count("") == 3
    assert len(scraped(gateway, "wireguard_sent_bytes_total")) == 600


def test_what_only_grows_is_a_counter_and_everything_else_a_gauge(gateway: Standing) -> None:
    gateway.row(gateway.peer(1)).drop(DropReason.BAD_TAG, 1)
    gateway.counters["worker0"].drop(DropReason.BAD_TAG)
    families = list(text_string_to_metric_families("".join(metrics(gateway.supervisor))))
    for family in families:
        totals = {sample.name.endswith("_total") for sample in family.samples}
        assert totals == {family.type == "counter"}, family.name
    assert {family.type for family in families} == {"counter", "gauge"}
