"""The gateway of macOS, run on Linux: its way of doing everything, on a TUN that stands for utun.

All of it is real but what as_on_macos.py lists: packets, peer, processes and their ends. What opens
a utun cannot run here, and is tested on mocks (tests/test_utun.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for

from .conftest import MakeTunnel
from .short_timers import REKEY_AFTER_S
from .tunnel import PROGRAMS, WGMP, Tunnel, exists, key, transfer

pytestmark = pytest.mark.root

MACOS = {"WGMP_WORKERS": "auto", "WGMP_TOPOLOGY": "auto"}
ENOUGH = str(20_000_000)
LIMIT_S = 15.0


@pytest.fixture
def ends(tunnel: MakeTunnel) -> Tunnel:
    """Give a tunnel from a gateway as on macOS to wireguard-go, with a session."""
    made = tunnel("wgmpd-macos", "wireguard-go", environment=MACOS)
    assert made.left.ping(made.right.inner4)
    return made


@pytest.mark.parametrize("family", [4, 6])
def test_20_mb_arrive_intact_in_both_directions(tunnel: MakeTunnel, family: int) -> None:
    ends = tunnel("wgmpd-macos", "wireguard-go", family=family, psk=True, environment=MACOS)
    assert ends.left.ping(ends.right.inner6)
    assert ends.right.ping_all(ends.left.inner4, count=20, size=1300)
    for sender, receiver, inner in (
        (ends.left, ends.right, family),
        (ends.right, ends.left, 10 - family),
    ):
        report = transfer(sender, receiver, "--bytes", ENOUGH, family=inner).finish(120)
        assert report.bytes == int(ENOUGH)
    peer = ends.left.peer()
    assert min(peer.sent, peer.received) > int(ENOUGH)
    stats = ends.left.stats()
    assert stats["fastpath"] == "reference"
    assert not any(stats["offloads"].values())
    assert [row["name"] for row in stats["processes"]] == ["supervisor", "gateway"]


def test_traffic_flows_on_while_sessions_are_replaced(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd-macos-short", "wireguard-go", environment=MACOS)
    assert ends.left.ping(ends.right.inner4)
    before = ends.left.drops().get("keypair_expired", 0)
    transfer(ends.left, ends.right, "--seconds", str(2.5 * REKEY_AFTER_S)).finish(60)
    rekeys = ends.left.total("handshakes_completed") - 1
    assert rekeys >= 2, "a rekey for each time the session grew old"
    assert ends.left.drops().get("keypair_expired", 0) == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_dies_or_hangs_is_replaced_and_the_session_goes_on(
    ends: Tunnel, number: signal.Signals
) -> None:
    victim, sessions = ends.left.role_pids()["gateway"], ends.left.total("handshakes_completed")
    flow = transfer(ends.right, ends.left, "--seconds", "5")
    wait_for(lambda: flow.received().bytes > 1_000_000, LIMIT_S, "the transfer gets going")
    os.kill(victim, number)
    flow.finish(60)
    assert ends.left.role_pids()["gateway"] != victim
    assert not exists(victim)
    assert ends.left.total("handshakes_completed") == sessions, "its session goes on"
    how = "was killed by SIGKILL" if number == signal.SIGKILL else "did not turn its loop"
    assert how in ends.left.log.read_text()


def test_no_process_outlives_a_killed_supervisor(ends: Tunnel) -> None:
    pid = ends.left.role_pids()["gateway"]
    ends.left.process.kill()
    wait_for(lambda: not exists(pid), LIMIT_S, "the process has ended")


@pytest.mark.parametrize("how", ["terminated", "socket deleted", "interface deleted"])
def test_an_ordered_stop_leaves_nothing(ends: Tunnel, how: str) -> None:
    gateway, pid = ends.left, ends.left.role_pids()["gateway"]
    if how == "terminated":
        gateway.process.terminate()
    elif how == "socket deleted":
        gateway.socket.unlink()
    else:
        gateway.namespace.run("ip", "link", "delete", gateway.interface)
    assert gateway.process.wait(LIMIT_S) == 0
    assert not exists(pid)
    assert not gateway.socket.exists()
    assert "Traceback" not in gateway.log.read_text()


def test_a_change_of_the_link_is_noticed(ends: Tunnel) -> None:
    gateway = ends.left
    gateway.namespace.run("ip", "link", "set", gateway.interface, "mtu", "1300")
    size = ("-M", "do", "-s", str(1380 - 28))
    gateway.namespace.run("ip", "link", "set", gateway.interface, "down")
    gateway.namespace.set_up(gateway.interface)
    assert gateway.ping(ends.right.inner4)
    assert not gateway.ping(ends.right.inner4, *size, wait_s=1)
    gateway.namespace.run("ip", "link", "set", gateway.interface, "mtu", "1420")
    assert gateway.ping(ends.right.inner4, *size)


def test_the_system_names_the_interface_and_a_file_is_told(
    namespaces: Namespaces, tmp_path: Path
) -> None:
    space, file = namespaces.add("left"), tmp_path / "name"
    settings = {"LOG_LEVEL": "verbose", "WG_TUN_NAME_FILE": str(file)}
    started = space.start(
        *PROGRAMS["wgmpd-macos"], "utun", log=tmp_path / "log", environment=settings
    )
    assert started.wait(LIMIT_S) == 0, (tmp_path / "log").read_text()
    name = file.read_text().strip()
    assert name.startswith("utun")
    assert name != "utun"
    assert space.run("wg", "show", name, "listen-port").stdout.strip().isdigit()
    _delete(space, name)


CONFIG = """
[Interface]
PrivateKey = {key}
Address = 10.77.0.1/24, fd77::1/64
MTU = 1380

