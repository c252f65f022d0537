"""The handshake against the whitepaper's formulas, written a second time in whitepaper.py."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from wgmp.protocol import noise
from wgmp.protocol.cookie import CookieJar
from wgmp.protocol.messages import Initiation, Response
from wgmp.protocol.noise import CompletedInitiation, Identity, OpenedInitiation, SessionKeys
from wgmp.protocol.outcome import DropReason

from . import whitepaper

S_I, S_R, E_I, E_R = (bytes([n]) * 32 for n in (0x11, 0x22, 0x33, 0x44))
TIMESTAMP = bytes.fromhex("400000005f5e100a0a000000")
PSK = bytes(range(32))
LOW_ORDER_POINT = bytes(32)

# SHA-256 over initiation, response and the two transport keys: pins both implementations.
KNOWN = {
    bytes(32): "f0018b989e3feb1dce27c00a851c373f6105a406d43637f78d4bc47f3fb45192",
    PSK: "130618eeafd79de48cf09285cbec1e8e705be73d92652724c2ce8881d1135d72",
}


def run(preshared_key: bytes) -> tuple[bytes, bytes, SessionKeys, SessionKeys]:
    """Shake hands with fixed keys; return both datagrams and both ends' session keys."""
    initiator, responder = Identity(S_I), Identity(S_R)
    shared = initiator.static_static(responder.public_key)
    assert shared is not None
    assert shared == responder.static_static(initiator.public_key)
    made = noise.create_initiation(initiator, responder.public_key, shared, E_I, TIMESTAMP, 0xA1)
    assert not isinstance(made, DropReason)
    initiation = CookieJar().add_macs(made[0].pack(), responder.public_key, 0.0)

    opened = noise.open_static(responder, initiation)
    assert isinstance(opened, OpenedInitiation)
    assert opened.public_key == initiator.public_key
    completed = noise.complete_initiation(opened, shared)
    assert isinstance(completed, CompletedInitiation)
    assert completed.timestamp == TIMESTAMP
    answered = noise.create_response(completed, preshared_key, E_R, 0xFFFFFFB2)
    assert not isinstance(answered, DropReason)
    response = CookieJar().add_macs(answered[0].pack(), initiator.public_key, 0.0)

    message = Response.unpack(response)
    assert isinstance(message, Response)
    keys = noise.consume_response(initiator, made[1], message, preshared_key)
    assert isinstance(keys, SessionKeys)
    return initiation, response, keys, answered[1]


@pytest.mark.parametrize("preshared_key", list(KNOWN), ids=["without PSK", "with PSK"])
def test_messages_and_keys_are_those_of_the_whitepapers_formulas(preshared_key: bytes) -> None:
    initiation, response, initiator, responder = run(preshared_key)
    expected = whitepaper.handshake(S_I, S_R, E_I, E_R, preshared_key, TIMESTAMP, 0xA1, 0xFFFFFFB2)
    assert initiation == expected.initiation
    assert response == expected.response
    assert initiator.sending == responder.receiving == expected.initiator_to_responder
    assert initiator.receiving == responder.sending == expected.responder_to_initiator
    assert hashlib.sha256(b"".join(expected)).hexdigest() == KNOWN[preshared_key]


def test_each_end_learns_the_others_index_and_its_own_part() -> None:
    _, _, initiator, responder = run(PSK)
    assert (initiator.local_index, initiator.remote_index) == (0xA1, 0xFFFFFFB2)
    assert (responder.local_index, responder.remote_index) == (0xFFFFFFB2, 0xA1)
    assert initiator.is_initiator
    assert not responder.is_initiator


def opened_initiation() -> OpenedInitiation:
    """Return an initiation after its first step."""
    opened = noise.open_static(Identity(S_R), run(PSK)[0])
    assert isinstance(opened, OpenedInitiation)
    return opened


def test_opened_initiation_survives_its_way_through_a_ring() -> None:
    opened = opened_initiation()
    packed = opened.pack()
    assert len(packed) == OpenedInitiation.SIZE
    assert OpenedInitiation.unpack(memoryview(packed)) == opened


def test_opened_initiation_of_another_size_or_type_is_refused() -> None:
    packed = opened_initiation().pack()
    assert OpenedInitiation.unpack(packed + b"\0") is DropReason.BAD_LENGTH
    wrong_type = bytearray(packed)
    wrong_type[-Initiation.SIZE] = 2
    assert isinstance(OpenedInitiation.unpack(wrong_type), DropReason)


def test_initiation_for_another_device_does_not_open() -> None:
    assert noise.open_static(Identity(E_R), run(PSK)[0]) is DropReason.BAD_STATIC


def test_initiation_with_any_byte_changed_is_refused() -> None:
    initiator, responder = Identity(S_I), Identity(S_R)
    shared = responder.static_static(initiator.public_key)
    assert shared is not None
    initiation = run(PSK)[0]
    for position in range(8, Initiation.SIZE - 32):
        changed = bytearray(initiation)
        changed[position] ^= 0x01
        opened = noise.open_static(responder, changed)
        if isinstance(opened, OpenedInitiation):
            assert noise.complete_initiation(opened, shared) is DropReason.BAD_TIMESTAMP
        else:
            assert opened is DropReason.BAD_STATIC


def test_points_of_low_order_are_refused() -> None:
    identity = Identity(S_R)
    assert identity.static_static(LOW_ORDER_POINT) is None
    made = noise.create_initiation(identity, LOW_ORDER_POINT, bytes(32), E_I, TIMESTAMP, 1)
    assert made is DropReason.BAD_STATIC
    message = Initiation(1, LOW_ORDER_POINT, bytes(48), bytes(28))
    assert noise.open_static(identity, message.pack()) is DropReason.BAD_EPHEMERAL


def test_response_with_an_ephemeral_of_low_order_is_refused() -> None:
    initiator, responder = Identity(S_I), Identity(S_R)
    shared = initiator.static_static(responder.public_key)
    assert shared is not None
    made = noise.create_initiation(initiator, responder.public_key, shared, E_I, TIMESTAMP, 1)
    assert not isinstance(made, DropReason)
    response = Response(2, 1, LOW_ORDER_POINT, bytes(16))
    assert noise.consume_response(initiator, made[1], response, PSK) is DropReason.BAD_EPHEMERAL


def test_answer_to_an_initiation_with_points_of_low_order_is_refused() -> None:
    completed = noise.complete_initiation(
        opened_initiation(), Identity(S_R).static_static(Identity(S_I).public_key) or b""
    )
    assert isinstance(completed, CompletedInitiation)
    bad_ephemeral = replace(completed, remote_ephemeral=LOW_ORDER_POINT)
    assert noise.create_response(bad_ephemeral, PSK, E_R, 1) is DropReason.BAD_EPHEMERAL
    bad_static = replace(completed, remote_static=LOW_ORDER_POINT)
    assert noise.create_response(bad_static, PSK, E_R, 1) is DropReason.BAD_STATIC


def test_keys_do_not_show_in_what_is_printed() -> None:
    identity = Identity(S_I)
    keys = run(PSK)[2]
    assert repr(S_I)[2:-1] not in repr(identity)
    assert repr(keys.sending) not in repr(keys)
