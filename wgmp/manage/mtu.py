"""The MTU of an interface, from the routes to its peers' endpoints, as wg-quick computes it.

The largest MTU on the way to any endpoint; without endpoints that of the default route; without
that Ethernet's 1500. Less 80 bytes: an IPv6 header (40), UDP (8), and WireGuard's 32.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from wgmp.addresses import format_address
from wgmp.errors import CommandError
from wgmp.manage.runner import Runner
from wgmp.protocol.outcome import Endpoint

_OVERHEAD = 80
_ETHERNET = 1500


class LinkState(msgspec.Struct, frozen=True):
    """What a link is now: its MTU in bytes, and whether it is set up."""

    mtu: int
    up: bool


async def link_of(interface: str, run: Runner) -> LinkState:
    """Return the state of a link. Raises CommandError when there is none of that name."""
    done = await run.run("ip", "-j", "link", "show", "dev", interface)
    (link,) = msgspec.json.decode(done.stdout)
    return LinkState(link["mtu"], "UP" in link["flags"])


async def choose(endpoints: Iterable[Endpoint], run: Runner) -> int:
    """Return the MTU for an interface whose peers have these endpoints, in bytes."""
    largest = 0
    for address in dict.fromkeys(format_address(endpoint.address) for endpoint in endpoints):
        largest = max(largest, await _of_route(run, "get", address))
    largest = largest or await _of_route(run, "show", "default")
    return (largest or _ETHERNET) - _OVERHEAD


async def _of_route(run: Runner, *which: str) -> int:
    """Return the MTU of the first route, or of its device; 0 when there is no route."""
    done = await run.run("ip", "-j", "route", *which, check=False)
    found: list[dict[str, Any]] = msgspec.json.decode(done.stdout or "[]") if not done.code else []
    if not found:
        return 0
    for metrics in found[0].get("metrics", ()):
        if "mtu" in metrics:
            return int(metrics["mtu"])
    device = found[0].get("dev")
    try:
        return (await link_of(device, run)).mtu if device else 0
    except CommandError:
        return 0
