"""Inner packets: addresses and true lengths of anything at all."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from wgmp.protocol import ip
from wgmp.protocol.outcome import DropReason

V4 = bytes(IP(src="10.1.2.3", dst="10.4.5.6") / UDP() / b"hello")
V6 = bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / UDP() / b"hello")


def test_addresses_are_found_in_both_versions() -> None:
    assert ip.source(V4) == ipaddress.ip_address("10.1.2.3").packed
    assert ip.destination(memoryview(V4)) == ipaddress.ip_address("10.4.5.6").packed
    assert ip.source(V6) == ipaddress.ip_address("2001:db8::1").packed
    assert ip.destination(memoryview(V6)) == ipaddress.ip_address("2001:db8::2").packed


@pytest.mark.parametrize("packet", [V4, V6], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("padding", [0, 1, 15, 700])
def test_padding_is_trimmed(packet: bytes, padding: int) -> None:
    assert ip.trim(packet + bytes(padding)) == packet
    assert ip.true_length(memoryview(packet + bytes(padding))) == len(packet)


@pytest.mark.parametrize("packet", [V4, V6], ids=["IPv4", "IPv6"])
def test_a_packet_that_promises_more_than_came_is_bad(packet: bytes) -> None:
    for length in range(len(packet)):
        assert ip.trim(packet[:length]) is DropReason.BAD_PACKET


def test_an_ipv4_length_below_its_header_is_bad() -> None:
    for length in range(20):
        packet = V4[:2] + length.to_bytes(2, "big") + V4[4:]
        assert ip.trim(packet) is DropReason.BAD_PACKET


@pytest.mark.parametrize("nibble", [0, 1, 5, 7, 15])
def test_other_versions_are_bad(nibble: int) -> None:
    packet = bytes([nibble << 4 | 5]) + V6[1:]
    assert ip.version(packet) == 0
    assert ip.source(packet) is DropReason.BAD_PACKET
    assert ip.destination(packet) is DropReason.BAD_PACKET
    assert ip.trim(packet) is DropReason.BAD_PACKET


@given(st.binary(max_size=100))
def test_nothing_raises_and_nothing_grows(packet: bytes) -> None:
    trimmed = ip.trim(packet)
    if isinstance(trimmed, bytes):
        assert packet.startswith(trimmed)
        assert isinstance(ip.source(packet), bytes)
        assert isinstance(ip.destination(packet), bytes)
