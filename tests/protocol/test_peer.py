"""A peer: sessions made and remade, packets staged, its configuration changed."""

from __future__ import annotations

import tracemalloc

import pytest

from wgmp.protocol import noise
from wgmp.protocol.constants import (
    MAX_STAGED_PACKETS,
    REJECT_AFTER_MESSAGES,
    REKEY_AFTER_MESSAGES,
    ZERO_KEY,
)
from wgmp.protocol.cookie import CookieChecker, CookieJar
from wgmp.protocol.messages import Initiation, MessageType
from wgmp.protocol.noise import Identity
from wgmp.protocol.outcome import Drop, DropReason, Endpoint, SendDatagram, WritePacket
from wgmp.protocol.peer import Peer

from .pair import Node, Pair, ipv4_packet

PSK = b"\x05" * 32
ELSEWHERE = Endpoint(bytes([198, 51, 100, 9]), 9)


def numbered(count: int) -> list[bytes]:
    """Return packets that can be told apart."""
    return [ipv4_packet(n.to_bytes(4, "big")) for n in range(count)]


# Sessions


@pytest.mark.parametrize("preshared_key", [ZERO_KEY, PSK], ids=["without PSK", "with PSK"])
def test_first_packet_makes_a_session_and_arrives(preshared_key: bytes) -> None:
    pair = Pair(preshared_key=preshared_key)
    packet = ipv4_packet(b"hello")
    pair.send(pair.a, packet)
    pair.run(0.1)
    assert pair.b.packets == [packet]
    assert pair.a.completed == [True]
    assert pair.b.completed == [False]
    assert not pair.a.drops
    assert not pair.b.drops


def test_packets_go_both_ways(connected: Pair) -> None:
    connected.send(connected.b, ipv4_packet(b"from b"))
    connected.send(connected.a, ipv4_packet(b"from a"))
    connected.run(0.1)
    assert connected.a.packets == [ipv4_packet(b"from b")]
    assert connected.b.packets == [ipv4_packet(b"from a")]


def test_different_preshared_keys_make_no_session(pair: Pair) -> None:
    pair.b.peer.set_preshared_key(PSK)
    pair.send(pair.a, ipv4_packet())
    pair.run(3.0)
    assert pair.a.completed == []
    assert pair.a.drops[DropReason.BAD_RESPONSE] == 1


def test_initiator_without_packets_confirms_with_one_keepalive(pair: Pair) -> None:
    pair.act(pair.a, pair.a.peer.begin_handshake(pair.now))
    pair.run(1.0)
    assert [sent.is_keepalive for sent in pair.a.of_kind(MessageType.TRANSPORT)] == [True]
    assert pair.b.completed == [False]


def test_initiator_with_packets_sends_no_keepalive(pair: Pair) -> None:
    for packet in numbered(3):
        pair.send(pair.a, packet)
    pair.run(1.0)
    assert [sent.is_keepalive for sent in pair.a.of_kind(MessageType.TRANSPORT)] == [False] * 3


def lose_transport(node: Node, datagram: bytes) -> bool:
    """Lose transport data."""
    return datagram[0] == MessageType.TRANSPORT.value


def test_responder_sends_nothing_on_next_before_a_packet_came_on_it(pair: Pair) -> None:
    pair.intercept = lose_transport
    pair.send(pair.a, ipv4_packet())
    pair.run(0.1)
    assert pair.b.peer.keypairs.next is not None
    pair.send(pair.b, ipv4_packet(b"early"))
    pair.run(0.1)
    assert pair.b.of_kind(MessageType.TRANSPORT) == []
    assert pair.b.peer.staged == 1
    assert pair.b.completed == []


def test_confirmation_flushes_what_the_responder_staged(pair: Pair) -> None:
    pair.intercept = lose_transport
    pair.send(pair.a, ipv4_packet())
    pair.run(0.1)
    for packet in numbered(3):
        pair.send(pair.b, packet)
    pair.intercept = None
    pair.send(pair.a, ipv4_packet(b"confirms"))
    pair.run(0.1)
    assert pair.a.packets == numbered(3)
    assert pair.b.completed == [False]
    assert pair.b.of_kind(MessageType.INITIATION) == []


