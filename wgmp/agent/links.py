"""A network's link: what manage/link.py is to make of it, and how it changes while it is up.

| differs | how it changes |
|---|---|
| MTU, routes narrower than a default route | each by itself; sessions go on |
| addresses, the mark | the same, unless there are default routes: their rules name them |
| the hooks | with the next connect |
| table, DNS, default routes and what their rules name | the link is undone and made anew |

A link that goes down ends its sessions, as the kernel's does; hence the first rows. One that cannot
be made anew is made what it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable

from msgspec import structs

from wgmp.agent.settings import AgentSettings, NetworkSettings
from wgmp.config_grammar import Address
from wgmp.errors import CommandError, WgmpError
from wgmp.manage import link, routes
from wgmp.manage.journal import Journal
from wgmp.manage.runner import Runner
from wgmp.manage.settings import LinkSettings
from wgmp.protocol.outcome import Endpoint

log = logging.getLogger("wgmp")

_LIVE = {"mtu", "allowed_ips", "endpoints", "hooks"}


def settings_of(
    network: NetworkSettings, agent: AgentSettings, endpoints: Iterable[Endpoint] = ()
) -> LinkSettings:
    """Return what a network's link is to be. `endpoints`: its peers', for the choice of an MTU."""
    return LinkSettings(
        addresses=tuple(address.parsed for address in network.addresses),
        mtu=network.mtu,
        table=network.table,
        dns=tuple(entry.parsed for entry in network.dns),
        fwmark=network.fwmark,
        allowed_ips=tuple(item.parsed for peer in network.peers for item in peer.allowed_ips),
        endpoints=tuple(endpoints),
        hooks=network.hooks,
        run_hooks=agent.run_hooks,
    )


class NetworkLink:
    """The link of a network that runs, and what it is now.

    `turn`: held while links are changed, one network at a time, for they share the rules.
    `set_mark`: gives the gateway's datagrams a mark. All raise WgmpError when a step fails.
    """

    def __init__(
        self, interface: str, run: Runner, turn: asyncio.Lock, set_mark: link.SetMark
    ) -> None:
        self._interface = interface
        self._run = run
        self._turn = turn
        self._set_mark = set_mark
        # What it has, or may have after a change that failed. None: it is down.
        self._now: LinkSettings | None = None

    async def before(self, wanted: LinkSettings) -> None:
        """Do what comes before the interface exists, which nobody else may have made."""
        if await link.exists(self._interface, self._run):
            raise CommandError(f"interface {self._interface} exists: something else has made it")
        await link.before(self._interface, wanted, self._run, self._journal())

    async def bring_up(self, wanted: LinkSettings) -> None:
        """Give the interface, which is there now, all that is wanted."""
        async with self._turn:
            await self._bring_up(wanted)

    async def change(self, wanted: LinkSettings) -> None:
        """Make a link that is up what is wanted now. Where that fails the next change goes on."""
        async with self._turn:
            before = self._now
            if before is not None and _can_live(before, wanted):
                await self._adapt(before, wanted)
                return
            log.warning("%s: its link is made anew, and its sessions with it", self._interface)
            await self._clear(before)
            try:
                await self._bring_up(wanted)
            except WgmpError:
                if before is not None:
                    await self._set_mark(before.fwmark)
                    await self._bring_up(before)
                raise

    async def take_down(self, link_stays: bool = False) -> None:
        """Undo all, but with `link_stays` the PostDown hooks; never raises WgmpError."""
        async with self._turn:
            await link.take_down(self._interface, self._run, self._journal(), link_stays)

    def _journal(self) -> Journal:
        return Journal.of(self._interface)

    async def _bring_up(self, wanted: LinkSettings) -> None:
        journal = self._journal()
        await link.bring_up(self._interface, wanted, self._run, journal, self._set_mark)
        self._now = wanted

    async def _clear(self, before: LinkSettings | None) -> None:
        self._now = None
        await link.take_down(self._interface, self._run, self._journal(), link_stays=True)
        # Those that came while it was up are in no journal.
        for address in before.addresses if before is not None else ():
            await self._delete(address)

    async def _adapt(self, before: LinkSettings, wanted: LinkSettings) -> None:
        """Change what differs, each by itself."""
        if structs.replace(before, endpoints=wanted.endpoints) == wanted:
            return
        if wanted.mtu != before.mtu:
            await link.set_up(self._interface, wanted, self._run)
        both = (*before.addresses, *wanted.addresses)
        prefixes = (*before.allowed_ips, *wanted.allowed_ips)
        self._now = structs.replace(wanted, addresses=both, allowed_ips=prefixes)
        for address in before.addresses:
            if address not in wanted.addresses:
                await self._delete(address)
        # All of them: with an address the kernel deletes those in its network that came after it.
        for address in wanted.addresses:
            await self._run.run("ip", "address", "replace", str(address), "dev", self._interface)
        await routes.change(self._interface, before, wanted, self._run)
        self._now = wanted

    async def _delete(self, address: Address) -> None:
        command = ("ip", "address", "delete", str(address), "dev", self._interface)
        await self._run.run(*command, check=False)  # it may have gone with another


def _can_live(before: LinkSettings, wanted: LinkSettings) -> bool:
    names = LinkSettings.__struct_fields__
    changed = {name for name in names if getattr(before, name) != getattr(wanted, name)}
    defaults = _defaults(wanted)
    live = _LIVE if defaults else _LIVE | {"fwmark", "addresses"}
    return changed <= live and defaults == _defaults(before)


def _defaults(settings: LinkSettings) -> set[bytes]:
    return {address for address, length in settings.allowed_ips if not length}
