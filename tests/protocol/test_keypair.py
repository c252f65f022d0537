"""One session's keys and counters, and the three slots they live in."""

from __future__ import annotations

import struct

import pytest
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from wgmp.protocol.constants import REJECT_AFTER_MESSAGES, REKEY_AFTER_MESSAGES
from wgmp.protocol.keypair import Keypair, padded_length
from wgmp.protocol.keypairs import Keypairs
from wgmp.protocol.noise import SessionKeys
from wgmp.protocol.outcome import DropReason

ONE, TWO = b"\1" * 32, b"\2" * 32


def two_ends() -> tuple[Keypair, Keypair]:
    """Return the initiator's and the responder's keypair of one session, made at time 0."""
    initiator = Keypair(SessionKeys(ONE, TWO, 10, 20, True), 0.0)
    responder = Keypair(SessionKeys(TWO, ONE, 20, 10, False), 0.0)
    return initiator, responder


@given(st.binary(min_size=1, max_size=1420), st.integers(0, REJECT_AFTER_MESSAGES - 1))
def test_what_one_end_seals_the_other_opens(packet: bytes, counter: int) -> None:
    initiator, responder = two_ends()
    initiator.send_counter = counter
    datagram = initiator.seal(packet, 1420)
    assert initiator.send_counter == counter + 1
    padded = responder.open(datagram)
    assert isinstance(padded, bytes)
    assert padded[: len(packet)] == packet
    assert not any(padded[len(packet) :])
    assert len(padded) == min(1420, -(-len(packet) // 16) * 16)


def test_nonce_is_four_zero_bytes_and_the_64_bit_counter() -> None:
    initiator, _ = two_ends()
    initiator.send_counter = 2**40 + 3
    datagram = initiator.seal(b"packet", 1420)
    assert datagram[:16] == struct.pack("<IIQ", 4, 20, 2**40 + 3)
    nonce = struct.pack("<IQ", 0, 2**40 + 3)
    assert ChaCha20Poly1305(ONE).decrypt(nonce, datagram[16:], None) == b"packet".ljust(16, b"\0")


def test_keepalive_is_exactly_32_bytes() -> None:
    initiator, responder = two_ends()
    datagram = initiator.seal(b"", 1420)
    assert len(datagram) == 32
    assert responder.open(datagram) == b""


@pytest.mark.parametrize(
    ("length", "mtu", "padded"),
    [
        (0, 1420, 0),
        (1, 1420, 16),
        (16, 1420, 16),
        (17, 1420, 32),
        (1408, 1420, 1408),
        (1409, 1420, 1420),
        (1420, 1420, 1420),
        (1425, 1420, 1425),
    ],
)
def test_padding_goes_to_16_but_never_past_the_mtu(length: int, mtu: int, padded: int) -> None:
    assert padded_length(length, mtu) == padded


def test_replayed_datagram_is_rejected() -> None:
    initiator, responder = two_ends()
    datagram = initiator.seal(b"packet", 1420)
    assert isinstance(responder.open(datagram), bytes)
    assert responder.open(datagram) is DropReason.REPLAYED


@pytest.mark.parametrize("position", [*range(8, 16), 16, 31, 40, 47])
def test_changed_datagram_is_rejected_and_moves_nothing(position: int) -> None:
    initiator, responder = two_ends()
    datagram = bytearray(initiator.seal(b"packet", 1420))
    datagram[position] ^= 1
    assert responder.open(datagram) in (DropReason.BAD_TAG, DropReason.COUNTER_EXHAUSTED)
    assert responder.replay.highest == -1


def test_counters_at_the_limit_are_neither_sealed_nor_opened() -> None:
    initiator, responder = two_ends()
    initiator.send_counter = REJECT_AFTER_MESSAGES - 1
    assert initiator.sendable(0.0)
    assert isinstance(responder.open(initiator.seal(b"last", 1420)), bytes)
    assert not initiator.sendable(0.0)
    with pytest.raises(AssertionError):
        initiator.seal(b"one more", 1420)
    nonce = struct.pack("<IQ", 0, REJECT_AFTER_MESSAGES)
    beyond = struct.pack("<IIQ", 4, 20, REJECT_AFTER_MESSAGES)
    beyond += ChaCha20Poly1305(ONE).encrypt(nonce, bytes(16), None)
    assert responder.open(beyond) is DropReason.COUNTER_EXHAUSTED


@given(st.binary(max_size=200))
def test_open_never_raises(datagram: bytes) -> None:
    _, responder = two_ends()
    assert isinstance(responder.open(datagram), DropReason)
    assert isinstance(responder.open(b"\4\0\0\0" + datagram), DropReason)


def test_keypair_is_used_below_180_seconds_only() -> None:
    initiator, _ = two_ends()
    assert initiator.sendable(179.9)
    assert not initiator.expired(179.9)
    assert not initiator.sendable(180.0)
    assert initiator.expired(180.0)


def test_initiator_rekeys_by_age_and_a_responder_never() -> None:
    initiator, responder = two_ends()
    assert not initiator.wants_rekey_on_send(119.9)
    assert initiator.wants_rekey_on_send(120.0)
    assert not responder.wants_rekey_on_send(179.0)
    assert not initiator.wants_rekey_on_receive(164.9)
    assert initiator.wants_rekey_on_receive(165.0)
    assert not responder.wants_rekey_on_receive(179.0)


def test_both_ends_rekey_by_count() -> None:
    for keypair in two_ends():
        keypair.send_counter = REKEY_AFTER_MESSAGES
        assert not keypair.wants_rekey_on_send(0.0)
        keypair.send_counter = REKEY_AFTER_MESSAGES + 1
        assert keypair.wants_rekey_on_send(0.0)


def session(local_index: int, is_initiator: bool) -> Keypair:
    """Return a keypair that only its index tells apart."""
    return Keypair(SessionKeys(ONE, TWO, local_index, 99, is_initiator), 0.0)


def indices(keypairs: Keypairs) -> list[int | None]:
    """Return the local indices of previous, current and next."""
    slots = (keypairs.previous, keypairs.current, keypairs.next)
    return [None if slot is None else slot.local_index for slot in slots]


def test_initiators_new_session_becomes_current() -> None:
    freed: list[int] = []
    keypairs = Keypairs(freed.append)
    for index in (1, 2, 3):
        keypairs.install(session(index, True))
    assert indices(keypairs) == [2, 3, None]
    assert freed == [1]


def test_responders_new_session_waits_as_next() -> None:
    freed: list[int] = []
    keypairs = Keypairs(freed.append)
    keypairs.install(session(1, True))
    keypairs.install(session(2, True))
    keypairs.install(session(3, False))
    assert indices(keypairs) == [None, 2, 3]
    keypairs.install(session(4, False))
    assert indices(keypairs) == [None, 2, 4]
    assert freed == [1, 3]


def test_promotion_moves_every_slot_by_one() -> None:
    freed: list[int] = []
    keypairs = Keypairs(freed.append)
    keypairs.install(session(1, True))
    keypairs.install(session(2, False))
    assert not keypairs.find(2).confirmed  # type: ignore[union-attr]
    keypairs.promote()
    assert indices(keypairs) == [1, 2, None]
    assert keypairs.find(2).confirmed  # type: ignore[union-attr]
    assert freed == []


def test_initiators_session_demotes_an_unconfirmed_next() -> None:
    freed: list[int] = []
    keypairs = Keypairs(freed.append)
    keypairs.install(session(1, True))
    keypairs.install(session(2, False))
    keypairs.install(session(3, True))
    assert indices(keypairs) == [2, 3, None]
    assert freed == [1]


def test_find_sees_every_slot_and_clear_empties_them() -> None:
    freed: list[int] = []
    keypairs = Keypairs(freed.append)
    keypairs.install(session(1, True))
    keypairs.install(session(2, True))
    keypairs.install(session(3, False))
    keypairs.promote()
    keypairs.install(session(4, True))
    assert {keypair.local_index for keypair in keypairs} == {3, 4}
    assert keypairs.find(5) is None
    keypairs.clear()
    assert indices(keypairs) == [None, None, None]
    assert sorted(freed) == [1, 2, 3, 4]