def test_packets_under_way_during_a_rekey_still_open(connected: Pair) -> None:
    connected.run(121.0)
    old = connected.a.peer.keypairs.current
    assert old is not None
    late = old.seal(ipv4_packet(b"late"), 1420)
    connected.send(connected.a, ipv4_packet())
    connected.run(1.0)
    assert connected.a.peer.keypairs.current is not old
    connected.b.packets.clear()
    outcomes = connected.b.deliver(late, connected.a.address, connected.now)
    assert WritePacket(ipv4_packet(b"late")) in outcomes


def test_datagram_on_an_expired_session_is_dropped(connected: Pair) -> None:
    current = connected.a.peer.keypairs.current
    assert current is not None
    late = current.seal(ipv4_packet(), 1420)
    outcomes = connected.b.deliver(late, connected.a.address, connected.now + 181)
    assert outcomes == [Drop(DropReason.KEYPAIR_EXPIRED)]


def test_what_found_no_room_does_not_count_as_sent(connected: Pair) -> None:
    peer = connected.a.peer
    current, before = peer.keypairs.current, peer.deadline()
    assert current is not None
    connected.run(5.0)
    assert peer.packets_sent(current, 0, connected.now) == []
    assert peer.deadline() == before


def test_unknown_index_is_dropped(connected: Pair) -> None:
    outcomes = connected.b.deliver(b"\4\0\0\0" + bytes(60), connected.a.address, connected.now)
    assert outcomes == [Drop(DropReason.UNKNOWN_INDEX)]


def test_what_is_no_ip_packet_is_dropped_but_counts_as_received(connected: Pair) -> None:
    current = connected.a.peer.keypairs.current
    assert current is not None
    datagram = current.seal(b"\xff" * 64, 1420)
    outcomes = connected.b.deliver(datagram, ELSEWHERE, connected.now)
    assert outcomes == [Drop(DropReason.BAD_PACKET)]
    assert connected.b.peer.endpoint == ELSEWHERE


# Staging


def test_staged_packets_leave_in_order(pair: Pair) -> None:
    for packet in numbered(MAX_STAGED_PACKETS):
        pair.send(pair.a, packet)
    pair.run(1.0)
    assert pair.b.packets == numbered(MAX_STAGED_PACKETS)


def test_when_too_many_packets_are_staged_the_oldest_go(pair: Pair) -> None:
    for packet in numbered(MAX_STAGED_PACKETS + 2):
        pair.send(pair.a, packet)
    assert pair.a.peer.staged == MAX_STAGED_PACKETS
    assert pair.a.drops == {DropReason.STAGED_OVERFLOW: 2}
    pair.run(1.0)
    assert pair.b.packets == numbered(MAX_STAGED_PACKETS + 2)[2:]


def test_without_an_endpoint_packets_are_dropped_and_counted(pair: Pair) -> None:
    pair.send(pair.b, ipv4_packet())
    assert pair.b.drops == {DropReason.NO_ENDPOINT: 1}
    assert pair.b.peer.staged == 0
    assert pair.b.peer.deadline() is None


def test_a_session_with_a_peer_that_is_nowhere_sends_nothing_and_says_so(connected: Pair) -> None:
    node, sent = connected.a, len(connected.a.sent)
    node.peer.endpoint = None  # as a successor finds it that nobody told
    connected.send(node, ipv4_packet())
    connected.run(60.0)
    assert node.drops == {DropReason.NO_ENDPOINT: 1}
    assert len(node.sent) == sent


def test_without_a_private_key_packets_are_dropped_and_counted(pair: Pair) -> None:
    pair.a.peer.set_identity(None, pair.now)
    pair.send(pair.a, ipv4_packet())
    assert pair.a.drops == {DropReason.NO_IDENTITY: 1}
    assert pair.a.sent == []


