"""A worker is killed, or replaced in order: its successor goes on with the sessions."""

from __future__ import annotations

import pytest
from hostile import rawcrypto
from hostile.rawpeer import INITIATION, TRANSPORT, kind_of

from wgmp.fabric import Fabric
from wgmp.orders import EndpointOrder, RemovePeer, SetPeer, SetPrivateKey
from wgmp.protocol.outcome import Endpoint
from wgmp.shm import PAGE_BYTES
from wgmp.topology import Shape, build

from .rig import GATEWAY_INNER, HERE, INNER, Rig, packet
from .test_limits import REKEY_TIMEOUT_S, counters, initiations

REKEY_AFTER_S = 120.0
SET, ROAMED = HERE._replace(port=1111), HERE._replace(port=2222)
TO_GATEWAY = packet(INNER, GATEWAY_INNER)


def sessions(rig: Rig) -> int:
    """How many receiver indices are in use."""
    indices = rig.fabric.indices
    return sum(1 for word in indices._words.tolist() if word)


def keys_left(rig: Rig) -> bool:
    """Whether there is anything in the page of peer 1."""
    memory = rig.fabric.sessions
    assert memory is not None
    return any(memory._segment.bytes[PAGE_BYTES : 2 * PAGE_BYTES])


def test_a_successor_goes_on_with_the_session_without_a_handshake() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    rig.send(packet())
    before = counters(rig.sent())
    rig.replace_worker()
    rig.send(packet())
    rig.deliver(session.seal(TO_GATEWAY))
    sent = rig.sent()
    assert [kind_of(each) for each in sent] == [TRANSPORT]
    assert session.unseal(sent[0]) == packet().ljust(32, b"\0")
    assert counters(sent) == [before[-1] + 1], "no counter is used twice, and none is left out"
    assert rig.written() == [TO_GATEWAY]


def test_a_successor_refuses_what_was_received_before_it() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    late, seen = session.seal(TO_GATEWAY), session.seal(TO_GATEWAY)
    rig.deliver(seen)
    assert rig.written() == [TO_GATEWAY]
    rig.replace_worker()
    for replayed in (seen, late):
        rig.deliver(replayed)
    assert rig.written() == []
    assert rig.drops()["replayed"] == 2, "nobody knows whether the late one was received"
    rig.deliver(session.seal(TO_GATEWAY))
    assert rig.written() == [TO_GATEWAY]


def test_after_an_orderly_change_a_datagram_that_was_overtaken_is_still_received() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    late, seen = session.seal(TO_GATEWAY), session.seal(TO_GATEWAY)
    rig.deliver(seen)
    rig.replace_worker(orderly=True)
    rig.deliver(seen)
    rig.deliver(late)
    assert rig.written() == [TO_GATEWAY] * 2
    assert rig.drops()["replayed"] == 1


def test_the_successor_rekeys_when_the_session_is_old_and_both_sessions_outlive_it() -> None:
    rig = Rig()
    raw = rig.add_peer(endpoint=HERE)
    old = rig.call(raw)
    rig.replace_worker()
    rig.step(REKEY_AFTER_S + 1)
    rig.sent()
    rig.send(packet())
    initiation = next(each for each in rig.sent() if kind_of(each) == INITIATION)
    response, new = raw.answer(initiation)
    rig.deliver(response)
    rig.replace_worker()
    rig.deliver(old.seal(TO_GATEWAY))
    rig.deliver(new.seal(TO_GATEWAY))
    assert rig.written() == [TO_GATEWAY] * 2
    rig.sent()
    rig.send(packet())
    assert new.unseal(rig.sent()[0])


def test_a_response_that_nobody_awaits_any_more_is_asked_for_again() -> None:
    rig = Rig()
    raw = rig.add_peer(endpoint=HERE)
    rig.send(packet())
    (lost,) = rig.sent()
    rig.replace_worker()
    rig.step()
    assert sessions(rig) == 0, "the index of the initiation is free again"
    rig.deliver(raw.answer(lost)[0])
    assert rig.sent() == []
    rig.step(5.5)
    (again,) = rig.sent()
    response, session = raw.answer(again)
    rig.deliver(response)
    assert session.unseal(rig.sent()[0]) == b"", "the staged packet is lost, the session is not"


