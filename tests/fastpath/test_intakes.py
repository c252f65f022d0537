"""Both fast paths' intakes: a socket that keeps messages apart stands in for the TUN device."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fastpath.ends import Ring
from wgmp import udp
from wgmp.counters import Counter, Counters, create_counters
from wgmp.fastpath import virtio
from wgmp.fastpath.choice import Choice, load, native_is_missing
from wgmp.fastpath.interface import PacketIntake
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.peertable import IndexTable, PeerTable
from wgmp.protocol.outcome import DropReason
from wgmp.record import ecn_flags
from wgmp.tun import TunQueue

PATHS = [Choice.REFERENCE] if native_is_missing() else [Choice.NATIVE, Choice.REFERENCE]
both_paths = pytest.mark.parametrize("path", PATHS)


def packet(peer: int, length: int, ecn: int = 0, fill: int = 7) -> bytes:
    """An IPv4 packet to 10.0.0.`peer`."""
    header = bytes([0x45, ecn]) + length.to_bytes(2, "big") + bytes(12) + bytes([10, 0, 0, peer])
    return header.ljust(length, bytes([fill]))


@dataclass
class Tun:
    """An intake that reads what is written to `end`; peers 1..4 belong to worker peer & 1."""

    end: socket.socket
    device: socket.socket
    intake: PacketIntake
    rings: list[Ring]
    counters: Counters

    def close(self) -> None:
        """Let both ends go."""
        self.end.close()
        self.device.close()

    def write(self, body: bytes) -> None:
        """Let the device have a packet."""
        self.end.send(virtio.PLAIN + body)

    def read(self) -> list[bytes]:
        """Let the intake read all there is; return what it refused."""
        refused, more = [], True
        while more:
            more, few = self.intake.burst()
            refused += few
        return refused

    def taken(self) -> list[tuple[int, int, int, bytes]]:
        """Return (worker, peer, flags, packet) of every packet that was handed on, in order."""
        return [
            (worker, peer, flags, each[virtio.SIZE :])
            for worker, ring in enumerate(self.rings)
            for flags, peer, _, packets in ring.take()
            for each in packets
        ]


def make_tun(path: Choice, slots: int = 16) -> Tun:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22)
    fastpath, peers = load(path), PeerTable()
    routes = fastpath.allowed_ips()
    for peer in range(1, 5):
        peers.set_owner(peer, peer & 1)
        routes.insert(bytes([10, 0, 0, peer]), 32, peer)
    rings, counters = [Ring(slots), Ring(slots)], Counters(create_counters(1), 0)
    queue = TunQueue(theirs.fileno(), virtio_header=True)
    writers = [ring.writer for ring in rings]
    intake = fastpath.packet_intake(queue, writers, peers, routes, counters)
    intake.mtu = 1420
    return Tun(ours, theirs, intake, rings, counters)


@pytest.fixture
def tun(path: Choice) -> Iterator[Tun]:
    made = make_tun(path)
    with closing(made):
        yield made


@both_paths
def test_packets_of_peers_in_turn_arrive_in_order(tun: Tun) -> None:
    sent = [packet(1 + number % 4, 60 + number, fill=number) for number in range(24)]
    for each in sent:
        tun.write(each)
    assert not tun.read()
    taken = tun.taken()
    for peer in range(1, 5):
        assert [body for _, owner, _, body in taken if owner == peer] == sent[peer - 1 :: 4]
    assert {worker for worker, peer, *_ in taken if peer in (2, 4)} == {0}


@both_paths
def test_ecn_fields_are_kept_apart_and_order_is_not_lost(tun: Tun) -> None:
    marks = [0, 2, 2, 0, 3, 0]
    sent = [packet(1, 100 + number, mark) for number, mark in enumerate(marks)]
    for each in sent:
        tun.write(each)
    tun.read()
    assert [(flags, body) for _, _, flags, body in tun.taken()] == [
        (ecn_flags(mark), each) for mark, each in zip(marks, sent, strict=True)
    ]


@both_paths
def test_what_was_refused_can_be_handed_on_after_all(tun: Tun) -> None:
    stale, lost, long = packet(1, 900, fill=1), packet(9, 200, fill=2), packet(1, 1421, fill=3)
    for each in (stale, lost, long, bytes(3)):
        tun.write(each)
    refused = tun.read()
    assert refused == [virtio.PLAIN + each for each in (lost, long, bytes(3))]
    tun.taken()
    tun.intake.put(2, refused[0])
    tun.intake.put(1, refused[1])
    assert [(peer, body) for _, peer, _, body in tun.taken()] == [(2, lost), (1, long)]


@both_paths
def test_super_packet_is_as_long_as_its_segments(tun: Tun) -> None:
    body = packet(1, 30_000)
    tcp = bytearray(body)
    tcp[32] = 5 << 4
    header = VirtioHeader(virtio.NEEDS_CSUM, virtio.GSO_TCPV4, 40, 1380, 20, 16)
    for size, refused in ((1380, 0), (1381, 1)):
        tun.end.send(header._replace(gso_size=size).pack() + bytes(tcp))
        assert len(tun.read()) == refused


@both_paths
def test_full_ring_drops_and_counts(path: Choice) -> None:
    tun = make_tun(path, slots=1)
    with closing(tun):
        for number in range(3):
            tun.write(packet(1, 1400, fill=number))
            tun.read()
        assert [body[-1] for *_, body in tun.taken()] == [0]
        assert tun.counters.dropped(DropReason.RING_FULL) == 2
        assert tun.counters.value(Counter.PACKETS_IN) == 3


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(20, 1420), st.sampled_from([0, 0, 0, 2, 3])),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 20),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_both_intakes_hand_on_the_same_packets(
    packets: list[tuple[int, int, int]], burst: int
) -> None:
    seen = []
    for path in PATHS:
        tun = make_tun(path, slots=64)
        with closing(tun):
            refused = []
            for start in range(0, len(packets), burst):
                for number, (peer, length, mark) in enumerate(packets[start : start + burst]):
                    tun.write(packet(peer, length, mark, fill=number))
                refused += tun.read()
            taken = tun.taken()
            by_peer = {peer: [t[2:] for t in taken if t[1] == peer] for peer in range(1, 5)}
            counts = tun.counters.figures()
            seen.append((by_peer, refused, {k: counts[k] for k in ("packets_in", "packets_out")}))
    assert all(each == seen[0] for each in seen)


@both_paths
def test_datagrams_reach_the_owner_of_their_index_and_others_are_counted(path: Choice) -> None:
    port, sockets = udp.open_sockets(0, 0, gro=True)
    peers, indices, counters = PeerTable(), IndexTable(), Counters(create_counters(1), 0)
    peers.set_owner(3, 1)
    index = indices.draw(3, 1, 2, os.urandom)
    rings = [Ring(), Ring()]
    writers = [ring.writer for ring in rings]
    intake = load(path).datagram_intake(writers, peers, indices, counters)
    intake.use(sockets)
    head = b"\4\0\0\0" + index.to_bytes(4, "little")
    known = [head + bytes([number]) * (24 + number) for number in range(6)]
    strange = b"\4\0\0\0" + (index ^ 0x8000).to_bytes(4, "little") + bytes(24)
    messages = [b"\1\0\0\0" + bytes(144), b"\2\0\0\0" + bytes(88), b"\3\0\0\0" + bytes(60)]
    rubbish = [b"", b"xyz", b"\7\0\0\0" + bytes(60), b"\1\0\0\0" + bytes(143), head + bytes(23)]
    asked: list[bytes] = []

    def admit(message: bytes) -> DropReason | None:
        asked.append(message)
        return DropReason.BAD_MAC1 if message[0] == 2 else None

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))
        mixed = [*known[:3], messages[0], strange, *known[3:], *messages[1:], *rubbish]
        for datagram in mixed:
            sender.send(datagram)
        admitted = []
        more = True
        while more:
            more, few = intake.burst(admit)
            admitted += few
        port_of_sender = sender.getsockname()[1]
    for sock in sockets:
        sock.close()
    records = rings[1].take()
    assert [each for *_, datagrams in records for each in datagrams] == known
    endpoint = records[0][2]
    assert endpoint is not None
    assert (endpoint.address, endpoint.port) == (bytes([127, 0, 0, 1]), port_of_sender)
    assert endpoint.source == bytes([127, 0, 0, 1])
    assert rings[0].take() == []
    assert asked == messages
    assert [message for message, _ in admitted] == [messages[0], messages[2]]
    drops = counters.outward.drops()
    assert drops == {"bad_length": 4, "bad_type": 1, "unknown_index": 1, "bad_mac1": 1}
    assert counters.value(Counter.PACKETS_IN) == len(mixed)