[Peer]
PublicKey = {peer}
AllowedIPs = {allowed}
"""


def configured(space: Namespace, directory: Path, allowed: str) -> subprocess.Popen[bytes]:
    """Start a gateway with a configuration; mocks of `ifconfig` and `route` note their commands."""
    (directory / "bin").mkdir()
    for program in ("ifconfig", "route"):
        path = directory / "bin" / program
        path.write_text(f'#!/bin/sh\necho {program} "$@" >>{directory}/commands\n')
        path.chmod(0o755)
    file, peer = directory / "wg0.conf", key("pubkey", key("genkey"))
    file.write_text(CONFIG.format(key=key("genkey"), peer=peer, allowed=allowed))
    settings = {
        "PATH": f"{directory}/bin:{os.environ['PATH']}",
        "WG_TUN_NAME_FILE": str(directory / "name"),
        "WGMP_CONFIG": str(file),
    }
    command = (*PROGRAMS["wgmpd-macos"], "utun")
    return space.start(*command, log=directory / "log", environment=settings)


def test_a_configuration_is_carried_out_by_ifconfig_and_route(
    namespaces: Namespaces, tmp_path: Path
) -> None:
    space = namespaces.add("left")
    assert configured(space, tmp_path, "10.77.0.0/24").wait(LIMIT_S) == 0
    name = (tmp_path / "name").read_text().strip()
    assert (tmp_path / "commands").read_text().splitlines() == [
        f"ifconfig {name} inet 10.77.0.1/24 10.77.0.1 alias",
        f"ifconfig {name} inet6 fd77::1/64 alias",
        f"ifconfig {name} mtu 1380",
        f"ifconfig {name} up",
        f"route -q -n add -inet 10.77.0.0/24 -interface {name}",
    ]
    assert "10.77.0.0/24" in space.run("wg", "show", name, "allowed-ips").stdout
    _delete(space, name)


def test_a_default_route_is_left_to_wg_quick(namespaces: Namespaces, tmp_path: Path) -> None:
    assert configured(namespaces.add("left"), tmp_path, "0.0.0.0/0").wait(LIMIT_S) == 1
    (said,) = (tmp_path / "log").read_text().splitlines()
    assert said.startswith("wgmpd: on macOS a default route is left to wg-quick")
    assert not (tmp_path / "commands").exists()


@pytest.mark.parametrize(
    ("variable", "value", "line"),
    [
        ("WGMP_TOPOLOGY", "pipeline", "only on Linux can a gateway have more than one process"),
        ("WGMP_WORKERS", "2", "only on Linux can a gateway have more than one process"),
        ("WGMP_FASTPATH", "native", "the native fast path makes system calls that only Linux has"),
    ],
)
def test_what_only_linux_has_is_refused_at_the_start(
    namespaces: Namespaces, tmp_path: Path, variable: str, value: str, line: str
) -> None:
    space, log = namespaces.add("left"), tmp_path / "log"
    command = (*PROGRAMS["wgmpd-macos"], "-f", "utun")
    started = space.start(*command, log=log, environment={variable: value})
    assert started.wait(LIMIT_S) != 0
    (said,) = log.read_text().splitlines()
    assert said.startswith(f"wgmpd: {line}")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("workers", "2"), "only on Linux can there be more than one worker"),
        (("upgrade",), "only on Linux can a gateway be handed over"),
        (("capture", "-w", os.devnull), "a capture needs memory that can be handed over"),
    ],
)
def test_what_only_linux_has_is_refused_by_a_gateway(
    ends: Tunnel, arguments: tuple[str, ...], line: str
) -> None:
    verb, *rest = arguments
    done = ends.left.namespace.run(WGMP, verb, *rest, ends.left.interface, check=False)
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"wgmp: {line}")
    assert done.returncode != 0
    assert ends.left.ping(ends.right.inner4)


def test_marks_are_refused(ends: Tunnel) -> None:
    done = ends.left.namespace.run("wg", "set", ends.left.interface, "fwmark", "1", check=False)
    assert (done.returncode, "not supported" in done.stderr) == (1, True)
    ends.left.set("fwmark", "0")


def _delete(space: Namespace, name: str) -> None:
    """End a daemon by its socket, and wait until its interface is gone."""
    (UAPI_DIRECTORY / f"{name}.sock").unlink()

    def gone() -> bool:
        return space.run("ip", "link", "show", name, check=False).returncode != 0

    wait_for(gone, LIMIT_S, "the daemon has ended")
