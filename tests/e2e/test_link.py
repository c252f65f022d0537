"""bring_up does to an interface, routes, rules and firewall what `wg-quick up` does; take_down
undoes it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from wgmp import config as quick
from wgmp.addresses import parse_endpoint
from wgmp.manage import link
from wgmp.manage.journal import Journal
from wgmp.manage.runner import Commands, Done
from wgmp.manage.settings import LinkSettings, settings_of
from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for

from .tunnel import WGMP, WGMPD, key

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft"),
    pytest.mark.skipif(shutil.which("sysctl") is None, reason="needs sysctl"),
]

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

    def start(self, path: Path) -> LinkSettings:
        """Start a gateway with the file's keys and peers; return what is left to do."""
        self.space.run(WGMPD, self.interface, environment={"WGMP_TOPOLOGY": "compact"})
        stripped = self.space.run("wg-quick", "strip", str(path)).stdout
        self.space.run("wg", "setconf", self.interface, "/dev/stdin", stdin=stripped)
        config = quick.load(path)
        endpoints = tuple(parse_endpoint(peer.endpoint) for peer in config.peers)
        return structs.replace(settings_of(config), endpoints=endpoints)

    def bring_up(self, settings: LinkSettings) -> None:
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
            # A gateway changes this one a moment after the MTU has changed.
            kept.add("gso_max_size")
            for volatile in {"ifindex", "link_index"} | kept:
                entry.pop(volatile, None)
            for address in entry["addr_info"]:
                address.pop("tentative", None)  # for a second or so
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
    (veth,) = set(space.links()) - {"lo"}
    # Its link-local address is tried out for a second or two, and changes state and routes then.
    space.run("ip", "-6", "address", "flush", "dev", veth, "scope", "link")
    space.run("ip", "route", "add", "default", "via", way_out.right4)
    space.run("ip", "route", "add", "default", "via", way_out.right6)
    space.run("ip", "route", "add", "203.0.113.0/24", "via", way_out.right4, "mtu", "1380")
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
        pytest.param("", f"{PLAIN}\nEndpoint = 203.0.113.9:51820", id="way-with-its-own-mtu"),
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


def assert_same(found: dict[str, object], expected: dict[str, object], when: str = "") -> None:
    for what, state in expected.items():
        assert found[what] == state, f"{what} {when}"


def bring_up_and_die(host: Host, settings: LinkSettings, commands: int) -> bool:
    """Bring up in a process that kills itself after so many commands; tell whether it did."""

    class Mortal(Commands):
        left = commands

        async def run(self, *command: str, **settings: Any) -> Done:
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            self.left -= 1
            return await super().run(*command, **settings)

    pid = os.fork()
    if not pid:
        code = 1
        try:
            host.run = Mortal("ip", "netns", "exec", host.space.name)
            host.bring_up(settings)
            code = 0
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def test_whenever_bring_up_is_killed_all_of_it_can_be_undone(host: Host) -> None:
    settings = host.start(host.file(configuration("", f"{PLAIN}, 0.0.0.0/0, ::/0")))
    created = host.state()
    killed = 0
    while bring_up_and_die(host, settings, killed):
        host.journal = Journal(host.journal.path)
        host.take_down()
        assert_same(host.state(), created, f"after {killed} commands")
        killed += 1
    assert killed > 10
    host.journal = Journal(host.journal.path)
    assert host.state() != created
    host.take_down()
    assert host.state() == created


def supervise(host: Host, path: Path, *options: str) -> subprocess.Popen[bytes]:
    command = (WGMP, "supervise", host.interface, "--config", str(path), "--foreground", *options)
    log = host.directory / "gateway.log"
    log.unlink(missing_ok=True)
    process = host.space.start(*command, log=log, environment={"LOG_LEVEL": "verbose"})
    wait_for(lambda: "is up" in log.read_text() or process.poll(), 15, "the gateway starts")
    assert process.poll() is None, log.read_text()
    return process


def test_supervise_leaves_nothing_when_it_stops_and_makes_up_for_being_killed(host: Host) -> None:
    path = host.file(configuration("", f"{PLAIN}, 0.0.0.0/0, ::/0"))
    before = host.state()
    supervise(host, path).kill()
    wait_for(lambda: not host.space.processes(), 8, "the roles end")
    left_behind = host.state()
    assert left_behind["rules"] != before["rules"]
    assert left_behind["firewall"] != before["firewall"]

    process = supervise(host, path)
    assert "undoing what was left behind" in (host.directory / "gateway.log").read_text()
    refused = host.space.run(WGMP, "undo", host.interface, check=False)
    assert (refused.returncode, "end its gateway first" in refused.stderr) == (1, True)
    process.terminate()
    assert process.wait(8) == 0
    assert host.state() == before

    supervise(host, path).kill()
    wait_for(lambda: not host.space.processes(), 8, "the roles end")
    assert host.state() != before
    host.space.run(WGMP, "undo", host.interface)
    assert host.state() == before
    # A killed gateway's own sockets. Any `wg show` removes the one in UAPI_DIRECTORY.
    (Path("/run/wgmp") / f"{host.interface}.sock").unlink()
    (UAPI_DIRECTORY / f"{host.interface}.sock").unlink(missing_ok=True)
    assert list(Path("/run/wgmp").glob(f"{host.interface}*")) == []


