"""Cookies, between a checker and a jar."""

from __future__ import annotations

from random import Random

import pytest

from wgmp.protocol.cookie import CookieChecker, CookieJar, mac1_ok
from wgmp.protocol.messages import CookieReply, Initiation, macs
from wgmp.protocol.noise import Identity
from wgmp.protocol.outcome import Endpoint

RESPONDER = Identity(b"\x22" * 32)
HOME = Endpoint(bytes([192, 0, 2, 1]), 4000)
MESSAGE = Initiation(77, b"e" * 32, b"s" * 48, b"t" * 28).pack()


class Both:
    """A responder's checker and an initiator's jar, at time 0."""

    def __init__(self) -> None:
        self.checker = CookieChecker(RESPONDER, Random(1).randbytes)
        self.jar = CookieJar()

    def send(self, now: float = 0.0) -> bytes:
        """Return the message with its MACs."""
        return self.jar.add_macs(MESSAGE, RESPONDER.public_key, now)

    def exchange(self, now: float = 0.0) -> None:
        """Send once and get a cookie for it."""
        reply = self.checker.reply(self.send(now), HOME, now)
        assert self.accept(reply, now)

    def accept(self, reply: bytes, now: float = 0.0) -> bool:
        """Give the jar a cookie reply."""
        message = CookieReply.unpack(reply)
        assert isinstance(message, CookieReply)
        return self.jar.accept(message, RESPONDER.public_key, now)


@pytest.fixture
def both() -> Both:
    return Both()


def test_mac1_shows_that_the_sender_knows_our_key(both: Both) -> None:
    datagram = both.send()
    assert mac1_ok(RESPONDER.mac1_key, datagram)
    assert mac1_ok(RESPONDER.mac1_key, memoryview(datagram))
    stranger = Identity(b"\x33" * 32)
    assert not mac1_ok(stranger.mac1_key, datagram)
    for position in range(len(datagram) - 16):
        changed = bytearray(datagram)
        changed[position] ^= 1
        assert not mac1_ok(RESPONDER.mac1_key, changed)


def test_without_a_cookie_mac2_is_zero_and_not_good(both: Both) -> None:
    datagram = both.send()
    assert macs(datagram).mac2 == bytes(16)
    assert not both.checker.mac2_ok(datagram, HOME, 0.0)


def test_a_cookie_makes_mac2_good(both: Both) -> None:
    both.exchange()
    datagram = both.send(1.0)
    assert mac1_ok(RESPONDER.mac1_key, datagram)
    assert both.checker.mac2_ok(datagram, HOME, 1.0)


def test_reply_names_the_sender_of_the_message(both: Both) -> None:
    reply = CookieReply.unpack(both.checker.reply(both.send(), HOME, 0.0))
    assert isinstance(reply, CookieReply)
    assert reply.receiver == 77


@pytest.mark.parametrize(
    "elsewhere",
    [
        HOME._replace(port=4001),
        HOME._replace(address=bytes([192, 0, 2, 2])),
        HOME._replace(address=bytes(16)),
    ],
    ids=["other port", "other address", "other family"],
)
def test_a_cookie_is_good_for_one_address_and_port(both: Both, elsewhere: Endpoint) -> None:
    both.exchange()
    assert not both.checker.mac2_ok(both.send(), elsewhere, 0.0)


def test_the_local_side_and_the_zone_are_no_part_of_a_cookie(both: Both) -> None:
    both.exchange()
    same = HOME._replace(scope_id=3, source=bytes([192, 0, 2, 9]), source_ifindex=2)
    assert both.checker.mac2_ok(both.send(), same, 0.0)


def test_cookies_die_with_their_secret_after_120_seconds(both: Both) -> None:
    both.exchange()
    datagram = both.send()
    assert both.checker.mac2_ok(datagram, HOME, 119.9)
    assert not both.checker.mac2_ok(datagram, HOME, 120.0)


def test_the_sender_stops_using_a_cookie_before_it_dies(both: Both) -> None:
    both.exchange()
    assert macs(both.send(114.9)).mac2 != bytes(16)
    assert macs(both.send(115.0)).mac2 == bytes(16)


def test_a_reply_to_another_message_is_not_believed(both: Both) -> None:
    reply = both.checker.reply(both.send(), HOME, 0.0)
    changed = Initiation(78, b"e" * 32, b"s" * 48, b"t" * 28).pack()
    both.jar.add_macs(changed, RESPONDER.public_key, 0.0)
    assert not both.accept(reply)


def test_a_reply_is_believed_once(both: Both) -> None:
    reply = both.checker.reply(both.send(), HOME, 0.0)
    assert both.accept(reply)
    assert not both.accept(reply)


def test_a_reply_that_nobody_asked_for_is_not_believed(both: Both) -> None:
    reply = both.checker.reply(both.send(), HOME, 0.0)
    both.jar = CookieJar()
    assert not both.accept(reply)


def test_a_changed_reply_leaves_the_jar_as_it_was(both: Both) -> None:
    reply = bytearray(both.checker.reply(both.send(), HOME, 0.0))
    reply[40] ^= 1
    assert not both.accept(bytes(reply))
    reply[40] ^= 1
    assert both.accept(bytes(reply))
