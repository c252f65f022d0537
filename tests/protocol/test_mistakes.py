"""What others got wrong, each in a test of its own."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest

from wgmp.protocol import messages
from wgmp.protocol.allowedips import AllowedIPs
from wgmp.protocol.messages import Initiation, MessageType
from wgmp.protocol.outcome import (
    Drop,
    DropReason,
    Endpoint,
    SendDatagram,
    SessionExpired,
    WritePacket,
)
from wgmp.protocol.ratelimiter import RateLimiter

from .pair import PEER, STRANGER, Node, Pair, ipv4_packet

ELSEWHERE = Endpoint(bytes([198, 51, 100, 9]), 9)


def sealed(node: Node, packet: bytes = b"") -> bytes:
    """Return an authentic datagram of a node's current session, not sent."""
    current = node.peer.keypairs.current
    assert current is not None
    return current.seal(packet, 1420)


def test_the_15_second_timer_runs_from_the_first_unanswered_packet(connected: Pair) -> None:
    connected.run(30.0)
    connected.intercept = lambda node, datagram: True
    connected.a.sent.clear()
    start = connected.now
    for _ in range(20):  # sending on does not put it off, and it is not the last receive's
        connected.send(connected.a, ipv4_packet())
        connected.run(1.0)
    initiations = connected.a.of_kind(MessageType.INITIATION)
    assert 15.0 <= initiations[0].at - start <= 15.334


def test_an_initiation_is_a_sign_of_life_and_stops_the_15_second_timer(connected: Pair) -> None:
    connected.intercept = lambda node, datagram: (
        messages.message_type(datagram) is MessageType.TRANSPORT
    )
    connected.send(connected.a, ipv4_packet())
    connected.run(12.0)
    connected.act(connected.b, connected.b.peer.begin_handshake(connected.now))
    connected.run(30.0)
    assert connected.b.completed == [True]
    assert connected.a.of_kind(MessageType.INITIATION) == []


def test_after_a_long_sleep_old_keys_do_not_take_the_new_handshake_along(
    connected: Pair,
) -> None:
    """Suspended for longer than keys are kept: all timers are due at once."""
    connected.act(connected.a, connected.a.peer.set_keepalive(25, connected.now))
    connected.run(30.0)
    connected.now += 1000.0
    connected.run(1.0)
    assert connected.a.told == [SessionExpired()]
    assert connected.a.completed == [True]
    connected.send(connected.a, ipv4_packet(b"awake"))
    connected.run(1.0)
    assert connected.b.packets == [ipv4_packet(b"awake")]


def test_receiving_long_ago_is_no_reason_for_a_handshake(connected: Pair) -> None:
    connected.run(100.0)
    assert connected.a.of_kind(MessageType.INITIATION) == []
    assert connected.b.of_kind(MessageType.INITIATION) == []


def test_only_the_initiator_rekeys_under_traffic_in_both_directions(connected: Pair) -> None:
    for _ in range(1200):
        connected.send(connected.a, ipv4_packet())
        connected.send(connected.b, ipv4_packet())
        connected.run(1.0)
    assert connected.b.of_kind(MessageType.INITIATION) == []
    times = [sent.at for sent in connected.a.of_kind(MessageType.INITIATION)]
    assert 9 <= len(times) <= 10
    assert all(later - earlier >= 120.0 for earlier, later in pairwise(times))


@pytest.mark.parametrize("seed", range(6))
def test_ends_that_began_at_once_do_not_rekey_at_once_forever(seed: int) -> None:
    pair = Pair(seed)
    pair.b.peer.set_endpoint(pair.a.address)
    packets = 3000
    for n in range(packets):
        pair.send(pair.a, ipv4_packet(b"a" + n.to_bytes(4, "big")))
        pair.send(pair.b, ipv4_packet(b"b" + n.to_bytes(4, "big")))
        pair.run(0.2)
    # The handshakes crossed, yet both ends had a session at once and lost nothing.
    assert len(pair.a.packets) == len(pair.b.packets) == packets
    for node in (pair.a, pair.b):
        assert node.completed[0]
    begun = sum(len(node.of_kind(MessageType.INITIATION)) for node in (pair.a, pair.b))
    assert begun <= 2 + 5


def test_keepalives_are_not_answered_by_keepalives(connected: Pair) -> None:
    connected.run(30.0)
    connected.a.sent.clear()
    connected.b.sent.clear()
    connected.send(connected.a, ipv4_packet())
    connected.run(600.0)
    assert [sent.is_keepalive for sent in connected.b.sent] == [True]
    assert [sent.is_keepalive for sent in connected.a.sent] == [False]


def test_persistent_keepalives_are_not_answered(connected: Pair) -> None:
    connected.run(30.0)
    connected.b.sent.clear()
    connected.act(connected.a, connected.a.peer.set_keepalive(5, connected.now))
    connected.run(80.0)
    assert connected.b.sent == []


