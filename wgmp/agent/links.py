"""A network's link: what manage/link.py is to make of it, and how it changes while it is up.

| differs | how it changes |
|---|---|
| addresses, MTU, routes narrower than a default route | each by itself; sessions go on |
| the hooks | with the next connect |
| table, DNS, default routes, and the mark when there are some | the link is undone and made anew |

A link that goes down ends its sessions, as the kernel's does; hence the first row.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Iterable

from wgmp.addresses import parse_prefix
from wgmp.agent.settings import AgentSettings, NetworkSettings
from wgmp.config import Hooks
from wgmp.manage import link, routes
from wgmp.manage.journal import Journal
from wgmp.manage.link import SetMark
from wgmp.manage.runner import Runner
from wgmp.manage.settings import LinkSettings
from wgmp.protocol.outcome import Endpoint

log = logging.getLogger("wgmp")

_LIVE = {"addresses", "mtu", "allowed_ips", "endpoints", "hooks"}


def settings_of(
    network: NetworkSettings, agent: AgentSettings, endpoints: Iterable[Endpoint] = ()
) -> LinkSettings:
    """Return what a network's link is to be. `endpoints`: its peers', for the choice of an MTU."""
    return LinkSettings(
        addresses=tuple(ipaddress.ip_interface(address) for address in network.addresses),
        mtu=network.mtu,
        table=network.table,
        dns=tuple(_dns(entry) for entry in network.dns),
        fwmark=network.fwmark,
        allowed_ips=tuple(
            parse_prefix(item) for peer in network.peers for item in peer.allowed_ips
        ),
        endpoints=tuple(endpoints),
        hooks=Hooks(
            pre_up=network.pre_up,
            post_up=network.post_up,
            pre_down=network.pre_down,
            post_down=network.post_down,
        ),
        run_hooks=agent.run_hooks,
    )


async def exists(interface: str, run: Runner) -> bool:
    """Tell whether there is an interface of this name. Raises CommandError without `ip`."""
    return (await run.run("ip", "link", "show", "dev", interface, check=False)).code == 0


async def change(
    interface: str, before: LinkSettings, wanted: LinkSettings, run: Runner, set_mark: SetMark
) -> None:
    """Make a link that is up as `before` what is wanted now. Raises CommandError."""
    if before == wanted:
        return
    if not _can_live(before, wanted):
        log.warning("%s: its link is made anew, and its sessions with it", interface)
        journal = Journal.of(interface)
        await link.take_down(interface, run, journal, link_stays=True)
        await link.bring_up(interface, wanted, run, journal, set_mark)
        return
    for address in before.addresses:
        if address not in wanted.addresses:
            await run.run("ip", "address", "delete", str(address), "dev", interface, check=False)
    # All of them: with an address the kernel deletes those in its network that came after it.
    for address in wanted.addresses:
        await run.run("ip", "address", "replace", str(address), "dev", interface)
    if wanted.mtu is not None and wanted.mtu != before.mtu:
        await run.run("ip", "link", "set", "mtu", str(wanted.mtu), "dev", interface)
    await routes.change(interface, before, wanted, run)


def _can_live(before: LinkSettings, wanted: LinkSettings) -> bool:
    names = LinkSettings.__struct_fields__
    changed = {name for name in names if getattr(before, name) != getattr(wanted, name)}
    defaults = _defaults(wanted)
    live = _LIVE if defaults else _LIVE | {"fwmark"}
    return changed <= live and defaults == _defaults(before)


def _defaults(settings: LinkSettings) -> set[bytes]:
    return {address for address, length in settings.allowed_ips if not length}


def _dns(entry: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | str:
    try:
        return ipaddress.ip_address(entry)
    except ValueError:
        return str(entry)
