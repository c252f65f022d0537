"""Two peers on a bad link, for a long time."""

from __future__ import annotations

from random import Random

import pytest

from wgmp.protocol.messages import MessageType
from wgmp.protocol.outcome import DropReason

from .pair import Conditions, Pair, ipv4_packet


def chat(pair: Pair, count: int, interval: float) -> tuple[list[bytes], list[bytes]]:
    """Let both ends send numbered packets; return what `a` and `b` sent."""
    random = Random(5)
    sent: tuple[list[bytes], list[bytes]] = ([], [])
    for n in range(count):
        side = random.randrange(2)
        packet = ipv4_packet(n.to_bytes(8, "big") + random.randbytes(random.randrange(1000)))
        sent[side].append(packet)
        pair.send((pair.a, pair.b)[side], packet)
        pair.run(random.random() * 2 * interval)
    pair.run(30.0)
    return sent


@pytest.fixture
def peers() -> Pair:
    """Two peers that know of each other's endpoints."""
    pair = Pair(seed=11)
    pair.b.peer.set_endpoint(pair.a.address)
    return pair


def test_nothing_is_lost_on_a_good_link_over_many_rekeys(peers: Pair) -> None:
    from_a, from_b = chat(peers, 2000, 0.5)
    assert peers.b.packets == from_a
    assert peers.a.packets == from_b
    assert len(peers.a.completed) >= 8


def test_everything_arrives_once_when_the_link_reorders_and_duplicates(peers: Pair) -> None:
    peers.connect()
    peers.conditions = Conditions(latency=0.01, jitter=0.3, duplication=0.3)
    from_a, from_b = chat(peers, 2000, 0.05)
    assert sorted(peers.b.packets) == sorted(from_a)
    assert sorted(peers.a.packets) == sorted(from_b)
    assert peers.b.packets != from_a
    assert peers.b.drops[DropReason.REPLAYED] > 100


@pytest.mark.parametrize("seed", range(5))
def test_a_link_that_loses_a_third_works_and_doubles_nothing(seed: int) -> None:
    pair = Pair(seed)
    pair.b.peer.set_endpoint(pair.a.address)
    pair.conditions = Conditions(latency=0.05, jitter=0.2, loss=0.33, duplication=0.2)
    from_a, from_b = chat(pair, 1500, 0.5)
    for received, sent in ((pair.b.packets, from_a), (pair.a.packets, from_b)):
        assert len(received) == len(set(received))
        assert set(received) <= set(sent)
        assert len(received) > 0.55 * len(sent)


def test_traffic_is_back_after_an_outage_of_ten_minutes(peers: Pair) -> None:
    peers.connect()
    peers.conditions.loss = 1.0
    for _ in range(600):
        peers.send(peers.a, ipv4_packet())
        peers.run(1.0)
    peers.conditions.loss = 0.0
    peers.run(6.0)
    peers.b.packets.clear()
    peers.send(peers.a, ipv4_packet(b"back"))
    peers.run(1.0)
    assert peers.b.packets == [ipv4_packet(b"back")]


def test_no_counter_is_ever_used_twice_with_a_key(peers: Pair) -> None:
    peers.conditions = Conditions(latency=0.05, jitter=0.1, loss=0.1)
    chat(peers, 1500, 0.5)
    for node in (peers.a, peers.b):
        headers = [sent.datagram[:16] for sent in node.of_kind(MessageType.TRANSPORT)]
        assert len(headers) == len(set(headers))


def test_a_roaming_initiator_keeps_its_session(peers: Pair) -> None:
    peers.connect()
    for port in range(1, 50):
        peers.a.address = peers.a.address._replace(port=port)
        peers.send(peers.a, ipv4_packet(bytes([port])))
        peers.run(0.1)
        peers.send(peers.b, ipv4_packet(bytes([port])))
        peers.run(0.1)
    assert len(peers.b.packets) == len(peers.a.packets) == 49
    assert peers.a.completed == []
