"""Under a flood that lasts, the gateway wants cookies: whom they let in, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

from wgmp.netns import wait_for

from .flood import SOURCES, Flood, Knocking
from .rawpeer import COOKIE_REPLY, RESPONSE, kind_of, replace_cookie
from .site import Known, Site
from .wire import Wire

pytestmark = [pytest.mark.root, pytest.mark.alone]

# How late an answer may come when admission's queue is full.
LATE_S = 0.8
# How long it may take one in many to get through, on a machine that is busy with other things.
LIMIT_S = 15.0


@pytest.fixture(scope="module", autouse=True)
def flood(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A flood with valid mac1s from many sources, under which the gateway asks for cookies.

    It is faster than admission can ask: a slower one would let the load come and go.
    """
    before = site.drops().get("cookie_required", 0)
    options = ("--mac1=valid", f"--sources={SOURCES}", "--rate=40000", "--seconds=600")
    flood = Flood(site, tmp_path_factory.mktemp("flood"), *options)
    wait_for(lambda: site.drops().get("cookie_required", 0) > before, 5, "the gateway is loaded")
    yield
    flood.end()


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


def test_a_cookie_is_given_under_load_and_accepted_back(site: Site) -> None:
    known = site.peer()
    _, cookie = cookie_for(known)
    assert kinds_that_come(known, known.wire, cookie) == {RESPONSE}


def test_a_cookie_is_for_one_address_and_one_port(site: Site) -> None:
    known = site.peer()
    other_port, other_address = site.wire(), site.wire("198.18.200.1")
    _, cookie = cookie_for(known)
    for wire in (other_port, other_address):
        assert kinds_that_come(known, wire, cookie) == {COOKIE_REPLY}
    assert kinds_that_come(known, known.wire, cookie) == {RESPONSE}


def test_a_false_cookie_is_answered_by_a_true_one(site: Site) -> None:
    known = site.peer()
    assert kinds_that_come(known, known.wire, bytes(16)) == {COOKIE_REPLY}


def test_a_message_that_is_resent_with_a_cookie_is_taken(site: Site) -> None:
    """The cookie binds the sender, not the message: the same initiation may get its mac2."""
    known = site.peer()
    initiation, cookie = cookie_for(known)

    def answered() -> bool:
        known.wire.send(replace_cookie(initiation, cookie))
        return RESPONSE in {kind_of(datagram) for datagram in known.wire.drain(quiet_s=0.1)}

    wait_for(answered, LIMIT_S, "one of them finds room in the queue")


def test_a_source_with_a_cookie_is_limited(site: Site) -> None:
    known = site.peer()
    _, cookie = cookie_for(known)
    before = site.drops().get("rate_limited", 0)

    def limited() -> bool:
        for _ in range(100):
            known.wire.send(known.raw.initiation(cookie=cookie).datagram)
        return site.drops().get("rate_limited", 0) > before

    wait_for(limited, LIMIT_S, "the limit is felt")


def test_memory_stays_flat_under_a_flood_from_many_sources(site: Site) -> None:
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