def test_packets_staged_while_a_session_exists_go_at_once(connected: Pair) -> None:
    node = connected.a
    connected.act(node, node.peer.stage(ipv4_packet(b"staged"), connected.now))
    assert node.peer.staged == 0
    assert node.of_kind(MessageType.INITIATION) == []
    connected.run(0.1)
    assert connected.b.packets == [ipv4_packet(b"staged")]


# Counters


def test_a_session_is_remade_after_2_to_the_60_messages(connected: Pair) -> None:
    for node in (connected.a, connected.b):
        current = node.peer.keypairs.current
        assert current is not None
        connected.run(6.0)
        current.send_counter = REKEY_AFTER_MESSAGES
        node.sent.clear()
        connected.send(node, ipv4_packet())
        assert len(node.of_kind(MessageType.INITIATION)) == 1
        connected.run(1.0)
        assert node.peer.keypairs.current is not current


def test_an_exhausted_session_stages_and_is_remade(connected: Pair) -> None:
    connected.run(6.0)
    node = connected.a
    current = node.peer.keypairs.current
    assert current is not None
    current.send_counter = REJECT_AFTER_MESSAGES - 1
    for packet in numbered(3):
        connected.send(node, packet)
    assert len(node.of_kind(MessageType.TRANSPORT)) == 1
    connected.run(1.0)
    assert sorted(connected.b.packets) == numbered(3)
    assert current.send_counter == REJECT_AFTER_MESSAGES


def test_staged_packets_that_a_session_has_no_counters_for_wait_for_the_next(pair: Pair) -> None:
    pair.intercept = lose_transport
    pair.send(pair.a, ipv4_packet())
    pair.run(5.0)
    for packet in numbered(3):
        pair.send(pair.b, packet)
    session = pair.b.peer.keypairs.next
    assert session is not None
    session.send_counter = REJECT_AFTER_MESSAGES - 1
    pair.intercept = None
    pair.send(pair.a, ipv4_packet(b"confirms"))
    pair.run(0.03)
    assert pair.b.peer.staged == 2
    pair.run(1.0)
    assert pair.a.packets == numbered(3)


# Handshake messages that must not be believed


def first_initiation(pair: Pair) -> bytes:
    """Let `a` begin, and return its initiation instead of delivering it."""
    pair.intercept = lambda node, datagram: True
    pair.send(pair.a, ipv4_packet())
    pair.intercept = None
    return pair.a.sent[-1].datagram


def test_replayed_initiation_is_refused(pair: Pair) -> None:
    initiation = first_initiation(pair)
    assert isinstance(pair.b.deliver(initiation, pair.a.address, pair.now)[0], SendDatagram)
    outcomes = pair.b.deliver(initiation, ELSEWHERE, pair.now + 1)
    assert outcomes == [Drop(DropReason.REPLAYED_INITIATION)]
    assert pair.b.peer.endpoint == pair.a.address


def test_initiation_that_the_predecessor_consumed_is_refused(pair: Pair) -> None:
    initiation = first_initiation(pair)
    pair.b.deliver(initiation, pair.a.address, pair.now)
    pair.restart(pair.b)
    outcomes = pair.b.deliver(initiation, pair.a.address, pair.now + 1)
    assert outcomes == [Drop(DropReason.REPLAYED_INITIATION)]


def test_a_successor_gets_traffic_going_by_beginning_a_handshake(connected: Pair) -> None:
    connected.restart(connected.b)
    connected.send(connected.a, ipv4_packet(b"lost"))
    connected.run(1.0)
    assert connected.b.drops == {DropReason.UNKNOWN_INDEX: 1}
    connected.act(connected.b, connected.b.peer.begin_handshake(connected.now))
    connected.run(0.1)
    connected.send(connected.a, ipv4_packet(b"arrives"))
    connected.run(0.1)
    assert connected.b.packets == [ipv4_packet(b"arrives")]


