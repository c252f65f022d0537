"""The table of deadlines, and the events that move it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from wgmp.protocol.timers import PeerTimers, Timer, TimerTable


def constant(value: int) -> Callable[[int], bytes]:
    """Return randomness that is always the same byte."""
    return lambda size: bytes([value]) * size


def test_next_is_the_earliest_deadline() -> None:
    table = TimerTable()
    assert table.next() is None
    table.arm(Timer.NEW_HANDSHAKE, 5.0)
    table.arm(Timer.SEND_KEEPALIVE, 3.0)
    assert table.next() == 3.0
    table.arm(Timer.SEND_KEEPALIVE, 9.0)
    assert table.next() == 5.0
    table.disarm(Timer.NEW_HANDSHAKE)
    assert table.next() == 9.0
    table.clear()
    assert table.next() is None


def test_due_lists_the_earliest_first() -> None:
    table = TimerTable()
    table.arm(Timer.NEW_HANDSHAKE, 5.0)
    table.arm(Timer.SEND_KEEPALIVE, 3.0)
    table.arm(Timer.ZERO_KEY_MATERIAL, 7.0)
    assert table.due(2.9) == []
    assert table.due(5.0) == [Timer.SEND_KEEPALIVE, Timer.NEW_HANDSHAKE]


def test_take_disarms_what_is_due_and_leaves_what_is_not() -> None:
    table = TimerTable()
    table.arm(Timer.SEND_KEEPALIVE, 3.0)
    assert not table.take(Timer.SEND_KEEPALIVE, 2.9)
    assert table.pending(Timer.SEND_KEEPALIVE)
    assert table.take(Timer.SEND_KEEPALIVE, 3.0)
    assert not table.take(Timer.SEND_KEEPALIVE, 3.0)


@pytest.mark.parametrize(("byte", "jitter"), [(0, 0.0), (255, 0.333)])
def test_jitter_is_up_to_333_ms(byte: int, jitter: float) -> None:
    timers = PeerTimers(0, constant(byte))
    timers.handshake_initiated(100.0)
    assert timers.next() == pytest.approx(105.0 + jitter, abs=1e-6)
    timers.clear()
    timers.data_sent(100.0)
    assert timers.next() == pytest.approx(115.0 + jitter, abs=1e-6)


def test_data_sent_later_does_not_put_the_new_handshake_off() -> None:
    timers = PeerTimers(0, constant(0))
    timers.data_sent(0.0)
    timers.data_sent(14.0)
    assert timers.next() == 15.0
    timers.any_authenticated_packet_received()
    assert timers.next() is None


def test_more_data_received_asks_for_a_second_keepalive() -> None:
    timers = PeerTimers(0, constant(0))
    timers.data_received(0.0)
    timers.data_received(6.0)
    assert timers.next() == 10.0
    assert timers.take(Timer.SEND_KEEPALIVE, 10.0)
    timers.keepalive_due(10.0)
    assert timers.next() == 20.0
    assert timers.take(Timer.SEND_KEEPALIVE, 20.0)
    timers.keepalive_due(20.0)
    assert timers.next() is None


def test_traversal_puts_the_persistent_keepalive_off_if_there_is_one() -> None:
    timers = PeerTimers(0, constant(0))
    timers.any_authenticated_packet_traversal(0.0)
    assert timers.next() is None
    timers.keepalive = 25
    timers.any_authenticated_packet_traversal(0.0)
    timers.any_authenticated_packet_traversal(7.0)
    assert timers.next() == 32.0


def test_a_held_back_handshake_does_not_put_a_retransmission_off() -> None:
    timers = PeerTimers(0, constant(0))
    timers.handshake_held_back(3.0)
    assert timers.next() == 3.0
    timers.handshake_held_back(9.0)
    assert timers.next() == 3.0
    timers.handshake_complete()
    assert timers.next() is None


def test_giving_up_leaves_an_earlier_wipe_where_it_is() -> None:
    timers = PeerTimers(0, constant(0))
    timers.session_derived(0.0)
    timers.handshake_given_up(100.0)
    assert timers.next() == 540.0
    timers.clear()
    timers.handshake_given_up(100.0)
    assert timers.next() == 640.0
