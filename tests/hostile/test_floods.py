"""Floods of handshake messages: cookies, the limiter, and what established sessions notice."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from e2e import tunnel

from wgmp.netns import Namespaces, wait_for

from .rawpeer import COOKIE_REPLY, RESPONSE, Initiation, kind_of, replace_cookie
from .site import Known, Site
from .wire import Wire

pytestmark = pytest.mark.root

FLOODER = Path(__file__).parents[2] / "tools" / "flood.py"
SOURCES = 20_000
# How late an answer may come when admission's queue is full.
LATE_S = 0.8
# How long it may take one in many to get through, on a machine that is busy with other things.
LIMIT_S = 15.0


class Flood:
    """A flood from the world on a gateway, in a process of its own, until `end` or its time."""

    def __init__(self, site: Site, directory: Path, *options: str) -> None:
        gateway = site.gateway
        target = (gateway.outer4, str(gateway.port), gateway.public_key)
        self._log = directory / f"flood-{time.monotonic_ns()}"
        command = (sys.executable, str(FLOODER), *target, *options)
        self._process: subprocess.Popen[bytes] = site.world.start(*command, log=self._log)

    def sent(self) -> int:
        """Wait for its end; return how many messages were sent."""
        assert self._process.wait(30) == 0, self._log.read_text()
        return int(json.loads(self._log.read_text())["sent"])

    def end(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def loaded(site: Site, tmp_path: Path) -> Iterator[Flood]:
    """A flood with valid mac1s from many sources, under which the gateway asks for cookies.

    It is faster than admission can ask: a slower one would let the load come and go.
    """
    before = site.drops().get("cookie_required", 0)
    flood = Flood(
        site, tmp_path, "--mac1=valid", f"--sources={SOURCES}", "--rate=40000", "--seconds=40"
    )
    wait_for(lambda: site.drops().get("cookie_required", 0) > before, 5, "the gateway is loaded")
    yield flood
    flood.end()

    def quiet() -> bool:
        before = site.drops()
        time.sleep(0.3)
        return site.drops() == before

    wait_for(quiet, LIMIT_S, "the gateway has dealt with what is queued")
    time.sleep(1.0)  # so long the load is taken to hold


class Knocking:
    """A peer's initiations under load, and the answers, which may come late."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self._sent: dict[int, Initiation] = {}

    def knock(self, cookie: bytes, limit_s: float) -> tuple[Initiation, bytes] | None:
        """Send an initiation; return the next answer, with what it answers, or None."""
        initiation = self.known.raw.initiation(cookie=cookie)
        self._sent[initiation.index] = initiation
        self.known.wire.send(initiation.datagram)
        answer = self.known.wire.poll(limit_s)
        if answer is None:
            return None
        at = 8 if kind_of(answer) == RESPONSE else 4
        return self._sent[struct.unpack_from("<I", answer, at)[0]], answer


def cookie_for(known: Known) -> tuple[bytes, bytes]:
    """Send initiations under load; return one of them and the cookie that came back for it."""
    knocking = Knocking(known)
    for _ in range(150):
        answered = knocking.knock(b"", 0.1)
        if answered is not None:
            initiation, reply = answered
            assert kind_of(reply) == COOKIE_REPLY
            known.wire.drain(quiet_s=LATE_S)
            return initiation.datagram, known.raw.open_cookie(reply, initiation.datagram)
    raise AssertionError("no cookie came")


def kinds_that_come(known: Known, wire: Wire, cookie: bytes) -> set[int]:
    """Send initiations with a cookie until something comes; return the kinds of message."""
    for _ in range(150):
        wire.send(known.raw.initiation(cookie=cookie).datagram)
        if kinds := {kind_of(datagram) for datagram in wire.drain(quiet_s=0.1)}:
            return kinds
    raise AssertionError("nothing came")


def test_a_cookie_is_given_under_load_and_accepted_back(site: Site, loaded: Flood) -> None:
    known = site.peer()
    _, cookie = cookie_for(known)
    assert kinds_that_come(known, known.wire, cookie) == {RESPONSE}


def test_a_cookie_is_for_one_address_and_one_port(site: Site, loaded: Flood) -> None:
    known = site.peer()
    other_port, other_address = site.wire(), site.wire("198.18.200.1")
    _, cookie = cookie_for(known)
    for wire in (other_port, other_address):
        assert kinds_that_come(known, wire, cookie) == {COOKIE_REPLY}
    assert kinds_that_come(known, known.wire, cookie) == {RESPONSE}


