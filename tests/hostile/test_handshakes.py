"""Handshake messages that are replayed, altered, forged or late, seen from outside."""

from __future__ import annotations

import os
import struct
import time
from functools import partial

import pytest

from .rawpeer import INITIATION, TRANSPORT, Initiation, RawPeer, kind_of, tai64n, with_macs
from .site import Known, Site

pytestmark = [pytest.mark.root, pytest.mark.alone]

# Points whose multiples are all of low order (https://cr.yp.to/ecdh.html#validate), zero first.
LOW_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    bytes.fromhex("eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
]


def accepted(known: Known, initiation: Initiation) -> None:
    """Send an initiation and fail unless it is answered."""
    known.wire.send(initiation.datagram)
    known.raw.finish(initiation, known.wire.receive())


def test_a_peer_shakes_hands_and_is_answered(site: Site) -> None:
    known = site.peer()
    assert known.answered(known.connect())


def test_a_wrong_preshared_key_makes_no_session(site: Site) -> None:
    known = site.peer()
    known.raw.preshared_key = os.urandom(32)
    initiation = known.raw.initiation()
    known.wire.send(initiation.datagram)
    with pytest.raises(AssertionError, match="the response authenticates"):
        known.raw.finish(initiation, known.wire.receive())


def test_a_replayed_initiation_is_dropped(site: Site) -> None:
    known = site.peer()
    initiation = known.raw.initiation()
    accepted(known, initiation)
    time.sleep(0.03)  # past the 20 ms that one initiation keeps the next ones out for
    site.counts(lambda: known.wire.send(initiation.datagram), replayed_initiation=1)
    assert known.wire.poll(0.1) is None


def test_a_replayed_initiation_from_elsewhere_moves_nothing(site: Site) -> None:
    known, elsewhere = site.peer(), site.wire()
    initiation = known.raw.initiation()
    known.wire.send(initiation.datagram)
    session = known.raw.finish(initiation, known.wire.receive())
    known.wire.send(session.seal())
    assert known.answered(session)
    site.counts(lambda: elsewhere.send(initiation.datagram), replayed_initiation=1)
    assert elsewhere.poll(0.1) is None
    assert site.endpoint(known) == known.wire.name


def test_an_initiation_older_than_the_newest_is_dropped(site: Site) -> None:
    known, now = site.peer(), time.time()
    accepted(known, known.raw.initiation(timestamp=tai64n(now)))
    time.sleep(0.03)
    old = known.raw.initiation(timestamp=tai64n(now - 1))
    site.counts(lambda: known.wire.send(old.datagram), replayed_initiation=1)
    accepted(known, known.raw.initiation(timestamp=tai64n(now + 1)))


def test_initiations_within_20_ms_are_answered_once(site: Site) -> None:
    known, now = site.peer(), time.time()
    made = [known.raw.initiation(timestamp=tai64n(now + number)) for number in range(3)]

    def send_all() -> None:
        for each in made:
            known.wire.send(each.datagram)

    site.counts(send_all, initiation_flood=2)
    known.raw.finish(made[0], known.wire.receive())
    assert known.wire.poll(0.1) is None


def test_a_wrong_mac1_is_met_with_silence(site: Site) -> None:
    known = site.peer()
    datagram = bytearray(known.raw.initiation().datagram)
    datagram[-32] ^= 1
    site.counts(lambda: known.wire.send(bytes(datagram)), bad_mac1=1)
    response = struct.pack("<III", 2, 1, 2) + os.urandom(80)
    site.counts(lambda: known.wire.send(response), bad_mac1=1)
    assert known.wire.poll(0.1) is None


def test_an_altered_initiation_is_met_with_silence(site: Site) -> None:
    known = site.peer()
    head = known.raw.initiation().datagram[:-32]
    wrong_static = bytearray(head)
    wrong_static[50] ^= 1
    wrong_label = bytearray(head)
    wrong_label[-1] ^= 1
    for altered, reason in ((wrong_static, "bad_static"), (wrong_label, "bad_timestamp")):
        datagram = with_macs(bytes(altered), site.key)
        site.counts(partial(known.wire.send, datagram), **{reason: 1})
    assert known.wire.poll(0.1) is None


