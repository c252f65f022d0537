"""Events: no one waits for them, and what is lost is told."""

from __future__ import annotations

import asyncio
import time

import msgspec
import pytest

from wgmp.counters import Counters, create_counters
from wgmp.eventhub import DropWatch, EventHub, changes_in
from wgmp.events import (
    AnyEvent,
    ConfigurationChanged,
    EventsLost,
    HandshakeCompleted,
    HandshakeFailed,
    Outbox,
    PacketsDropped,
    PeerRoamed,
    ReplayBurst,
    RoleRestarted,
    SessionExpired,
    UnderLoad,
    WorkersChanged,
)
from wgmp.orders import AddAllowedIP, ForgetSources, RemovePeer, SetPeer, SetPrivateKey
from wgmp.protocol.outcome import DropReason


def failed() -> HandshakeFailed:
    """An event of which there may be many."""
    return HandshakeFailed(reason="bad_tag")


class Socket:
    """Takes events as long as there is `room`."""

    def __init__(self, room: int = 10_000) -> None:
        self.room = room
        self.taken: list[AnyEvent] = []

    def send(self, event: AnyEvent) -> bool:
        """Take an event, or have no room."""
        if len(self.taken) >= self.room:
            return False
        self.taken.append(event)
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, in a list's only element."""
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_an_outbox_sends_so_many_of_a_kind_each_second_and_tells_the_rest(
    clock: list[float],
) -> None:
    socket = Socket()
    outbox = Outbox(socket.send)
    for _ in range(HandshakeFailed.MOST_PER_SECOND + 7):
        outbox.emit("worker0", failed())
    outbox.emit("worker0", SessionExpired(peer="a"))
    assert len(socket.taken) == HandshakeFailed.MOST_PER_SECOND + 1
    assert isinstance(socket.taken[-1], SessionExpired), "another kind is not held up"
    outbox.tick()
    assert len(socket.taken) == HandshakeFailed.MOST_PER_SECOND + 1, "not before the second is over"
    clock[0] += 1
    outbox.tick()
    lost = socket.taken[-1]
    assert isinstance(lost, EventsLost)
    assert (lost.source, lost.count) == ("worker0", 7)
    assert all(event.time > 1e9 and event.source == "worker0" for event in socket.taken)
    clock[0] += 1
    outbox.tick()
    assert socket.taken[-1] is lost, "told once"
    before = len(socket.taken)
    for _ in range(HandshakeFailed.MOST_PER_SECOND):
        outbox.emit("worker0", failed())
    assert len(socket.taken) == before + HandshakeFailed.MOST_PER_SECOND, "a new second"


def test_what_finds_no_room_is_lost_and_told_when_there_is_room_again(clock: list[float]) -> None:
    socket = Socket(room=2)
    outbox = Outbox(socket.send)
    for _ in range(5):
        outbox.emit("admission", UnderLoad(on=True))
    clock[0] += 1
    outbox.tick()
    assert len(socket.taken) == 2
    socket.room = 10
    clock[0] += 1
    outbox.emit("admission", UnderLoad(on=False))
    assert [type(event) for event in socket.taken[2:]] == [EventsLost, UnderLoad]
    assert isinstance(socket.taken[2], EventsLost)
    assert socket.taken[2].count == 3


def test_a_subscriber_that_does_not_read_loses_events_and_others_do_not() -> None:
    async def scenario() -> None:
        hub = EventHub()
        slow, quick = hub.subscribe(), hub.subscribe()
        seen = 0
        for _ in range(1500):
            hub.publish(SessionExpired(peer="a"))
            seen += len(await quick.take())
        assert seen == 1500
        events = await slow.take()
        lost = events.pop()
        assert isinstance(lost, EventsLost)
        assert (len(events), lost.count) == (1000, 500)
        assert lost.source == "supervisor"
        hub.publish(SessionExpired(peer="b"))
        assert len(await slow.take()) == 1, "it goes on afterwards"

    asyncio.run(scenario())


def test_a_subscriber_waits_until_something_happens_and_hears_nothing_after_it_has_left() -> None:
    async def scenario() -> None:
        hub = EventHub()
        subscription = hub.subscribe()
        waiting = asyncio.ensure_future(subscription.take())
        await asyncio.sleep(0.01)
        assert not waiting.done()
        hub.publish(SessionExpired(peer="a", time=5.0, source="worker3"))
        (event,) = await waiting
        assert (event.time, event.source) == (5.0, "worker3"), "whose it is stays"
        hub.publish(SessionExpired(peer="b"))
        (event,) = await subscription.take()
        assert abs(event.time - time.time()) < 60
        assert event.source == "supervisor"
        hub.unsubscribe(subscription)
        hub.publish(SessionExpired(peer="c"))
        assert await subscription.take() == []

    asyncio.run(scenario())


def test_a_subscription_ends_when_the_gateway_stops() -> None:
    async def scenario() -> None:
        hub = EventHub()
        subscription = hub.subscribe()
        waiting = asyncio.ensure_future(subscription.take())
        await asyncio.sleep(0)
        hub.close()
        assert await waiting == []

    asyncio.run(scenario())


