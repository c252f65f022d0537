"""The fast path against the obvious slow model: `Keypair.seal` and `Keypair.open`."""

from __future__ import annotations

from collections import Counter as Tally

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fastpath.packets import ACK, PSH, Packet, flow
from tests.fastpath.test_segment import cut, header_for
from wgmp.counters import Counter, Counters, create_counters
from wgmp.fastpath import transport, virtio
from wgmp.fastpath.open import Opened, open_trains, trains
from wgmp.fastpath.seal import seal as seal_packets
from wgmp.fastpath.sink import PacketSink
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.protocol import ecn, ip
from wgmp.protocol.constants import REJECT_AFTER_MESSAGES
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.noise import SessionKeys
from wgmp.protocol.outcome import DropReason
from wgmp.record import SLOT_BYTES, Kind, Record, ecn_flags
from wgmp.ring import Doorbell, RingReader, RingWriter, create_ring
from wgmp.shm import Segment
from wgmp.stream import Label, RecordStream

KEYS = (b"\x11" * 32, b"\x22" * 32)
OURS = b"\x0a\0\0\1"
MTU = 1420
PEER = 3
BOTH = frozenset({6, 17})


def keypairs() -> tuple[Keypair, Keypair]:
    """Return the two ends of one session."""
    return (
        Keypair(SessionKeys(KEYS[0], KEYS[1], 1, 2, True), 0.0),
        Keypair(SessionKeys(KEYS[1], KEYS[0], 2, 1, False), 0.0),
    )


class Outlet:
    """A stream into a ring of its own, and what came out of it."""

    def __init__(self, slots: int = 16) -> None:
        segment = create_ring("out", slots, SLOT_BYTES)
        self.counters = Counters(create_counters(1), 0)
        writer = RingWriter(segment, Doorbell(Segment("bells", 64), 0))
        self.stream = RecordStream(writer, self.counters)
        self.stream.start(Label(Kind.PACKETS))
        self._reader = RingReader(segment)

    def packets(self) -> list[bytes]:
        self.stream.flush()
        found = []
        while (record := self._reader.peek()) is not None:
            found += [bytes(packet) for packet in record.packets()]
            self._reader.release()
        return found


OUTLET = Outlet()


def seal(keypair: Keypair, packets: list[bytes]) -> list[bytes]:
    """Seal plain packets and return the datagrams."""
    views = [memoryview(virtio.PLAIN + packet) for packet in packets]
    assert seal_packets(keypair, views, OUTLET.stream, MTU).packets == len(packets)
    return OUTLET.packets()


def as_record(datagrams: list[bytes], congestion: int = 0) -> Record:
    record = Record(memoryview(bytearray(SLOT_BYTES)))
    record.begin(Kind.DATAGRAMS, flags=ecn_flags(congestion))
    for datagram in datagrams:
        record.append(datagram)
    record.finish()
    assert record.check()
    return record


def open_all(
    keypair: Keypair, datagrams: list[bytes], coalesce: frozenset[int] = BOTH, congestion: int = 0
) -> tuple[list[bytes], Opened]:
    """Open datagrams and return the packets, super-packets cut apart again, and the result."""
    record = as_record(datagrams, congestion)
    owners = {OURS: PEER}
    sink = PacketSink(transport.scratch, OUTLET.stream, owners.get, coalesce)
    opened = open_trains(keypair, record, trains(record), sink, PEER)
    return OUTLET.packets(), opened


def apart(written: list[bytes]) -> list[bytes]:
    """Return single packets from what the TUN is given."""
    packets = []
    for each in written:
        header = VirtioHeader.unpack(each)
        body = each[virtio.SIZE :]
        packets += [body] if header.gso_type == virtio.GSO_NONE else cut(header, body)
    return packets


def ipv4(payload: bytes, source: bytes = OURS) -> bytes:
    length = (20 + len(payload)).to_bytes(2, "big")
    return b"\x45\0" + length + bytes(8) + source + bytes(4) + payload


