"""When a peer acts on its own: retries, keepalives, rekeys and the wipe."""

from __future__ import annotations

from itertools import pairwise

import pytest

from wgmp.protocol.constants import MAX_TIMER_HANDSHAKES
from wgmp.protocol.messages import MessageType
from wgmp.protocol.outcome import DropReason, Endpoint, HandshakeGivenUp, SessionExpired

from .pair import Node, Pair, ipv4_packet


def swallow(node: Node, datagram: bytes) -> bool:
    """Lose everything."""
    return True


def keepalives(node: Node) -> list[float]:
    """Return when a node sent keepalives."""
    return [sent.at for sent in node.sent if sent.is_keepalive]


def initiations(node: Node) -> list[float]:
    """Return when a node sent initiations."""
    return [sent.at for sent in node.of_kind(MessageType.INITIATION)]


# Retries


def test_initiation_is_sent_again_after_5_seconds_and_jitter(pair: Pair) -> None:
    pair.intercept = swallow
    pair.send(pair.a, ipv4_packet())
    pair.run(60.0)
    gaps = [later - earlier for earlier, later in pairwise(initiations(pair.a))]
    assert len(gaps) >= 10
    assert all(5.0 <= gap <= 5.3331 for gap in gaps)
    assert max(gaps) - min(gaps) > 0.05


def test_after_18_attempts_it_gives_up_and_drops_what_was_staged(pair: Pair) -> None:
    pair.intercept = swallow
    start = pair.now
    pair.send(pair.a, ipv4_packet())
    pair.send(pair.a, ipv4_packet())
    pair.run(300.0)
    assert len(initiations(pair.a)) == MAX_TIMER_HANDSHAKES == 18
    assert initiations(pair.a)[-1] - start < 90.0
    assert pair.a.peer.staged == 0
    assert pair.a.drops == {DropReason.HANDSHAKE_TIMEOUT: 2}
    assert pair.a.told == [HandshakeGivenUp()]


def test_a_new_packet_starts_the_attempts_anew(pair: Pair) -> None:
    pair.intercept = swallow
    pair.send(pair.a, ipv4_packet())
    pair.run(60.0)
    before = len(initiations(pair.a))
    pair.send(pair.a, ipv4_packet())
    assert len(initiations(pair.a)) == before  # it may not be sent earlier, though
    pair.run(300.0)
    # The one that was under way then is the first of the 18.
    assert len(initiations(pair.a)) == before + 17


def test_giving_up_is_not_for_good(pair: Pair) -> None:
    pair.intercept = swallow
    pair.send(pair.a, ipv4_packet())
    pair.run(300.0)
    pair.send(pair.a, ipv4_packet())
    pair.run(300.0)
    assert len(initiations(pair.a)) == 2 * MAX_TIMER_HANDSHAKES, "as often as the first time"
    pair.intercept = None
    pair.send(pair.a, ipv4_packet(b"again"))
    pair.run(1.0)
    assert pair.b.packets == [ipv4_packet(b"again")]


def test_each_retry_forgets_the_source_address_but_the_first_attempt_does_not(pair: Pair) -> None:
    with_source = pair.b.address._replace(source=b"\1\2\3\4", source_ifindex=2)
    pair.a.peer.set_endpoint(with_source)
    pair.intercept = swallow
    pair.send(pair.a, ipv4_packet())
    pair.run(6.0)
    endpoints = [sent.endpoint for sent in pair.a.of_kind(MessageType.INITIATION)]
    assert endpoints == [with_source, with_source.without_source()]


def test_any_number_of_packets_makes_one_initiation_in_5_seconds(pair: Pair) -> None:
    pair.intercept = swallow
    for _ in range(49):
        pair.send(pair.a, ipv4_packet())
        pair.run(0.1)
    assert len(initiations(pair.a)) == 1


def test_a_lost_response_is_made_up_for_by_the_retry(pair: Pair) -> None:
    pair.intercept = lambda node, datagram: node is pair.b and pair.now < 1001.0
    pair.send(pair.a, ipv4_packet())
    pair.run(6.0)
    assert pair.b.packets == [ipv4_packet()]
    assert pair.a.completed == [True]


def test_answering_an_initiation_holds_our_own_back_for_5_seconds(pair: Pair) -> None:
    # b answers, but a's confirmation is lost: b has packets and may not begin yet.
    pair.intercept = lambda node, datagram: datagram[0] == MessageType.TRANSPORT.value
    pair.send(pair.a, ipv4_packet())
    pair.run(0.1)
    answered_at = pair.b.of_kind(MessageType.RESPONSE)[0].at
    pair.send(pair.b, ipv4_packet(b"from b"))
    assert initiations(pair.b) == []
    pair.intercept = lambda node, datagram: node is pair.a
    pair.run(6.0)
    assert len(initiations(pair.b)) == 1
    assert 5.0 <= initiations(pair.b)[0] - answered_at <= 5.334


# Keepalives