def test_a_due_keepalive_on_a_dead_session_does_not_spin(connected: Pair) -> None:
    session = connected.b.peer.keypairs.current
    assert session is not None
    connected.run(session.created_at + 175.0 - connected.now)
    connected.intercept = lambda node, datagram: True
    connected.b.sent.clear()
    outcomes = connected.b.deliver(sealed(connected.a, ipv4_packet()), ELSEWHERE, connected.now)
    connected.act(connected.b, outcomes)  # b owes a keepalive at 185 s
    connected.run(12.0)  # `run` fails when a timer stays due
    assert [sent.kind for sent in connected.b.sent] == [MessageType.INITIATION]


def test_unauthenticated_counters_do_not_move_the_replay_window(connected: Pair) -> None:
    datagram = bytearray(sealed(connected.a, ipv4_packet()))
    forged = datagram.copy()
    forged[8:16] = struct.pack("<Q", 2**40)
    outcomes = connected.b.deliver(bytes(forged), connected.a.address, connected.now)
    assert outcomes == [Drop(DropReason.BAD_TAG)]
    forged = datagram.copy()
    forged[-1] ^= 1
    outcomes = connected.b.deliver(bytes(forged), connected.a.address, connected.now)
    assert outcomes == [Drop(DropReason.BAD_TAG)]
    outcomes = connected.b.deliver(bytes(datagram), connected.a.address, connected.now)
    assert outcomes == [WritePacket(ipv4_packet())]


def test_a_replay_moves_nothing_at_all(connected: Pair) -> None:
    datagram = sealed(connected.a, ipv4_packet())
    connected.b.deliver(datagram, connected.a.address, connected.now)
    deadline = connected.b.peer.deadline()
    connected.run(1.0)
    outcomes = connected.b.deliver(datagram, ELSEWHERE, connected.now)
    assert outcomes == [Drop(DropReason.REPLAYED)]
    assert connected.b.peer.endpoint == connected.a.address
    assert connected.b.peer.deadline() == deadline


def test_a_replay_does_not_confirm_a_session(pair: Pair) -> None:
    pair.intercept = lambda node, datagram: datagram[0] == MessageType.TRANSPORT.value
    pair.send(pair.a, ipv4_packet())
    pair.run(0.1)
    assert pair.b.peer.keypairs.next is not None
    forged = bytearray(pair.a.of_kind(MessageType.TRANSPORT)[0].datagram)
    forged[20] ^= 1
    pair.b.deliver(bytes(forged), pair.a.address, pair.now)
    assert pair.b.peer.keypairs.next is not None
    assert pair.b.peer.keypairs.current is None


def test_counters_go_on_above_32_bits(connected: Pair) -> None:
    current = connected.a.peer.keypairs.current
    assert current is not None
    current.send_counter = 2**32 - 2
    packets = [ipv4_packet(bytes([n])) for n in range(4)]
    for packet in packets:
        connected.send(connected.a, packet)
    connected.run(0.1)
    assert connected.b.packets == packets
    assert current.send_counter == 2**32 + 2


def test_a_new_preshared_key_is_used_by_the_next_handshake(connected: Pair) -> None:
    for node in (connected.a, connected.b):
        node.peer.set_preshared_key(b"\x09" * 32)
    connected.send(connected.a, ipv4_packet(b"old session"))
    connected.run(130.0)
    connected.send(connected.a, ipv4_packet(b"rekey"))
    connected.run(1.0)
    assert connected.a.completed == [True]
    connected.b.peer.set_preshared_key(b"\x0a" * 32)
    connected.a.completed.clear()
    connected.run(130.0)
    connected.send(connected.a, ipv4_packet(b"rekey fails"))
    connected.run(1.0)
    assert connected.a.completed == []
    assert connected.a.drops[DropReason.BAD_RESPONSE] == 1


def test_a_new_preshared_key_reaches_a_handshake_that_is_under_way(pair: Pair) -> None:
    pair.send(pair.a, ipv4_packet())
    for node in (pair.a, pair.b):
        node.peer.set_preshared_key(b"\x09" * 32)
    pair.run(0.1)
    assert pair.b.packets == [ipv4_packet()]


def test_inner_source_must_route_to_this_peer_in_the_device_wide_table(connected: Pair) -> None:
    # The peer has 0.0.0.0/0, which holds the source; a longer prefix is another peer's.
    connected.b.allowed_ips.insert(bytes([10, 0, 0, 1]), 32, STRANGER)
    connected.send(connected.a, ipv4_packet(source=bytes([10, 0, 0, 1])))
    connected.send(connected.a, ipv4_packet(source=bytes([10, 0, 0, 3])))
    connected.run(0.1)
    assert connected.b.packets == [ipv4_packet(source=bytes([10, 0, 0, 3]))]
    assert connected.b.drops == {DropReason.SOURCE_NOT_ALLOWED: 1}


