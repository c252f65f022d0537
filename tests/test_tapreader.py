"""What a capture makes of copied records: whole IP packets, in the order they came."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6

from wgmp.fastpath import virtio
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.protocol.outcome import Endpoint
from wgmp.record import HANDSHAKE, MAX_TRAIN_BYTES, Kind, ecn_flags
from wgmp.tap import INNER, NOBODY, OUTER, Annotation, Point, Tap, Taps
from wgmp.taphost import CaptureStarted
from wgmp.tapreader import TapReader, wire_packet

PORT = 51820
DATAGRAM = b"\4\0\0\0" + bytes(28)
OURS4, THEIRS4 = bytes([192, 0, 2, 1]), bytes([192, 0, 2, 2])
OURS6, THEIRS6 = (b"\x20\x01\x0d\xb8" + bytes(11) + bytes([host]) for host in (1, 2))


class Gateway:
    """The taps of two roles, and who reads them."""

    def __init__(self) -> None:
        self.taps = Taps(["admission", "worker0"])
        descriptors = [os.dup(each) for each in self.taps.start(INNER | OUTER, NOBODY)]
        self.reader = TapReader(CaptureStarted(PORT, ["admission", "worker0"], {}), descriptors)

    def tap(self, role: str = "worker0") -> Tap:
        """The role's end."""
        tap = self.taps.tap(role)
        assert tap is not None
        return tap

    def seen(self, packet: bytes, point: Point = Point.INNER_OUT) -> list[bytes]:
        """What is shown of an inner packet, with its virtio header, or of an outer datagram."""
        kind = Kind.PACKETS if point in (Point.INNER_OUT, Point.INNER_IN) else Kind.DATAGRAMS
        self.tap().packets(kind, packet, [len(packet)], point)
        (captured,) = self.reader.poll(everything=True)
        return captured.packets


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A gateway on which somebody captures."""
    made = Gateway()
    yield made
    made.taps.close()


class Clock:
    """The wall clock, and the one that nobody sets, in nanoseconds."""

    def __init__(self) -> None:
        self.wall_ns = 1_700_000_000_000_000_000
        self.passed_ns = 0

    def go_on(self, nanoseconds: int) -> None:
        """Let time pass."""
        self.wall_ns += nanoseconds
        self.passed_ns += nanoseconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Clocks that are set by hand."""
    made = Clock()
    monkeypatch.setattr("time.time_ns", lambda: made.wall_ns)
    monkeypatch.setattr("time.monotonic", lambda: made.passed_ns / 1e9)
    return made


def test_copies_of_several_roles_come_in_the_order_of_their_times(
    gateway: Gateway, clock: Clock
) -> None:
    order = ["worker0", "admission", "worker0", "admission"]
    for role in order:
        clock.go_on(1000)
        gateway.tap(role).packets(Kind.DATAGRAMS, DATAGRAM, [len(DATAGRAM)], Point.OUTER_IN)
    captured = gateway.reader.poll(everything=True)
    assert [each.role for each in captured] == order
    assert gateway.reader.poll(everything=True) == [], "each comes once"


def test_a_copy_waits_for_older_ones_of_other_roles(gateway: Gateway, clock: Clock) -> None:
    tap, data, lengths = gateway.tap(), DATAGRAM, [len(DATAGRAM)]
    tap.packets(Kind.DATAGRAMS, data, lengths, Point.OUTER_OUT)
    assert gateway.reader.poll() == []
    clock.wall_ns -= 10_000_000  # admission began earlier, and is ready only now
    gateway.tap("admission").packets(Kind.DATAGRAMS, data, lengths, Point.OUTER_IN)
    clock.go_on(30_000_000)
    assert gateway.reader.poll() == []
    clock.go_on(40_000_000)
    assert [each.role for each in gateway.reader.poll()] == ["admission", "worker0"]
    tap.packets(Kind.DATAGRAMS, data, lengths, Point.OUTER_OUT)
    assert gateway.reader.poll() == []
    assert len(gateway.reader.poll(everything=True)) == 1, "at the end nothing is waited for"


def test_a_clock_that_is_set_back_holds_up_nothing_and_loses_nothing(
    gateway: Gateway, clock: Clock
) -> None:
    tap, data, lengths = gateway.tap(), DATAGRAM, [len(DATAGRAM)]
    for _ in range(2):
        tap.packets(Kind.DATAGRAMS, data, lengths, Point.OUTER_OUT)
        clock.wall_ns -= 3600 * 10**9
        assert gateway.reader.poll() == []
        clock.go_on(60_000_000)
        assert len(gateway.reader.poll()) == 1
    tap.packets(Kind.DATAGRAMS, data, lengths, Point.OUTER_OUT)
    clock.wall_ns -= 3600 * 10**9
    assert len(gateway.reader.poll(everything=True)) == 1


