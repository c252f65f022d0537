"""A link on macOS: addresses, MTU and routes, by `ifconfig` and `route`, as wg-quick there does it.

Addresses and routes go with the interface, so that nothing has to be undone.

| not done here | why |
|---|---|
| default routes | the way to the endpoint has to follow the network; wg-quick's monitor does that |
| the resolver | every network service has one of its own; wg-quick sets them all |
| hooks | they go with the two above |
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from wgmp.addresses import format_prefix
from wgmp.errors import CommandError
from wgmp.manage.runner import Runner
from wgmp.manage.settings import LinkSettings
from wgmp.protocol.allowedips import Prefix

log = logging.getLogger("wgmp")


def check(settings: LinkSettings) -> None:
    """Raise CommandError for what cannot be done here; log what is left as it is."""
    if settings.table not in ("auto", "off"):
        raise CommandError("Table: there is one routing table on macOS: write auto or off")
    if settings.table == "auto" and not all(length for _, length in settings.allowed_ips):
        raise CommandError(
            "on macOS a default route is left to wg-quick, which follows the network: use that, "
            "or write Table = off"
        )
    if settings.dns:
        log.warning("DNS: on macOS the resolver stays as it is: use wg-quick to set it")


async def bring_up(interface: str, settings: LinkSettings, run: Runner) -> None:
    """Give the existing interface all that `settings` say, and bring it up. Raises CommandError."""
    check(settings)
    for address in settings.addresses:
        # IPv4 needs the other point's address; ours serves, for it is never looked at.
        other = (str(address.ip),) if address.version == 4 else ()
        family = "inet" if address.version == 4 else "inet6"
        await run.run("ifconfig", interface, family, str(address), *other, "alias")
    if settings.mtu is not None:
        await run.run("ifconfig", interface, "mtu", str(settings.mtu))
    await run.run("ifconfig", interface, "up")
    if settings.table == "auto":
        await _routes("add", interface, settings.allowed_ips, run)


async def change_routes(
    interface: str, before: LinkSettings, wanted: LinkSettings, run: Runner
) -> None:
    """Bring the routes of a link that is up from `before` to `wanted`. Raises CommandError."""
    check(wanted)
    if wanted.table == "auto":
        gone = set(before.allowed_ips).difference(wanted.allowed_ips)
        await _routes("delete", interface, gone, run)
        new = set(wanted.allowed_ips).difference(before.allowed_ips)
        await _routes("add", interface, new, run)


async def _routes(verb: str, interface: str, prefixes: Iterable[Prefix], run: Runner) -> None:
    longest_first = sorted(set(prefixes), key=lambda prefix: (-prefix[1], prefix[0]))
    for prefix in longest_first:
        family = "-inet" if len(prefix[0]) == 4 else "-inet6"
        command = ("route", "-q", "-n", verb, family, format_prefix(prefix))
        done = await run.run(*command, "-interface", interface, check=False)
        if done.code and verb == "add" and "File exists" not in done.stdout + done.stderr:
            raise done.failure()
