"""Coalescing is exact: what was put together comes apart into the same bytes, and nothing is
put together that must not be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fastpath.packets import ACK, CWR, ECE, FIN, PSH, SYN, URG, Packet, flow
from tests.fastpath.test_segment import cut
from wgmp.fastpath import virtio
from wgmp.fastpath.checksum import Rows
from wgmp.fastpath.coalesce import continues, groups, shape_of, super_header
from wgmp.fastpath.virtio import VirtioHeader

KINDS = [(4, 6), (6, 6), (4, 17), (6, 17)]


def as_rows(packets: list[bytes]) -> Rows:
    return np.frombuffer(b"".join(packets), np.uint8).reshape(len(packets), -1)


def found(packets: list[bytes]) -> list[tuple[int, int]]:
    shape = shape_of(packets[0])
    if shape is None:
        return [(at, at + 1) for at in range(len(packets))]
    return list(groups(as_rows(packets), shape))


@given(
    st.sampled_from(KINDS),
    st.integers(2, 30),
    st.integers(20, 1400),
    st.integers(0, 1400),
    st.booleans(),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**16 - 1),
)
@settings(max_examples=150, deadline=None)
def test_what_was_coalesced_comes_apart_into_the_same_bytes(
    kind: tuple[int, int], count: int, size: int, rest: int, push: bool, sequence: int, ident: int
) -> None:
    version, protocol = kind
    first = Packet(b"", version, protocol, sequence=sequence, identification=ident)
    rest = min(rest, size - 1)
    sizes = [size] * count + ([rest] if rest else [])
    packets = [p.build() for p in flow(first, sizes, (ACK | PSH) if push else None)]
    whole, tail = (packets[:-1], packets[-1]) if rest else (packets, None)
    assert found(whole) == [(0, len(whole))]
    shape = shape_of(whole[0])
    assert shape is not None
    rows = as_rows(whole)
    if tail is not None:
        assert continues(rows, memoryview(tail), shape)
    view = None if tail is None else memoryview(tail)
    made = super_header(rows, view, shape)
    payload = b"".join(packet[shape.end :] for packet in packets)
    header = VirtioHeader.unpack(made)
    assert cut(header, made[virtio.SIZE :] + payload) == packets


def middle(packet: Packet, **change: object) -> list[bytes]:
    """Return five packets of one flow of which the third is changed."""
    packets = flow(packet, [200] * 5)
    packets[2] = replace(packets[2], **change)  # type: ignore[arg-type]
    return [p.build() for p in packets]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "change",
    [{"source": 9}, {"port": 9}, {"ttl": 9}, {"tos": 2}],
    ids=["address", "port", "ttl", "ecn"],
)
def test_packet_of_another_flow_or_treatment_stays_alone(
    kind: tuple[int, int], change: dict[str, object]
) -> None:
    assert found(middle(Packet(b"", *kind), **change)) == [(0, 2), (2, 3), (3, 5)]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "change",
    [
        {"acknowledgement": 9},
        {"window": 9},
        {"options": b"\x01\x01\x08\x0a" + b"\x01" * 8},
        {"sequence": 5399},
        {"flags": ACK | FIN},
        {"flags": ACK | SYN},
        {"flags": ACK | URG},
        {"flags": ACK | ECE},
        {"flags": ACK | CWR},
    ],
    ids=["ack", "window", "timestamps", "sequence", "fin", "syn", "urg", "ece", "cwr"],
)
def test_tcp_packet_that_differs_stays_alone(version: int, change: dict[str, object]) -> None:
    assert found(middle(Packet(b"", version), **change)) == [(0, 2), (2, 3), (3, 5)]


@pytest.mark.parametrize(
    "change",
    [{"options": b"\x01" * 12}, {"fragment": 0x2000}, {"protocol": 17}],
    ids=["header", "fragment", "protocol"],
)
def test_flow_of_another_shape_stays_apart_behind_one(change: dict[str, Any]) -> None:
    whole = flow(Packet(b"", options=b""), [200, 200])
    other = replace(whole[0], **change)
    size = 200 + len(whole[0].build()) - len(other.build())
    packets = [p.build() for p in (*whole, *flow(other, [size, size]))]
    assert found(packets) == [(0, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize("version", [4, 6])
def test_push_ends_a_super_packet(version: int) -> None:
    assert found(middle(Packet(b"", version), flags=ACK | PSH)) == [(0, 3), (3, 5)]


def test_identification_out_of_step_stays_alone() -> None:
    assert found(middle(Packet(b""), identification=7)) == [(0, 2), (2, 3), (3, 5)]


def test_fragments_stay_alone() -> None:
    fragments = [p.build() for p in flow(Packet(b"", fragment=0x2000), [200] * 3)]
    assert found(fragments) == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", ["ip", "l4"])
def test_bad_checksum_stays_alone(kind: tuple[int, int], where: str) -> None:
    packets = [bytearray(p) for p in middle(Packet(b"", *kind))]
    if where == "ip":
        if kind[0] == 6:
            pytest.skip("IPv6 headers have no checksum")
        packets[2][11] ^= 1
    else:
        packets[2][-1] ^= 1
    assert found([bytes(p) for p in packets]) == [(0, 2), (2, 3), (3, 5)]


@pytest.mark.parametrize("version", [4, 6])
def test_udp_without_a_checksum_stays_alone(version: int) -> None:
    packets = [bytearray(p) for p in middle(Packet(b"", version, 17))]
    l4 = 20 if version == 4 else 40
    packets[2][l4 + 6 : l4 + 8] = bytes(2)
    assert found([bytes(p) for p in packets]) == [(0, 2), (2, 3), (3, 5)]


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45" + bytes(40),
        bytearray(Packet(b"x").build()[:40]),
        b"\x46" + Packet(bytes(50)).build()[1:],
        Packet(b"x", 6, 44).build(),
        Packet(b"x", 6, 0).build(),
        Packet(b"", 4, 6).build(),
    ],
    ids=["empty", "icmp", "cut", "options", "v6 fragment", "hop-by-hop", "pure ack"],
)
def test_what_is_no_plain_tcp_or_udp_packet_has_no_shape(packet: bytes) -> None:
    assert shape_of(packet) is None


def test_super_packet_stays_within_what_its_header_can_say() -> None:
    packets = [p.build() for p in flow(Packet(b""), [1400] * 60)]
    parts = found(packets)
    assert parts[0][0] == 0
    assert parts[-1][1] == 60
    assert all(52 + (stop - start) * 1400 <= 65_535 for start, stop in parts)
    assert len(parts) == 2


@pytest.mark.parametrize(
    "change",
    [{"port": 9}, {"sequence": 1}, {"flags": ACK | FIN}, {"identification": 1}, {"window": 1}],
)
def test_tail_that_differs_is_no_tail(change: dict[str, object]) -> None:
    packets = flow(Packet(b""), [200, 200, 50])
    rows = as_rows([p.build() for p in packets[:2]])
    shape = shape_of(rows[0].tobytes())
    assert shape is not None
    assert continues(rows, memoryview(packets[2].build()), shape)
    odd = replace(packets[2], **change)  # type: ignore[arg-type]
    assert not continues(rows, memoryview(odd.build()), shape)
    corrupt = bytearray(packets[2].build())
    corrupt[-1] ^= 1
    assert not continues(rows, memoryview(corrupt), shape)
