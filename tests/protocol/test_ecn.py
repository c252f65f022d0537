"""ECN through the tunnel: the table of RFC 6040, and checksums that stay right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from wgmp.protocol import ecn
from wgmp.protocol.ecn import CE, ECT_0, ECT_1, NOT_ECT

# RFC 6040, figure 4: what comes out, by inner (row) and outer field.
FIGURE_4: dict[int, dict[int, int | None]] = {
    NOT_ECT: {NOT_ECT: NOT_ECT, ECT_0: NOT_ECT, ECT_1: NOT_ECT, CE: None},
    ECT_0: {NOT_ECT: ECT_0, ECT_0: ECT_0, ECT_1: ECT_1, CE: CE},
    ECT_1: {NOT_ECT: ECT_1, ECT_0: ECT_1, ECT_1: ECT_1, CE: CE},
    CE: {NOT_ECT: CE, ECT_0: CE, ECT_1: CE, CE: CE},
}
CELLS = [(inner, outer) for inner in FIGURE_4 for outer in FIGURE_4]


@pytest.mark.parametrize(("inner", "outer"), CELLS)
@pytest.mark.parametrize("dscp", [0, 0x2E])
def test_ipv4_comes_out_as_figure_4_says(inner: int, outer: int, dscp: int) -> None:
    packet = IP(tos=dscp << 2 | inner, src="10.0.0.1", dst="10.0.0.2", id=7) / UDP() / Raw(b"data")
    expected = FIGURE_4[inner][outer]
    combined = ecn.decapsulate(bytes(packet), outer)
    if expected is None:
        assert combined is None
    else:
        packet.tos = dscp << 2 | expected
        assert combined == bytes(packet), "nothing else changes, and the checksum is right"


@pytest.mark.parametrize(("inner", "outer"), CELLS)
@pytest.mark.parametrize("dscp", [0, 0x2E])
def test_ipv6_comes_out_as_figure_4_says(inner: int, outer: int, dscp: int) -> None:
    packet = IPv6(tc=dscp << 2 | inner, fl=0x12345) / UDP() / Raw(b"data")
    expected = FIGURE_4[inner][outer]
    combined = ecn.decapsulate(bytes(packet), outer)
    if expected is None:
        assert combined is None
    else:
        packet.tc = dscp << 2 | expected
        assert combined == bytes(packet)


@pytest.mark.parametrize("field", [NOT_ECT, ECT_1, ECT_0, CE])
def test_field_is_read_past_the_dscp(field: int) -> None:
    assert ecn.of_packet(bytes(IP(tos=0xFC | field))) == field
    assert ecn.of_packet(bytes(IPv6(tc=0xFC | field))) == field


@pytest.mark.parametrize(("inner", "outer"), CELLS)
def test_only_marking_fields_change_anything(inner: int, outer: int) -> None:
    packet = bytes(IP(tos=inner))
    if outer not in ecn.MARKING:
        assert ecn.decapsulate(packet, outer) == packet


@given(st.binary(min_size=20, max_size=20), st.sampled_from([ECT_1, CE]))
def test_any_ipv4_header_keeps_a_right_checksum(header: bytes, outer: int) -> None:
    fields = IP(header)
    fields.version, fields.ihl, fields.chksum = 4, 5, None
    right = bytes(fields)[:20]
    combined = ecn.decapsulate(right, outer)
    if combined is not None:
        again = IP(combined)
        written, again.chksum = again.chksum, None
        computed = IP(bytes(again)).chksum
        assert written % 0xFFFF == computed % 0xFFFF, "0 and 0xFFFF are the same sum"