def test_a_plain_packet_loses_its_virtio_header_and_a_super_packet_is_cut(
    gateway: Gateway,
) -> None:
    plain = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / b"hello")
    assert gateway.seen(virtio.PLAIN + plain) == [plain]
    whole = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1, dport=2, flags="A"))
    header = VirtioHeader(virtio.NEEDS_CSUM, virtio.GSO_TCPV4, 40, 100, 20, 16)
    content = bytes(range(250))
    length = struct.pack("!H", len(whole) + len(content))
    cut = gateway.seen(header.pack() + whole[:2] + length + whole[4:] + content)
    packets = [IP(each) for each in cut]
    assert b"".join(bytes(packet[TCP].payload) for packet in packets) == content
    assert [len(packet[TCP].payload) for packet in packets] == [100, 100, 50]
    assert [packet[TCP].seq for packet in packets] == [0, 100, 200]


def test_rubbish_is_shown_as_it_is_and_what_is_nothing_is_not_shown(gateway: Gateway) -> None:
    nonsense = VirtioHeader(0, virtio.GSO_TCPV4, 40, 100, 20, 16).pack() + b"no IP packet"
    assert gateway.seen(nonsense) == [b"no IP packet"]
    assert gateway.seen(virtio.PLAIN) == []
    assert gateway.seen(b"short") == []
    assert gateway.seen(virtio.PLAIN + b"x") == [b"x"]
    assert gateway.seen(bytes(MAX_TRAIN_BYTES + 1), Point.OUTER_IN) == [], "no datagram is so long"
    assert len(gateway.seen(bytes(MAX_TRAIN_BYTES), Point.OUTER_IN)[0]) == MAX_TRAIN_BYTES + 28
    (unknown,) = gateway.seen(DATAGRAM, Point.OUTER_IN)
    assert IP(unknown).src == "0.0.0.0", "nobody knows from where it came"


@pytest.mark.parametrize("outgoing", [True, False])
@pytest.mark.parametrize("family", [4, 6])
def test_an_outer_packet_goes_the_way_it_went_with_good_checksums(
    outgoing: bool, family: int
) -> None:
    ours, theirs = (OURS4, THEIRS4) if family == 4 else (OURS6, THEIRS6)
    raw = wire_packet(DATAGRAM, Endpoint(theirs, 7, source=ours), PORT, outgoing, 0x8A)
    layer = IP if family == 4 else IPv6
    packet = layer(raw)
    assert packet.version == family
    assert (packet.tos if family == 4 else packet.tc) == 0x8A
    assert (packet.ttl if family == 4 else packet.hlim) == 64
    ends = (packet.src, packet[UDP].sport), (packet.dst, packet[UDP].dport)
    names = ("192.0.2.1", "192.0.2.2") if family == 4 else ("2001:db8::1", "2001:db8::2")
    expected = (names[0], PORT), (names[1], 7)
    assert ends == (expected if outgoing else expected[::-1])
    assert bytes(packet[UDP].payload) == DATAGRAM
    rebuilt = packet.copy()
    del rebuilt[UDP].chksum
    if family == 4:
        del rebuilt.chksum
    assert bytes(rebuilt) == raw


def test_a_checksum_of_zero_is_sent_as_its_other_zero() -> None:
    """RFC 768: zero would say that there is none."""
    endpoint = Endpoint(THEIRS4, 7, source=OURS4)
    total = struct.unpack("!H", wire_packet(bytes(2), endpoint, PORT, True, 0)[26:28])[0]
    raw = wire_packet(struct.pack("!H", total), endpoint, PORT, True, 0)
    assert raw[26:28] == b"\xff\xff"


def test_our_address_is_the_one_that_a_peer_on_this_host_would_see() -> None:
    raw = wire_packet(DATAGRAM, Endpoint(bytes([127, 0, 0, 5]), 7), PORT, True, 0)
    assert IP(raw).src == "127.0.0.1"


@pytest.mark.parametrize(("flags", "tos"), [(HANDSHAKE, 0x88), (ecn_flags(3), 3), (0, 0)])
def test_the_traffic_class_is_that_of_handshakes_or_has_the_ecn_bits(
    gateway: Gateway, flags: int, tos: int
) -> None:
    tap = gateway.tap()
    tap.packets(Kind.DATAGRAMS, DATAGRAM, [len(DATAGRAM)], Point.OUTER_OUT)
    ring = tap._ring
    assert ring is not None
    record = ring.reserve()
    assert record is not None
    record.begin(Kind.DATAGRAMS, 0, flags)
    record.set_endpoint(Endpoint(THEIRS4, 7, source=OURS4))
    record.append(DATAGRAM)
    Annotation(0, Point.OUTER_OUT, 0, 0, NOBODY).write(record)
    ring.publish()
    first, *_ = gateway.reader.poll(everything=True)
    assert IP(first.packets[0]).tos == tos


def test_a_copy_that_makes_no_sense_is_passed_over(gateway: Gateway) -> None:
    tap = gateway.tap()
    tap.packets(Kind.DATAGRAMS, DATAGRAM, [len(DATAGRAM)], Point.OUTER_OUT)
    ring = tap._ring
    assert ring is not None
    record = ring.reserve()
    assert record is not None
    record.begin(Kind.DATAGRAMS)
    record.append(DATAGRAM)
    record.annotate(0, 99, 0, 0, 0)
    ring.publish()
    assert len(gateway.reader.poll(everything=True)) == 1
