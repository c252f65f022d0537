"""Routes for allowed IPs, and the rules by which a default route leaves its own datagrams alone.

A route is added only where none of the interface's covers it, longest prefix first. With the
table "auto" a default route goes into a table of its own, numbered as the device's mark:

    rule P:   all but datagrams with the mark -> table MARK, with the default route
    rule P-1: table main, but not its default route (suppress_prefixlength 0)

so the gateway's own datagrams, and whatever main has a better route for, go the usual way.
Priorities are written out, though they are those the kernel would choose: only so can a rule
be removed that is exactly ours.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import msgspec

from wgmp.addresses import format_prefix
from wgmp.manage import firewall
from wgmp.manage.journal import Journal, Undo
from wgmp.manage.runner import Runner
from wgmp.manage.settings import LinkSettings
from wgmp.protocol.allowedips import Prefix

_FIRST_TABLE = 51820
_FAMILIES = (4, 6)

Network = IPv4Network | IPv6Network


async def add(
    interface: str,
    settings: LinkSettings,
    run: Runner,
    journal: Journal,
    set_mark: Callable[[int], Awaitable[None]],
) -> None:
    """Add the routes `settings` ask for, and what default routes need. Raises CommandError.

    `set_mark`: gives the device the mark that was chosen, when the settings have none.
    """
    if settings.table == "off":
        return
    wanted = _ordered(settings.allowed_ips)
    if settings.table != "auto":
        await _add_routes(interface, wanted, run, journal, settings.table)
        return
    narrow = await _uncovered(interface, _narrow(wanted), run)
    await _add_routes(interface, narrow, run, journal)
    defaults = [prefix for prefix in wanted if not prefix[1]]
    if not defaults:
        return
    mark = settings.fwmark
    if not mark:
        mark = await _free_table(run)
        await set_mark(mark)
    for prefix in defaults:
        await _add_default(interface, prefix, mark, run, journal)


async def change(interface: str, before: LinkSettings, wanted: LinkSettings, run: Runner) -> None:
    """Bring the routes of a link that is up from `before` to `wanted`, default routes excepted.

    In no journal, for they go with the interface. Raises CommandError.
    """
    if wanted.table == "off":
        return
    auto = wanted.table == "auto"
    where = f"dev {interface}{'' if auto else f' table {wanted.table}'}"
    gone = _narrow(set(before.allowed_ips).difference(wanted.allowed_ips))
    await _batch("delete", gone, where, run)
    kept = _narrow(wanted.allowed_ips)
    await _batch("replace", await _uncovered(interface, kept, run) if auto else kept, where, run)


def _narrow(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Return all but default routes, in order."""
    return [prefix for prefix in _ordered(prefixes) if prefix[1]]


async def _batch(verb: str, prefixes: list[Prefix], where: str, run: Runner) -> None:
    """Do one thing to all the routes, with a command for each family."""
    delete = verb == "delete"  # a route may have gone with its address already
    for version, lines in _lines(verb, prefixes, where):
        force = ("-force",) if delete else ()
        command = ("ip", f"-{version}", *force, "-batch", "-")
        await run.run(*command, stdin=lines, check=not delete)


def _lines(verb: str, prefixes: list[Prefix], where: str) -> Iterator[tuple[int, str]]:
    """Yield each family that has routes, with what `ip -batch` reads."""
    for version in _FAMILIES:
        ours = [format_prefix(prefix) for prefix in prefixes if _version(prefix) == version]
        if ours:
            yield version, "".join(f"route {verb} {text} {where}\n" for text in ours)


def _ordered(prefixes: Iterable[Prefix]) -> list[Prefix]:
    """Return the prefixes once each: longest first, then by text backwards, as wg-quick sorts."""
    return sorted(
        set(prefixes), key=lambda prefix: (prefix[1], format_prefix(prefix)), reverse=True
    )


async def _uncovered(interface: str, prefixes: list[Prefix], run: Runner) -> list[Prefix]:
    """Return those that no route of the interface covers, itself one of them included."""
    covers: set[Network] = set()
    for version in _FAMILIES if prefixes else ():
        shown = await _ip_json(run, version, "route", "show", "dev", interface)
        covers.update(_network(version, route["dst"]) for route in shown)
    # A prefix can only be covered by a shorter one, which comes later, or by one that is there.
    return [prefix for prefix in prefixes if not _covered(ip_network(prefix), covers)]


def _covered(network: Network, covers: set[Network]) -> bool:
    return any(network.supernet(new_prefix=bits) in covers for bits in range(network.prefixlen + 1))


def _network(version: int, text: str) -> Network:
    """Return the network of a route as `ip` writes it: "default", an address, or a prefix."""
    if text == "default":
        return ip_network("0.0.0.0/0" if version == 4 else "::/0")
    return ip_network(text)


async def _add_routes(
    interface: str, prefixes: list[Prefix], run: Runner, journal: Journal, table: str = ""
) -> None:
    """Add all the routes with one command for each family."""
    where = f"dev {interface}{f' table {table}' if table else ''}"
    for version, lines in _lines("add", prefixes, where):
        undo = lines.replace("route add", "route delete")
        command = ("ip", f"-{version}", "-force", "-batch", "-")
        journal.add(Undo(command=command, stdin=undo, of_link=True))
        await run.run("ip", f"-{version}", "-batch", "-", stdin=lines)


async def _free_table(run: Runner) -> int:
    """Return the first table from wg-quick's number on that holds no route."""
    for table in itertools.count(_FIRST_TABLE):
        for version in _FAMILIES:
            shown = await run.run(
                "ip", f"-{version}", "route", "show", "table", str(table), check=False
            )
            if shown.stdout.strip():
                break
        else:
            return table
    raise AssertionError("there are more tables than numbers")


async def _add_default(
    interface: str, prefix: Prefix, mark: int, run: Runner, journal: Journal
) -> None:
    version = _version(prefix)
    await _add_routes(interface, [prefix], run, journal, str(mark))
    for selector in (
        ("not", "fwmark", str(mark), "table", str(mark)),
        ("table", "main", "suppress_prefixlength", "0"),
    ):
        rule = (*selector, "priority", str(await _next_priority(version, run)))
        journal.add(Undo(command=("ip", f"-{version}", "rule", "delete", *rule)))
        await run.run("ip", f"-{version}", "rule", "add", *rule)
    await firewall.protect(interface, version, mark, run, journal)


async def _next_priority(version: int, run: Runner) -> int:
    """Return the priority that the kernel would give a rule (fib_default_rule_pref)."""
    rules = await _ip_json(run, version, "rule", "show")
    return max(0, int(rules[1]["priority"]) - 1) if len(rules) > 1 else 0


async def _ip_json(run: Runner, version: int, *arguments: str) -> list[dict[str, Any]]:
    done = await run.run("ip", "-j", f"-{version}", *arguments, check=False)
    return msgspec.json.decode(done.stdout or "[]", type=list[dict[str, Any]])


def _version(prefix: Prefix) -> int:
    return 4 if len(prefix[0]) == 4 else 6
