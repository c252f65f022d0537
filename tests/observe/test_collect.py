"""What is told of a gateway is what its roles have counted, each figure under its own name."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from roles.rig import DEVICES

from wgmp import __version__
from wgmp.addresses import parse_endpoint
from wgmp.counters import Counter
from wgmp.keys import to_base64
from wgmp.observe.names import Names
from wgmp.observe.snapshot import HandshakeFigures, PeerFigures, ProcessFigures, WorkerFigures
from wgmp.protocol.outcome import DropReason
from wgmp.record import Kind
from wgmp.system import boottime
from wgmp.topology import Shape

from .standing import Standing


@pytest.fixture
def gateway() -> Iterator[Standing]:
    """A pipeline of two workers."""
    made = Standing()
    yield made
    made.close()


def test_a_snapshot_says_what_runs(gateway: Standing) -> None:
    gateway.device.set_fwmark(7)
    told = gateway.snapshot()
    assert (told.interface, told.version, told.shape) == ("wg0", __version__, "pipeline")
    assert (told.workers_count, told.listen_port, told.fwmark) == (2, 51821, 7)
    fastpath = gateway.fabric.fastpath
    assert (told.fastpath, told.aead) == (fastpath.NAME, fastpath.AEAD)
    assert told.sandbox.startswith("user nobody")
    assert 3600 <= told.uptime_s < 3660
    assert {stage.name for stage in told.stages} >= {"tun_reader", "worker1 out", "worker1 in"}
    assert told.rates == []


def test_a_peer_is_told_as_its_worker_has_written_it(gateway: Standing, tmp_path: Path) -> None:
    entry = gateway.peer(1, "10.0.0.2/32", "fd00::/64", worker=1)
    entry.endpoint = parse_endpoint("192.0.2.1:5")
    row = gateway.row(entry)
    row.add_received(1111)
    row.add_sent(2222)
    row.set_last_handshake(time.time_ns() - 90 * 10**9)
    row.set_endpoint(parse_endpoint("[2001:db8::1]:7"), 1)
    row.drop(DropReason.BAD_TAG, 3)
    gateway.names = Names([tmp_path / "names"])
    key = to_base64(entry.public_key)
    (tmp_path / "names").write_text(f"[Peer]\n# friendly_name = office\nPublicKey = {key}\n")
    (told,) = gateway.snapshot().peers
    age, told.handshake_age_s = told.handshake_age_s, None
    assert age is not None
    assert 90 <= age < 95
    assert told == PeerFigures(
        public_key=key,
        name="office",
        endpoint="[2001:db8::1]:7",
        allowed_ips=["10.0.0.2/32", "fd00::/64"],
        handshake_age_s=None,
        rx_bytes=1111,
        tx_bytes=2222,
        worker="worker1",
        drops={"bad_tag": 3},
    )


def test_a_peer_that_was_never_heard_of_is_where_the_configuration_says(gateway: Standing) -> None:
    gateway.peer(1).endpoint = parse_endpoint("192.0.2.1:5")
    gateway.peer(2)
    first, second = gateway.snapshot().peers
    assert (first.endpoint, second.endpoint) == ("192.0.2.1:5", "")
    assert (second.name, second.allowed_ips, second.handshake_age_s) == ("", [], None)
    assert (second.rx_bytes, second.tx_bytes, second.drops) == (0, 0, {})


def test_handshakes_are_the_sum_over_all_roles_each_result_by_itself(gateway: Standing) -> None:
    for number, counter in enumerate(
        (
            Counter.HANDSHAKES_BEGUN,
            Counter.HANDSHAKES_ANSWERED,
            Counter.HANDSHAKES_COMPLETED,
            Counter.HANDSHAKES_GIVEN_UP,
            Counter.COOKIES_SENT,
            Counter.COOKIES_TAKEN,
        ),
        start=1,
    ):
        gateway.counters["admission"].add(counter, number)
        gateway.counters["worker0"].add(counter, 10 * number)
        gateway.counters["worker1"].inward.add(counter, 100 * number)
    gateway.counters["worker0"].drop(DropReason.BAD_TAG, 9)
    gateway.counters["admission"].drop(DropReason.BAD_MAC1, 2)
    gateway.counters["worker1"].inward.drop(DropReason.BAD_COOKIE_REPLY, 1)
    assert gateway.snapshot().handshakes == HandshakeFigures(
        begun=111,
        answered=222,
        completed=333,
        given_up=444,
        cookies_sent=555,
        cookies_received=666,
        under_load=False,
        dropped={"bad_mac1": 2, "bad_cookie_reply": 1},
    )


def test_a_gateway_is_under_load_until_admission_s_time_is_over(gateway: Standing) -> None:
    for from_now_s, loaded in ((30, True), (-1, False)):
        until = int((boottime() + from_now_s) * 1e9)
        gateway.counters["admission"].store(Counter.LOADED_UNTIL, until)
        assert gateway.snapshot().handshakes.under_load is loaded


def test_drops_are_told_by_reason_and_by_role(gateway: Standing) -> None:
    gateway.counters["tun_reader"].drop(DropReason.NO_ROUTE, 4)
    gateway.counters["worker0"].drop(DropReason.RING_FULL, 5)
    gateway.counters["worker1"].inward.drop(DropReason.RING_FULL, 6)
    told = gateway.snapshot()
    assert told.drops == {"no_route": 4, "ring_full": 11}
    assert {role.name: role.drops for role in told.roles if role.drops} == {
        "tun_reader": {"no_route": 4},
        "worker0": {"ring_full": 5},
        "worker1": {"ring_full": 6},
    }
    assert [role.counters["starts"] for role in told.roles] == [0] * 7


def test_each_worker_s_work_is_its_own(gateway: Standing) -> None:
    for name, unit in (("worker0", 1), ("worker1", 10)):
        block = gateway.counters[name]
        block.store(Counter.PEERS, 2 * unit)
        block.add(Counter.SEALED, 3 * unit)
        block.inward.add(Counter.OPENED, 5 * unit)
    assert gateway.snapshot().workers == [
        WorkerFigures("worker0", 2, 3, 5),
        WorkerFigures("worker1", 20, 30, 50),
    ]


def test_processes_have_their_ids_deaths_and_the_age_of_their_slowest_role() -> None:
    gateway = Standing(Shape.COMPACT, 1)
    (row,) = gateway.topology.processes
    gateway.run(row.name, 1234)
    deaths = gateway.children.deaths
    for _ in range(3):
        deaths.died(row.name, 100.0)
    deaths.hangs[row.name] = 2
    late = int((boottime() - 40) * 1e9)
    gateway.counters["worker0"].store(Counter.HEARTBEAT, late)
    supervisor, process = gateway.snapshot().processes
    assert supervisor == ProcessFigures("supervisor", [], gateway.pid, 0)
    assert (process.name, process.roles) == (row.name, list(row.roles))
    assert (process.pid, process.restarts, process.hangs) == (1234, 3, 2)
    assert 40 <= process.heartbeat_age_s < 45
    del gateway.children.living[row.name]
    assert gateway.snapshot().processes[1].pid == 0, "it is being replaced"
    gateway.close()


def test_offloads_are_those_in_use_and_the_writer_knows_about_its_own(gateway: Standing) -> None:
    expected = {"tun_tcp": True, "tun_udp": False, "udp_segment": False, "udp_gro": True}
    assert gateway.snapshot().offloads == expected
    gateway.counters["udp_writer"].store(Counter.UDP_SEGMENT, 1)
    assert gateway.snapshot().offloads == expected | {"udp_segment": True}


def test_rings_are_told_by_name(gateway: Standing) -> None:
    context = gateway.fabric.context("udp_reader", DEVICES)
    writer = context.outputs["worker1"]
    slots = next(row.slots for row in gateway.topology.rings if row.name == "udp_reader>worker1")
    for _ in range(slots + 2):
        record = writer.reserve()
        if record is not None:
            record.begin(Kind.DATAGRAMS, 0)
            writer.publish()
    rings = {ring.name: ring for ring in gateway.snapshot().rings}
    full = rings["udp_reader>worker1"]
    assert (full.slots, full.depth, full.published) == (slots, slots, slots)
    assert (full.high_water, full.full, full.corrupt) == (slots, 2, 0)
    assert rings["udp_reader>worker0"].published == 0