@given(st.lists(st.binary(min_size=1, max_size=1500), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_seal_makes_the_same_bytes_as_the_keypair(packets: list[bytes]) -> None:
    fast, slow = keypairs()[0], keypairs()[0]
    assert seal(fast, packets) == [slow.seal(packet, MTU) for packet in packets]
    assert fast.send_counter == slow.send_counter


@given(
    st.integers(1, 1400),
    st.integers(1, 65_000),
    st.sampled_from([(4, 6), (6, 6), (4, 17)]),
    st.sampled_from([0, 2**32 - 3, 2**63 - 3]),
)
@settings(max_examples=60, deadline=None)
def test_super_packet_is_sealed_as_its_segments(
    size: int, total: int, kind: tuple[int, int], counter: int
) -> None:
    size = max(size, total // 200)
    whole = Packet(bytes(at & 0xFF for at in range(total)), *kind)
    header = header_for(whole, size)
    fast, slow = keypairs()[0], keypairs()[0]
    fast.send_counter = slow.send_counter = counter
    packet = memoryview(header.pack() + whole.build())
    segments = cut(header, whole.build())
    sealed = seal_packets(fast, [packet], OUTLET.stream, MTU)
    assert (sealed.packets, sealed.cut, sealed.drops) == (1, len(segments) - 1, {})
    assert OUTLET.packets() == [slow.seal(each, MTU) for each in segments]


def test_seal_stops_where_the_counter_ends() -> None:
    sender, _ = keypairs()
    sender.send_counter = REJECT_AFTER_MESSAGES - 2
    packets = [memoryview(virtio.PLAIN + b"x")] * 5
    assert seal_packets(sender, packets, OUTLET.stream, MTU).packets == 2
    datagrams = OUTLET.packets()
    assert [d[8:16] for d in datagrams] == [
        (REJECT_AFTER_MESSAGES - 2 + n).to_bytes(8, "little") for n in range(2)
    ]


def test_full_ring_drops_and_uses_no_counter_twice() -> None:
    outlet = Outlet(slots=1)
    sender, _ = keypairs()
    header = header_for(Packet(b""), 1368)
    packet = memoryview(header.pack() + Packet(bytes(60_000)).build())
    first = seal_packets(sender, [packet], outlet.stream, MTU)
    second = seal_packets(sender, [packet], outlet.stream, MTU)
    assert not first.drops
    assert second.drops[DropReason.RING_FULL] > 0
    datagrams = outlet.packets()
    assert len({datagram[8:16] for datagram in datagrams}) == len(datagrams)


@pytest.mark.parametrize(
    "counter", [2**32 - 1, 2**63 - 1, 2**63 + 12345, REJECT_AFTER_MESSAGES - 3]
)
def test_counters_are_64_bits_wide(counter: int) -> None:
    sender, receiver = keypairs()
    sender.send_counter = counter
    datagrams = seal(sender, [ipv4(b"x")] * 3)
    assert [int.from_bytes(d[8:16], "little") for d in datagrams] == [
        counter,
        counter + 1,
        counter + 2,
    ]
    assert len(open_all(receiver, datagrams)[0]) == 3


Mangle = st.sampled_from(["keep", "keep", "keep", "twice", "flip", "tag", "counter", "swap"])


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.just(b""),
                st.binary(min_size=1, max_size=60),
                st.binary(max_size=200).map(ipv4),
                st.binary(max_size=50).map(lambda p: ipv4(p, b"\x0b\0\0\1")),
            ),
            Mangle,
            st.integers(0, 10_000),
        ),
        min_size=1,
        max_size=25,
    ),
    st.sampled_from([BOTH, frozenset[int]()]),
)
@settings(max_examples=150, deadline=None)
def test_open_agrees_with_the_keypair_on_every_datagram(
    script: list[tuple[bytes, str, int]], coalesce: frozenset[int]
) -> None:
    sender, fast = keypairs()
    slow = keypairs()[1]
    datagrams: list[bytes] = []
    for packet, mangle, where in script:
        datagram = bytearray(sender.seal(packet, MTU))
        if mangle == "flip":
            datagram[16 + where % (len(datagram) - 16)] ^= 1
        elif mangle == "tag":
            datagram[-1] ^= 0x80
        elif mangle == "counter":
            datagram[8:16] = b"\xff" * 8
        datagrams.append(bytes(datagram))
        if mangle == "twice":
            datagrams.append(bytes(datagram))
        elif mangle == "swap":
            datagrams.reverse()

    expected: list[bytes] = []
    drops: Tally[DropReason] = Tally()
    data = keepalives = 0
    for datagram in datagrams:
        padded = slow.open(datagram)
        if padded is DropReason.COUNTER_EXHAUSTED:
            padded = DropReason.BAD_TAG  # nobody can have sealed it
        if isinstance(padded, DropReason):
            drops[padded] += 1
            continue
        data += bool(padded)
        keepalives += not padded
        if not padded:
            continue
        packet = ip.trim(padded)
        if isinstance(packet, DropReason):
            drops[packet] += 1
        elif ip.source(packet) != OURS:
            drops[DropReason.SOURCE_NOT_ALLOWED] += 1
        else:
            expected.append(packet)

    written, opened = open_all(fast, datagrams, coalesce)
    assert apart(written) == expected
    assert opened.drops == drops
    assert (opened.data, opened.keepalives) == (data, keepalives)
    assert fast.replay.highest == slow.replay.highest


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),  # which flow
            st.sampled_from([50, 200, 1368]),
            st.sampled_from([ACK, ACK, ACK, ACK | PSH]),
            st.integers(0, 19).map(lambda n: n == 0),  # corrupt its inner checksum
        ),
        min_size=1,
        max_size=60,
    ),
    st.sampled_from([(4, 6), (6, 6), (4, 17), (6, 17)]),
)
@settings(max_examples=150, deadline=None)
def test_coalesced_packets_are_the_packets_that_came(
    script: list[tuple[int, int, int, bool]], kind: tuple[int, int]
) -> None:
    source = int.from_bytes(OURS, "big")
    sequences, packets = [10, 20, 30], []
    for number, (which, size, flags, corrupt) in enumerate(script):
        packet = bytearray(
            Packet(
                bytes([number]) * size,
                *kind,
                source=source if kind[0] == 4 else 0,
                port=which,
                sequence=sequences[which],
                identification=number,
                flags=flags,
            ).build()
        )
        sequences[which] += size
        if corrupt:
            packet[-1] ^= 1
        packets.append(bytes(packet))
    sender, receiver = keypairs()
    datagrams = [sender.seal(packet, MTU) for packet in packets]
    record = as_record(datagrams[:45])
    sink = PacketSink(transport.scratch, OUTLET.stream, lambda _: PEER, BOTH)
    open_trains(receiver, record, trains(record), sink, PEER)
    assert apart(OUTLET.packets()) == packets[:45]


