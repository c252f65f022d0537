"""Who may capture, what is turned on, and which keys are given away."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest
from observe.standing import PRIVATE, Standing

from wgmp import taphost
from wgmp.errors import ControlError
from wgmp.keys import to_base64
from wgmp.tap import Point
from wgmp.taphost import Capture

ROLES = ["tun_reader", "udp_reader", "admission", "worker0", "worker1"]


@pytest.fixture
def gateway() -> Iterator[Standing]:
    """A pipeline of two workers with a peer that has a preshared key and one that has none."""
    made = Standing()
    made.device.set_preshared_key(made.peer(1), b"\5" * 32)
    made.peer(2)
    yield made
    made.close()


def wanted(gateway: Standing, peer: int = 1) -> set[Point]:
    """Return from where packets of a peer are copied now."""
    tap = gateway.fabric.taps.tap("worker0")
    assert tap is not None
    return {point for point in Point if tap.wants(point, peer)}


def test_keys_are_given_to_nobody_who_did_not_ask_for_them(gateway: Standing) -> None:
    answer, descriptors = taphost.start(gateway.supervisor, Capture())
    first, second = gateway.device.peers.values()
    assert (answer.private_key, answer.preshared_keys) == ("", {})
    assert to_base64(PRIVATE).encode() not in msgspec.json.encode(answer)
    assert answer.peers == {
        first.peer: to_base64(first.public_key),
        second.peer: to_base64(second.public_key),
    }
    assert (answer.rings, answer.listen_port) == (ROLES, 51821)
    assert len(set(descriptors)) == len(ROLES)
    assert wanted(gateway) == set(Point) - {Point.SECRET}


def test_who_asks_for_keys_gets_those_there_are(gateway: Standing) -> None:
    answer, _ = taphost.start(gateway.supervisor, Capture(outer=False, secrets=True))
    first, _ = gateway.device.peers.values()
    assert answer.private_key == to_base64(PRIVATE)
    assert answer.preshared_keys == {first.peer: to_base64(b"\5" * 32)}
    assert wanted(gateway) == {Point.INNER_IN, Point.INNER_OUT, Point.SECRET}
    gateway.fabric.taps.stop()
    gateway.device.set_private_key(b"")
    answer, _ = taphost.start(gateway.supervisor, Capture(secrets=True))
    assert (answer.private_key, answer.preshared_keys) == ("", {})


def test_one_peer_is_named_by_its_key(gateway: Standing) -> None:
    first, second = gateway.device.peers.values()
    taphost.start(gateway.supervisor, Capture(peer=to_base64(second.public_key), inner=False))
    assert wanted(gateway, second.peer) == {Point.OUTER_IN, Point.OUTER_OUT}
    assert wanted(gateway, first.peer) == set()


def test_what_cannot_be_captured_is_refused_and_turns_nothing_on(gateway: Standing) -> None:
    stranger = to_base64(b"\7" * 32)
    for key, told in ((stranger, f"no peer has the key {stranger}"), ("laptop", "44 characters")):
        with pytest.raises(ControlError, match=told.replace("+", r"\+")):
            taphost.start(gateway.supervisor, Capture(peer=key))
    gateway.holding = True
    with pytest.raises(ControlError, match="is being handed over: try again"):
        taphost.start(gateway.supervisor, Capture())
    gateway.holding = False
    assert not gateway.fabric.taps.busy
    taphost.start(gateway.supervisor, Capture(inner=False))
    with pytest.raises(ControlError, match="somebody captures on this gateway already"):
        taphost.start(gateway.supervisor, Capture(outer=False))
    assert wanted(gateway) == {Point.OUTER_IN, Point.OUTER_OUT}, "the first goes on"


def test_descriptors_go_with_a_blank_and_the_connection_stays_open(gateway: Standing) -> None:
    _, descriptors = taphost.start(gateway.supervisor, Capture())
    ours, theirs = socket.socketpair()
    with ours, theirs:
        taphost.send_descriptors(ours.fileno(), descriptors)
        ours.sendall(b"more")
        first, received, _, _ = socket.recv_fds(theirs, 1, 253)
        assert (first, theirs.recv(10)) == (b" ", b"more")
        for descriptor in received:
            os.close(descriptor)
        assert len(received) == len(ROLES)
