"""What only a broken neighbour writes into a ring is counted, and harms nobody."""

from __future__ import annotations

import pytest
from hostile.rawpeer import RawPeer

from wgmp.fastpath import virtio
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.protocol.noise import OpenedInitiation
from wgmp.protocol.outcome import Endpoint
from wgmp.record import Kind, pack_endpoint

from .rig import GATEWAY_INNER, HERE, INNER, Rig, packet

INWARD = packet(source=INNER, destination=GATEWAY_INNER)
INITIATION = RawPeer(bytes(32)).initiation().datagram
RESPONSE = b"\2\0\0\0" + bytes(88)
ADDRESSED = pack_endpoint(HERE)


@pytest.mark.parametrize(
    ("ring", "kind", "packets", "endpoint", "reason"),
    [
        ("udp_reader", 77, [b"x"], HERE, "ring_corrupt"),
        ("udp_reader", Kind.ADDRESSED_MESSAGES, [ADDRESSED + RESPONSE], HERE, "ring_corrupt"),
        ("udp_reader", Kind.DATAGRAMS, [b"\4\0\0\0" + bytes(28)], None, "ring_corrupt"),
        ("udp_reader", Kind.DATAGRAMS, [bytes(64), bytes(31)], HERE, "ring_corrupt"),
        ("udp_reader", Kind.DATAGRAMS, [b"\4"], HERE, "ring_corrupt"),
        ("udp_reader", Kind.DATAGRAMS, [b"\4\0\0\0" + bytes(28)], HERE, "unknown_index"),
        ("udp_reader", Kind.HANDSHAKE_MESSAGES, [INITIATION], HERE, "ring_corrupt"),
        ("udp_reader", Kind.HANDSHAKE_MESSAGES, [b""], HERE, "ring_corrupt"),
        ("udp_reader", Kind.HANDSHAKE_MESSAGES, [RESPONSE], None, "unknown_index"),
        ("udp_reader", Kind.HANDSHAKE_MESSAGES, [RESPONSE], HERE, "unknown_index"),
        ("tun_reader", Kind.PACKETS, [virtio.PLAIN[:-1]], None, "ring_corrupt"),
        ("tun_reader", Kind.PACKETS, [virtio.PLAIN + packet(), b""], None, "ring_corrupt"),
        ("admission", Kind.OPENED_INITIATION, [bytes(100)], HERE, "ring_corrupt"),
        ("admission", Kind.OPENED_INITIATION, [bytes(OpenedInitiation.SIZE)], HERE, "ring_corrupt"),
        ("admission", Kind.OPENED_INITIATION, [bytes(10)] * 2, HERE, "ring_corrupt"),
        ("admission", Kind.OPENED_INITIATION, [bytes(100)], None, "peer_removed"),
    ],
)
def test_a_workers_rubbish_is_counted_and_its_sessions_go_on(
    ring: str, kind: Kind, packets: list[bytes], endpoint: Endpoint | None, reason: str
) -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    before = rig.row_endpoint()
    rig.publish(ring, kind, packets, endpoint)
    rig.step()
    assert (rig.sent(), rig.written()) == ([], [])
    assert rig.drops() == {reason: len(packets)}
    assert rig.row_endpoint() == before
    rig.deliver(session.seal(INWARD))
    assert rig.written() == [INWARD]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "bad_length"),
        (ADDRESSED[:-1], "bad_length"),
        (ADDRESSED + INITIATION[:-1], "bad_length"),
        (ADDRESSED + b"\4\0\0\0" + bytes(28), "bad_type"),
        (bytes(len(ADDRESSED)) + INITIATION, "ring_corrupt"),
        (ADDRESSED + INITIATION, "bad_static"),
        (ADDRESSED + RESPONSE, "unknown_index"),
    ],
)
def test_admissions_rubbish_is_counted_and_the_next_is_admitted(
    message: bytes, reason: str
) -> None:
    rig = Rig()
    raw = rig.add_peer()
    rig.publish("udp_reader", Kind.ADDRESSED_MESSAGES, [message], None, to="admission")
    rig.step()
    assert rig.sent() == []
    assert rig.drops() == {reason: 1}
    rig.connect(raw)


def test_a_super_packet_that_is_none_is_not_staged() -> None:
    rig = Rig()
    rig.add_peer(endpoint=HERE)
    nonsense = VirtioHeader(1, virtio.GSO_TCPV4, 0, 0, 70, 70).pack() + packet()
    rig.publish("tun_reader", Kind.PACKETS, [nonsense], None)
    rig.step()
    assert rig.drops() == {"bad_packet": 1}
    assert rig.sent() == []


def test_a_full_ring_costs_an_initiation_or_a_cookie_and_says_so() -> None:
    rig = Rig()
    raw = rig.add_peer()
    while rig.publish("admission", Kind.DATAGRAMS, [b"full"], HERE, to="udp_writer"):
        pass
    for _ in range(300):
        rig.queue(RawPeer(raw.gateway).initiation().datagram)
    rig.step()
    assert rig.drops()["ring_full"] > 0
    assert rig.drops()["cookie_required"] == rig.drops()["ring_full"]