def test_no_endpoint_is_learned_from_what_does_not_authenticate(connected: Pair) -> None:
    datagram = bytearray(sealed(connected.a, ipv4_packet()))
    datagram[30] ^= 1
    connected.b.deliver(bytes(datagram), ELSEWHERE, connected.now)
    forged = Initiation(1, b"\x09" * 32, bytes(48), bytes(28)).pack()
    connected.b.deliver(forged, ELSEWHERE, connected.now)
    for kind, size in ((2, 92), (3, 64)):
        index = next(iter(connected.b.indices.held))
        message = struct.pack("<II", kind, index).ljust(size, b"\7")
        connected.b.deliver(message, ELSEWHERE, connected.now)
    assert connected.b.peer.endpoint == connected.a.address


def test_one_flooding_source_does_not_limit_the_others() -> None:
    limiter = RateLimiter()
    for n in range(10_000):
        limiter.allow(bytes([10, 0, 0, 1]), n / 1000)
    assert limiter.allow(bytes([10, 0, 0, 2]), 10.0)


def test_a_cookie_is_bound_to_the_port(pair: Pair) -> None:
    pair.b.under_load = True
    pair.send(pair.a, ipv4_packet())
    pair.run(1.0)
    pair.a.address = pair.a.address._replace(port=1)  # a's NAT takes another port
    pair.run(5.0)
    assert pair.b.drops == {DropReason.COOKIE_REQUIRED: 2}
    assert pair.a.completed == []
    pair.run(6.0)
    assert pair.a.completed == [True]


@pytest.mark.parametrize("size", [0, 1, 3, 31, 33, 149, 1500, 9000, 65_507, 100_000])
@pytest.mark.parametrize("kind", range(6))
def test_a_datagram_of_any_size_is_a_drop_and_no_more(
    connected: Pair, kind: int, size: int
) -> None:
    datagram = struct.pack("<I", kind).ljust(size, b"\xff")[:size]
    outcomes = connected.b.deliver(datagram, ELSEWHERE, connected.now)
    assert len(outcomes) == 1
    assert isinstance(outcomes[0], Drop)
    connected.send(connected.a, ipv4_packet())
    connected.run(0.1)
    assert connected.b.packets == [ipv4_packet()]


def test_removing_a_prefix_loses_no_subtree() -> None:
    table = AllowedIPs()
    for third in range(256):
        table.insert(bytes([10, 0, third, 0]), 24, third)
    table.insert(bytes([10, 0, 0, 0]), 16, PEER)
    table.insert(bytes([10, 0, 0, 0]), 20, PEER)
    table.remove(bytes([10, 0, 0, 0]), 20, PEER)
    table.remove(bytes([10, 0, 0, 0]), 16, PEER)
    assert [table.lookup(bytes([10, 0, third, 1])) for third in range(256)] == list(range(256))
    table.remove(bytes([10, 0, 128, 0]), 24, 128)
    found = [table.lookup(bytes([10, 0, third, 1])) for third in range(256)]
    assert found == [*range(128), None, *range(129, 256)]


def test_a_wall_clock_moved_back_does_not_stop_handshakes(connected: Pair) -> None:
    connected.a.unix_shift_ns = -3600 * 10**9
    connected.b.unix_shift_ns = -7200 * 10**9
    for _ in range(4):
        connected.run(200.0)
        connected.send(connected.a, ipv4_packet())
        connected.run(1.0)
    assert len(connected.b.packets) == 4
    assert connected.b.drops[DropReason.REPLAYED_INITIATION] == 0


def test_what_one_end_sends_with_the_other_receives_with(pair: Pair) -> None:
    pair.connect()
    a, b = pair.a.peer.keypairs.current, pair.b.peer.keypairs.current
    assert a is not None
    assert b is not None
    assert (a.local_index, a.remote_index) == (b.remote_index, b.local_index)
    for sender, receiver in ((a, b), (b, a)):
        nonce = bytes(12)
        text = sender.sealer.encrypt(nonce, b"one way", None)
        assert receiver.opener.decrypt(nonce, text, None) == b"one way"
        assert receiver.sealer.encrypt(nonce, b"one way", None) != text


def test_a_cookie_answers_no_keepalive_and_no_data(connected: Pair) -> None:
    connected.b.under_load = True
    for packet in (b"", ipv4_packet()):
        outcomes = connected.b.deliver(
            sealed(connected.a, packet), connected.a.address, connected.now
        )
        assert not any(isinstance(outcome, SendDatagram) for outcome in outcomes)


def test_a_datagrams_type_is_more_than_its_first_byte(connected: Pair) -> None:
    datagram = bytearray(sealed(connected.a, ipv4_packet()))
    datagram[2] = 1
    assert messages.message_type(datagram) is DropReason.BAD_TYPE