def test_data_received_and_nothing_to_say_is_answered_after_10_seconds(connected: Pair) -> None:
    connected.run(30.0)
    connected.b.sent.clear()
    at = connected.now
    connected.send(connected.a, ipv4_packet())
    connected.run(60.0)
    assert keepalives(connected.b) == [pytest.approx(at + 0.02 + 10.0)]


def test_data_received_meanwhile_gets_another_keepalive(connected: Pair) -> None:
    connected.run(30.0)
    connected.b.sent.clear()
    at = connected.now
    connected.send(connected.a, ipv4_packet())
    connected.run(6.0)
    connected.send(connected.a, ipv4_packet())
    connected.run(54.0)
    assert keepalives(connected.b) == [pytest.approx(at + 10.02), pytest.approx(at + 20.02)]


def test_anything_sent_cancels_the_keepalive(connected: Pair) -> None:
    connected.run(30.0)
    connected.send(connected.a, ipv4_packet())
    connected.run(5.0)
    connected.send(connected.b, ipv4_packet())
    connected.b.sent.clear()
    connected.run(9.0)
    assert keepalives(connected.b) == []


def test_silence_after_data_makes_a_new_handshake_after_15_seconds(connected: Pair) -> None:
    connected.run(30.0)
    connected.intercept = swallow
    connected.a.sent.clear()
    at = connected.now
    connected.send(connected.a, ipv4_packet())
    connected.run(16.0)
    assert len(initiations(connected.a)) == 1
    assert 15.0 <= initiations(connected.a)[0] - at <= 15.334


def test_silence_after_data_forgets_the_source_address(connected: Pair) -> None:
    with_source = connected.b.address._replace(source=b"\1\2\3\4", source_ifindex=2)
    connected.run(30.0)
    connected.a.peer.set_endpoint(with_source)
    connected.intercept = swallow
    connected.send(connected.a, ipv4_packet())
    connected.run(16.0)
    assert connected.a.of_kind(MessageType.INITIATION)[0].endpoint == with_source.without_source()


def test_answering_an_initiation_cancels_the_keepalive(connected: Pair) -> None:
    connected.run(30.0)
    connected.send(connected.a, ipv4_packet())  # b owes a keepalive in 10 s
    connected.run(8.0)
    connected.b.sent.clear()
    connected.act(connected.a, connected.a.peer.begin_handshake(connected.now))
    connected.run(5.0)
    assert connected.b.of_kind(MessageType.RESPONSE)
    assert keepalives(connected.b) == []


def test_an_initiation_cancels_the_keepalive(connected: Pair) -> None:
    connected.intercept = lambda node, datagram: node is connected.a
    connected.send(connected.b, ipv4_packet())
    connected.run(9.0)
    connected.act(connected.a, connected.a.peer.begin_handshake(connected.now))
    connected.run(4.9)
    assert len(initiations(connected.a)) == 1
    assert keepalives(connected.a) == []


def test_persistent_keepalive_comes_at_its_interval(connected: Pair) -> None:
    connected.run(30.0)
    connected.a.sent.clear()
    at = connected.now
    connected.act(connected.a, connected.a.peer.set_keepalive(7, connected.now))
    connected.run(36.0)
    assert keepalives(connected.a) == [pytest.approx(at + 7 * n) for n in range(6)]


def test_traffic_in_either_direction_puts_the_persistent_keepalive_off(connected: Pair) -> None:
    connected.act(connected.a, connected.a.peer.set_keepalive(7, connected.now))
    connected.run(1.0)
    connected.a.sent.clear()
    for n in range(20):
        connected.send((connected.a, connected.b)[n % 2], ipv4_packet())
        connected.run(4.0)
    assert keepalives(connected.a) == []


def test_turning_the_persistent_keepalive_on_makes_a_session(pair: Pair) -> None:
    pair.act(pair.a, pair.a.peer.set_keepalive(25, pair.now))
    pair.run(1.0)
    assert pair.b.completed == [False]


def test_turning_the_persistent_keepalive_off_stops_it(connected: Pair) -> None:
    connected.act(connected.a, connected.a.peer.set_keepalive(7, connected.now))
    connected.act(connected.a, connected.a.peer.set_keepalive(0, connected.now))
    connected.run(1.0)
    connected.a.sent.clear()
    connected.run(60.0)
    assert keepalives(connected.a) == []


def test_a_shorter_persistent_keepalive_takes_effect_at_once(connected: Pair) -> None:
    connected.act(connected.a, connected.a.peer.set_keepalive(3600, connected.now))
    connected.run(30.0)
    connected.a.sent.clear()
    connected.act(connected.a, connected.a.peer.set_keepalive(10, connected.now))
    connected.run(11.0)
    assert len(keepalives(connected.a)) == 1


def test_persistent_keepalive_survives_an_outage_of_the_other_end(connected: Pair) -> None:
    connected.act(connected.a, connected.a.peer.set_keepalive(25, connected.now))
    connected.intercept = swallow
    connected.run(1000.0)
    connected.intercept = None
    connected.run(60.0)
    assert connected.a.completed == [True]


