"""Segmentation against packets built one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fastpath.packets import ACK, CWR, FIN, PSH, Packet, flow
from wgmp.fastpath import virtio
from wgmp.fastpath.segment import Segments, finish_checksum, segment
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.protocol.outcome import DropReason

SCRATCH = np.zeros(1 << 20, np.uint8)


def header_for(packet: Packet, size: int) -> VirtioHeader:
    l4 = 20 if packet.version == 4 else 40
    kinds = {(4, 6): virtio.GSO_TCPV4, (6, 6): virtio.GSO_TCPV6}
    kind = kinds.get((packet.version, packet.protocol), virtio.GSO_UDP_L4)
    offset = 16 if packet.protocol == 6 else 6
    # hdr_len is deliberately wrong, as the kernel's is for forwarded packets.
    return VirtioHeader(virtio.NEEDS_CSUM, kind, 9999, size, l4, offset)


def cut(header: VirtioHeader, packet: bytes) -> list[bytes]:
    segments = segment(header, memoryview(packet), SCRATCH)
    assert isinstance(segments, Segments)
    lengths = [segments.length] * (len(segments.rows) - 1) + [segments.last_length]
    for row, length in zip(segments.rows, lengths, strict=True):
        assert not row[length:].any()
    return [row[:n].tobytes() for row, n in zip(segments.rows, lengths, strict=True)]


@given(
    st.sampled_from([(4, 6), (6, 6), (4, 17), (6, 17)]),
    st.integers(1, 1400),
    st.integers(1, 20_000),
    st.sampled_from([ACK, ACK | PSH, ACK | FIN | PSH, ACK | CWR]),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**16 - 1),
)
@settings(max_examples=150, deadline=None)
def test_segments_are_what_the_sender_would_have_sent(
    kind: tuple[int, int], size: int, total: int, flags: int, sequence: int, identification: int
) -> None:
    SCRATCH[:] = 0xAA
    size = max(size, total // 64)
    version, protocol = kind
    first = Packet(
        bytes(at & 0xFF for at in range(total)),
        version,
        protocol,
        flags=flags,
        sequence=sequence,
        identification=identification,
    )
    pieces = [first.payload[at : at + size] for at in range(0, total, size)]
    expected = []
    for number, piece in enumerate(pieces):
        kept = flags
        if number < len(pieces) - 1:
            kept &= ~(FIN | PSH)
        if number:
            kept &= ~CWR
        expected.append(
            replace(
                first,
                payload=piece,
                flags=kept,
                sequence=sequence + number * size,
                identification=identification + number,
            ).build()
        )
    assert cut(header_for(first, size), first.build()) == expected


def test_ipv4_options_are_repeated_in_each_segment() -> None:
    packets = [p.build() for p in flow(Packet(b""), [100, 100])]
    whole = bytearray(Packet(packets[0][-100:] + packets[1][-100:]).build())
    whole[0:20] = whole[0:20] + b"\x01\x01\x01\x01"  # four no-operation options
    whole[0] = 0x46
    header = header_for(Packet(b""), 100)._replace(csum_start=24)
    segments = cut(header, bytes(whole))
    assert [s[20:24] for s in segments] == [b"\x01\x01\x01\x01"] * 2
    assert [s[-100:] for s in segments] == [p[-100:] for p in packets]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("protocol", [6, 17])
@pytest.mark.parametrize("size", [0, 1, 99, 1300])
def test_unfinished_checksum_is_finished(version: int, protocol: int, size: int) -> None:
    wanted = Packet(bytes(range(256)) * 6, version, protocol)
    wanted = replace(wanted, payload=wanted.payload[:size])
    l4, offset = (20 if version == 4 else 40), (16 if protocol == 6 else 6)
    raw = bytearray(wanted.build())
    pseudo = wanted._addresses() + (len(raw) - l4).to_bytes(4, "big")
    pseudo += protocol.to_bytes(4, "big")
    total = sum(int.from_bytes(pseudo[at : at + 2], "big") for at in range(0, len(pseudo), 2))
    raw[l4 + offset : l4 + offset + 2] = (total % 0xFFFF).to_bytes(2, "big")
    header = VirtioHeader(virtio.NEEDS_CSUM, virtio.GSO_NONE, 0, 0, l4, offset)
    assert finish_checksum(header, bytes(raw)) == wanted.build()


@given(st.binary(max_size=200), st.binary(min_size=10, max_size=10))
@settings(max_examples=300)
def test_nonsense_is_a_drop_and_never_an_exception(packet: bytes, raw: bytes) -> None:
    header = VirtioHeader.unpack(raw)
    assert isinstance(segment(header, memoryview(packet), SCRATCH), DropReason | Segments)
    finish_checksum(header, packet)
