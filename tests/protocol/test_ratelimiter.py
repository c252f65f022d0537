"""The limiter of handshake messages per source."""

from __future__ import annotations

from wgmp.protocol.ratelimiter import RateLimiter

SOURCE = bytes([192, 0, 2, 1])
OTHER = bytes([192, 0, 2, 2])


def test_a_burst_of_five_passes_and_no_more() -> None:
    limiter = RateLimiter()
    assert [limiter.allow(SOURCE, 0.0) for _ in range(7)] == [True] * 5 + [False] * 2


def test_twenty_a_second_pass_for_long() -> None:
    limiter = RateLimiter()
    assert all(limiter.allow(SOURCE, n / 20) for n in range(2000))


def test_a_flood_gets_twenty_a_second_after_its_burst() -> None:
    limiter = RateLimiter()
    passed = sum(limiter.allow(SOURCE, n / 1000) for n in range(10_000))
    assert 199 <= passed - 5 <= 200


def test_sources_do_not_pay_for_each_other() -> None:
    limiter = RateLimiter()
    while limiter.allow(SOURCE, 0.0):
        pass
    assert limiter.allow(OTHER, 0.0)


def test_an_ipv6_source_is_its_64_bit_prefix() -> None:
    limiter = RateLimiter()
    network = bytes.fromhex("20010db800010002")
    for host in range(5):
        assert limiter.allow(network + host.to_bytes(8, "big"), 0.0)
    assert not limiter.allow(network + bytes([255] * 8), 0.0)
    assert limiter.allow(bytes.fromhex("20010db800010003") + bytes(8), 0.0)


def test_sources_are_forgotten_when_they_are_quiet() -> None:
    limiter = RateLimiter()
    for n in range(100):
        limiter.allow(n.to_bytes(4, "big"), 0.0)
    assert len(limiter) == 100
    limiter.allow(SOURCE, 2.0)
    assert len(limiter) == 1


def test_a_full_table_refuses_new_sources_and_serves_the_known() -> None:
    limiter = RateLimiter(limit=2)
    assert limiter.allow(SOURCE, 0.0)
    assert limiter.allow(OTHER, 0.0)
    assert not limiter.allow(bytes(4), 0.0)
    assert len(limiter) == 2
    assert limiter.allow(SOURCE, 0.0)
    assert limiter.allow(bytes(4), 5.0)