def test_one_initiation_in_20_ms_is_answered(pair: Pair) -> None:
    first = first_initiation(pair)
    pair.a.peer.set_identity(pair.a.identity, pair.now)  # may initiate again at once
    second = first_initiation(pair)
    assert isinstance(pair.b.deliver(first, pair.a.address, pair.now)[0], SendDatagram)
    early = pair.b.deliver(second, pair.a.address, pair.now + 0.019)
    assert early == [Drop(DropReason.INITIATION_FLOOD)]
    late = pair.b.deliver(second, pair.a.address, pair.now + 0.0201)
    assert isinstance(late[0], SendDatagram)


def test_initiation_with_a_broken_timestamp_changes_nothing(pair: Pair) -> None:
    message = Initiation.unpack(first_initiation(pair))
    assert isinstance(message, Initiation)
    broken = Initiation(message.sender, message.ephemeral, message.static, bytes(28)).pack()
    broken = CookieJar().add_macs(broken, pair.b.identity.public_key, 0.0)
    outcomes = pair.b.deliver(broken, ELSEWHERE, pair.now)
    assert outcomes == [Drop(DropReason.BAD_TIMESTAMP)]
    assert pair.b.peer.endpoint is None
    assert pair.b.peer.deadline() is None
    assert not pair.b.indices.held


def test_response_must_match_the_outstanding_handshake(pair: Pair) -> None:
    first = first_initiation(pair)
    stale = pair.b.deliver(first, pair.a.address, pair.now)[0]
    assert isinstance(stale, SendDatagram)
    pair.run(5.5)  # a second initiation has taken the first one's place
    assert pair.a.completed == [True]
    outcomes = pair.a.deliver(stale.datagram, ELSEWHERE, pair.now)
    assert outcomes == [Drop(DropReason.NO_HANDSHAKE)]
    assert pair.a.peer.endpoint != ELSEWHERE


def test_response_is_consumed_once(pair: Pair) -> None:
    pair.send(pair.a, ipv4_packet())
    pair.run(0.5)
    response = pair.b.of_kind(MessageType.RESPONSE)[0].datagram
    outcomes = pair.a.deliver(response, pair.b.address, pair.now)
    assert outcomes == [Drop(DropReason.NO_HANDSHAKE)]


def test_a_forged_response_does_not_stop_the_handshake(pair: Pair) -> None:
    initiation = first_initiation(pair)
    true = pair.b.deliver(initiation, pair.a.address, pair.now)[0]
    assert isinstance(true, SendDatagram)
    forged = bytearray(true.datagram)
    forged[50] ^= 1
    assert pair.a.peer.consume_response(forged, ELSEWHERE, pair.now) == [
        Drop(DropReason.BAD_RESPONSE)
    ]
    assert pair.a.peer.endpoint == pair.b.address
    pair.act(pair.a, pair.a.deliver(true.datagram, pair.b.address, pair.now))
    assert pair.a.completed == [True]


def test_under_load_a_cookie_is_enough_to_get_through(pair: Pair) -> None:
    pair.b.under_load = True
    pair.send(pair.a, ipv4_packet())
    pair.run(6.0)
    assert pair.b.drops == {DropReason.COOKIE_REQUIRED: 1}
    assert pair.a.completed == [True]
    assert pair.b.packets == [ipv4_packet()]


def test_a_cookie_reply_moves_nothing_but_the_cookie(pair: Pair) -> None:
    pair.b.under_load = True
    initiation = first_initiation(pair)
    reply = pair.b.deliver(initiation, pair.a.address, pair.now)[1]
    assert isinstance(reply, SendDatagram)
    deadline = pair.a.peer.deadline()
    assert pair.a.deliver(reply.datagram, ELSEWHERE, pair.now) == []
    assert pair.a.peer.endpoint == pair.b.address
    assert pair.a.peer.deadline() == deadline
    assert pair.a.deliver(reply.datagram, ELSEWHERE, pair.now) == [
        Drop(DropReason.BAD_COOKIE_REPLY)
    ]


# Configuration


