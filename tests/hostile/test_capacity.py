"""A thousand peers that shake hands at once, as when a gateway comes back after an outage."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator

import pytest

from wgmp.netns import Namespaces, wait_for

from .rawpeer import RESPONSE, Initiation, RawPeer, kind_of
from .site import Site, build, text
from .wire import Wire

pytestmark = [pytest.mark.root, pytest.mark.alone]

PEERS = 1000
LIMIT_S = 3.0


@pytest.fixture(params=["compact", "pipeline"])
def busy(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """Give a gateway with one worker, on either topology."""
    with Namespaces() as spaces:
        site = build(spaces, tmp_path_factory.mktemp("busy"), request.param, workers=1)
        yield site
        site.close()


def source_of(number: int) -> str:
    """An address of the world for each of the peers."""
    return f"198.18.{number >> 8}.{number & 255}"


def send_all(wire: Wire, initiations: list[Initiation]) -> None:
    """Send every peer's initiation from its own address, without a pause."""
    for number, initiation in enumerate(initiations):
        wire.send(initiation.datagram, source_of(number))


def collect(
    wire: Wire, initiations: list[Initiation], limit_s: float
) -> dict[int, tuple[bytes, float]]:
    """The response to each peer by its number, and the time it came at."""
    numbers = {initiation.index: number for number, initiation in enumerate(initiations)}
    deadline = time.monotonic() + limit_s
    responses: dict[int, tuple[bytes, float]] = {}
    while len(responses) < len(initiations) and time.monotonic() < deadline:
        datagram = wire.poll(0.05)
        if datagram is not None:
            assert kind_of(datagram) == RESPONSE, "a cookie would make real peers wait for 5 s"
            (index,) = struct.unpack_from("<I", datagram, 8)
            responses[numbers[index]] = datagram, time.monotonic()
    return responses


def test_1000_peers_that_shake_hands_at_once_all_get_through(busy: Site) -> None:
    gateway = busy.gateway
    peers = [RawPeer(busy.key) for _ in range(PEERS)]
    gateway.wg(
        *("addconf", gateway.interface, "/dev/stdin"),
        stdin="".join(
            f"[Peer]\nPublicKey = {text(peer.public)}\n"
            f"AllowedIPs = 10.98.{number >> 8}.{number & 255}/32\n"
            for number, peer in enumerate(peers)
        ),
    )
    wire = busy.wire("0.0.0.0")
    initiations = [peer.initiation() for peer in peers]
    start = time.monotonic()
    send_all(wire, initiations)
    responses = collect(wire, initiations, LIMIT_S)
    assert len(responses) == PEERS
    last = max(at for _, at in responses.values()) - start
    print(f"the last of {PEERS} responses came after {last:.2f} s")
    assert last < LIMIT_S
    for number, (response, _) in responses.items():
        session = peers[number].finish(initiations[number], response)
        wire.send(session.seal(), source_of(number))
    wait_for(
        lambda: busy.gateway.total("handshakes_completed") == PEERS,
        LIMIT_S,
        "all sessions are confirmed",
    )
    assert all(peer.handshake for peer in gateway.peers().values())
