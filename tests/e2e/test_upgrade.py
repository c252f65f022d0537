"""`wgmp upgrade`: another program takes a gateway over while TCP flows, or it stays as it was."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from wgmp import control
from wgmp.errors import ControlError
from wgmp.netns import Namespaces, wait_for

from .conftest import MakeTunnel
from .torture import Wiretap, flow, longest_gap
from .tunnel import WGMP, WGMPD, Gateway, Tunnel, exists, is_listened_at, key, outage

pytestmark = [pytest.mark.root, pytest.mark.alone]

# What a busy test machine may add to it is most of this.
PAUSE_LIMIT_S = 1.5
FAINTING = str(Path(__file__).with_name("fainting_successor.py"))


def upgrade(gateway: Gateway) -> str:
    """Upgrade a gateway to itself; return what the command printed."""
    return gateway.namespace.run(WGMP, "upgrade", gateway.interface).stdout


def working(tunnel: MakeTunnel, topology: str) -> Tunnel:
    """Return a tunnel that has carried a packet."""
    ends = tunnel("wgmpd", "wgmpd", topology=topology, environment={"LOG_LEVEL": "error"})
    assert ends.left.ping(ends.right.inner4)
    return ends


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_a_gateway_is_taken_over_under_tcp_without_a_handshake(
    tunnel: MakeTunnel, topology: str
) -> None:
    ends = working(tunnel, topology)
    left, space = ends.left, ends.left.namespace
    before, index = left.peers()[ends.right.public_key], _index(left)
    known, pids = left.total("handshakes_completed"), left.role_pids()
    wire = Wiretap(space, left.outer_interface())
    flows = [flow(left, ends.right, 5201), flow(ends.right, left, 5202)]
    wait_for(lambda: all(each.received().bytes > 1_000_000 for each in flows), 20, "it flows")
    start = time.monotonic()
    printed = upgrade(left)
    for each in flows:
        outage(each)
    end = time.monotonic()
    for each in flows:
        each.conclude(60)
    datagrams, _, reused = wire.close()
    arrivals = [[report.at for report in each.arrivals()] for each in flows]
    pause = max(longest_gap(times, start, end) for times in arrivals)
    print(f"{topology}: longest pause {1000 * pause:.0f} ms; {printed}")
    assert pause < PAUSE_LIMIT_S
    assert (reused, datagrams > 1000) == (0, True)
    assert left.total("handshakes_completed") == known
    after = left.peers()[ends.right.public_key]
    assert (after.handshake, after.endpoint) == (before.handshake, before.endpoint)
    assert after.received > before.received + 1_000_000
    assert after.sent > before.sent + 1_000_000
    assert _index(left) == index
    assert not [pid for pid in pids.values() if exists(pid)]
    assert left.process.wait(5) == 0


def test_a_successor_serves_every_socket_and_stops_in_order(tunnel: MakeTunnel) -> None:
    ends = working(tunnel, "compact")
    left = ends.left
    for _ in range(2):
        upgrade(left)
    other = key("pubkey", key("genkey"))
    left.set("peer", other, "allowed-ips", "10.77.0.9/32")
    assert left.peers().keys() == {ends.right.public_key, other}
    assert left.ping(ends.right.inner6)
    supervisor = left.role_pids()["supervisor"]
    left.namespace.run("kill", str(supervisor))
    wait_for(lambda: not left.namespace.processes(), 8, "the successor ends")
    assert left.interface not in left.namespace.links()
    assert not left.socket.exists()
    assert not control.socket_path(left.interface).exists()


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (["/bin/false"], "it ended"),
        (["/no/such/program"], "/no/such/program cannot be run: No such file or directory"),
        ([sys.executable, FAINTING], "it ended"),
    ],
    ids=["ends-at-once", "does-not-exist", "ends-when-it-should-work"],
)
def test_a_program_that_does_not_take_over_changes_nothing(
    tunnel: MakeTunnel, program: list[str], reason: str
) -> None:
    ends = working(tunnel, "pipeline")
    left = ends.left
    known, supervisor = left.total("handshakes_completed"), left.role_pids()["supervisor"]
    with pytest.raises(ControlError, match=reason):
        control.upgrade(left.interface, program)
    assert left.ping(ends.right.inner4)
    assert left.total("handshakes_completed") == known
    assert left.role_pids()["supervisor"] == supervisor
    assert all(exists(pid) for pid in left.role_pids().values())
    left.set("peer", key("pubkey", key("genkey")), "allowed-ips", "10.77.0.9/32")
    assert "has taken over" in upgrade(left)
    assert left.ping(ends.right.inner4)


def test_a_gateway_that_belongs_to_another_program_is_not_taken_from_it(
    namespaces: Namespaces, tmp_path: Path
) -> None:
    space = namespaces.add("owned")
    name = space.interface_name("wg")
    owner = ("setpriv", "--pdeathsig", "TERM", "--")  # as the agent starts its gateways
    space.start(*owner, WGMPD, "-f", name, log=tmp_path / "log")
    path = control.socket_path(name)
    wait_for(lambda: is_listened_at(path), 15, "the gateway starts")
    with pytest.raises(ControlError, match="start it anew there"):
        control.upgrade(name, [sys.executable, "-m", "wgmp"])
    assert space.run("wg", "show", name, "listen-port").stdout.strip()


def _index(gateway: Gateway) -> str:
    shown = gateway.namespace.run("ip", "-o", "link", "show", "dev", gateway.interface).stdout
    return shown.partition(":")[0]