def test_keys_are_forgotten_by_the_successor_in_time() -> None:
    rig = Rig()
    rig.connect(rig.add_peer())
    assert keys_left(rig)
    rig.replace_worker()
    rig.step()
    rig.step(541)
    assert not keys_left(rig)


def test_a_peer_removed_while_no_worker_ran_leaves_no_keys() -> None:
    rig = Rig()
    rig.connect(rig.add_peer())
    rig.orders.append(RemovePeer(1))
    rig.replace_worker()
    rig.step()
    assert not keys_left(rig)
    assert sessions(rig) == 0


@pytest.mark.parametrize(
    ("serial", "where"),
    [(1, ROAMED), (2, SET)],
    ids=["heard by the one that died", "set while no worker ran"],
)
@pytest.mark.parametrize("awake", [True, False])
def test_a_successor_sends_to_where_the_peer_was_last_set_or_seen(
    serial: int, where: Endpoint, awake: bool
) -> None:
    rig = Rig()
    raw = rig.add_peer()
    order = EndpointOrder(SET.address, SET.port, serial=1)
    rig.obey(SetPeer(1, raw.public, bytes(32), 0, order))
    session = rig.connect(raw)
    rig.deliver(session.seal(TO_GATEWAY), ROAMED)
    if not awake:
        rig.replace_worker()
    # What a device says of itself is said once.
    rig.orders = [each for each in rig.orders if not isinstance(each, SetPeer)]
    order = EndpointOrder(SET.address, SET.port, serial=serial)
    rig.orders.insert(1, SetPeer(1, raw.public, bytes(32), 0, order))
    for _ in range(2):
        rig.replace_worker()
        rig.sent()
        rig.send(packet())
        assert rig.sent_to() == [where]


@pytest.mark.parametrize("awake", [True, False])
def test_a_removed_peer_leaves_no_keys(awake: bool) -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    rig.replace_worker()
    if awake:
        rig.deliver(session.seal(TO_GATEWAY))
    rig.obey(RemovePeer(1))
    rig.step()
    assert not keys_left(rig)
    assert sessions(rig) == 0


def test_private_sessions_end_with_their_worker_and_handshakes_begin_at_once() -> None:
    rig = Rig(fabric=Fabric(build(Shape.PIPELINE, 1), shared_sessions=False))
    session = rig.connect(rig.add_peer())
    rig.sent()
    rig.replace_worker()
    rig.step()
    assert initiations(rig.sent()) == 1
    rig.deliver(session.seal(TO_GATEWAY))
    assert rig.written() == []


def test_a_session_of_another_private_key_seals_nothing_but_opens_what_is_under_way() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    rig.step(REKEY_TIMEOUT_S)
    rig.orders.append(SetPrivateKey(rawcrypto.digest(b"another key")))
    rig.replace_worker()
    rig.sent()
    rig.deliver(session.seal(TO_GATEWAY))
    assert rig.written() == [TO_GATEWAY]
    rig.send(packet())
    assert [kind_of(each) for each in rig.sent()] == [INITIATION]


def test_a_worker_whose_predecessors_keep_dying_begins_without_their_sessions() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    rig.replace_worker(deaths=4)
    rig.deliver(session.seal(TO_GATEWAY))
    assert rig.written() == [TO_GATEWAY]
    rig.replace_worker(deaths=5)
    assert not keys_left(rig)
    rig.deliver(session.seal(TO_GATEWAY))
    assert rig.written() == []


def test_the_record_that_may_have_been_deadly_is_skipped_and_counted() -> None:
    rig = Rig()
    session = rig.connect(rig.add_peer())
    rig.queue(session.seal(packet(INNER, GATEWAY_INNER, 40)))
    rig.queue(session.seal(TO_GATEWAY))
    rig.replace_worker()
    rig.worker.skip_records()
    rig.step()
    assert rig.written() == [TO_GATEWAY]
    assert rig.drops()["ring_corrupt"] == 1
