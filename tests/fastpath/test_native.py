"""The native fast path against the reference one: the same records, the same bytes and counters."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fastpath.ends import ENDPOINT, PEER, STRANGER, Ends
from tests.fastpath.packets import ACK, CWR, ECE, FIN, PSH, SYN, URG, Packet, flow
from tests.fastpath.test_segment import header_for
from tests.protocol.test_replay import STEPS
from wgmp.fastpath import reference, virtio
from wgmp.fastpath.choice import Choice, load, native_is_missing
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.protocol.allowedips import AllowedIPs
from wgmp.protocol.constants import REJECT_AFTER_MESSAGES, REPLAY_WINDOW
from wgmp.protocol.messages import TransportHeader
from wgmp.protocol.outcome import DropReason
from wgmp.record import SLOT_BYTES, Kind, ecn_flags, pack_endpoint
from wgmp.ring import (
    CORRUPT_WORD,
    HEAD_WORD,
    SLOT_BYTES_WORD,
    SLOTS_WORD,
    TAIL_WORD,
    create_ring,
)

pytestmark = pytest.mark.skipif(
    bool(native_is_missing()), reason="the native fast path was not built: no Rust toolchain"
)

KINDS = st.sampled_from([(4, 6), (6, 6), (4, 17), (6, 17)])
FLAGS = st.sampled_from([ACK, ACK, ACK, ACK | PSH, ACK | FIN, SYN, ACK | URG, ACK | ECE, ACK | CWR])
ECN = st.sampled_from([0, 0, 0, 1, 2, 3])

# How packets of a flow differ from what could be coalesced.
ODD: list[Callable[[Packet], Packet]] = [
    lambda packet: replace(packet, flags=ACK | PSH),
    lambda packet: replace(packet, flags=ACK | FIN),
    lambda packet: replace(packet, flags=SYN),
    lambda packet: replace(packet, sequence=packet.sequence + 1),
    lambda packet: replace(packet, identification=packet.identification + 7),
    lambda packet: replace(packet, fragment=0x2000),
    lambda packet: replace(packet, tos=3),
    lambda packet: replace(packet, tos=2),
    lambda packet: replace(packet, ttl=3),
    lambda packet: replace(packet, port=9),
    lambda packet: replace(packet, window=1),
    lambda packet: replace(packet, acknowledgement=3),
    lambda packet: replace(packet, options=b""),
    lambda packet: replace(packet, source=9),
    lambda packet: replace(packet, payload=b""),
    lambda packet: replace(packet, payload=packet.payload + b"x"),
    lambda packet: replace(packet, protocol=1),
]


def both() -> tuple[Ends, Ends]:
    """Return an end on each fast path."""
    return Ends(load(Choice.NATIVE)), Ends(reference)


@st.composite
def plain_packets(draw: st.DrawFn) -> list[bytes]:
    """Packets of one flow, with something odd here and there, and rubbish between."""
    version, protocol = draw(KINDS)
    size = draw(st.integers(1, 1380))
    count = draw(st.integers(1, 30))
    sizes = [size] * count
    sizes[-1] = draw(st.integers(0, size))
    first = Packet(b"", version, protocol, sequence=draw(st.sampled_from([5000, 2**32 - 3000])))
    packets = [packet.build() for packet in flow(first, sizes, draw(FLAGS))]
    for place in draw(st.lists(st.integers(0, count - 1), max_size=3)):
        odd = draw(st.sampled_from(ODD))
        packets[place] = odd(flow(first, sizes)[place]).build()
    for place in draw(st.lists(st.integers(0, count - 1), max_size=2)):
        spoiled = bytearray(packets[place])
        spoiled[draw(st.integers(0, len(spoiled) - 1))] ^= draw(st.integers(1, 255))
        packets[place] = bytes(spoiled)
    for place in draw(st.lists(st.integers(0, count), max_size=2)):
        packets.insert(place, draw(st.binary(min_size=1, max_size=60)))
    return packets


@st.composite
def from_the_tun(draw: st.DrawFn) -> list[bytes]:
    """Packets behind virtio headers: whole, super, with checksums to finish, or nonsense."""
    packets = []
    for _ in range(draw(st.integers(1, 4))):
        version, protocol = draw(KINDS)
        size = draw(st.integers(1, 1400))
        total = draw(st.integers(1, min(60_000, 60 * size)))
        whole = Packet(
            bytes(at & 0xFF for at in range(total)),
            version,
            protocol,
            flags=draw(FLAGS),
            sequence=draw(st.integers(0, 2**32 - 1)),
            identification=draw(st.integers(0, 2**16 - 1)),
        ).build()
        header = header_for(Packet(b"", version, protocol), size)
        if len(whole) > 15_000 and draw(st.booleans()):
            whole = whole[:15_000]  # its length field promises more
        if draw(st.booleans()):
            header = header._replace(gso_type=virtio.GSO_NONE, gso_size=0)
            whole = whole[:1500]
        spoil = draw(st.sampled_from(["", "", "", "csum_start", "csum_offset", "gso_size", "type"]))
        if spoil == "type":
            header = header._replace(gso_type=draw(st.integers(0, 255)))
        elif spoil:
            header = header._replace(**{spoil: draw(st.integers(0, 70))})
        packets.append((header.pack() + whole)[:30_000])
    return packets[:2] if sum(map(len, packets)) > 60_000 else packets


@given(from_the_tun(), ECN, st.sampled_from([0, 2**32 - 3, 2**63 - 3]))
@settings(max_examples=120, deadline=None)
def test_both_seal_the_same_datagrams_and_keep_the_same_books(
    packets: list[bytes], congestion: int, counter: int
) -> None:
    native, plain = both()
    for end in (native, plain):
        end.keypair.send_counter = counter
    said = [end.seal(packets, ecn_flags(congestion)) for end in (native, plain)]
    assert said[0] == said[1]
    sealed = [end.sealed.take() for end in (native, plain)]
    assert [each for *_, record in sealed[0] for each in record] == [
        each for *_, record in sealed[1] for each in record
    ]
    assert {each[:3] for each in sealed[0]} <= {(ecn_flags(congestion), PEER, ENDPOINT)}
    books = native.books(), plain.books()
    for each in books:
        # How datagrams are laid out in records may differ.
        each["outward"].pop("records_out")  # type: ignore[attr-defined]
    assert books[0] == books[1]


@given(
    plain_packets(),
    st.lists(st.sampled_from(["twice", "flip", "tag", "counter", "swap", "index"]), max_size=4),
    ECN,
    st.randoms(use_true_random=False),
)
@settings(max_examples=200, deadline=None)
def test_both_open_the_same_packets_and_keep_the_same_books(
    packets: list[bytes], mangles: list[str], congestion: int, chance: random.Random
) -> None:
    sender = Ends(reference)
    datagrams = [sender.keypair.seal(packet, 1420) for packet in packets]
    for number in range(chance.randint(0, 2)):
        datagrams.insert(chance.randint(0, len(datagrams)), sender.keypair.seal(b"", 1420))
        assert number < 2
    for mangle in mangles:
        place = chance.randrange(len(datagrams))
        spoiled = bytearray(datagrams[place])
        match mangle:
            case "twice":
                datagrams.insert(chance.randint(0, len(datagrams)), datagrams[place])
                continue
            case "swap":
                datagrams.insert(chance.randrange(len(datagrams)), datagrams.pop(place))
                continue
            case "flip":
                spoiled[chance.randrange(16, len(spoiled))] ^= 1 << chance.randrange(8)
            case "tag":
                spoiled[-1] ^= 0x80
            case "counter":
                spoiled[8 + chance.randrange(8)] ^= 1 << chance.randrange(8)
            case "index":
                spoiled[4] = 9
        datagrams[place] = bytes(spoiled)
    refuse = {9: DropReason.UNKNOWN_INDEX}
    native = Ends(load(Choice.NATIVE), initiator=False, refuse=refuse)
    plain = Ends(reference, initiator=False, refuse=refuse)
    for end in (native, plain):
        end.open(datagrams, ecn_flags(congestion))
        end.open(datagrams[::-1], ecn_flags(congestion))
    assert native.written() == plain.written()
    assert native.books() == plain.books()


@given(
    st.sampled_from([0, 1, 2**32 - 10, 2**63, REJECT_AFTER_MESSAGES - 5]),
    st.lists(STEPS, max_size=80),
)
@example(2**32, [-REPLAY_WINDOW, -REPLAY_WINDOW - 1, 1, -REPLAY_WINDOW])
@settings(deadline=None)
def test_both_take_the_same_counters(counter: int, steps: list[int]) -> None:
    sender, keepalives = Ends(reference).keypair, []
    newest = counter
    for step in [0, *steps]:
        counter = min(max(0, newest + step), 2**64 - 1)
        newest = max(newest, counter)
        header = TransportHeader(sender.remote_index, counter).pack()
        nonce = bytes(4) + counter.to_bytes(8, "little")
        keepalives.append(header + sender.sealer.encrypt(nonce, b"", None))
    native = Ends(load(Choice.NATIVE), initiator=False)
    plain = Ends(reference, initiator=False)
    assert native.open(keepalives) == plain.open(keepalives)
    assert native.books() == plain.books()


@given(st.lists(st.integers(0, 2), min_size=1, max_size=6), st.integers(1, 2))
@settings(max_examples=40, deadline=None)
def test_both_drop_the_same_where_a_ring_is_full(sizes: list[int], slots: int) -> None:
    bodies = {0: 40, 1: 1300, 2: 30_000}
    packets = [virtio.PLAIN + Packet(bytes(bodies[size]), protocol=17).build() for size in sizes]
    native, plain = Ends(load(Choice.NATIVE), slots=slots), Ends(reference, slots=slots)
    for end in (native, plain):
        for packet in packets:
            end.seal([packet])
    assert native.counters.dropped(DropReason.RING_FULL) == plain.counters.dropped(
        DropReason.RING_FULL
    )
    assert native.keypair.send_counter == plain.keypair.send_counter
    assert native.sealed.take() == plain.sealed.take()


def test_both_say_how_much_came_and_where_the_last_came_from() -> None:
    for fastpath in (load(Choice.NATIVE), reference):
        sender, end = Ends(reference).keypair, Ends(fastpath, initiator=False, slots=1)
        for port in (51820, 2, 3):
            datagrams = [sender.seal(Packet(bytes(900)).build(), 1420) for _ in range(5)]
            end.datagrams.offer(Kind.DATAGRAMS, datagrams, endpoint=ENDPOINT._replace(port=port))
        received, refused = end.open_waiting()
        assert refused == []
        assert sum(packets for _, packets, *_ in received) == 15
        assert received[-1][4] == pack_endpoint(ENDPOINT._replace(port=3))
        assert len(end.written()) == 5, "the ring was full"
        assert end.counters.inward.drops() == {"ring_full": 10}


def test_long_trains_become_the_same_super_packets() -> None:
    sender = Ends(reference)
    for kind in ((4, 6), (6, 6), (4, 17), (6, 17)):
        sizes = [700] * 64 + [700] * 5 + [30]
        packets = [packet.build() for packet in flow(Packet(b"", *kind), sizes)]
        datagrams = [sender.keypair.seal(packet, 1420) for packet in packets]
        native = Ends(load(Choice.NATIVE), initiator=False)
        plain = Ends(reference, initiator=False)
        made = []
        for end in (native, plain):
            end.open(datagrams)
            (record,) = end.opened.take()
            made.append([VirtioHeader.unpack(packet).gso_type for packet in record[3]])
        # UDP's go no further than 64 packets each.
        assert len(made[0]) == (1 if kind[1] == 6 else 2)
        assert made[0] == made[1]
        assert virtio.GSO_NONE not in made[0]


@pytest.mark.parametrize(
    ("count", "payload", "segment"),
    [(256, 1, 0), (257, 1, 0), (2, 30_000, 200), (2, 30_000, 1000), (40, 1372, 0)],
)
def test_both_fill_records_to_the_brim(count: int, payload: int, segment: int) -> None:
    whole = Packet(bytes(payload), protocol=17)
    header = header_for(whole, segment).pack() if segment else virtio.PLAIN
    native, plain = both()
    made = []
    for end in (native, plain):
        end.seal([header + whole.build()] * min(count, 256))
        end.seal([header + whole.build()] * (count - min(count, 256)))
        made.append([each for *_, record in end.sealed.take() for each in record])
    assert made[0] == made[1]
    assert len(made[0]) == count * (-(-payload // segment) if segment else 1)


@pytest.mark.parametrize(("kind", "peer"), [(Kind.PACKETS, STRANGER), (Kind.DATAGRAMS, PEER)])
def test_neither_seals_what_is_for_another_peer_or_is_sealed(kind: Kind, peer: int) -> None:
    inner = virtio.PLAIN + Packet(b"x").build()
    for end in both():
        for each in ((Kind.PACKETS, PEER), (kind, peer), (Kind.PACKETS, PEER)):
            end.packets.offer(each[0], [inner], peer=each[1])
        assert end.seal_waiting()[0] == 1
        assert end.packets.reader.waiting() == 2


def test_native_session_stops_where_the_counter_ends() -> None:
    native = Ends(load(Choice.NATIVE))
    packet = virtio.PLAIN + Packet(b"x").build()
    native.keypair.send_counter = REJECT_AFTER_MESSAGES - len(packet)
    assert native.seal([packet])[0] == 1
    assert native.seal([packet]) == (0, 0)  # the worker seals the last ones one by one
    assert native.keypair.send_counter == REJECT_AFTER_MESSAGES - len(packet) + 1


PREFIXES = st.one_of(
    st.tuples(st.binary(min_size=4, max_size=4), st.integers(0, 32)),
    st.tuples(st.binary(min_size=16, max_size=16), st.integers(0, 128)),
)


@given(
    st.lists(st.tuples(PREFIXES, st.integers(0, 5), st.sampled_from("iiiird")), max_size=40),
    st.lists(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16), max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_native_allowed_ips_route_as_the_protocols_do(
    changes: list[tuple[tuple[bytes, int], int, str]], addresses: list[bytes]
) -> None:
    native, plain = load(Choice.NATIVE).allowed_ips(), AllowedIPs()
    inserted: list[tuple[bytes, int, int]] = []
    for (network, length), owner, action in changes:
        if action == "i":
            inserted.append((network, length, owner))
        elif action == "r" and inserted:
            network, length, owner = inserted[owner % len(inserted)]
        for table in (native, plain):
            match action:
                case "i":
                    table.insert(network, length, owner)
                case "r":
                    table.remove(network, length, owner)
                case _:
                    table.remove_owner(owner)
        for address in [*addresses, *(each[0] for each in inserted)]:
            assert native.lookup(address) == plain.lookup(address)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        (0, 1),
        (1, 2),
        (SLOTS_WORD, 0),
        (SLOTS_WORD, 9),
        (SLOTS_WORD, 2**63),
        (SLOT_BYTES_WORD, SLOT_BYTES - 8),
        (SLOT_BYTES_WORD, 64),
    ],
)
def test_native_attaches_to_no_ring_that_is_not_what_it_says(word: int, value: int) -> None:
    from wgmp.fastpath.native._native import RingReader

    segment = create_ring("test", 8, SLOT_BYTES)
    assert RingReader(segment.bytes)
    segment.words[word] = value
    with pytest.raises(ValueError, match=r"not a ring|are not in|too small"):
        RingReader(segment.bytes)


@pytest.mark.parametrize("head", [9, 2**40])
def test_a_head_that_cannot_be_is_dropped_and_the_next_record_served(head: int) -> None:
    native = Ends(load(Choice.NATIVE))
    words = native.packets.writer.segment.words
    words[HEAD_WORD] = head
    assert native.seal_waiting() == (0, 0)
    assert (words[TAIL_WORD], words[CORRUPT_WORD]) == (head, 1)
    assert native.seal([virtio.PLAIN + Packet(b"x").build()])[0] == 1
    assert words[CORRUPT_WORD] == 1


def test_rubbish_in_a_ring_is_counted_and_never_leaves_it() -> None:
    """Lengths that do not fit the slot, as a ring with a hostile writer might hold."""
    chance = random.Random(7)
    native = Ends(load(Choice.NATIVE))
    for ring, use in ((native.packets, native.seal), (native.datagrams, native.open)):
        for _ in range(300):
            record = ring.writer.reserve()
            assert record is not None
            slot = record._slot
            slot[:1152] = os.urandom(1152)
            # Sometimes plausible: the right kind, few packets.
            slot[0:4] = chance.choice([1, 2]).to_bytes(4, "little")
            slot[4:8] = chance.choice([1, 2, 256, 257, 2**31]).to_bytes(4, "little")
            slot[16:24] = PEER.to_bytes(8, "little")
            words = ring.writer.segment.words
            words[8] += 1
            use([])
            while ring.reader.peek() is not None:
                ring.reader.release()
    assert native.opened.take() == []


def test_an_extension_with_other_numbers_or_no_version_is_from_other_sources() -> None:
    from wgmp.fastpath.native.agreement import disagreements, expected

    ours = expected()
    assert disagreements(ours) == []
    assert disagreements({}) == ["interface.VERSION"]
    assert disagreements(ours | {"ring.HEAD": 9, "ring.NEW": 1}) == ["ring.HEAD", "ring.NEW"]
