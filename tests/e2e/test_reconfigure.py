"""`wg` changes a gateway while TCP flows through it, and the traffic does not notice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from wgmp.netns import wait_for
from wgmp.protocol.constants import REKEY_TIMEOUT

from .conftest import MakeTunnel
from .tunnel import Gateway, Tunnel, key, outage, transfer

pytestmark = pytest.mark.root

LIMIT_S = 60.0


def change_port(ends: Tunnel, stranger: str) -> None:
    """Move to another port and on to one that the kernel picks: the peer follows."""
    ends.left.set("listen-port", "51999")
    ends.left.set("listen-port", "0")


def change_strangers(ends: Tunnel, stranger: str) -> None:
    """Add peers, change all that a peer has, and remove them again."""
    for number in range(3):
        other = key("pubkey", key("genkey"))
        allowed = f"10.{number}.0.0/16,fd{number:02x}::/64"
        ends.left.set("peer", other, "allowed-ips", allowed, "endpoint", f"192.0.2.77:{1 + number}")
        ends.left.set("peer", other, "preshared-key", "/dev/stdin", stdin=key("genpsk"))
        ends.left.set("peer", other, "persistent-keepalive", "1")
        ends.left.set("peer", other, "remove")


def move_prefix(ends: Tunnel, stranger: str) -> None:
    """Give an unused prefix to the peer, to another one, and back."""
    peer, wanted = ends.right.public_key, f"{ends.right.inner4}/32"
    for owner in (peer, stranger, peer):
        others = f"{wanted}," if owner == peer else ""
        ends.left.set("peer", owner, "allowed-ips", f"{others}203.0.113.0/24")
    shown = ends.left.wg("show", ends.left.interface, "allowed-ips")
    assert f"{peer}\t{wanted} 203.0.113.0/24" in shown
    assert f"{stranger}\t(none)" in shown


def sync_same(ends: Tunnel, stranger: str) -> None:
    """Write the running configuration back, by syncconf and by addconf."""
    running = ends.left.wg("showconf", ends.left.interface)
    for command in ("syncconf", "addconf", "syncconf"):
        ends.left.wg(command, ends.left.interface, "/dev/stdin", stdin=running)
    assert sorted(ends.left.wg("showconf", ends.left.interface)) == sorted(running)


def change_keepalive_and_mark(ends: Tunnel, stranger: str) -> None:
    """Change what is sent besides the packets, and how the datagrams are marked."""
    peer = ends.right.public_key
    for seconds in ("1", "off", "25"):
        ends.left.set("peer", peer, "persistent-keepalive", seconds)
    for mark in ("0x1234", "0xffffffff"):
        ends.left.set("fwmark", mark)
        assert ends.left.wg("show", ends.left.interface, "fwmark").strip() == mark
    ends.left.set("fwmark", "off")


@pytest.mark.parametrize(
    ("topology", "change"),
    [
        ("pipeline", change_port),
        ("pipeline", change_strangers),
        ("pipeline", move_prefix),
        ("pipeline", sync_same),
        ("pipeline", change_keepalive_and_mark),
        ("compact", change_port),
        ("compact", change_strangers),
    ],
)
def test_tcp_survives_live_changes(
    tunnel: MakeTunnel, change: Callable[[Tunnel, str], None], topology: str
) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology=topology)
    stranger = key("pubkey", key("genkey"))
    ends.left.set("peer", stranger)
    flow = transfer(ends.left, ends.right)
    wait_for(lambda: flow.received().bytes > 1_000_000, LIMIT_S, "the transfer gets going")
    processes = ends.left.role_pids()
    change(ends, stranger)
    outage(flow)
    flow.conclude(LIMIT_S)
    assert ends.left.role_pids() == processes


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_a_port_is_another_gateways_once_wg_set_has_moved_the_first(
    tunnel: MakeTunnel, topology: str
) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology=topology)
    first = ends.left
    name, log = first.namespace.interface_name("wg"), first.log.with_name("other.log")
    other = replace(first, interface=name, log=log)
    other.start()
    pids = first.role_pids()
    slow = pids["worker1"]  # it has the sockets, as every process has
    for _ in range(3):
        old = first.port
        first.port += 100
        commands = (
            f"wg set {first.interface} listen-port {first.port} && "
            f"wg set {other.interface} listen-port {old}"
        )
        os.kill(slow, signal.SIGSTOP)
        try:
            both = first.namespace.start("sh", "-c", commands, log=first.log.with_name("wg"))
            time.sleep(0.2)
        finally:
            os.kill(slow, signal.SIGCONT)
        assert both.wait(10) == 0, first.log.with_name("wg").read_text()
    assert first.role_pids() == pids
    assert first.ping(ends.right.inner4)


def test_a_new_preshared_key_is_used_by_the_next_handshake(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd", "wireguard-go", psk=True)
    assert ends.left.ping(ends.right.inner4)
    preshared_key = key("genpsk")
    for gateway, peer in ((ends.left, ends.right), (ends.right, ends.left)):
        gateway.set("peer", peer.public_key, "preshared-key", "/dev/stdin", stdin=preshared_key)
    _begin_anew(ends)
    assert ends.left.ping(ends.right.inner4)
    ends.left.set("peer", ends.right.public_key, "preshared-key", "/dev/stdin", stdin=key("genpsk"))
    _begin_anew(ends)
    assert not ends.left.ping(ends.right.inner4, wait_s=2), "the keys differ now"


def test_a_new_private_key_is_used_at_once(tunnel: MakeTunnel) -> None:
    # With short timers the next initiation is not long in coming.
    ends = tunnel("wgmpd-short", "wireguard-go")
    assert ends.left.ping(ends.right.inner4)
    private_key = key("genkey")
    ends.left.set("private-key", "/dev/stdin", stdin=private_key)
    assert not ends.left.ping(ends.right.inner4, wait_s=1), "nobody knows the new key"
    ends.left.public_key = key("pubkey", private_key)
    ends.right.add_peer(ends.left, None)
    assert ends.left.ping(ends.right.inner4)


def test_a_removed_peer_is_gone_and_can_come_back(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd", "wireguard-go")
    assert ends.left.ping(ends.right.inner4)
    ends.left.set("peer", ends.right.public_key, "remove")
    assert ends.left.peers() == {}
    assert not ends.left.ping(ends.right.inner4, wait_s=1)
    ends.left.add_peer(ends.right, ends.right.endpoint(4))
    assert ends.left.ping(ends.right.inner4)
    assert list(ends.left.peers()) == [ends.right.public_key]


def test_a_peer_can_shake_hands_the_moment_wg_set_returns(tunnel: MakeTunnel) -> None:
    ends = tunnel("wireguard-go", "wgmpd")
    for _ in range(30):
        private_key = key("genkey")
        ends.left.set("peer", ends.right.public_key, "remove")
        ends.left.set("private-key", "/dev/stdin", stdin=private_key)
        ends.right.set("peer", ends.left.public_key, "remove")
        ends.left.public_key = key("pubkey", private_key)
        ends.left.add_peer(ends.right, None)
        # The left end sends nothing as long as it knows no endpoint: one command is between.
        ends.right.add_peer(ends.left, ends.left.endpoint(4))
        ends.left.set("peer", ends.right.public_key, "endpoint", ends.right.endpoint(4))
        assert ends.left.ping(ends.right.inner4, wait_s=2), ends.right.drops()


def test_roles_that_are_behind_take_all_orders_before_they_drop_a_handshake(
    tunnel: MakeTunnel,
) -> None:
    ends = tunnel("wireguard-go", "wgmpd")
    left, right = ends.left, ends.right
    pids = right.role_pids()
    behind = [pids[name] for name in ("admission", "worker0", "worker1")]
    right.set("peer", left.public_key, "remove")
    for pid in behind:
        os.kill(pid, signal.SIGSTOP)
    try:
        for _ in range(3):
            right.set("peer", key("pubkey", key("genkey")))
        right.add_peer(left, None)
        pinging = left.namespace.start("ping", "-c1", right.inner4, log=left.log.with_name("ping"))
        time.sleep(0.2)  # the initiation has come
    finally:
        for pid in behind:
            os.kill(pid, signal.SIGCONT)
    # An initiation that was dropped is repeated after 5 s.
    assert pinging.wait(REKEY_TIMEOUT - 1) == 0, right.drops()


@pytest.mark.parametrize(
    "arguments",
    [("show",), ("show", "dump"), ("showconf",)],
    ids=" ".join,
)
def test_wg_shows_of_both_programs_have_the_same_form(
    tunnel: MakeTunnel, arguments: tuple[str, ...]
) -> None:
    ends = tunnel("wgmpd", "wireguard-go", psk=True)
    assert ends.left.ping(ends.right.inner4)
    command, *rest = arguments
    shown = [_form(gateway, command, *rest) for gateway in (ends.left, ends.right)]
    assert shown[0] == shown[1]


def _begin_anew(ends: Tunnel) -> None:
    """Let the left end forget its session: take the peer out and put it back as it was."""
    interface = ends.left.interface
    running = ends.left.wg("showconf", interface)
    ends.left.set("peer", ends.right.public_key, "remove")
    ends.left.wg("addconf", interface, "/dev/stdin", stdin=running)


def _form(gateway: Gateway, command: str, *rest: str) -> list[list[str]]:
    """Return the field names of each line, or the number of fields where they have no names."""
    lines = gateway.wg(command, gateway.interface, *rest).splitlines()
    if "dump" in rest:
        return [[str(len(line.split("\t")))] for line in lines]
    separator = ":" if command == "show" else "="
    return [[line.partition(separator)[0].strip()] for line in lines if line]