def test_who_comes_second_leaves_the_link_of_the_first_as_it_is(
    host: Host, namespaces: Namespaces
) -> None:
    path = host.file(configuration("", f"{PLAIN}, 0.0.0.0/0, ::/0"))
    before = host.state()
    process = supervise(host, path)
    up, journal = host.state(), Path(f"/run/wgmp/{host.interface}.undo")
    steps = journal.read_bytes()
    for space in (host.space, namespaces.add("elsewhere")):
        for command in (
            ("supervise", host.interface, "--config", str(path)),
            ("undo", host.interface),
        ):
            refused = space.run(WGMP, *command, check=False)
            assert refused.returncode == 1, refused.stderr
            assert journal.read_bytes() == steps
            assert host.state() == up
    process.terminate()
    assert process.wait(8) == 0
    assert host.state() == before


HOOKS = """\
PreUp = echo pre-up %i $(ip link show %i 2>&1 | grep -c "mtu") >> DIR/said
PostUp = wg set %i listen-port 40404; echo post-up $(wg show %i listen-port) >> DIR/said
PreDown = echo pre-down $(ip link show %i | grep -c ",UP") >> DIR/said
PostDown = echo post-down 1 >> DIR/said; echo post-down 2 >> DIR/said
PostDown = echo post-down $(ip link show %i 2>&1 | grep -c "mtu") >> DIR/said
"""


def test_hooks_run_in_wg_quicks_order_but_only_when_asked_for(host: Host) -> None:
    path = host.file(configuration(HOOKS.replace("DIR", str(host.directory))))
    said = host.directory / "said"
    process = supervise(host, path)
    process.terminate()
    assert process.wait(8) == 0
    assert not said.exists()
    log = (host.directory / "gateway.log").read_text()
    assert "PreUp, PostUp, PreDown, PostDown: not run" in log

    process = supervise(host, path, "--run-hooks")
    process.terminate()
    assert process.wait(8) == 0
    assert said.read_text().splitlines() == [
        f"pre-up {host.interface} 0",
        "post-up 40404",
        "pre-down 1",
        "post-down 1",
        "post-down 2",
        "post-down 0",
    ]


def test_a_hook_that_fails_ends_the_start_and_leaves_nothing(host: Host) -> None:
    path = host.file(configuration("PostUp = echo no luck >&2; exit 7"))
    before = host.state()
    done = host.space.run(
        WGMP, "supervise", host.interface, "--config", str(path), "--run-hooks", check=False
    )
    assert done.returncode == 1
    assert "exit 7` failed (7): no luck" in done.stderr
    wait_for(lambda: not host.space.processes(), 8, "the gateway ends")
    assert host.state() == before


RESOLVCONF = """\
#!/bin/sh
echo "$@" >> "$SAID"
if [ "$1" = -a ]; then cat >> "$SAID"; fi
"""


def test_the_resolver_is_told_what_wg_quick_tells_it(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs, said = host.directory / "bin", host.directory / "said"
    programs.mkdir()
    (programs / "resolvconf").write_text(RESOLVCONF)
    (programs / "resolvconf").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("SAID", str(said))
    dns = "DNS = 9.9.9.9, example.org\nDNS = 2620:fe::fe example.net"
    path = host.file(configuration(dns))
    wg_quick(host, "up", path)
    up = said.read_text()
    wg_quick(host, "down", path)
    wait_for(lambda: not host.space.processes(), 8, "the gateway ends")
    assert "nameserver 9.9.9.9\nnameserver 2620:fe::fe\nsearch example.org example.net" in up

    said.unlink()
    settings = host.start(path)
    host.bring_up(settings)
    assert said.read_text() == up
    host.take_down()
    assert said.read_text() == f"{up}-d {host.interface} -f\n"


def test_save_config_writes_what_changed_and_keeps_the_rest(host: Host) -> None:
    bob = key("pubkey", key("genkey"))
    text = (
        configuration("SaveConfig = true # as with wg-quick", "10.9.0.0/24")
        .replace("[Peer]", "# Alice's laptop\n[Peer]")
        .replace("192.0.2.2:51820", "localhost:51820")
    )
    path = host.file(text)
    process = supervise(host, path)
    host.space.run(
        "wg",
        "set",
        host.interface,
        "peer",
        bob,
        "allowed-ips",
        "10.8.0.0/24",
        "endpoint",
        "192.0.2.9:7",
    )
    host.space.run("wg", "set", host.interface, "peer", PEER, "persistent-keepalive", "25")
    process.terminate()
    assert process.wait(8) == 0
    keepalive = "AllowedIPs = 10.9.0.0/24\nPersistentKeepalive = 25\n"
    assert path.read_text() == (
        text.replace("AllowedIPs = 10.9.0.0/24\n", keepalive)
        + f"\n[Peer]\nPublicKey = {bob}\nEndpoint = 192.0.2.9:7\nAllowedIPs = 10.8.0.0/24\n"
    )

    process = supervise(host, path)
    host.space.run("wg", "set", host.interface, "peer", bob, "remove")
    host.space.run("wg", "set", host.interface, "peer", PEER, "endpoint", "192.0.2.8:8")
    process.terminate()
    assert process.wait(8) == 0
    saved = text.replace("AllowedIPs = 10.9.0.0/24\n", keepalive)
    assert path.read_text() == saved.replace("localhost:51820", "192.0.2.8:8")
    assert path.stat().st_mode & 0o777 == 0o600


def test_deleting_an_interface_with_thousands_of_routes_ends_its_gateway(host: Host) -> None:
    # The kernel says so in more events than the gateway's socket holds, its last word among them.
    allowed = ", ".join(f"10.{n >> 8}.{n & 255}.0/24, fd00:{n:x}::/64" for n in range(1000))
    process = supervise(host, host.file(configuration("", allowed)))
    assert len(host.space.run("ip", "-4", "route").stdout.splitlines()) > 1000
    host.space.run("ip", "link", "delete", host.interface)
    assert process.wait(8) == 0
