"""Two clocks: the wall clock makes timestamps and nothing else; timers run through suspension."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from hostile.rawpeer import INITIATION, RESPONSE, RawPeer, kind_of

from wgmp.protocol import tai64n
from wgmp.system import boottime
from wgmp.worker import configuration

from .rig import HERE, INNER, Rig, packet

HOUR_NS = 3600 * 10**9


class Wall:
    """A wall clock that tests set."""

    def __init__(self) -> None:
        self.unix_ns = 1_700_000_000 * 10**9

    def label(self) -> bytes:
        """The label of the present."""
        return tai64n.label(self.unix_ns)


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """Put the worker under a wall clock of the test's own."""
    clock = Wall()
    monkeypatch.setattr(configuration, "_tai64n", clock.label)
    return clock


def called(rig: Rig, raw: RawPeer) -> bytes:
    """Let the gateway call the peer anew; return the timestamp in its initiation."""
    rig.step(REKEY_S)
    rig.forget_sessions()
    rig.send(packet())
    initiation = next(each for each in rig.sent() if kind_of(each) == INITIATION)
    rig.deliver(raw.answer(initiation)[0])
    rig.sent()
    return raw.timestamp_of(initiation)


REKEY_S = 6.0


@pytest.mark.parametrize("jump_ns", [-HOUR_NS, -1, 0, HOUR_NS, 100 * 365 * 24 * HOUR_NS])
def test_our_timestamps_only_grow_wherever_the_wall_clock_goes(wall: Wall, jump_ns: int) -> None:
    rig = Rig()
    raw = rig.add_peer(endpoint=HERE)
    first = called(rig, raw)
    wall.unix_ns += jump_ns
    second = called(rig, raw)
    wall.unix_ns -= jump_ns
    third = called(rig, raw)
    assert first < second < third


def test_a_wall_clock_that_jumps_ends_no_session(wall: Wall) -> None:
    rig = Rig()
    raw = rig.add_peer()
    session = rig.connect(raw)
    inner = packet(INNER, bytes([10, 77, 0, 1]), 32)
    for jump_ns in (-HOUR_NS, 3 * HOUR_NS):
        wall.unix_ns += jump_ns
        rig.deliver(session.seal(inner))
        rig.send(packet())
        assert rig.written() == [inner]
        assert [session.unseal(each) is not None for each in rig.sent()] == [True]


def test_a_peer_whose_clock_was_set_forward_may_not_go_back(wall: Wall) -> None:
    rig = Rig()
    raw = rig.add_peer()
    answered = []
    for shift_ns in (0, HOUR_NS, 0, HOUR_NS + 10**9):
        rig.now += 1
        rig.deliver(raw.initiation(timestamp=tai64n.label(wall.unix_ns + shift_ns)).datagram)
        answered.append([kind_of(each) for each in rig.sent()] == [RESPONSE])
    assert answered == [True, True, False, True]


def test_after_an_hour_of_suspension_the_old_session_is_dead_and_one_initiation_is_sent() -> None:
    rig = Rig()
    raw = rig.add_peer(endpoint=HERE, keepalive=25)
    rig.sent()
    session = rig.connect(raw)
    rig.step(1)
    rig.sent()
    rig.step(3600)
    sent = rig.sent()
    assert [kind_of(each) for each in sent] == [INITIATION]
    rig.deliver(session.seal())
    assert rig.drops().get("unknown_index", 0) + rig.drops().get("keypair_expired", 0) == 1
    response, fresh = raw.answer(sent[0])
    rig.deliver(response)
    (keepalive,) = rig.sent()
    assert fresh.unseal(keepalive) == b""


def test_timers_run_on_the_clock_that_counts_suspension() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= boottime() <= time.clock_gettime(time.CLOCK_BOOTTIME)


@pytest.mark.root
def test_a_machine_that_was_suspended_for_a_day_is_a_day_older() -> None:
    """A time namespace shows what a suspension does: the two clocks part (time_namespaces(7))."""
    code = "import time; from wgmp.system import boottime; print(boottime() - time.monotonic())"
    command = ["unshare", "--time", "--boottime", "86400", "--fork", sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"needs time namespaces: {done.stderr.strip()}")
    suspended = time.clock_gettime(time.CLOCK_BOOTTIME) - time.monotonic()
    assert float(done.stdout) == pytest.approx(86400 + suspended, abs=1)
