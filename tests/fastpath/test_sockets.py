"""Both fast paths at real UDP sockets: trains, what the network refuses, and narrow paths."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from collections.abc import Iterator, Sequence

import pytest

from tests.e2e.wire import inside
from tests.fastpath.ends import Ring
from tests.fastpath.test_intakes import both_paths
from wgmp import udp
from wgmp.counters import Counter, Counters, create_counters
from wgmp.fastpath.choice import Choice, load
from wgmp.netns import Namespaces
from wgmp.offload import SOL_UDP, UDP_SEGMENT
from wgmp.peertable import IndexTable, PeerTable
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import Kind

LOOPBACK4, LOOPBACK6 = b"\x7f\0\0\1", bytes(15) + b"\1"
BROADCAST = Endpoint(b"\xff\xff\xff\xff", 9)  # no socket of ours may
ALIKE = [bytes([number]) * 100 for number in range(6)]
GROWING = [bytes([number]) * (100 + number) for number in range(6)]


class Out:
    """A fast path's writer on the `sockets`, with a ring and counters of its own."""

    def __init__(self, path: Choice, sockets: list[socket.socket]) -> None:
        self.counters = Counters(create_counters(1), 0)
        self.ring = Ring()
        self.writer = load(path).datagram_writer(sockets, True, self.counters)

    def offer(self, datagrams: Sequence[bytes], endpoint: Endpoint | None) -> None:
        """Let a record wait to be sent."""
        record = self.ring.writer.reserve()
        assert record is not None
        record.begin(Kind.DATAGRAMS)
        if endpoint is not None:
            record.set_endpoint(endpoint)
        for datagram in datagrams:
            record.append(datagram)
        self.ring.writer.publish()

    def send(self) -> int:
        """Send all that waits; return how often the socket was full."""
        waits = 0
        while self.ring.reader.waiting():
            if (full := self.writer.burst(self.ring.reader)) is not None:
                waits += 1
                assert select.select([], [full], [], 5)[1]
        return waits


def receiver(address: str = "127.0.0.1") -> socket.socket:
    """Return a socket to send to, which does not wait for what does not come."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((address, 0))
    sock.settimeout(2)
    return sock


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    """A gateway's sockets."""
    _, opened = udp.open_sockets(0, 0, gro=True)
    yield opened
    for sock in opened:
        sock.close()


@both_paths
@pytest.mark.parametrize("datagrams", [ALIKE, GROWING], ids=["train", "one by one"])
def test_what_the_network_refuses_is_counted_and_the_rest_is_sent(
    path: Choice, datagrams: list[bytes], sockets: list[socket.socket]
) -> None:
    out = Out(path, sockets)
    with receiver() as ours, receiver("::1") as ours6:
        there = Endpoint(LOOPBACK4, ours.getsockname()[1])
        out.offer(datagrams, BROADCAST)
        out.offer(datagrams, there)
        out.offer(datagrams, there._replace(port=0))
        out.offer(datagrams, None)
        out.offer(datagrams, Endpoint(LOOPBACK6, ours6.getsockname()[1]))
        assert out.send() == 0
        for sock in (ours, ours6):
            assert [sock.recv(1 << 16) for _ in datagrams] == datagrams
    drops = out.counters.outward.drops()
    assert drops["send_failed"] == 2 * len(datagrams)
    assert drops["no_endpoint"] == len(datagrams)
    assert out.counters.value(Counter.PACKETS_OUT) == 2 * len(datagrams)
    assert out.counters.value(Counter.PACKETS_IN) == 5 * len(datagrams)


@both_paths
def test_without_a_socket_of_the_endpoints_family_nothing_can_be_sent(
    path: Choice, sockets: list[socket.socket]
) -> None:
    out = Out(path, sockets[:1])
    out.offer(ALIKE, Endpoint(LOOPBACK6, 9))
    with receiver() as ours:
        out.offer(GROWING, Endpoint(LOOPBACK4, ours.getsockname()[1]))
        out.send()
        assert [ours.recv(1 << 16) for _ in GROWING] == GROWING
    assert out.counters.dropped(DropReason.SEND_FAILED) == len(ALIKE)


@both_paths
def test_a_train_of_several_sessions_comes_apart_by_owner(
    path: Choice, sockets: list[socket.socket]
) -> None:
    peers, indices, counters = PeerTable(), IndexTable(), Counters(create_counters(1), 0)
    for peer, worker in ((3, 0), (4, 1)):
        peers.set_owner(peer, worker)
    one, other = (indices.draw(peer, peer - 3, 2, os.urandom) for peer in (3, 4))
    rings = [Ring(), Ring()]
    intake = load(path).datagram_intake([ring.writer for ring in rings], peers, indices, counters)
    intake.use(sockets)
    heads = [struct.pack("<II", 4, index) for index in (one, one, other, one, other, other)]
    train = [head.ljust(64, b"%d" % number) for number, head in enumerate(heads)]
    cookie = struct.pack("<II", 3, one).ljust(64, b"c")  # a handshake message of the same length
    rubbish = b"\x09" * 64
    train[3:3] = [cookie, rubbish]
    train.append(struct.pack("<II", 4, one).ljust(40, b"!"))  # the last may be shorter
    segment = (SOL_UDP, UDP_SEGMENT, struct.pack("=H", 64))
    with receiver() as sender:
        sender.connect(("127.0.0.1", sockets[0].getsockname()[1]))
        sender.sendmsg([b"".join(train)], [segment])
    messages, more = [], True
    while more:
        more, few = intake.burst(lambda message: None)
        messages += few
    assert counters.value(Counter.TRAINS_IN) == 1, "the kernel has taken it apart"
    assert [message for message, _ in messages] == [cookie]
    assert counters.outward.drops() == {"bad_type": 1}
    for ring, index in zip(rings, (one, other), strict=True):
        mine = [each for each in train if each[:8] == struct.pack("<II", 4, index)]
        assert [each for *_, datagrams in ring.take() for each in datagrams] == mine


@pytest.mark.root
@both_paths
def test_a_path_too_narrow_for_a_train_gets_its_datagrams_one_by_one(
    path: Choice, namespaces: Namespaces
) -> None:
    space = namespaces.add("narrow")
    space.run("ip", "link", "set", "lo", "mtu", "1300")
    with inside(space), contextlib.ExitStack() as stack:
        sender, ours = (stack.enter_context(receiver()) for _ in range(2))
        out = Out(path, [sender])
        there = Endpoint(LOOPBACK4, ours.getsockname()[1])
        long = [bytes([number]) * 1432 for number in range(5)]
        for _ in range(2):
            out.offer(long, there)
            out.send()
            assert [ours.recv(1 << 16) for _ in long] == long
        assert out.writer.segments, "other paths may be wider"
        out.writer.forget_paths()
        out.offer(ALIKE, there)
        out.send()
        assert [ours.recv(1 << 16) for _ in ALIKE] == ALIKE
    assert out.counters.outward.drops() == {}