def test_a_stranger_is_met_with_silence(site: Site) -> None:
    wire = site.wire()
    datagram = site.stranger().initiation().datagram
    site.counts(lambda: wire.send(datagram), unknown_peer=1)
    assert wire.poll(0.1) is None


@pytest.mark.parametrize("point", LOW_ORDER, ids=lambda point: point[:4].hex())
def test_an_initiation_with_a_low_order_ephemeral_is_refused(site: Site, point: bytes) -> None:
    known = site.peer()
    datagram = known.raw.initiation(ephemeral_public=point).datagram
    site.counts(lambda: known.wire.send(datagram), bad_ephemeral=1)
    assert known.wire.poll(0.1) is None


@pytest.mark.parametrize("point", LOW_ORDER[:3], ids=lambda point: point[:4].hex())
def test_a_response_with_a_low_order_ephemeral_is_refused(site: Site, point: bytes) -> None:
    known, initiation = site.called_peer()
    wrong, _ = known.raw.answer(initiation, ephemeral_public=point)
    site.counts(lambda: known.wire.send(wrong), bad_ephemeral=1)
    assert known.wire.poll(0.1) is None
    right, session = known.raw.answer(initiation)
    known.wire.send(right)
    assert session.unseal(known.wire.receive()), "the packet that was waiting"


def test_the_gateway_calls_and_the_answer_makes_a_session(site: Site) -> None:
    known, initiation = site.called_peer()
    assert kind_of(initiation) == INITIATION
    response, session = known.raw.answer(initiation)
    known.wire.send(response)
    assert session.unseal(known.wire.receive())
    assert known.answered(session)


def test_a_replayed_response_is_dropped(site: Site) -> None:
    known, initiation = site.called_peer()
    response, session = known.raw.answer(initiation)
    known.wire.send(response)
    assert session.unseal(known.wire.receive())
    elsewhere = site.wire()
    site.counts(lambda: elsewhere.send(response), no_handshake=1)
    assert known.answered(session)


def test_a_forged_response_leaves_the_handshake_open(site: Site) -> None:
    known, initiation = site.called_peer()
    response, session = known.raw.answer(initiation)
    altered = with_macs(response[:44] + os.urandom(16), site.key)
    site.counts(lambda: known.wire.send(altered), bad_response=1)
    known.wire.send(response)
    assert session.unseal(known.wire.receive())


def test_a_response_to_an_unknown_index_is_dropped(site: Site) -> None:
    wire = site.wire()
    response = with_macs(struct.pack("<III", 2, 1, 0xDEADBEEF) + os.urandom(48), site.key)
    site.counts(lambda: wire.send(response), unknown_index=1)


def test_the_responder_sends_nothing_before_the_initiator_has_confirmed(site: Site) -> None:
    known = site.peer()
    initiation = known.raw.initiation()
    known.wire.send(initiation.datagram)
    session = known.raw.finish(initiation, known.wire.receive())
    site.call(known)
    assert known.wire.poll(0.3) is None, "the packet waits: we might not have the keys"
    known.wire.send(session.seal())
    datagram = known.wire.receive()
    assert kind_of(datagram) == TRANSPORT
    assert session.unseal(datagram)


@pytest.mark.parametrize("role", ["admission", "worker0", "worker1"])
def test_an_old_initiation_is_dropped_after_the_role_was_replaced(site: Site, role: str) -> None:
    known, now = site.peer(), time.time()
    newest = known.raw.initiation(timestamp=tai64n(now))
    accepted(known, newest)
    site.kill(role)
    known.wire.drain(quiet_s=0.1)
    old = known.raw.initiation(timestamp=tai64n(now - 1))
    for late in (newest, old):
        site.counts(partial(known.wire.send, late.datagram), replayed_initiation=1)
    accepted(known, known.raw.initiation(timestamp=tai64n(now + 1)))


def test_another_peer_with_the_same_message_gains_nothing(site: Site) -> None:
    """A response made by one peer for another's handshake does not authenticate."""
    known, initiation = site.called_peer()
    impostor = RawPeer(site.key, private=os.urandom(32))
    impostor.public = known.raw.public  # it can read the initiation's hash, not its keys
    index = struct.unpack_from("<I", initiation, 4)[0]
    head = struct.pack("<III", 2, 99, index) + os.urandom(48)
    site.counts(lambda: known.wire.send(with_macs(head, site.key)), bad_response=1)