def test_a_train_of_one_flow_becomes_one_packet() -> None:
    source = int.from_bytes(OURS, "big")
    packets = [p.build() for p in flow(Packet(b"", source=source), [1368] * 40 + [77], ACK | PSH)]
    sender, receiver = keypairs()
    written, opened = open_all(receiver, [sender.seal(packet, MTU) for packet in packets])
    assert len(written) == 1
    assert opened.data == 41
    assert apart(written) == packets


def test_source_of_another_peer_is_dropped_for_the_whole_super_packet() -> None:
    packets = [p.build() for p in flow(Packet(b"", source=7), [1000] * 5 + [10])]
    sender, receiver = keypairs()
    written, opened = open_all(receiver, [sender.seal(packet, MTU) for packet in packets])
    assert written == []
    assert opened.drops == {DropReason.SOURCE_NOT_ALLOWED: 6}


def test_congestion_mark_reaches_every_packet() -> None:
    source = int.from_bytes(OURS, "big")
    packets = [p.build() for p in flow(Packet(b"", source=source, tos=ecn.ECT_0), [500] * 4)]
    plain = Packet(b"x" * 500, source=source).build()
    sender, receiver = keypairs()
    datagrams = [sender.seal(packet, MTU) for packet in [*packets, plain]]
    written, opened = open_all(receiver, datagrams, congestion=ecn.CE)
    wanted = [p.build() for p in flow(Packet(b"", source=source, tos=ecn.CE), [500] * 4)]
    assert apart(written) == wanted
    assert opened.drops == {DropReason.CONGESTION_NOT_ECT: 1}


def test_record_of_several_sessions_comes_apart_by_index() -> None:
    first = Keypair(SessionKeys(KEYS[0], KEYS[1], 1, 7, True), 0.0)
    second = Keypair(SessionKeys(KEYS[0], KEYS[1], 1, 8, True), 0.0)
    script = [first, first, second, first, second, second]
    record = as_record([keypair.seal(b"x" * 100, MTU) for keypair in script])
    cars = trains(record)
    assert [(car.index, car.count) for car in cars] == [(7, 2), (8, 1), (7, 1), (8, 2)]


def test_unauthenticated_plaintext_is_wiped() -> None:
    sender, receiver = keypairs()
    datagram = bytearray(sender.seal(ipv4(b"secret" * 20), MTU))
    datagram[-1] ^= 1
    transport.scratch[:] = 0
    open_all(receiver, [bytes(datagram)])
    assert not np.any(transport.scratch)


def test_stream_counts_what_it_published() -> None:
    outlet = Outlet()
    outlet.stream.append(b"12345", [5])
    outlet.stream.append(b"678", [3])
    assert outlet.packets() == [b"12345", b"678"]
    assert outlet.counters.value(Counter.BYTES_OUT) == 8
    assert (outlet.stream.sent_packets, outlet.stream.sent_bytes) == (2, 8)
