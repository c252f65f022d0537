"""Connect and disconnect, over and over, and see that nothing is left: `tools/cycles` and a test.

The network has all that leaves traces: a default route with its rules and firewall table, DNS
left out, IPv6, a narrow route, a preshared key.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

from wgmp.agent.client import Client

from .site import Site

ALLOWED = 'allowed_ips = ["0.0.0.0/0", "::/0", "198.51.100.0/24"]'


def start(site: Site) -> None:
    """Start the agent with its network, and see it carry traffic."""
    home = site.home(peer_lines=(ALLOWED,)).replace(
        '["10.77.0.1/24"]', '["10.77.0.1/24", "fd77::1/64"]'
    )
    site.start(site.head(), home)
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    assert site.pings("10.77.0.2")


def run(site: Site, count: int, told: Callable[[str], None] = lambda line: None) -> list[str]:
    """Do `count` cycles with an agent that was started; return what differs afterwards, in words.

    Compared are, stopped and running: interfaces, routes, rules, the firewall, files, processes;
    and the agent's descriptors. `told`: hears how it goes.
    """
    before = _traces(site)
    differences = []
    for number in range(1, count + 1):
        asyncio.run(_cycle(site))
        if number % 10 == 0 or number == count:
            told(f"{number} of {count}")
            differences = _differences(before, _traces(site))
            if differences:
                break
    if not site.pings("10.77.0.2"):
        differences.append("nothing comes through the tunnel")
    return differences


async def _cycle(site: Site) -> None:
    async with await Client.open(site.socket) as agent:
        await agent.disconnect("home")
        await agent.connect("home")


def _traces(site: Site) -> dict[str, Any]:
    """Return what there is, running and stopped; it runs afterwards."""
    assert site.process is not None
    found = {f"running: {name}": value for name, value in site.traces().items()}
    found["running: descriptors"] = len(os.listdir(f"/proc/{site.process.pid}/fd"))
    site.wgmp("disconnect", "home")
    found |= {f"stopped: {name}": value for name, value in site.traces().items()}
    found["stopped: descriptors"] = len(os.listdir(f"/proc/{site.process.pid}/fd"))
    site.wgmp("connect", "home")
    return found


def _differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {value} became {after[name]}"
        for name, value in before.items()
        if after[name] != value
    ]
