"""What a worker leases, turns without Python do as the worker would, and nothing else."""

from __future__ import annotations

import os
import select
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace

import pytest
from hostile.rawpeer import Session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.roles.rig import GATEWAY_INNER, HERE, INNER, Rig, packet
from wgmp import fabric
from wgmp.counters import Counter
from wgmp.fastpath import virtio
from wgmp.fastpath.choice import Choice, load, native_is_missing
from wgmp.orders import (
    EndpointOrder,
    ForgetSources,
    Order,
    RemovePeer,
    SetLink,
    SetPeer,
    SetPrivateKey,
)
from wgmp.peertable import RowFigures
from wgmp.protocol.outcome import Endpoint
from wgmp.protocol.timers import Timer
from wgmp.record import Kind
from wgmp.system import boottime

LIMIT_S = 10
ELSEWHERE = Endpoint(bytes([192, 0, 2, 9]), 40_009)
INWARD = packet(INNER, GATEWAY_INNER, 60)

PATHS = [Choice.REFERENCE] if native_is_missing() else [Choice.NATIVE, Choice.REFERENCE]


@pytest.fixture(params=PATHS, autouse=True)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a rig have this fast path."""
    monkeypatch.setattr(fabric, "load", lambda choice: load(request.param))


@pytest.fixture
def leased() -> tuple[Rig, Session]:
    """A rig and a session that has just been used, so that it is leased."""
    rig = Rig(in_turns=True)
    session = rig.connect(rig.add_peer())
    return rig, session


def offer(rig: Rig, inner: bytes, peer: int = 1) -> None:
    """Let a packet for the peer wait in the worker's ring."""
    assert rig.publish("tun_reader", Kind.PACKETS, [virtio.PLAIN + inner], None, peer=peer)


def test_both_ways_nobody_else_is_needed(leased: tuple[Rig, Session]) -> None:
    rig, session = leased
    before = rig.fabric.peers.figures(1)
    offer(rig, packet(length=100))
    datagram = session.seal(INWARD)
    rig.queue(datagram)
    rig.queue(session.seal())
    rig.queue(datagram)
    rig.turn()
    (sent,) = rig.sent()
    opened = session.unseal(sent)
    assert opened is not None
    assert opened[:100] == packet(length=100)
    assert rig.written() == [INWARD]
    after = rig.fabric.peers.figures(1)
    assert after.tx_bytes - before.tx_bytes == len(sent)
    assert after.rx_bytes - before.rx_bytes == len(datagram) + 32, "a keepalive has 32 bytes"
    assert rig.drops() == {"replayed": 1}
    counters = rig.worker.counters
    assert counters.value(Counter.SEALED) == 1
    assert counters.inward.value(Counter.OPENED) == 3, "one confirmed the session"
    assert counters.inward.value(Counter.KEEPALIVES_RECEIVED) == 2


def _move(rig: Rig) -> Order:
    key = next(order for order in rig.orders if isinstance(order, SetPeer)).public_key
    return SetPeer(1, key, bytes(32), 0, EndpointOrder(ELSEWHERE.address, ELSEWHERE.port, serial=1))


ORDERS: dict[str, Callable[[Rig], Order]] = {
    "the link is down": lambda rig: SetLink(False, 1420),
    "the MTU changes": lambda rig: SetLink(True, 1280),
    "another key": lambda rig: SetPrivateKey(os.urandom(32)),
    "no key": lambda rig: SetPrivateKey(b""),
    "another endpoint": _move,
    "the peer is removed": lambda rig: RemovePeer(1),
    "sources are forgotten": lambda rig: ForgetSources(),
}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())
def test_an_order_ends_all_leases(
    leased: tuple[Rig, Session], order: Callable[[Rig], Order]
) -> None:
    rig, session = leased
    rig.obey(order(rig))
    offer(rig, packet())
    rig.queue(session.seal(INWARD))
    rig.turn()
    assert rig.sent() == []
    assert rig.written() == []


@pytest.mark.parametrize(("initiator", "lasts_s"), [(False, 180), (True, 120)])
def test_a_lease_ends_when_the_sessions_age_asks_for_something(
    initiator: bool, lasts_s: int
) -> None:
    for age, sent in ((lasts_s - 5, 1), (lasts_s + 0.1, 0)):
        rig = Rig(now=boottime() - age, in_turns=True)
        raw = rig.add_peer(endpoint=HERE if initiator else None)
        session = rig.call(raw) if initiator else rig.connect(raw)
        rig.send(packet())
        assert len(rig.sent()) == 1
        rig.queue(session.seal(INWARD))
        rig.turn()
        assert len(rig.written()) == sent
        offer(rig, packet())
        rig.turn()
        assert len(rig.sent()) == sent


def test_a_session_with_2_to_the_60_messages_is_no_longer_leased(
    leased: tuple[Rig, Session],
) -> None:
    rig, session = leased
    rig.keypair(session).send_counter = 2**60 + 1
    offer(rig, packet())
    rig.turn()
    assert rig.sent() == []


def test_what_comes_from_elsewhere_is_the_workers_to_decide(leased: tuple[Rig, Session]) -> None:
    rig, session = leased
    rig.queue(session.seal(INWARD), ELSEWHERE)
    rig.turn()
    assert rig.written() == []
    rig.step()
    assert rig.written() == [INWARD]
    offer(rig, packet())
    rig.turn()
    assert rig.sent_to() == [ELSEWHERE]


