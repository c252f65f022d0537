"""The kernel's events: as it says them, and mangled."""

from __future__ import annotations

import json
import select
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.e2e.wire import inside
from wgmp import netlink
from wgmp.netlink import LinkChanged, LinkDeleted, RoutesChanged
from wgmp.netns import Namespace, Namespaces

NEWLINK, DELLINK, NEWROUTE, DELROUTE, NEWADDR, NEWRULE, DELRULE = 16, 17, 24, 25, 20, 32, 33
MTU_ATTRIBUTE = struct.pack("=HHI", 8, 4, 1380)
NAME_ATTRIBUTE = struct.pack("=HH4s", 7, 3, b"wg\0")


def message(kind: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body.ljust(-len(body) % 4, b"\0")


def link(index: int, flags: int, attributes: bytes = b"", family: int = 0) -> bytes:
    return struct.pack("=BxHiII", family, 0, index, flags, 0) + attributes


def test_links_tell_state_and_mtu_wherever_the_attribute_stands() -> None:
    for attributes in (MTU_ATTRIBUTE + NAME_ATTRIBUTE, NAME_ATTRIBUTE + MTU_ATTRIBUTE):
        up = message(NEWLINK, link(7, 0x1 | 0x40, attributes))
        assert list(netlink.parse(up)) == [LinkChanged(7, True, 1380)]
    assert list(netlink.parse(message(NEWLINK, link(7, 0)))) == [LinkChanged(7, False, 0)]


def test_only_an_mtu_is_an_mtu() -> None:
    queue_length = struct.pack("=HHI", 8, 13, 500)
    too_long = struct.pack("=HHQ", 12, 4, 1 << 32)
    for before in (queue_length, too_long):
        assert list(netlink.parse(message(NEWLINK, link(7, 1, before)))) == [
            LinkChanged(7, True, 0)
        ]
        both = message(NEWLINK, link(7, 1, before + MTU_ATTRIBUTE))
        assert list(netlink.parse(both)) == [LinkChanged(7, True, 1380)]
    assert list(netlink.parse(message(NEWADDR, link(7, 0, MTU_ATTRIBUTE)))) == []


def test_only_the_end_of_the_link_itself_is_its_deletion() -> None:
    assert list(netlink.parse(message(DELLINK, link(7, 0)))) == [LinkDeleted(7)]
    bridge_port = message(DELLINK, link(7, 0, family=socket.AF_BRIDGE))
    assert list(netlink.parse(bridge_port)) == []


def test_routes_and_rules_are_told_apart_from_the_rest() -> None:
    kinds = (NEWROUTE, DELROUTE, NEWRULE, DELRULE, NEWADDR)
    joined = b"".join(message(kind, bytes(12)) for kind in kinds)
    assert list(netlink.parse(joined)) == [RoutesChanged()] * 4


@given(st.binary(max_size=300), st.sampled_from(["", "link", "attribute"]), st.integers(0, 60))
def test_whatever_the_message_parsing_ends_without_raising(
    garbage: bytes, head: str, cut: int
) -> None:
    whole = {"": b"", "link": message(NEWLINK, link(1, 1, garbage)), "attribute": MTU_ATTRIBUTE}
    list(netlink.parse(whole[head][: cut or None] + garbage))


def test_a_monitor_that_is_of_no_use_says_so_and_does_not_spin() -> None:
    monitor = netlink.open_monitor()
    monitor.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(netlink.read_events(monitor))


@pytest.fixture
def veth(namespaces: Namespaces) -> tuple[Namespace, int]:
    """Give a test a namespace with a link that is down, and its index."""
    space = namespaces.add("one")
    space.run("ip", "link", "add", "veth0", "mtu", "1400", "type", "veth", "peer", "veth1")
    return space, int(space.run("cat", "/sys/class/net/veth0/ifindex").stdout)


@pytest.mark.root
def test_what_the_kernel_says_of_links_and_routes_is_heard(veth: tuple[Namespace, int]) -> None:
    space, index = veth
    with inside(space):
        monitor = netlink.open_monitor()

    def after(*command: str) -> set[netlink.Event]:
        """Return what is heard of one command, in a second at most."""
        space.run("ip", *command)
        heard: set[netlink.Event] = set()
        while select.select([monitor], [], [], 0.2 if heard else 1.0)[0]:
            heard.update(netlink.read_events(monitor))
        return heard

    with monitor:
        assert list(netlink.read_events(monitor)) == [], "it does not wait"
        assert LinkChanged(index, True, 1400) in after("link", "set", "veth0", "up")
        assert after("link", "set", "veth0", "mtu", "1300") >= {LinkChanged(index, True, 1300)}
        for command in (
            ("route", "add", "10.0.0.0/8", "dev", "veth0"),
            ("-6", "route", "add", "fd00::/64", "dev", "veth0"),
            ("rule", "add", "priority", "7", "table", "7"),
            ("-6", "rule", "add", "priority", "7", "table", "7"),
            ("rule", "delete", "priority", "7"),
        ):
            assert RoutesChanged() in after(*command), command
        assert LinkDeleted(index) in after("link", "delete", "veth0")


@pytest.mark.root
def test_super_packets_are_limited_for_both_families_and_links_deleted(
    veth: tuple[Namespace, int],
) -> None:
    space, index = veth
    with inside(space):
        netlink.set_gso_max_size(index, 32_000)
    (shown,) = json.loads(space.run("ip", "-d", "-j", "link", "show", "dev", "veth0").stdout)
    assert shown["gso_max_size"] == 32_000
    assert shown.get("gso_ipv4_max_size", 32_000) == 32_000  # where the kernel has it
    assert shown["mtu"] == 1400, "and nothing else has changed"
    assert "UP" not in shown["flags"]
    with inside(space):
        netlink.delete_link(index)
        assert space.links() == ["lo"]
        with pytest.raises(OSError, match="No such device"):
            netlink.delete_link(index)
        with pytest.raises(OSError, match="No such device"):
            netlink.set_gso_max_size(index, 32_000)
