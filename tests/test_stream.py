"""Streams of records, and reading straight into them: what goes in comes out, under its label."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from wgmp.counters import Counter, Counters, create_counters
from wgmp.protocol.outcome import Endpoint
from wgmp.record import MAX_PACKETS, PAYLOAD_OFFSET, Kind
from wgmp.ring import Doorbell, RingReader, RingWriter, create_ring
from wgmp.shm import Segment
from wgmp.stream import Intake, Label, RecordStream

PAYLOAD_BYTES = 2048
HERE = Endpoint(bytes([192, 0, 2, 1]), 51820)
LABELS = [
    Label(Kind.PACKETS, 1),
    Label(Kind.PACKETS, 2),
    Label(Kind.PACKETS, 2, flags=256),
    Label(Kind.DATAGRAMS, 3, endpoint=HERE),
]

Told = list[tuple[Label, list[bytes]]]


# Nobody sleeps behind the rings. One for all: each has a descriptor.
BELL = Doorbell(Segment("bells", 64), 0)


@dataclass
class End:
    """A stream into a ring of a few slots, its counters, and whoever reads the ring."""

    slots: int = 4
    counters: Counters = field(default_factory=lambda: Counters(create_counters(1), 0))

    def __post_init__(self) -> None:
        segment = create_ring("stream", self.slots, PAYLOAD_OFFSET + PAYLOAD_BYTES)
        self.reader = RingReader(segment)
        self.stream = RecordStream(RingWriter(segment, BELL), self.counters)

    def read(self) -> Told:
        """Return the records that wait, by label, and give their slots back."""
        records = []
        while (record := self.reader.peek()) is not None:
            endpoint = record.endpoint() if record.kind == Kind.DATAGRAMS else None
            label = Label(Kind(record.kind), record.peer, record.flags, endpoint)
            records.append((label, [bytes(packet) for packet in record.packets()]))
            self.reader.release()
        return records

    def figures(self) -> tuple[int, ...]:
        """Return what was counted: records, packets and bytes out, drops."""
        out = (Counter.RECORDS_OUT, Counter.PACKETS_OUT, Counter.BYTES_OUT)
        return (*map(self.counters.value, out), sum(self.counters.drops().values()))

    def append(self, *packets: bytes) -> bool:
        """Append packets that lie one behind the other."""
        return self.stream.append(b"".join(packets), [len(packet) for packet in packets])


def test_a_record_is_published_when_it_is_full_and_not_before() -> None:
    end = End()
    end.stream.start(LABELS[0])
    assert end.append(bytes(1000), bytes(1000))
    assert end.append(bytes(48))  # which is exactly what there was room for
    assert end.read() == []
    assert end.append(b"x")
    assert end.read() == [(LABELS[0], [bytes(1000), bytes(1000), bytes(48)])]
    end.stream.flush()
    assert end.read() == [(LABELS[0], [b"x"])]
    assert end.figures() == (2, 4, 2049, 0)


def test_a_record_counts_so_many_packets_and_no_more() -> None:
    end = End()
    end.stream.start(LABELS[0])
    for number in range(MAX_PACKETS + 1):
        assert end.append(bytes([number % 256]))
    end.stream.flush()
    assert [len(packets) for _, packets in end.read()] == [MAX_PACKETS, 1]


def test_another_label_begins_another_record_and_what_was_sent_counts_from_there() -> None:
    end = End()
    for label in LABELS:
        end.stream.start(label)
        assert (end.stream.sent_packets, end.stream.sent_bytes) == (0, 0)
        assert end.append(b"one", b"four")
        end.stream.flush()
        assert end.append(b"again")
        end.stream.flush()
        assert (end.stream.sent_packets, end.stream.sent_bytes) == (3, 12)
        assert end.read() == [(label, [b"one", b"four"]), (label, [b"again"])]


def test_nothing_is_published_of_a_record_without_packets() -> None:
    end = End()
    assert end.stream.free() is not None
    for label in LABELS:
        end.stream.start(label)  # on the record that is open already
        assert end.stream.room(10) is not None
        end.stream.flush()
    assert end.append(b"x")
    end.stream.leave()
    assert end.read() == [(LABELS[-1], [b"x"])]
    assert end.figures() == (1, 1, 1, 0)


def test_a_full_ring_costs_what_would_come_next_and_nothing_before() -> None:
    end = End(slots=2)
    end.stream.start(LABELS[0])
    assert end.append(bytes(2047))
    assert end.append(bytes(2048))
    assert not end.append(b"a", b"b", b"c")
    assert end.stream.free() is None
    assert end.stream.room(1) is None
    assert end.stream.waiting() == 2
    assert end.counters.drops() == {"ring_full": 3}
    assert [len(packets[0]) for _, packets in end.read()] == [2047, 2048]
    assert end.append(b"d")
    end.stream.flush()
    assert end.read() == [(LABELS[0], [b"d"])]


def test_a_tap_sees_each_record_before_it_is_published() -> None:
    end = End()
    seen = []
    end.stream.tap = lambda record: seen.append((record.count, end.stream.waiting()))
    end.append(b"a", b"b")
    end.stream.flush()
    end.append(b"c")
    end.stream.leave()
    assert seen == [(2, 0), (1, 1)]


def test_a_stream_that_was_left_lets_another_one_write_to_its_ring() -> None:
    end = End()
    end.stream.start(LABELS[0])
    assert end.stream.free() is not None  # it has the slot now
    end.stream.leave()
    other = RecordStream(end.stream._ring, end.counters)
    other.start(LABELS[1])
    other.append(b"another's", [9])
    other.flush()
    assert end.append(b"ours")
    end.stream.flush()
    assert end.read() == [(LABELS[1], [b"another's"]), (LABELS[0], [b"ours"])]


# One read: where its packets go, under which label, and how long they are.
READS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, len(LABELS) - 1),
        st.lists(st.integers(1, 700), min_size=1, max_size=3),
        st.booleans(),  # a label of its own that says the same
    ),
    max_size=60,
)


def one_by_one(records: Told) -> list[tuple[Label, bytes]]:
    """Return the packets of records in their order, each with its label."""
    return [(label, packet) for label, packets in records for packet in packets]


@settings(max_examples=200, deadline=None)
@given(READS)
def test_whatever_is_read_arrives_in_order_where_it_belongs(
    reads: list[tuple[int, int, list[int], bool]],
) -> None:
    """The third stream is none that is read into: drops, or what somebody else deals with."""
    ends = [End(slots=64) for _ in range(3)]
    expected: list[list[tuple[Label, bytes]]] = [[], [], []]
    found: list[list[tuple[Label, bytes]]] = [[], [], []]
    intake = Intake([end.stream for end in ends[:2]], 4096)
    for number, (to, label_number, lengths, fresh) in enumerate(reads):
        if not intake.turn():
            for stream in (ends[2].stream.flush, intake.flush):
                stream()
            for each, end in enumerate(ends):
                found[each] += one_by_one(end.read())
        template = LABELS[label_number]
        label = template._replace() if fresh else template
        packets = [bytes([number % 256]) * length for length in lengths]
        arrived = b"".join(packets)
        rest = memoryview(arrived)
        for buffer in intake.buffers():  # as readv fills them
            part = rest[: len(buffer)]
            buffer[: len(part)] = part
            rest = rest[len(part) :]
        view = intake.view(len(arrived))
        assert view == arrived
        intake.put(ends[to].stream, label, view, lengths)
        expected[to] += [(label, packet) for packet in packets]
    intake.flush()
    ends[2].stream.flush()
    for each, end in enumerate(ends):
        found[each] += one_by_one(end.read())
    assert found == expected
    assert all(end.counters.drops() == {} for end in ends)


def test_a_turn_ends_after_some_records_or_many_reads() -> None:
    ends = [End(slots=64), End(slots=64)]
    intake = Intake([end.stream for end in ends], 4096)

    def read_until_the_turn_is_over(labels: list[Label]) -> int:
        count = 0
        while intake.turn():
            free, _ = intake.buffers()
            free[:1] = b"x"
            intake.put(ends[0].stream, labels[count % len(labels)], intake.view(1), [1])
            count += 1
            assert count < 1000
        intake.flush()
        return count

    assert read_until_the_turn_is_over(LABELS[:1]) == 64
    few = read_until_the_turn_is_over(LABELS[:2])
    assert 4 <= few <= 6, "each read begins a record of its own"
    assert read_until_the_turn_is_over(LABELS[1:2]) == 64, "the next turn begins anew"
