"""A pcapng file: what is written is what another reader of the format finds in it."""

from __future__ import annotations

import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pcapngfile import Found, read
from scapy.layers.inet import IP
from scapy.utils import PcapNgReader

from wgmp.pcapng import Direction, PcapngWriter

INTERFACES = [("wg0 inner", "the inner side of wg0"), ("wg0 outer", "the outer side")]

PACKETS = st.lists(
    st.tuples(
        st.integers(0, 1),
        st.integers(0, 2**63 - 1),
        st.binary(max_size=100),
        st.sampled_from(Direction),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30),
    ),
    max_size=5,
)


@given(PACKETS)
def test_every_packet_is_found_with_its_time_its_interface_and_its_comment(
    packets: list[tuple[int, int, bytes, Direction, str]],
) -> None:
    file = io.BytesIO()
    writer = PcapngWriter(file, "wgmp 1.2.3", INTERFACES)
    for each in packets:
        writer.packet(*each)
    writer.flush()
    file.seek(0)
    expected = [
        Found(packet, INTERFACES[number][0], time_ns, direction, comment, len(packet), 101)
        for number, time_ns, packet, direction, comment in packets
    ]
    assert read(file) == expected


@pytest.mark.parametrize(("direction", "number"), [(Direction.INBOUND, 1), (Direction.OUTBOUND, 2)])
def test_an_ip_packet_is_read_as_one_at_its_time(direction: Direction, number: int) -> None:
    packet = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / b"hello")
    file = io.BytesIO()
    PcapngWriter(file, "wgmp", INTERFACES).packet(0, 1_700_000_000_123_456_789, packet, direction)
    file.seek(0)
    (found,) = PcapNgReader(file)
    assert (found[IP].src, found[IP].dst) == ("10.0.0.1", "10.0.0.2")
    assert found.time == Decimal("1700000000.123456789")
    assert found.direction == number