def test_a_new_session_is_leased_when_its_first_packet_has_come(
    leased: tuple[Rig, Session],
) -> None:
    rig, old = leased
    rig.step(21)
    rig.deliver(old.seal())
    raw = rig.raw_peers[1]
    initiation = raw.initiation()
    rig.deliver(initiation.datagram)
    (response,) = rig.sent()
    new = raw.finish(initiation, response)
    rig.queue(new.seal(INWARD))
    rig.turn()
    assert rig.written() == [], "it has not been confirmed"
    rig.step()
    assert rig.written() == [INWARD]
    rig.queue(old.seal(INWARD))
    rig.queue(new.seal(INWARD))
    offer(rig, packet())
    rig.turn()
    assert rig.written() == [], "records keep their order"
    (sent,) = rig.sent()
    assert new.unseal(sent)
    rig.step()
    assert rig.written() == [INWARD, INWARD]


@pytest.mark.parametrize("ways", [("in", "out"), ("out", "in"), ("in", "out", "in")])
def test_the_peers_timers_hear_what_came_last(
    leased: tuple[Rig, Session], ways: tuple[str, ...]
) -> None:
    rig, session = leased
    for way in ways:
        if way == "in":
            rig.queue(session.seal(INWARD))
        else:
            offer(rig, packet())
        rig.carry()
    assert (len(rig.written()), len(rig.sent())) == (ways.count("in"), ways.count("out"))
    rig.worker.settle(rig.now)
    assert (Timer.SEND_KEEPALIVE in rig.timers()) == (ways[-1] == "in")
    assert (Timer.NEW_HANDSHAKE in rig.timers()) == (ways[-1] == "out")


def test_while_somebody_captures_every_record_goes_through_python(
    leased: tuple[Rig, Session],
) -> None:
    rig, _ = leased
    rig.fabric.taps.start(1, -1)
    offer(rig, packet())
    rig.turn()
    assert rig.sent() == []
    rig.fabric.taps.stop()
    rig.turn()
    assert len(rig.sent()) == 1


def test_it_sleeps_until_a_ring_has_something_that_needs_a_decision() -> None:
    rig = Rig(in_turns=True)
    rig.add_peer(endpoint=HERE)
    rig.watch(rig.fabric.doorbells["worker0"].descriptor)

    def publish() -> None:
        while not rig.asleep():
            pass
        offer(rig, packet())

    producer = threading.Thread(target=publish)
    producer.start()
    until = boottime() + LIMIT_S
    assert rig.wait(until) == []
    assert boottime() < until, "nobody has woken it"
    producer.join()
    assert not rig.asleep()
    rig.step()
    assert len(rig.sent()) == 1, "an initiation"


def test_a_descriptor_that_is_none_of_its_own_is_pythons(leased: tuple[Rig, Session]) -> None:
    rig, _ = leased
    ours, theirs = socket.socketpair()
    with closing(ours), closing(theirs):
        rig.watch(ours.fileno())
        theirs.send(b"!")
        offer(rig, packet())
        assert rig.wait(boottime() + LIMIT_S) == [(ours.fileno(), select.POLLIN)]
        assert rig.sent() == []


# --- the same, whoever does it ---

_ACTIONS = st.lists(
    st.sampled_from(
        ["send", "send two", "receive", "keepalive", "replay", "altered", "roam", "unknown", "wait"]
    ),
    max_size=24,
)


class Twin:
    """A rig, in turns or not, to which things are done."""

    def __init__(self, in_turns: bool, now: float) -> None:
        self.rig = Rig(now=now, in_turns=False)
        self.session = self.rig.connect(self.rig.add_peer(keepalive=25))
        self.in_turns = in_turns
        self.source = HERE
        self.rig.step(1)

    def do(self, action: str) -> tuple[list[bytes | None], list[bytes]]:
        """Let it happen; return the packets that were sent, and those that were written."""
        rig, session = self.rig, self.session
        match action:
            case "send":
                offer(rig, packet(length=60))
            case "send two":
                offer(rig, packet(length=61))
                offer(rig, packet(length=1000))
            case "receive":
                rig.queue(session.seal(INWARD), self.source)
            case "keepalive":
                rig.queue(session.seal(), self.source)
            case "replay":
                rig.queue(session.seal(INWARD, counter=0), self.source)
            case "altered":
                sealed = session.seal(INWARD)
                rig.queue(sealed[:-1] + bytes([sealed[-1] ^ 1]), self.source)
            case "unknown":
                rig.queue(b"\4\0\0\0" + bytes(28), self.source)
            case "roam":
                self.source = ELSEWHERE if self.source is HERE else HERE
                rig.queue(session.seal(INWARD), self.source)
            case "wait":
                rig.step(0.5)
        if self.in_turns:
            rig.turn()
        rig.step()
        return [session.unseal(datagram) for datagram in rig.sent()], rig.written()

    def books(self) -> list[object]:
        """Counters, drops, the row, the keypair's words, and when the peer's timers are due."""
        rig, worker = self.rig, self.rig.worker.counters
        blocks = worker.outward.figures(), worker.inward.figures()
        # Jitter is less than half a second.
        timers = {timer: round(due - rig.now) for timer, due in rig.timers().items()}
        state = rig.keypair(self.session).state.tolist()
        return [*blocks, rig.drops(), rig.fabric.peers.figures(1), state, timers]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(actions=_ACTIONS)
def test_turns_do_what_the_worker_does(actions: list[str]) -> None:
    now = boottime()
    carried, served = Twin(True, now), Twin(False, now)
    for action in actions:
        assert carried.do(action) == served.do(action)
    assert _but_for_times(carried.books()) == _but_for_times(served.books())


def _but_for_times(books: list[object]) -> list[object]:
    """Leave out the one time of day: of the handshake."""
    figures = books[3]
    assert isinstance(figures, RowFigures)
    return [*books[:3], replace(figures, last_handshake_ns=0), *books[4:]]
