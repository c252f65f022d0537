"""The kernel's events: as it says them, and mangled."""

from __future__ import annotations

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmp import netlink
from wgmp.netlink import LinkChanged, LinkDeleted, RoutesChanged

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
