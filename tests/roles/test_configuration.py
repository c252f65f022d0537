"""What a worker is told while it works: each order concerns what it names, awake or asleep."""

from __future__ import annotations

import pytest
from hostile.rawpeer import INITIATION, RawPeer, kind_of

from wgmp.counters import Counter
from wgmp.events import HandshakeFailed
from wgmp.keys import to_base64
from wgmp.orders import (
    AddAllowedIP,
    EndpointOrder,
    RemoveAllowedIP,
    RemovePeer,
    SetLink,
    SetPeer,
    SetPrivateKey,
)
from wgmp.protocol.outcome import Endpoint

from .rig import GATEWAY_INNER, HERE, INNER, Rig, packet

PSK = b"\x05" * 32
THERE = HERE._replace(port=7)
INWARD = packet(source=INNER, destination=GATEWAY_INNER)


def told(raw: RawPeer, psk: bytes = bytes(32), endpoint: Endpoint | None = None) -> SetPeer:
    """Return an order about peer 1."""
    order = None
    if endpoint is not None:
        order = EndpointOrder(endpoint.address, endpoint.port, serial=1)
    return SetPeer(1, raw.public, psk, 0, order)


@pytest.mark.parametrize("awake", [True, False])
def test_a_new_preshared_key_is_that_of_the_next_handshake(awake: bool) -> None:
    rig = Rig()
    raw = rig.add_peer(endpoint=HERE)
    if awake:
        rig.connect(raw)
    rig.obey(told(raw, PSK))
    rig.step(6.0)
    initiation = raw.initiation()
    rig.deliver(initiation.datagram)
    (response,) = rig.sent()
    with pytest.raises(AssertionError, match="the response authenticates"):
        raw.finish(initiation, response)  # not without the key
    rig.step(1.0)
    raw.preshared_key = PSK
    session = rig.connect(raw)
    rig.deliver(session.seal(INWARD))
    assert rig.written() == [INWARD]


@pytest.mark.parametrize("awake", [True, False])
def test_packets_go_to_the_endpoint_that_was_told_last(awake: bool) -> None:
    rig = Rig()
    raw = rig.add_peer(endpoint=HERE)
    if awake:
        rig.connect(raw)
        rig.sent()
    rig.obey(told(raw, endpoint=THERE))
    rig.send(packet())
    assert rig.sent_to() == [THERE]
    rig.obey(told(raw, PSK))  # which says nothing of an endpoint
    rig.step(6.0)
    rig.send(packet())
    assert set(rig.sent_to()) == {THERE}


def test_a_persistent_keepalive_that_is_turned_on_goes_at_once() -> None:
    rig = Rig()
    raw = rig.add_peer()
    session = rig.connect(raw)
    rig.obey(SetPeer(1, raw.public, bytes(32), 25, None))
    (keepalive,) = rig.sent()
    assert session.unseal(keepalive) == b""


def test_a_packet_waits_for_the_order_that_adds_its_peer() -> None:
    rig = Rig()

    def catch_up() -> None:
        if not rig.raw_peers:
            rig.add_peer(endpoint=HERE)

    rig.worker.catch_up = catch_up
    rig.send(packet())
    assert len(rig.sent()) == 1, "an initiation"
    assert rig.drops() == {}


def test_a_peer_of_another_worker_is_not_taken_in() -> None:
    rig = Rig()
    rig.fabric.peers.set_owner(1, 5)
    rig.obey(told(RawPeer(bytes(32)), endpoint=HERE))
    rig.send(packet())
    assert rig.sent() == []
    assert rig.worker.counters.value(Counter.PEERS) == 0


def test_a_link_that_goes_down_ends_sessions_and_up_makes_them_again() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer(keepalive=25))
    rig.sent()
    rig.obey(SetLink(False, 1420))
    rig.deliver(session.seal(INWARD))
    assert (rig.written(), rig.sent()) == ([], [])
    rig.obey(SetLink(True, 1420))
    rig.step(0.1)
    assert [kind_of(each) for each in rig.sent()] == [INITIATION]


def test_a_prefix_that_moves_takes_its_sources_along_at_once() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    rig.deliver(session.seal(INWARD))
    rig.obey(AddAllowedIP(INNER, 32, 2))
    rig.deliver(session.seal(INWARD))
    rig.obey(AddAllowedIP(INNER, 32, 1))
    rig.obey(RemoveAllowedIP(INNER, 32, 2))  # comes too late to be about its owner
    rig.deliver(session.seal(INWARD))
    rig.obey(RemoveAllowedIP(INNER, 32, 1))
    rig.deliver(session.seal(INWARD))
    assert rig.written() == [INWARD] * 2
    assert rig.drops()["source_not_allowed"] == 2


def test_a_removed_peers_sessions_and_handshakes_are_over() -> None:
    rig = Rig()
    raw = rig.add_peer()
    session = rig.connect(raw)
    assert rig.worker.counters.value(Counter.PEERS) == 1
    rig.obey(RemovePeer(1))
    rig.deliver(session.seal(INWARD))
    rig.deliver(raw.initiation().datagram)
    rig.send(packet())
    assert (rig.sent(), rig.written()) == ([], [])
    assert rig.drops() == {"unknown_index": 1, "unknown_peer": 1, "peer_removed": 1}
    assert rig.worker.counters.value(Counter.PEERS) == 0


def test_without_a_private_key_nobody_is_answered_and_nothing_is_sent() -> None:
    rig = Rig()
    raw = rig.add_peer(endpoint=HERE)
    rig.obey(SetPrivateKey(b""))
    rig.deliver(raw.initiation().datagram)
    rig.send(packet())
    assert rig.sent() == []
    assert rig.drops() == {"no_identity": 2}
    rig.obey(SetPrivateKey(rig.private_key))
    rig.deliver(raw.initiation().datagram)
    assert len(rig.sent()) == 1


def test_the_padding_follows_the_mtu_as_it_is_told() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    for mtu, length in ((1420, 112), (105, 105), (90, 101)):
        rig.obey(SetLink(True, mtu))
        rig.send(packet(length=101))
        (datagram,) = rig.sent()
        assert len(datagram) == 32 + length
        assert session.unseal(datagram) is not None


def test_a_peer_whose_key_is_no_point_fails_its_handshakes_and_says_so() -> None:
    rig = Rig()
    raw = rig.add_peer()
    here = EndpointOrder(HERE.address, HERE.port)
    rig.obey(SetPeer(2, bytes(32), bytes(32), 0, here))
    rig.fabric.peers.set_owner(2, 0)
    rig.obey(SetPeer(2, bytes(32), bytes(32), 0, here))
    rig.send(packet(), peer=2)
    assert rig.sent() == []
    nobody = HandshakeFailed(
        reason="bad_static", peer=to_base64(bytes(32)), endpoint="192.0.2.2:40000"
    )
    assert rig.events == [nobody]
    assert rig.drops()["bad_static"] == 1
    rig.connect(raw)  # the others notice nothing
