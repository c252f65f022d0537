"""Admission: when it is under load, and what it asks for then."""

from __future__ import annotations

import socket

import pytest
from hostile.rawpeer import COOKIE_REPLY, RESPONSE, RawPeer, kind_of, replace_cookie

from wgmp.protocol.outcome import Endpoint

from .rig import HERE, Rig, packet

# An eighth of the queue's 1024 records.
THRESHOLD = 128
OTHER_PORT = HERE._replace(port=HERE.port + 1)
OTHER_ADDRESS = HERE._replace(address=bytes([192, 0, 2, 3]))


def kinds(rig: Rig) -> list[int]:
    """The kinds of the messages sent since the last call."""
    return [kind_of(datagram) for datagram in rig.sent()]


def load(rig: Rig, raw: RawPeer, count: int = THRESHOLD + 1) -> None:
    """Let so many records wait; those of a stranger, for whom no worker works."""
    stranger = RawPeer(raw.gateway).initiation().datagram
    for _ in range(count):
        rig.queue(stranger, OTHER_ADDRESS)
    rig.step()
    rig.sent()


def cookie_of(rig: Rig, raw: RawPeer, source: Endpoint = HERE) -> bytes:
    """Get a cookie under load."""
    initiation = raw.initiation().datagram
    rig.deliver(initiation, source)
    (reply,) = rig.sent()
    return raw.open_cookie(reply, initiation)


@pytest.mark.parametrize(("count", "kind"), [(THRESHOLD, RESPONSE), (THRESHOLD + 1, COOKIE_REPLY)])
def test_load_begins_above_an_eighth_of_the_queue(count: int, kind: int) -> None:
    rig = Rig()
    raw = rig.add_peer()
    load(rig, raw, count)
    rig.deliver(raw.initiation().datagram)
    assert kinds(rig) == [kind]


@pytest.mark.parametrize(("later_s", "kind"), [(0.9, COOKIE_REPLY), (1.1, RESPONSE)])
def test_load_holds_for_a_second(later_s: float, kind: int) -> None:
    rig = Rig()
    raw = rig.add_peer()
    load(rig, raw)
    rig.now += later_s
    rig.deliver(raw.initiation().datagram)
    assert kinds(rig) == [kind]


def test_a_cookie_is_good_for_its_address_and_port_and_no_other() -> None:
    rig = Rig()
    raw = rig.add_peer()
    load(rig, raw)
    cookie = cookie_of(rig, raw)
    for source, kind in (
        (OTHER_PORT, COOKIE_REPLY),
        (OTHER_ADDRESS, COOKIE_REPLY),
        (HERE, RESPONSE),
    ):
        rig.deliver(raw.initiation(cookie=cookie).datagram, source)
        assert kinds(rig) == [kind]


def test_a_response_needs_a_cookie_too() -> None:
    rig = Rig()
    raw = rig.add_peer(endpoint=HERE)
    rig.send(packet())
    (initiation,) = rig.sent()
    load(rig, raw)
    response, session = raw.answer(initiation)
    rig.deliver(response)
    (reply,) = rig.sent()
    cookie = raw.open_cookie(reply, response)
    rig.deliver(replace_cookie(response, cookie))
    (datagram,) = rig.sent()
    assert session.unseal(datagram)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("192.0.2.9", "192.0.2.10", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_the_limit_is_per_ipv4_address_and_per_ipv6_network(
    first: str, second: str, shared: bool
) -> None:
    rig = Rig()
    raw = rig.add_peer()
    load(rig, raw)
    family = socket.AF_INET6 if ":" in first else socket.AF_INET
    one, other = (Endpoint(socket.inet_pton(family, text), 4000) for text in (first, second))
    cookies = cookie_of(rig, raw, one), cookie_of(rig, raw, other)
    for _ in range(6):
        rig.deliver(raw.initiation(cookie=cookies[0]).datagram, one)
    assert rig.drops()["rate_limited"] == 1, "five at once, not six"
    rig.deliver(raw.initiation(cookie=cookies[1]).datagram, other)
    assert rig.drops()["rate_limited"] == 1 + shared
    rig.now += 0.06
    rig.deliver(raw.initiation(cookie=cookies[0]).datagram, one)
    assert rig.drops()["rate_limited"] == 1 + shared, "one more in 50 ms"
