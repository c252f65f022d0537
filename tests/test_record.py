"""Records: what is put in comes out, and lengths are never believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmp.protocol.outcome import Endpoint
from wgmp.record import (
    MAX_TRAIN_BYTES,
    MAX_TRAIN_DATAGRAMS,
    PAYLOAD_BYTES,
    SLOT_BYTES,
    Kind,
    Record,
    pack_endpoint,
    unpack_endpoint,
)

SLOT = memoryview(bytearray(SLOT_BYTES))


@given(st.lists(st.binary(max_size=300), max_size=100), st.integers(0, 2**64 - 1))
def test_reader_sees_what_the_writer_put_in(packets: list[bytes], peer: int) -> None:
    writer, reader = Record(SLOT), Record(SLOT)
    writer.begin(Kind.DATAGRAMS, peer, flags=1)
    for packet in packets:
        writer.append(packet)
    writer.finish()
    assert reader.check()
    assert [bytes(packet) for packet in reader.packets()] == packets
    assert (reader.kind, reader.peer, reader.flags) == (Kind.DATAGRAMS, peer, 1)


@given(st.binary(min_size=128 + 1024, max_size=128 + 1024))
def test_arbitrary_headers_never_lead_outside_the_slot(header: bytes) -> None:
    slot = memoryview(bytearray(header + bytes(1024)))
    record = Record(slot)
    if record.check():
        assert sum(len(packet) for packet in record.packets()) <= 1024
    record.endpoint()


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint(b"\x7f\0\0\1", 51820),
        Endpoint(b"\x7f\0\0\1", 1, 0, b"\x0a\0\0\1", 7),
        Endpoint(b"\xfe\x80" + bytes(14), 65535, 3, b"\xfe\x80" + bytes(13) + b"\1", 3),
    ],
)
def test_endpoint_survives_shared_memory(endpoint: Endpoint) -> None:
    assert unpack_endpoint(pack_endpoint(endpoint)) == endpoint


def test_no_endpoint_is_read_from_zeros() -> None:
    assert unpack_endpoint(bytes(64)) is None


def test_wiped_record_holds_no_trace() -> None:
    record = Record(memoryview(bytearray(SLOT_BYTES)))
    record.begin(Kind.OPENED_INITIATION)
    record.append(b"secret")
    record.wipe()
    assert bytes(record.payload[:6]) == bytes(6)


@given(st.lists(st.sampled_from([0, 32, 60, 60, 60, 1452, 1452, 1452]), max_size=200), st.data())
def test_trains_are_what_one_send_can_carry(lengths: list[int], data: st.DataObject) -> None:
    while sum(lengths) > PAYLOAD_BYTES:
        lengths.pop()
    record = Record(SLOT)
    record.begin(Kind.DATAGRAMS)
    for number, length in enumerate(lengths):
        record.append(bytes([number % 256]) * length)
    record.finish()
    assert record.check()
    first = data.draw(st.integers(0, len(lengths)))
    sent = []
    for train, size, count in record.trains(first):
        assert 1 <= count <= MAX_TRAIN_DATAGRAMS
        assert len(train) <= MAX_TRAIN_BYTES
        cut = [bytes(train[at : at + size]) for at in range(0, len(train), max(1, size))]
        cut += [b""] * (count - len(cut))
        assert all(len(each) == size for each in cut[:-1])
        sent += cut
    assert sent == [bytes(packet) for packet in record.packets()[first:]]