def test_a_false_cookie_is_answered_by_a_true_one(site: Site, loaded: Flood) -> None:
    known = site.peer()
    assert kinds_that_come(known, known.wire, bytes(16)) == {COOKIE_REPLY}


def test_a_message_that_is_resent_with_a_cookie_is_taken(site: Site, loaded: Flood) -> None:
    """The cookie binds the sender, not the message: the same initiation may get its mac2."""
    known = site.peer()
    initiation, cookie = cookie_for(known)

    def answered() -> bool:
        known.wire.send(replace_cookie(initiation, cookie))
        return RESPONSE in {kind_of(datagram) for datagram in known.wire.drain(quiet_s=0.1)}

    wait_for(answered, LIMIT_S, "one of them finds room in the queue")


def test_a_source_with_a_cookie_is_limited(site: Site, loaded: Flood) -> None:
    known = site.peer()
    _, cookie = cookie_for(known)
    before = site.drops().get("rate_limited", 0)

    def limited() -> bool:
        for _ in range(100):
            known.wire.send(known.raw.initiation(cookie=cookie).datagram)
        return site.drops().get("rate_limited", 0) > before

    wait_for(limited, LIMIT_S, "the limit is felt")


def test_a_new_peer_gets_in_within_5_s(site: Site, tmp_path: Path) -> None:
    flood = Flood(
        site, tmp_path, "--mac1=valid", f"--sources={SOURCES}", "--rate=20000", "--seconds=20"
    )
    time.sleep(1.0)
    known = site.peer()
    knocking = Knocking(known)
    start, cookie, session = time.monotonic(), b"", None
    while session is None and time.monotonic() - start < 5:
        answered = knocking.knock(cookie, 0.3)
        if answered is None:
            continue
        initiation, answer = answered
        if kind_of(answer) == RESPONSE:
            session = known.raw.finish(initiation, answer)
        else:
            cookie = known.raw.open_cookie(answer, initiation.datagram)
    assert session is not None, "no way in"
    known.wire.send(session.seal())
    assert any(known.answered(session) for _ in range(3))
    print(f"in after {time.monotonic() - start:.2f} s")
    flood.end()


def test_memory_stays_flat_under_a_flood_from_many_sources(site: Site, loaded: Flood) -> None:
    processes = [psutil.Process(pid) for pid in site.gateway.role_pids().values()]

    def grown() -> int:
        before = resident(processes)
        time.sleep(2.0)
        return resident(processes) - before

    # The first thousands touch pages of the rings for the first time. A hundred bytes kept for
    # each message would be megabytes a second.
    wait_for(lambda: grown() < 1 << 19, 15, "memory stays what it is")


def resident(processes: list[psutil.Process]) -> int:
    """The memory of processes in bytes, shared pages counted once."""
    return sum(process.memory_full_info().pss for process in processes)


@pytest.mark.parametrize("sources", [1, SOURCES])
def test_every_message_with_a_bad_mac1_is_counted(site: Site, tmp_path: Path, sources: int) -> None:
    before = site.drops()
    flood = Flood(
        site, tmp_path, "--mac1=bad", f"--sources={sources}", "--rate=3000", "--seconds=2"
    )
    sent = flood.sent()

    def counted() -> int:
        now = site.drops()
        return sum(now.get(r, 0) - before.get(r, 0) for r in ("bad_mac1", "ring_full"))

    wait_for(lambda: counted() == sent, 5, f"{counted()} of {sent} are counted")


@pytest.mark.parametrize("topology", ["compact", "pipeline"])
def test_a_transfer_ends_intact_under_20_000_bad_mac1_a_second(
    namespaces: Namespaces, tmp_path: Path, topology: str
) -> None:
    ends = tunnel.build(namespaces, tmp_path, "wgmpd", "wgmpd", topology=topology)
    assert ends.left.ping(ends.right.inner4)
    flooded = ends.right
    target = (flooded.outer4, str(flooded.port), flooded.public_key)
    log = tmp_path / "flood"
    options = ("--mac1=bad", "--rate=20000", "--seconds=3")
    flow = tunnel.transfer(ends.left, flooded, "--seconds", "3")
    process = ends.left.namespace.start(sys.executable, str(FLOODER), *target, *options, log=log)
    received = flow.finish(60)
    assert process.wait(30) == 0
    sent = json.loads(log.read_text())["sent"]
    print(f"{8 * received.bytes / received.seconds / 1e9:.2f} Gbit/s under {sent} initiations")
    # What the kernel's socket buffer could not hold was never ours to count.
    assert 0.5 * sent < flooded.drops()["bad_mac1"] <= sent
    assert ends.left.ping(flooded.inner4)
