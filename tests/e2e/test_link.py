"""bring_up does to an interface, routes, rules and firewall what `wg-quick up` does; take_down
undoes it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from wgmp import config as quick
from wgmp.addresses import resolve_endpoint
from wgmp.manage import link
from wgmp.manage.journal import Journal
from wgmp.manage.runner import Commands
from wgmp.netns import Namespace, Namespaces, wait_for

from .tunnel import WGMPD, key

pytestmark = pytest.mark.root

PEER = key("pubkey", key("genkey"))
PRIVATE = key("genkey")
PLAIN = "10.5.0.0/16, 10.77.0.0/24, 198.51.100.7/32, fd77:1::/64, 2001:db8:9::/48, 10.5.9.0/24"


def configuration(interface: str = "", allowed: str = PLAIN) -> str:
    return (
        f"[Interface]\nPrivateKey = {PRIVATE}\nListenPort = 51820\n"
        f"Address = 10.77.0.1/24, fd77::1/64\n{interface}\n"
        f"[Peer]\nPublicKey = {PEER}\nEndpoint = 192.0.2.2:51820\nAllowedIPs = {allowed}\n"
    )


@dataclass
class Host:
    """A namespace with a way out, an interface name, and a journal."""

    space: Namespace
    interface: str
    directory: Path

    def __post_init__(self) -> None:
        self.run = Commands("ip", "netns", "exec", self.space.name)
        self.journal = Journal(self.directory / f"{self.interface}.undo")

    def file(self, text: str) -> Path:
        path = self.directory / f"{self.interface}.conf"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def start(self, path: Path) -> link.LinkSettings:
        """Start a gateway with the file's keys and peers; return what is left to do."""
        self.space.run(WGMPD, self.interface, environment={"WGMP_TOPOLOGY": "compact"})
        stripped = self.space.run("wg-quick", "strip", str(path)).stdout
        self.space.run("wg", "setconf", self.interface, "/dev/stdin", stdin=stripped)
        config = quick.load(path)
        return link.settings_of(config, [resolve_endpoint(peer.endpoint) for peer in config.peers])

    def bring_up(self, settings: link.LinkSettings) -> None:
        asyncio.run(link.bring_up(self.interface, settings, self.run, self.journal))

    def take_down(self) -> None:
        asyncio.run(link.take_down(self.interface, self.run, self.journal))

    def delete(self) -> None:
        """Delete the interface and wait for the gateway's end."""
        self.space.run("ip", "link", "delete", self.interface)
        wait_for(lambda: not self.space.processes(), 8, "the gateway ends")

    def state(self) -> dict[str, object]:
        """Return all that bringing up may touch, the names of wg-quick's and wgmp's made alike."""

        def shown(*command: str) -> str:
            return self.space.run(*command).stdout

        every = json.loads(shown("ip", "-j", "-d", "address"))
        for entry in every:
            # What the kernel gives a link that comes up the first time, and never takes away.
            kept = {"inet6_addr_gen_mode"} | (set() if "UP" in entry["flags"] else {"qdisc"})
            for volatile in {"ifindex", "link_index"} | kept:
                entry.pop(volatile, None)
        text = json.dumps(every)
        routes = [shown("ip", f"-{family}", "route", "show", "table", "all") for family in (4, 6)]
        rules = [shown("ip", f"-{family}", "rule", "show") for family in (4, 6)]
        firewall = shown("nft", "list", "ruleset")
        for theirs, ours in (
            ("wg-quick-", "wgmp-"),
            ("chain preraw", "chain foreign"),
            ("chain premangle", "chain answers"),
            ("chain postmangle", "chain outgoing"),
        ):
            firewall = firewall.replace(theirs, ours)
        tables = sorted(re.split(r"(?m)^(?=table )", firewall))
        chains = [sorted(re.split(r"(?m)^(?=\tchain )", table)) for table in tables]
        local = re.findall(r"fe80::[0-9a-f:]+", text)
        state: dict[str, object] = {
            "addresses": text,
            "routes": [sorted(table.splitlines()) for table in routes],
            "rules": rules,
            "firewall": chains,
            "mark": shown("sysctl", "net.ipv4.conf.all.src_valid_mark"),
        }
        return json.loads(_alike(json.dumps(state), local))  # type: ignore[no-any-return]


def _alike(text: str, link_local: list[str]) -> str:
    """Name link-local addresses, which are random, by their order."""
    for number, address in enumerate(dict.fromkeys(link_local)):
        text = re.sub(re.escape(address) + r"(?![0-9a-f:])", f"LINK-LOCAL-{number}", text)
    return text


@pytest.fixture
def host(namespaces: Namespaces, tmp_path: Path) -> Iterator[Host]:
    space, router = namespaces.add("host"), namespaces.add("router")
    way_out = namespaces.connect(space, router)
    space.run("ip", "route", "add", "default", "via", way_out.right4)
    space.run("ip", "route", "add", "default", "via", way_out.right6)
    return Host(space, space.interface_name("wl"), tmp_path)


def wg_quick(host: Host, verb: str, path: Path) -> None:
    environment = {"WG_QUICK_USERSPACE_IMPLEMENTATION": WGMPD, "WGMP_TOPOLOGY": "compact"}
    host.space.run("wg-quick", verb, str(path), environment=environment, timeout_s=30)


@pytest.mark.parametrize(
    ("interface", "allowed"),
    [
        pytest.param("", PLAIN, id="plain"),
        pytest.param("Table = off", PLAIN, id="table-off"),
        pytest.param("Table = 1234", f"{PLAIN}, 0.0.0.0/0, ::/0", id="table-1234"),
        pytest.param("", f"{PLAIN}, 0.0.0.0/0, ::/0", id="default-routes"),
        pytest.param("FwMark = 0x1234\nMTU = 1300", "0.0.0.0/0", id="default-v4-with-mark"),
        pytest.param("", "::/0, 0.0.0.0/1", id="default-v6"),
    ],
)
def test_what_bring_up_does_is_what_wg_quick_does(host: Host, interface: str, allowed: str) -> None:
    path = host.file(configuration(interface, allowed))
    before = host.state()
    wg_quick(host, "up", path)
    theirs = host.state()
    mark = host.space.run("wg", "show", host.interface, "fwmark").stdout
    wg_quick(host, "down", path)
    wait_for(lambda: not host.space.processes(), 8, "the gateway ends")
    host.space.run("sysctl", "-q", "net.ipv4.conf.all.src_valid_mark=0")

    settings = host.start(path)
    created = host.state()
    host.bring_up(settings)
    assert host.state() == theirs
    assert host.space.run("wg", "show", host.interface, "fwmark").stdout == mark
    host.take_down()
    assert host.state() == created
    host.delete()
    assert host.state() == before
    assert not host.journal.path.exists()
