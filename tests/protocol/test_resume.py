"""A peer whose worker died: its successor goes on with the sessions, the timers and the count."""

from __future__ import annotations

import pytest

from wgmp.protocol.constants import KEEPALIVE_TIMEOUT, MAX_TIMER_HANDSHAKES, REKEY_TIMEOUT
from wgmp.protocol.keypairs import Slots
from wgmp.protocol.messages import MessageType
from wgmp.protocol.outcome import Endpoint, HandshakeGivenUp, SessionExpired
from wgmp.protocol.peer import Peer

from .pair import PEER, Node, Pair, ipv4_packet


class Mortal(Pair):
    """A pair of which `a` keeps its sessions where a successor finds them."""

    def __init__(self) -> None:
        self.kept = Slots(None, None, None)
        super().__init__()
        self.a.peer = self.made(self.a.peer.endpoint, bytes(12))

    def save(self, slots: Slots) -> None:
        """Keep what is in the slots (`keypairs.SessionStore`)."""
        self.kept = slots

    def load(self) -> Slots:
        """Return what was kept."""
        return self.kept

    def made(self, endpoint: Endpoint | None, greatest_timestamp: bytes) -> Peer:
        """Return a peer of `a` that has done nothing yet."""
        return Peer(
            peer=PEER,
            identity=self.a.identity,
            public_key=self.a.remote_key,
            preshared_key=self.a.preshared_key,
            keepalive=0,
            endpoint=endpoint,
            indices=self.a.indices,
            randomness=self.a.random.randbytes,
            tai64n=lambda: self.label(self.a),
            greatest_timestamp=greatest_timestamp,
            store=self,
        )

    def succeed(self) -> None:
        """Let a successor take over from the peer of `a`, which does nothing any more."""
        dead = self.a.peer
        self.a.peer = self.made(dead.endpoint, dead.greatest_timestamp)
        again_at, attempts = dead.initiate_again_at, dead.handshake_attempts
        self.act(self.a, self.a.peer.resume(again_at, attempts, self.now))


@pytest.fixture
def pair() -> Mortal:
    """Give a pair that is not connected yet."""
    return Mortal()


def kinds(node: Node) -> list[MessageType]:
    """Return the types of what a node has sent."""
    return [sent.kind for sent in node.sent if isinstance(sent.kind, MessageType)]


def test_packets_go_both_ways_on_the_session_there_was(pair: Mortal) -> None:
    pair.connect()
    pair.run(20.0)
    pair.a.sent.clear()
    pair.succeed()
    pair.send(pair.a, ipv4_packet(b"out"))
    pair.send(pair.b, ipv4_packet(b"in"))
    pair.run(1.0)
    assert pair.b.packets == [ipv4_packet(b"out")]
    assert pair.a.packets == [ipv4_packet(b"in")]
    assert kinds(pair.a) == [MessageType.TRANSPORT]
    assert pair.a.completed == []


def test_a_keepalive_that_may_be_owed_is_sent_once(pair: Mortal) -> None:
    pair.connect()
    pair.run(20.0)
    pair.a.sent.clear()
    began = pair.now
    pair.succeed()
    pair.run(100.0)
    (keepalive,) = pair.a.sent
    assert keepalive.is_keepalive
    assert keepalive.at == pytest.approx(began + KEEPALIVE_TIMEOUT)


def test_keys_are_forgotten_540_seconds_after_they_were_made_whoever_has_them(
    pair: Mortal,
) -> None:
    pair.connect()
    made = pair.now
    pair.run(200.0)
    pair.succeed()
    pair.run(made + 539.0 - pair.now)
    assert pair.a.indices.held
    assert pair.a.told == []
    pair.run(2.0)
    assert not pair.a.indices.held
    assert pair.a.told == [SessionExpired()]
    assert pair.kept == Slots(None, None, None)


def test_an_initiation_that_awaits_its_response_is_sent_again_in_time_and_counts(
    pair: Mortal,
) -> None:
    pair.intercept = lambda node, datagram: True
    pair.send(pair.a, ipv4_packet())
    pair.run(32.0)
    before = len(pair.a.sent)
    assert 1 < before < MAX_TIMER_HANDSHAKES
    pair.succeed()
    assert len(pair.a.sent) == before, "not at once"
    pair.run(300.0)
    assert pair.a.sent[before].at >= pair.a.sent[before - 1].at + REKEY_TIMEOUT
    assert len(pair.a.sent) == MAX_TIMER_HANDSHAKES
    assert pair.a.told == [HandshakeGivenUp()]


def test_a_packet_for_a_successor_waits_until_an_initiation_may_be_sent_again(pair: Mortal) -> None:
    pair.intercept = lambda node, datagram: True
    pair.send(pair.a, ipv4_packet())
    pair.run(3.0)
    pair.succeed()
    pair.send(pair.a, ipv4_packet())
    pair.run(1.9)
    assert len(pair.a.sent) == 1
    pair.run(1.0)
    assert len(pair.a.sent) == 2


def test_a_successor_that_only_receives_rekeys_in_the_sessions_last_minute(pair: Mortal) -> None:
    pair.connect()
    pair.run(160.0)
    pair.succeed()
    pair.run(7.0)
    pair.send(pair.b, ipv4_packet())
    pair.run(1.0)
    assert pair.a.completed == [True]


def test_one_with_nothing_to_go_on_with_is_silent(pair: Mortal) -> None:
    pair.succeed()
    assert pair.a.peer.deadline() is None
    pair.run(600.0)
    assert pair.a.sent == []
    pair.connect()
