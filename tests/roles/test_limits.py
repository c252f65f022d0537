"""Sessions near the limits of their counters, through the worker (whitepaper 6.1, 6.2)."""

from __future__ import annotations

import struct

import pytest
from hostile.rawpeer import INITIATION, TRANSPORT, kind_of, tai64n

from wgmp.fastpath import virtio
from wgmp.record import Kind
from wgmp.worker import transport

from .rig import DEVICES, HERE, INNER, Rig, packet

REKEY_AFTER_MESSAGES = 2**60
REJECT_AFTER_MESSAGES = 2**64 - 2**13 - 1
REKEY_TIMEOUT_S = 5.4


def counters(datagrams: list[bytes]) -> list[int]:
    """The counters of the transport datagrams among these."""
    return [
        struct.unpack_from("<Q", each, 8)[0] for each in datagrams if kind_of(each) == TRANSPORT
    ]


def initiations(datagrams: list[bytes]) -> int:
    """The number of initiations among these."""
    return sum(kind_of(each) == INITIATION for each in datagrams)


@pytest.mark.parametrize("boundary", [2**8, 2**16, 2**31, 2**32, 2**48])
def test_a_counter_passes_every_width_unharmed(boundary: int) -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    rig.keypair(session).send_counter = boundary - 1
    for _ in range(3):
        rig.send(packet())
    sent = rig.sent()
    assert counters(sent) == [boundary - 1, boundary, boundary + 1]
    assert all(session.unseal(datagram) for datagram in sent)


@pytest.mark.parametrize("gateway_initiates", [True, False])
def test_after_2_to_the_60_messages_a_new_session_is_asked_for(gateway_initiates: bool) -> None:
    rig = Rig()
    raw = rig.add_peer()
    session = rig.connect(raw)
    if gateway_initiates:
        rig.step(REKEY_TIMEOUT_S)
        rig.forget_sessions()
        session = rig.call(raw)
    rig.step(REKEY_TIMEOUT_S)
    rig.sent()
    rig.keypair(session).send_counter = REKEY_AFTER_MESSAGES - 1
    rig.send(packet())
    assert initiations(rig.sent()) == 0
    rig.send(packet())
    sent = rig.sent()
    assert counters(sent) == [REKEY_AFTER_MESSAGES], "the old session goes on"
    assert initiations(sent) == 1
    rig.send(packet())
    assert initiations(rig.sent()) == 0, "asked once, until the retry is due"


def test_no_counter_from_the_reject_limit_on_is_ever_sealed() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    rig.step(REKEY_TIMEOUT_S)
    rig.keypair(session).send_counter = REJECT_AFTER_MESSAGES - 1
    rig.send(packet())
    assert counters(rig.sent()) == [REJECT_AFTER_MESSAGES - 1]
    for _ in range(5):
        rig.send(packet())
    rig.step(20)
    sent = rig.sent()
    assert counters(sent) == []
    assert rig.keypair(session).send_counter == REJECT_AFTER_MESSAGES


def test_a_record_across_the_reject_limit_is_sealed_in_part_and_staged_in_part() -> None:
    rig = Rig()
    raw = rig.add_peer()
    session = rig.connect(raw)
    rig.step(REKEY_TIMEOUT_S)
    rig.keypair(session).send_counter = REJECT_AFTER_MESSAGES - 2
    ring = rig.fabric.context("tun_reader", DEVICES).outputs["worker0"]
    record = ring.reserve()
    assert record is not None
    record.begin(Kind.PACKETS, 1)
    packets = [packet(length=length) for length in (32, 48, 64, 80, 96)]
    for each in packets:
        record.append(virtio.PLAIN + each)
    ring.publish()
    rig.step()
    sent = rig.sent()
    assert counters(sent) == [REJECT_AFTER_MESSAGES - 2, REJECT_AFTER_MESSAGES - 1]
    (initiation,) = (each for each in sent if kind_of(each) == INITIATION)
    response, fresh = raw.answer(initiation)
    rig.deliver(response)
    assert [fresh.unseal(datagram) for datagram in rig.sent()] == packets[2:]


def test_the_receiving_side_accepts_up_to_the_reject_limit_and_nothing_from_it_on() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    inner = packet(INNER, bytes([10, 77, 0, 1]), 32)
    rig.deliver(session.seal(inner, REJECT_AFTER_MESSAGES - 1))
    assert rig.written() == [inner]
    for counter in (REJECT_AFTER_MESSAGES, REJECT_AFTER_MESSAGES + 1, 2**64 - 1):
        rig.deliver(session.seal(inner, counter))
    assert rig.written() == []
    assert rig.drops() == {"counter_exhausted": 3}
    rig.deliver(session.seal(inner, REJECT_AFTER_MESSAGES - 2))
    assert rig.written() == [inner], "the window did not move to what was refused"


def test_a_session_of_180_s_neither_seals_nor_opens() -> None:
    rig = Rig()
    raw = rig.add_peer()
    session = rig.connect(raw)
    inner = packet(INNER, bytes([10, 77, 0, 1]), 32)
    rig.now += 179.9
    rig.deliver(session.seal(inner))
    assert rig.written() == [inner]
    rig.now += 0.2
    rig.deliver(session.seal(inner))
    assert rig.written() == []
    assert rig.drops() == {"keypair_expired": 1}
    rig.sent()
    rig.send(packet())
    assert counters(rig.sent()) == []


def test_timestamps_at_both_ends_of_their_range_are_ordered() -> None:
    rig = Rig()
    raw = rig.add_peer()
    for accepted, timestamp in (
        (True, tai64n(1)),
        (True, b"\xff" * 12),
        (False, b"\xff" * 12),
        (False, tai64n(4e9)),
    ):
        rig.now += 1
        rig.deliver(raw.initiation(timestamp=timestamp).datagram)
        assert bool(rig.sent()) is accepted


def test_packets_that_wait_for_thousands_of_peers_are_bounded_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport, "_MOST_STAGED", 100)
    rig = Rig()
    rig.add_peer(1, endpoint=HERE)
    rig.add_peer(2, endpoint=HERE)
    for _ in range(128):
        rig.send(packet(), peer=1)
    for _ in range(3):
        rig.send(packet(), peer=2)
    assert rig.drops()["staged_overflow"] == 28 + 2
    assert initiations(rig.sent()) == 2, "the second peer is called all the same"
