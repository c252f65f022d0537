"""Floods of handshake messages: cookies, the limiter, and what established sessions notice."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from wgmp.netns import wait_for

from .rawpeer import COOKIE_REPLY, RESPONSE, kind_of, replace_cookie
from .site import Known, Site
from .wire import Wire

pytestmark = pytest.mark.root

FLOODER = Path(__file__).parents[2] / "tools" / "flood.py"
SOURCES = 20_000


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
    """A flood with valid mac1s from many sources, under which the gateway asks for cookies."""
    before = site.drops().get("cookie_required", 0)
    flood = Flood(
        site, tmp_path, "--mac1=valid", f"--sources={SOURCES}", "--rate=15000", "--seconds=20"
    )
    wait_for(lambda: site.drops().get("cookie_required", 0) > before, 5, "the gateway is loaded")
    yield flood
    flood.end()
    time.sleep(1.2)  # the load is taken to hold for one second


def cookie_for(known: Known, wire: Wire) -> tuple[bytes, bytes]:
    """Send an initiation under load; return it and the cookie that comes back."""
    for _ in range(50):
        initiation = known.raw.initiation().datagram
        wire.send(initiation)
        reply = wire.poll(0.1)
        if reply is not None:
            assert kind_of(reply) == COOKIE_REPLY
            return initiation, known.raw.open_cookie(reply, initiation)
    raise AssertionError("no cookie came")


def kinds_that_come(known: Known, wire: Wire, cookie: bytes) -> set[int]:
    """Send initiations with a cookie until something comes; return the kinds of message."""
    for _ in range(50):
        wire.send(known.raw.initiation(cookie=cookie).datagram)
        if kinds := {kind_of(datagram) for datagram in wire.drain(quiet_s=0.1)}:
            return kinds
    raise AssertionError("nothing came")


def test_a_cookie_is_given_under_load_and_accepted_back(site: Site, loaded: Flood) -> None:
    known = site.peer()
    _, cookie = cookie_for(known, known.wire)
    assert kinds_that_come(known, known.wire, cookie) == {RESPONSE}


def test_a_cookie_is_for_one_address_and_one_port(site: Site, loaded: Flood) -> None:
    known = site.peer()
    other_port, other_address = site.wire(), site.wire("198.18.200.1")
    _, cookie = cookie_for(known, known.wire)
    for wire in (other_port, other_address):
        assert kinds_that_come(known, wire, cookie) == {COOKIE_REPLY}
    assert kinds_that_come(known, known.wire, cookie) == {RESPONSE}


def test_a_false_cookie_is_answered_by_a_true_one(site: Site, loaded: Flood) -> None:
    known = site.peer()
    assert kinds_that_come(known, known.wire, bytes(16)) == {COOKIE_REPLY}


def test_a_message_that_is_resent_with_a_cookie_is_taken(site: Site, loaded: Flood) -> None:
    """The cookie binds the sender, not the message: the same initiation may get its mac2."""
    known = site.peer()
    initiation, cookie = cookie_for(known, known.wire)
    known.wire.send(replace_cookie(initiation, cookie))
    assert RESPONSE in {kind_of(datagram) for datagram in known.wire.drain(quiet_s=0.3)}


def test_a_source_with_a_cookie_is_limited(site: Site, loaded: Flood) -> None:
    known = site.peer()
    _, cookie = cookie_for(known, known.wire)
    before = site.drops().get("rate_limited", 0)
    for _ in range(100):
        known.wire.send(known.raw.initiation(cookie=cookie).datagram)
    grown = wait_for(lambda: site.drops().get("rate_limited", 0) - before, 3, "the limit is felt")
    assert 0 < grown <= 100 - 5


def test_a_new_peer_gets_in_within_5_s(site: Site, loaded: Flood) -> None:
    known = site.peer()
    start = time.monotonic()
    cookie = b""
    while time.monotonic() - start < 5:
        initiation = known.raw.initiation(cookie=cookie)
        known.wire.send(initiation.datagram)
        reply = known.wire.poll(0.3)
        if reply is None:
            continue
        if kind_of(reply) == RESPONSE:
            session = known.raw.finish(initiation, reply)
            break
        cookie = known.raw.open_cookie(reply, initiation.datagram)
    else:
        raise AssertionError("no way in")
    known.wire.send(session.seal())
    assert any(known.answered(session) for _ in range(3))
    print(f"in after {time.monotonic() - start:.2f} s")


def test_memory_stays_flat_under_a_flood_from_many_sources(site: Site, loaded: Flood) -> None:
    time.sleep(1.0)
    before = resident(site)
    time.sleep(3.0)
    assert resident(site) - before < 4 << 20


def resident(site: Site) -> int:
    """The memory of all the gateway's processes in bytes, shared pages counted once."""
    pids = site.gateway.role_pids().values()
    return sum(psutil.Process(pid).memory_full_info().pss for pid in pids)


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