def test_without_an_endpoint_the_persistent_keepalive_waits_and_does_not_spin(pair: Pair) -> None:
    pair.act(pair.b, pair.b.peer.set_keepalive(25, pair.now))
    pair.run(100.0)
    assert pair.b.sent == []
    pair.b.peer.set_endpoint(pair.a.address)
    pair.run(26.0)
    assert pair.b.completed == [True]


# Rekeys


def test_initiator_rekeys_with_the_first_packet_after_120_seconds(connected: Pair) -> None:
    session = connected.a.peer.keypairs.current
    assert session is not None
    connected.run(session.created_at + 119.9 - connected.now)
    connected.send(connected.a, ipv4_packet())
    assert initiations(connected.a) == []
    connected.run(0.2)
    connected.send(connected.a, ipv4_packet())
    assert len(initiations(connected.a)) == 1
    connected.run(1.0)
    assert connected.a.completed == [True]


def test_responder_never_rekeys_by_age(connected: Pair) -> None:
    for _ in range(170):
        connected.send(connected.b, ipv4_packet())
        connected.run(1.0)
    assert initiations(connected.b) == []


def test_initiator_that_only_receives_rekeys_at_165_seconds(connected: Pair) -> None:
    session = connected.a.peer.keypairs.current
    assert session is not None
    # Without a's keepalives: sending one after 120 s would be reason enough.
    connected.run(session.created_at + 164.9 - connected.now)
    connected.a.sent.clear()
    connected.send(connected.b, ipv4_packet())
    connected.run(0.05)
    assert initiations(connected.a) == []
    connected.run(0.1)
    connected.send(connected.b, ipv4_packet())
    connected.run(0.05)
    assert len(initiations(connected.a)) == 1


def test_last_minute_rekey_is_tried_once_per_session(connected: Pair) -> None:
    session = connected.a.peer.keypairs.current
    assert session is not None
    connected.run(session.created_at + 165.1 - connected.now)
    connected.intercept = lambda node, datagram: node is connected.a
    connected.a.sent.clear()
    connected.send(connected.b, ipv4_packet())
    connected.run(6.0)
    assert len(initiations(connected.a)) == connected.a.peer.handshake_attempts == 2
    connected.send(connected.b, ipv4_packet())
    connected.run(0.1)
    assert connected.a.peer.handshake_attempts == 2  # begun anew, it would be 1


def test_every_session_has_a_last_minute_of_its_own(connected: Pair) -> None:
    for _ in range(3):
        session = connected.a.peer.keypairs.current
        assert session is not None
        connected.run(session.created_at + 166.0 - connected.now)
        assert connected.a.peer.keypairs.current is session
        connected.send(connected.b, ipv4_packet())
        connected.run(1.0)
        assert connected.a.peer.keypairs.current is not session


def test_a_session_too_old_to_send_on_is_remade_before_the_packet_goes(connected: Pair) -> None:
    connected.run(200.0)
    connected.a.sent.clear()
    connected.send(connected.a, ipv4_packet(b"later"))
    assert connected.a.of_kind(MessageType.TRANSPORT) == []
    connected.run(0.1)
    assert connected.b.packets == [ipv4_packet(b"later")]


def test_idle_peers_stay_silent(connected: Pair) -> None:
    connected.run(30.0)
    connected.a.sent.clear()
    connected.b.sent.clear()
    connected.run(100_000.0)
    assert connected.a.sent == []
    assert connected.b.sent == []


# The wipe


def test_keys_are_forgotten_540_seconds_after_the_last_session(connected: Pair) -> None:
    session = connected.a.peer.keypairs.current
    assert session is not None
    connected.run(session.created_at + 539.9 - connected.now)
    assert list(connected.a.peer.keypairs)
    connected.run(0.2)
    for node in (connected.a, connected.b):
        assert list(node.peer.keypairs) == []
        assert not node.indices.held
        assert node.peer.deadline() is None
        assert node.told == [SessionExpired()]


def test_what_is_left_of_failed_handshakes_is_forgotten_too(pair: Pair) -> None:
    pair.intercept = swallow
    pair.send(pair.a, ipv4_packet())
    pair.run(200.0)
    assert pair.a.indices.held
    pair.run(540.0)
    assert not pair.a.indices.held
    assert pair.a.peer.deadline() is None
    assert pair.a.told == [HandshakeGivenUp()], "no session expired, for there was none"


def test_wiped_peers_make_a_session_again(connected: Pair) -> None:
    connected.run(1000.0)
    connected.send(connected.b, ipv4_packet(b"back"))
    connected.run(1.0)
    assert connected.a.packets == [ipv4_packet(b"back")]


def test_endpoint_survives_the_wipe(connected: Pair) -> None:
    connected.run(1000.0)
    assert connected.b.peer.endpoint == Endpoint(*connected.a.address)