def test_what_happened_before_the_end_is_told_before_it() -> None:
    async def scenario() -> None:
        hub = EventHub()
        subscription = hub.subscribe()
        hub.publish(SessionExpired(peer="a"))
        hub.close()
        hub.publish(SessionExpired(peer="b"))
        assert [event.text() for event in await subscription.take()] == [
            "the session with a expired"
        ]
        assert await subscription.take() == []

    asyncio.run(scenario())


@pytest.fixture
def counters() -> Counters:
    """The counters of one role."""
    return Counters(create_counters(1), 0)


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> list[AnyEvent]:
    """What any hub publishes."""
    events: list[AnyEvent] = []
    monkeypatch.setattr(EventHub, "publish", lambda _, event: events.append(event))
    return events


def test_drops_of_every_reason_are_told_with_its_name_and_their_number(
    counters: Counters, published: list[AnyEvent]
) -> None:
    watch = DropWatch({"worker0": counters}, EventHub())
    for reason in DropReason:
        published.clear()
        counters.drop(reason, 2)
        counters.inward.drop(reason)
        watch.look()
        name = reason.name.lower()
        assert published == [PacketsDropped(source="worker0", reason=name, count=3)]
    published.clear()
    watch.look()
    assert published == [], "told once"


def test_drops_of_a_predecessor_are_not_told_and_those_of_a_new_role_are(
    counters: Counters, published: list[AnyEvent]
) -> None:
    counters.drop(DropReason.BAD_TAG, 1000)
    roles = {"worker0": counters}
    watch = DropWatch(roles, EventHub())
    counters.drop(DropReason.BAD_TAG)
    roles["worker1"] = Counters(create_counters(1), 0)
    roles["worker1"].drop(DropReason.RING_FULL, 5)
    watch.look()
    assert published == [
        PacketsDropped(source="worker0", reason="bad_tag", count=1),
        PacketsDropped(source="worker1", reason="ring_full", count=5),
    ]


def test_ten_replays_within_a_second_are_a_burst_and_nine_are_none(
    counters: Counters, published: list[AnyEvent]
) -> None:
    watch = DropWatch({"worker0": counters}, EventHub())
    for count in (9, 0, 10):
        counters.drop(DropReason.REPLAYED, count)
        watch.look()
    bursts = [event for event in published if isinstance(event, ReplayBurst)]
    assert bursts == [ReplayBurst(source="worker0", count=10)]


def test_orders_are_summed_up_as_one_change() -> None:
    peer = SetPeer(1, bytes(32), bytes(32), 0)
    prefix = AddAllowedIP(bytes(4), 0, 1)
    change = changes_in([SetPrivateKey(bytes(32)), RemovePeer(2), peer, peer, prefix])
    assert change == ConfigurationChanged(
        peers_set=2, peers_removed=1, allowed_ips=1, private_key=True
    )
    assert changes_in([ForgetSources()]) is None


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            HandshakeCompleted(peer="K", endpoint="a:1", initiator=True),
            "handshake completed with K at a:1, begun by this gateway",
        ),
        (
            HandshakeCompleted(peer="K", endpoint="a:1", initiator=False),
            "handshake completed with K at a:1, begun by the peer",
        ),
        (HandshakeFailed(reason="bad_mac1"), "handshake failed: bad_mac1"),
        (
            HandshakeFailed(reason="no_handshake", peer="K", endpoint="a:1"),
            "handshake failed with K at a:1: no_handshake",
        ),
        (PeerRoamed(peer="K", before="a:1", endpoint="b:2"), "K moved from a:1 to b:2"),
        (UnderLoad(on=True), "under load begins: handshakes need a cookie"),
        (UnderLoad(on=False), "under load ends"),
        (ReplayBurst(count=10), "10 replayed datagrams dropped within a second"),
        (
            RoleRestarted(process="worker0", how="was killed", delay_s=0.4),
            "worker0 was killed: a successor starts in 0.4 s",
        ),
        (
            WorkersChanged(before=2, workers=4, pause_s=0.0123),
            "2 workers became 4, in 12 ms",
        ),
        (ConfigurationChanged(peers_set=1), "configuration changed: 1 peer set"),
        (
            ConfigurationChanged(
                peers_set=2, peers_removed=3, allowed_ips=1, private_key=True, listen_port=7
            ),
            "configuration changed: 2 peers set, 3 peers removed, 1 allowed IP changed, "
            "another private key, listen port 7",
        ),
        (EventsLost(count=3), "3 events lost"),
    ],
)
def test_an_event_in_words_says_who_did_what(event: AnyEvent, text: str) -> None:
    assert event.text() == text


def test_an_event_is_json_that_names_its_kind() -> None:
    event = HandshakeFailed(reason="unknown_peer", peer="k", endpoint="192.0.2.1:5", source="s")
    assert msgspec.json.decode(msgspec.json.encode(event)) == {
        "event": "handshake_failed",
        "time": 0.0,
        "source": "s",
        "reason": "unknown_peer",
        "peer": "k",
        "endpoint": "192.0.2.1:5",
    }