def test_a_new_private_key_retires_sessions_and_remakes_them(connected: Pair) -> None:
    a, b = connected.a, connected.b
    a.identity = Identity(b"\x77" * 32)
    a.checker = CookieChecker(a.identity, a.random.randbytes)
    connected.act(a, a.peer.set_identity(a.identity, connected.now))
    assert a.peer.sending_keypair(connected.now) is None
    b.remote_key = a.identity.public_key
    connected.restart(b)
    connected.send(a, ipv4_packet(b"new key"))
    connected.run(0.2)
    assert b.packets == [ipv4_packet(b"new key")]


def test_packets_under_way_when_the_private_key_changes_still_open(connected: Pair) -> None:
    connected.send(connected.b, ipv4_packet(b"under way"))
    connected.a.peer.set_identity(Identity(b"\x77" * 32), connected.now)
    connected.run(0.1)
    assert connected.a.packets == [ipv4_packet(b"under way")]


def test_source_address_is_forgotten_on_demand(connected: Pair) -> None:
    peer = connected.a.peer
    peer.set_endpoint(Endpoint(b"\1\2\3\4", 5, 0, b"\5\6\7\x08", 3))
    peer.forget_source()
    assert peer.endpoint == Endpoint(b"\1\2\3\4", 5)


def test_peer_roams_to_where_authentic_datagrams_come_from(connected: Pair) -> None:
    current = connected.a.peer.keypairs.current
    assert current is not None
    connected.b.deliver(current.seal(b"", 1420), ELSEWHERE, connected.now)
    assert connected.b.peer.endpoint == ELSEWHERE
    connected.send(connected.b, ipv4_packet())
    assert connected.b.sent[-1].endpoint == ELSEWHERE


def test_initiator_follows_a_responder_that_answers_from_elsewhere(pair: Pair) -> None:
    response = pair.b.deliver(first_initiation(pair), pair.a.address, pair.now)[0]
    assert isinstance(response, SendDatagram)
    pair.act(pair.a, pair.a.deliver(response.datagram, ELSEWHERE, pair.now))
    assert pair.a.peer.endpoint == ELSEWHERE
    assert pair.a.sent[-1].endpoint == ELSEWHERE


def test_a_stopped_peer_forgets_its_sessions_and_stays_silent(connected: Pair) -> None:
    node = connected.a
    connected.act(node, node.peer.set_keepalive(5, connected.now))
    connected.act(node, node.peer.stop())
    assert not node.indices.held
    assert node.peer.deadline() is None
    node.sent.clear()
    connected.act(node, node.peer.set_keepalive(6, connected.now))
    assert node.peer.deadline() is None
    connected.send(node, ipv4_packet())
    connected.run(100.0)
    assert node.sent == []
    assert node.peer.stop() == [Drop(DropReason.LINK_DOWN, 1)]


def test_a_started_peer_sends_its_persistent_keepalive_at_once(connected: Pair) -> None:
    node = connected.a
    connected.act(node, node.peer.set_keepalive(5, connected.now))
    connected.act(node, node.peer.stop())
    connected.act(node, node.peer.start(connected.now))
    connected.run(0.1)
    assert node.completed == [True]
    connected.send(node, ipv4_packet(b"up"))
    connected.run(0.1)
    assert connected.b.packets == [ipv4_packet(b"up")]


def test_a_started_peer_without_a_persistent_keepalive_stays_silent(pair: Pair) -> None:
    pair.act(pair.a, pair.a.peer.stop())
    pair.act(pair.a, pair.a.peer.start(pair.now))
    assert pair.a.peer.deadline() is None
    pair.run(100.0)
    assert pair.a.sent == []


def test_close_gives_everything_back(pair: Pair) -> None:
    pair.connect()
    pair.run(181.0)
    pair.intercept = lambda node, datagram: True
    pair.send(pair.a, ipv4_packet())
    assert pair.a.indices.held
    assert pair.a.peer.close() == [Drop(DropReason.PEER_REMOVED, 1)]
    assert not pair.a.indices.held
    assert pair.a.peer.deadline() is None
    assert list(pair.a.peer.keypairs) == []
    sent = len(pair.a.sent)
    pair.act(pair.a, pair.a.peer.begin_handshake(pair.now + 6.0))
    assert len(pair.a.sent) == sent, "it has no keys to begin one with"


