"""The MTU goes by the ways to the endpoints: the largest of them, less what WireGuard adds."""

from __future__ import annotations

import asyncio

import pytest

from wgmp.addresses import parse_endpoint
from wgmp.manage import mtu
from wgmp.manage.runner import Done
from wgmp.protocol.outcome import Endpoint

from .replay import Replay

NEAR, FAR, SIX = map(parse_endpoint, ("192.0.2.1:1", "198.51.100.1:1", "[2001:db8::1]:1"))


def route(where: str, shown: str, code: int = 0) -> Done:
    """Return what `ip route` says of the way to an address, or of "default"."""
    words = ("show", "default") if where == "default" else ("get", where)
    return Done(("ip", "-j", "route", *words), code, shown)


def device(name: str, size: int) -> Done:
    """Return what `ip link` says of a device."""
    shown = f'[{{"flags": ["UP"], "mtu": {size}}}]'
    return Done(("ip", "-j", "link", "show", "dev", name), stdout=shown)


ETH0 = '[{"dev": "eth0"}]'
TO_NEAR, TO_FAR = route("192.0.2.1", ETH0), route("198.51.100.1", '[{"dev": "eth1"}]')


@pytest.mark.parametrize(
    ("endpoints", "record", "size"),
    [
        ([NEAR, FAR], [TO_NEAR, TO_FAR, device("eth0", 1500), device("eth1", 9000)], 8920),
        ([FAR, NEAR], [TO_NEAR, TO_FAR, device("eth0", 9000), device("eth1", 1500)], 8920),
        ([NEAR, NEAR], [TO_NEAR, device("eth0", 1400)], 1320),
        (
            [SIX],
            [route("2001:db8::1", '[{"dev": "eth0", "metrics": [{"rtt": 7}, {"mtu": 1280}]}]')],
            1200,
        ),
        ([NEAR], [route("192.0.2.1", '[{"dev": "eth0", "metrics": [{"mtu": 1450}]}]')], 1370),
        # No way there: the default route's, and without one Ethernet's.
        ([NEAR], [route("192.0.2.1", "", 2), route("default", ETH0), device("eth0", 1492)], 1412),
        ([], [route("default", ETH0), device("eth0", 9000)], 8920),
        ([], [route("default", "")], 1420),
        ([], [route("default", ETH0)], 1420),
        ([], [route("default", '[{"type": "blackhole"}]')], 1420),
        ([NEAR], [route("192.0.2.1", "[]"), route("default", "[]", 1)], 1420),
    ],
)
def test_the_mtu_is_that_of_the_way(
    endpoints: list[Endpoint], record: list[Done], size: int
) -> None:
    assert asyncio.run(mtu.choose(endpoints, Replay(record, {"ip"}))) == size
