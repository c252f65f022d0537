"""ICMP errors: what they say, whom they are never sent to, and how many there may be."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, IPOption_NOP, TCPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    ICMPv6PacketTooBig,
    IPerror6,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
)
from scapy.layers.ipsec import AH
from scapy.packet import Raw

from wgmp.protocol import icmp

HERE4, THERE4 = "10.77.0.1", "10.77.0.9"
HERE6, THERE6 = "fd77::1", "fd77::9"


def ipv4(upper: Any, **fields: Any) -> bytes:
    return bytes(IP(**{"src": HERE4, "dst": THERE4, **fields}) / upper)


def ipv6(upper: Any, **fields: Any) -> bytes:
    return bytes(IPv6(**{"src": HERE6, "dst": THERE6, **fields}) / upper)


def checked4(packet: bytes | None) -> Any:
    """Parse an error; its checksums are those that scapy makes."""
    assert packet is not None
    parsed = IP(packet)
    again = parsed.copy()
    del again[IP].chksum, again[ICMP].chksum
    rebuilt = IP(bytes(again))
    assert (parsed.chksum, parsed[ICMP].chksum) == (rebuilt.chksum, rebuilt[ICMP].chksum)
    assert parsed.len == len(packet)
    # Whole, with the precedence of RFC 1812 section 4.3.2.5, and for more hops than one.
    assert (parsed.version, parsed.ihl, parsed.tos, parsed.ttl) == (4, 5, 0xC0, 64)
    assert (parsed.id, parsed.flags, parsed.frag) == (0, 0, 0)
    return parsed


def checked6(packet: bytes | None) -> Any:
    """Parse an error; its checksum is that which scapy makes."""
    assert packet is not None
    parsed = IPv6(packet)
    again = parsed.copy()
    del again.payload.cksum
    assert parsed.payload.cksum == IPv6(bytes(again)).payload.cksum
    assert parsed.plen == len(packet) - 40
    assert (parsed.version, parsed.tc, parsed.fl, parsed.hlim) == (6, 0, 0, 64)
    return parsed


def test_unreachable_ipv4_comes_from_the_destination_and_quotes_the_packet() -> None:
    packet = ipv4(TCP(sport=1234, dport=80, flags="S"), options=[])
    error = checked4(icmp.unreachable(packet))
    assert (error.src, error.dst) == (THERE4, HERE4)
    assert (error[ICMP].type, error[ICMP].code) == (3, 1)
    assert bytes(error[ICMP])[4:8] == bytes(4), "unused"
    assert error[IPerror].dst == THERE4
    assert (error[TCPerror].sport, error[TCPerror].dport) == (1234, 80)
    assert bytes(error[ICMP].payload) == packet


def test_unreachable_ipv6_comes_from_the_destination_and_quotes_the_packet() -> None:
    packet = ipv6(TCP(sport=1234, dport=80, flags="S"))
    error = checked6(icmp.unreachable(packet))
    assert (error.src, error.dst) == (THERE6, HERE6)
    assert (error[ICMPv6DestUnreach].type, error[ICMPv6DestUnreach].code) == (1, 3)
    assert bytes(error[ICMPv6DestUnreach])[4:8] == bytes(4), "unused"
    assert bytes(error[IPerror6]) == packet


def test_fragmentation_needed_says_the_mtu() -> None:
    error = checked4(icmp.too_big(ipv4(UDP() / Raw(bytes(3000)), flags="DF"), 1420))
    assert (error[ICMP].type, error[ICMP].code) == (3, 4)
    assert error[ICMP].nexthopmtu == 1420


def test_packet_too_big_says_the_mtu() -> None:
    error = checked6(icmp.too_big(ipv6(UDP() / Raw(bytes(3000))), 1420))
    assert (error[ICMPv6PacketTooBig].code, error[ICMPv6PacketTooBig].mtu) == (0, 1420)


def test_too_big_is_not_said_to_who_allows_fragments() -> None:
    assert icmp.too_big(ipv4(UDP() / Raw(bytes(3000))), 1420) is None


@pytest.mark.parametrize("size", [0, 1, 547, 548, 549, 9000])
def test_as_much_is_quoted_as_fits_576_bytes(size: int) -> None:
    packet = ipv4(UDP() / Raw(bytes(size)))
    error = checked4(icmp.unreachable(packet))
    quoted = bytes(error[ICMP].payload)
    assert packet.startswith(quoted)
    assert len(error) == min(576, 28 + len(packet))


@pytest.mark.parametrize("size", [0, 1, 1183, 1184, 1185, 9000])
def test_as_much_is_quoted_as_fits_1280_bytes(size: int) -> None:
    packet = ipv6(UDP() / Raw(bytes(size)))
    error = checked6(icmp.unreachable(packet))
    assert packet.startswith(bytes(error[IPerror6])[: len(packet)])
    assert len(error) == min(1280, 48 + len(packet))


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(ipv4(ICMP(type=3, code=1) / Raw(bytes(28))), id="unreachable"),
        pytest.param(ipv4(ICMP(type=11) / Raw(bytes(28))), id="time exceeded"),
        pytest.param(ipv4(ICMP(type=5) / Raw(bytes(28))), id="redirect"),
        pytest.param(ipv4(ICMP(type=3), options=[b"\x94\x04\0\0"]), id="error behind an option"),
        pytest.param(ipv4(ICMP(type=99)), id="unknown ICMP"),
        pytest.param(ipv4(Raw(b""), proto=1), id="no ICMP header"),
        pytest.param(ipv4(UDP(), frag=1), id="second fragment"),
        pytest.param(ipv4(UDP(), dst="224.0.0.251"), id="to multicast"),
        pytest.param(ipv4(UDP(), dst="255.255.255.255"), id="to broadcast"),
        pytest.param(ipv4(UDP(), src="0.0.0.0"), id="from nobody"),
        pytest.param(ipv4(UDP(), src="127.0.0.1"), id="from loopback"),
        pytest.param(ipv4(UDP(), src="224.0.0.1"), id="from multicast"),
        pytest.param(ipv4(UDP(), src="255.255.255.255"), id="from broadcast"),
        pytest.param(b"\x44" + ipv4(UDP())[1:], id="header too short"),
        pytest.param(b"\x4f" + ipv4(UDP())[1:], id="header longer than the packet"),
        pytest.param(ipv6(ICMPv6DestUnreach() / Raw(bytes(40))), id="unreachable 6"),
        pytest.param(ipv6(ICMPv6PacketTooBig() / Raw(bytes(40))), id="too big 6"),
        pytest.param(ipv6(ICMPv6ND_Redirect()), id="redirect 6"),
        pytest.param(
            ipv6(IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / ICMPv6DestUnreach()),
            id="error behind options 6",
        ),
        pytest.param(
            ipv6(IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))]) / ICMPv6DestUnreach()),
            id="error behind longer options 6",
        ),
        pytest.param(
            ipv6(AH(nh=58, payloadlen=4, icv=bytes(12)) / ICMPv6DestUnreach()),
            id="error behind AH 6",
        ),
        pytest.param(ipv6(IPv6ExtHdrFragment(offset=1, nh=17)), id="second fragment 6"),
        pytest.param(ipv6(Raw(b"\x3b"), nh=60), id="headers that end nowhere 6"),
        pytest.param(ipv6(Raw(bytes([0, 0] + [0] * 6) * 99), nh=0), id="headers without end 6"),
        pytest.param(ipv6(UDP(), dst="ff02::1"), id="to multicast 6"),
        pytest.param(ipv6(UDP(), src="ff02::1"), id="from multicast 6"),
        pytest.param(ipv6(UDP(), src="::"), id="from nobody 6"),
        pytest.param(ipv6(UDP(), src="::1"), id="from loopback 6"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x60" * 39, id="less than a header"),
        pytest.param(b"\x50" * 60, id="no IP version"),
    ],
)
def test_no_error_is_sent_about(packet: bytes) -> None:
    assert icmp.unreachable(packet) is None
    assert icmp.too_big(packet, 1280) is None


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(ipv4(ICMP(type=8), flags="DF"), id="echo"),
        pytest.param(ipv4(UDP(), flags="DF+MF"), id="first fragment"),
        pytest.param(ipv4(Raw(b""), proto=17, flags="DF"), id="a header and no more"),
        pytest.param(
            ipv4(Raw(b""), proto=17, flags="DF", options=[IPOption_NOP()] * 4), id="options"
        ),
        pytest.param(ipv6(ICMPv6EchoRequest()), id="echo 6"),
        pytest.param(ipv6(IPv6ExtHdrFragment(offset=0, m=1) / UDP()), id="first fragment 6"),
        pytest.param(ipv6(IPv6ExtHdrHopByHop() / ICMPv6EchoRequest()), id="options 6"),
        pytest.param(
            ipv6(IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))]) / ICMPv6EchoRequest()),
            id="longer options 6",
        ),
        pytest.param(ipv6(AH(nh=58, payloadlen=4, icv=bytes(12)) / ICMPv6EchoRequest()), id="AH 6"),
    ],
)
def test_an_error_is_sent_about(packet: bytes) -> None:
    assert icmp.unreachable(packet) is not None
    assert icmp.too_big(packet, 1280) is not None


@given(
    st.binary(max_size=2000),
    st.sampled_from([b"", b"\x45", b"\x60", ipv4(ICMP())[:12], ipv6(IPv6ExtHdrHopByHop())[:8]]),
    st.integers(0, 70_000),
)
def test_whatever_arrives_nothing_raises_and_errors_are_bounded(
    rest: bytes, head: bytes, mtu: int
) -> None:
    packet = head + rest
    for error in (icmp.unreachable(packet), icmp.too_big(packet, mtu)):
        if error is not None:
            assert len(error) <= (576 if error[0] >> 4 == 4 else 1280)
            assert icmp.unreachable(error) is None, "no error about an error"


@given(st.binary(min_size=1, max_size=100).filter(any))
def test_checksum_makes_the_words_add_up(content: bytes) -> None:
    even = content + b"\0" * (len(content) % 2)
    summed = even + icmp.checksum(content).to_bytes(2, "big")
    words = sum(int.from_bytes(summed[at : at + 2], "big") for at in range(0, len(summed), 2))
    while words >> 16:
        words = (words & 0xFFFF) + (words >> 16)
    assert words == 0xFFFF


def test_errors_are_limited_in_rate_and_burst() -> None:
    limiter = icmp.ErrorLimiter(rate=10, burst=3)
    packet = ipv4(UDP())
    made = [limiter.unreachable(packet, 100.0) is not None for _ in range(5)]
    assert made == [True, True, True, False, False]
    assert limiter.unreachable(packet, 100.05) is None
    assert limiter.unreachable(packet, 100.11) is not None
    assert limiter.unreachable(packet, 100.11) is None
    made = [limiter.unreachable(packet, 1000.0) is not None for _ in range(5)]
    assert made == [True, True, True, False, False], "a long rest saves up no more than the burst"


def test_what_is_owed_no_error_costs_no_token() -> None:
    limiter = icmp.ErrorLimiter(rate=1, burst=1)
    for _ in range(5):
        assert limiter.too_big(ipv6(UDP(), dst="ff02::1"), 1280, 1.0) is None
    assert limiter.too_big(ipv6(UDP()), 1280, 1.0) is not None
    assert limiter.too_big(ipv6(UDP()), 1280, 1.0) is None