def test_a_peer_with_a_key_of_low_order_never_gets_a_session(pair: Pair) -> None:
    pair.a.remote_key = bytes(32)
    pair.restart(pair.a)
    pair.send(pair.a, ipv4_packet())
    assert pair.a.sent == []
    assert pair.a.drops == {DropReason.BAD_STATIC: 1}
    assert not pair.a.indices.held


def test_nobody_calls_as_a_peer_whose_key_is_of_low_order(pair: Pair) -> None:
    # Its static-static secret is zero, which everybody knows.
    pair.b.remote_key = bytes(32)
    pair.restart(pair.b)
    forger, b = Identity(b"\x33" * 32), pair.b.identity.public_key
    object.__setattr__(forger, "public_key", bytes(32))
    made = noise.create_initiation(forger, b, bytes(32), b"\x44" * 32, pair.label(pair.a), 7)
    assert not isinstance(made, DropReason)
    datagram = CookieJar().add_macs(made[0].pack(), b, pair.now)
    outcomes = pair.b.deliver(datagram, ELSEWHERE, pair.now)
    assert outcomes == [Drop(DropReason.BAD_STATIC)]
    assert pair.b.peer.endpoint is None
    assert not pair.b.indices.held


def test_an_initiation_that_was_opened_before_the_private_key_went_is_not_answered(
    pair: Pair,
) -> None:
    opened = noise.open_static(pair.b.identity, first_initiation(pair))
    assert not isinstance(opened, DropReason)
    pair.b.peer.set_identity(None, pair.now)
    outcomes = pair.b.peer.consume_initiation(opened, ELSEWHERE, pair.now)
    assert outcomes == [Drop(DropReason.NO_IDENTITY)]
    assert pair.b.peer.endpoint is None
    assert pair.b.peer.deadline() is None


def test_a_response_that_comes_when_the_private_key_has_gone_makes_no_session(pair: Pair) -> None:
    response = pair.b.deliver(first_initiation(pair), pair.a.address, pair.now)[0]
    assert isinstance(response, SendDatagram)
    pair.a.peer.set_identity(None, pair.now)
    outcomes = pair.a.deliver(response.datagram, ELSEWHERE, pair.now)
    assert outcomes == [Drop(DropReason.NO_HANDSHAKE)]
    assert pair.a.completed == []
    assert not pair.a.indices.held


def test_indices_are_freed_as_sessions_come_and_go(pair: Pair) -> None:
    for _ in range(400):
        pair.send(pair.a, ipv4_packet())
        pair.send(pair.b, ipv4_packet())
        pair.run(2.0)
    assert len(pair.a.completed) >= 6
    for node in (pair.a, pair.b):
        in_use = {keypair.local_index for keypair in node.peer.keypairs}
        assert node.indices.held == in_use


def test_last_session_at_is_when_the_last_handshake_completed(pair: Pair) -> None:
    assert pair.a.peer.last_session_at is None
    start = pair.now
    pair.connect()
    assert pair.a.peer.last_session_at == pytest.approx(start + 0.04)
    assert pair.b.peer.last_session_at == pytest.approx(start + 0.06)


def test_an_idle_peer_takes_less_than_one_and_a_half_kibibytes(pair: Pair) -> None:
    count = 1000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        peers = [
            Peer(
                peer=n,
                identity=pair.a.identity,
                public_key=n.to_bytes(32, "big"),
                preshared_key=n.to_bytes(32, "big"),
                keepalive=25,
                endpoint=Endpoint(n.to_bytes(4, "big"), n),
                indices=pair.a.indices,
                randomness=pair.a.random.randbytes,
                tai64n=bytes,
            )
            for n in range(1000, 1000 + count)
        ]
        each = (tracemalloc.get_traced_memory()[0] - before) / len(peers)
    finally:
        tracemalloc.stop()
    assert each < 1536
