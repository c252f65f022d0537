"""What admission and the worker tell of."""

from __future__ import annotations

from hostile.rawpeer import RawPeer

from wgmp.events import HandshakeCompleted, HandshakeFailed, PeerRoamed, UnderLoad
from wgmp.keys import to_base64
from wgmp.orders import EndpointOrder, SetPeer

from .rig import HERE, Rig
from .test_admission import load

ELSEWHERE = HERE._replace(port=HERE.port + 1)


def test_a_completed_handshake_is_told_with_who_began_it() -> None:
    rig = Rig()
    raw = rig.add_peer(endpoint=HERE)
    rig.connect(raw)
    rig.forget_sessions()
    rig.step(6.0)
    rig.call(raw)
    key = to_base64(raw.public)
    assert rig.events == [
        HandshakeCompleted(peer=key, endpoint="192.0.2.2:40000", initiator=initiator)
        for initiator in (False, True)
    ]


def test_a_stranger_s_handshake_is_told_with_its_key_and_endpoint() -> None:
    rig = Rig()
    rig.add_peer()
    stranger = RawPeer(rig.add_peer(peer=2).gateway)
    rig.deliver(stranger.initiation().datagram, ELSEWHERE)
    assert rig.events == [
        HandshakeFailed(
            reason="unknown_peer", peer=to_base64(stranger.public), endpoint="192.0.2.2:40001"
        )
    ]


def test_a_replayed_initiation_is_told_as_a_failed_handshake_of_its_peer() -> None:
    rig = Rig()
    raw = rig.add_peer()
    initiation = raw.initiation().datagram
    rig.deliver(initiation)
    rig.step(1.0)
    rig.deliver(initiation)
    assert [(event.reason, event.peer) for event in rig.events] == [  # type: ignore[union-attr]
        ("replayed_initiation", to_base64(raw.public))
    ]


def test_a_peer_heard_from_elsewhere_has_roamed_and_one_moved_by_an_order_has_not() -> None:
    rig = Rig()
    raw = rig.add_peer()
    session = rig.connect(raw)
    rig.events.clear()
    rig.deliver(session.seal(), ELSEWHERE)
    moved = PeerRoamed(
        peer=to_base64(raw.public), before="192.0.2.2:40000", endpoint="192.0.2.2:40001"
    )
    assert rig.events == [moved]
    rig.obey(SetPeer(1, raw.public, bytes(32), 0, EndpointOrder(HERE.address, HERE.port)))
    rig.deliver(session.seal(), HERE)
    assert rig.events == [moved]


def test_load_is_told_when_it_begins_and_when_it_ends() -> None:
    rig = Rig()
    load(rig, rig.add_peer())
    rig.step(1.1)
    assert [event for event in rig.events if isinstance(event, UnderLoad)] == [
        UnderLoad(on=True),
        UnderLoad(on=False),
    ]
