"""Telling the host's resolver of the tunnel's name servers, where it has a way to be told.

By `resolvconf` as wg-quick does it (openresolv, Debian's, or systemd's), else by `resolvectl`.
The servers are for all names ("exclusive"): with a tunnel's resolver in use, none may leak to
another.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from wgmp.config_grammar import DnsEntry
from wgmp.manage.journal import Journal, Undo
from wgmp.manage.runner import Runner

_ORDER = Path("/etc/resolvconf/interface-order")

log = logging.getLogger("wgmp")


async def set_up(interface: str, dns: Sequence[DnsEntry], run: Runner, journal: Journal) -> None:
    """Use the servers and search domains in `dns`; search domains alone change nothing.

    Raises CommandError when the resolver refuses; where there is none to tell, a log line.
    """
    servers = [str(entry) for entry in dns if not isinstance(entry, str)]
    domains = [entry for entry in dns if isinstance(entry, str)]
    if not servers:
        return
    if run.has("resolvconf"):
        name = f"{_prefix()}{interface}"
        lines = [f"nameserver {server}" for server in servers]
        if domains:
            lines.append(f"search {' '.join(domains)}")
        journal.add(Undo(command=("resolvconf", "-d", name, "-f")))
        await run.run("resolvconf", "-a", name, "-m", "0", "-x", stdin="\n".join(lines) + "\n")
    elif run.has("resolvectl"):
        journal.add(Undo(command=("resolvectl", "revert", interface), of_link=True))
        await run.run("resolvectl", "dns", interface, *servers)
        await run.run("resolvectl", "domain", interface, "~.", *domains)
    else:
        log.warning(
            "DNS: there is neither resolvconf nor resolvectl, so the resolver stays as it is: "
            "install resolvconf"
        )


def _prefix() -> str:
    """Return what Debian's resolvconf wants before the name, to give it its place in the order."""
    try:
        lines = _ORDER.read_text().splitlines()
    except OSError:
        return ""
    names = (re.fullmatch(r"([A-Za-z0-9-]+)\*", line) for line in lines)
    return next((f"{name[1]}." for name in names if name), "")
