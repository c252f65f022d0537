"""The firewall of a default route: nothing reaches the tunnel's addresses from outside it.

Three rules, as wg-quick(8) sets them, in a table of the interface's own:

1. What comes in on another interface for one of our addresses, from a source that is not of
   this host, is dropped (CVE-2019-14899: a neighbour could otherwise find out the address).
2. A datagram that leaves with the device's mark marks its connection;
3. an answer takes the connection's mark, so that a strict rp_filter looks its source up as a
   datagram of the device's own (src_valid_mark).

By nft, or where there is none by iptables.
"""

from __future__ import annotations

from typing import Any

import msgspec

from wgmp.errors import CommandError
from wgmp.manage.journal import Journal, Undo
from wgmp.manage.runner import Runner

_SRC_VALID_MARK = "net.ipv4.conf.all.src_valid_mark"


async def protect(interface: str, version: int, mark: int, run: Runner, journal: Journal) -> None:
    """Set the rules for the addresses the interface has. Raises CommandError.

    `version`: 4 or 6. `mark`: the device's. With 4 also net.ipv4.conf.all.src_valid_mark.
    """
    if version == 4:
        await _allow_marked_sources(run, journal)
    addresses = await _addresses(interface, version, run)
    if run.has("nft"):
        family = "ip" if version == 4 else "ip6"
        table = f"{family} wgmp-{interface}"
        journal.add(Undo(command=("nft", "delete", "table", *table.split())))
        await run.run("nft", "-f", "-", stdin=nft_script(table, interface, mark, addresses))
        return
    program = "iptables-restore" if version == 4 else "ip6tables-restore"
    if not run.has(program):
        raise CommandError("a default route needs a firewall rule: install nftables")
    journal.add(
        Undo(command=(program, "-n"), stdin=iptables_script("-D", interface, mark, addresses))
    )
    await run.run(program, "-n", stdin=iptables_script("-I", interface, mark, addresses))


async def _allow_marked_sources(run: Runner, journal: Journal) -> None:
    other = journal.of_others(_SRC_VALID_MARK)
    if other is None:
        value = (await run.run("sysctl", "-n", _SRC_VALID_MARK)).stdout.strip()
        back: tuple[str, ...] = ("sysctl", "-q", f"{_SRC_VALID_MARK}={value}")
    else:
        back = other.command
    journal.add(Undo(command=back, shared=_SRC_VALID_MARK))
    await run.run("sysctl", "-q", f"{_SRC_VALID_MARK}=1")


async def _addresses(interface: str, version: int, run: Runner) -> list[str]:
    done = await run.run("ip", "-j", f"-{version}", "address", "show", "dev", interface)
    links = msgspec.json.decode(done.stdout or "[]", type=list[dict[str, Any]])
    # `ip` prints an empty object for each link it leaves out.
    return [entry["local"] for link in links for entry in link.get("addr_info", ())]


def nft_script(table: str, interface: str, mark: int, addresses: list[str]) -> str:
    """Return what `nft -f` reads. `table`: family and name."""
    family = table.split()[0]
    lines = [f"table {table} {{", "  chain foreign {"]
    lines.append("    type filter hook prerouting priority raw; policy accept;")
    for address in addresses:
        lines.append(
            f'    iifname != "{interface}" {family} daddr {address} fib saddr type != local drop'
        )
    lines += ["  }", "  chain answers {"]
    lines.append("    type filter hook prerouting priority mangle; policy accept;")
    lines.append("    meta l4proto udp meta mark set ct mark")
    lines += ["  }", "  chain outgoing {"]
    lines.append("    type filter hook postrouting priority mangle; policy accept;")
    lines.append(f"    meta l4proto udp meta mark {mark} ct mark set meta mark")
    lines += ["  }", "}"]
    return "\n".join(lines) + "\n"


def iptables_script(verb: str, interface: str, mark: int, addresses: list[str]) -> str:
    """Return what `iptables-restore -n` reads. `verb`: -I to insert the rules, -D to delete."""
    comment = f'-m comment --comment "wgmp: {interface}"'
    lines = ["*raw"]
    for address in addresses:
        lines.append(
            f"{verb} PREROUTING ! -i {interface} -d {address} "
            f"-m addrtype ! --src-type LOCAL -j DROP {comment}"
        )
    lines += ["COMMIT", "*mangle"]
    marked = f"-p udp -m mark --mark {mark}"
    lines.append(f"{verb} POSTROUTING {marked} -j CONNMARK --save-mark {comment}")
    lines.append(f"{verb} PREROUTING -p udp -j CONNMARK --restore-mark {comment}")
    lines.append("COMMIT")
    return "\n".join(lines) + "\n"
