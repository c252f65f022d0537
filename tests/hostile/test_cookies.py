"""Under a flood that lasts, the gateway wants cookies: whom they let in, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

from wgmp.netns import wait_for

from .flood import SOURCES, Flood, Knocking
from .rawpeer import COOKIE_REPLY, RESPONSE, Initiation, kind_of, replace_cookie
from .site import Known, Site
from .wire import Wire

pytestmark = [pytest.mark.root, pytest.mark.alone]

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


def answered(known: Known, cookie: bytes, wire: Wire | None = None) -> tuple[Initiation, bytes]:
    """Send initiations with a cookie until one is answered; return it and the answer to it."""
    knocking = Knocking(known, wire)
    found = wait_for(lambda: knocking.knock(cookie, 0.1), LIMIT_S, "something comes")
    assert found is not None
    return found


def cookie_for(known: Known) -> tuple[bytes, bytes]:
    """Send initiations under load; return one of them and the cookie that came back for it."""
    initiation, reply = answered(known, b"")
    return initiation.datagram, known.raw.open_cookie(reply, initiation.datagram)


def is_let_in(known: Known, cookie: bytes) -> None:
    """See that initiations with the cookie are responded to, or with one that has come since."""
    initiation, answer = answered(known, cookie)
    while kind_of(answer) == COOKIE_REPLY:
        newer = known.raw.open_cookie(answer, initiation.datagram)
        assert newer != cookie, "a cookie is accepted back"
        cookie = newer  # the gateway's secret is another one every two minutes
        initiation, answer = answered(known, cookie)
    assert kind_of(answer) == RESPONSE


def is_not_let_in(known: Known, cookie: bytes, wire: Wire) -> None:
    """See that initiations with the cookie are answered by a cookie."""
    assert kind_of(answered(known, cookie, wire)[1]) == COOKIE_REPLY


def test_a_cookie_is_given_under_load_and_accepted_back(site: Site) -> None:
    known = site.peer()
    _, cookie = cookie_for(known)
    is_let_in(known, cookie)


def test_a_cookie_is_for_one_address_and_one_port(site: Site) -> None:
    known = site.peer()
    other_port, other_address = site.wire(), site.wire("198.18.200.1")
    _, cookie = cookie_for(known)
    for wire in (other_port, other_address):
        is_not_let_in(known, cookie, wire)
    is_let_in(known, cookie)


def test_a_false_cookie_is_answered_by_a_true_one(site: Site) -> None:
    known = site.peer()
    initiation, answer = answered(known, bytes(16))
    is_let_in(known, known.raw.open_cookie(answer, initiation.datagram))


def test_a_message_that_is_resent_with_a_cookie_is_taken(site: Site) -> None:
    """The cookie binds the sender, not the message: the same initiation may get its mac2."""
    known = site.peer()
    initiation, cookie = cookie_for(known)

    def taken() -> bool:
        known.wire.send(replace_cookie(initiation, cookie))
        return RESPONSE in {kind_of(datagram) for datagram in known.wire.drain(quiet_s=0.1)}

    wait_for(taken, LIMIT_S, "one of them finds room in the queue")


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
