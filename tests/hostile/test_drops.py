"""Each reason for a drop counts, under its name: from outside where it can be reached there, and
found by it in the statistics, the metrics and the events.

What cannot be reached in a test's time, or only by a broken neighbour, is made to count in a
role of this process (`roles.rig`), on the same counters that `wgmp stats` reads.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e.tunnel import WGMP
from roles.rig import DEVICES, GATEWAY_INNER, HERE, INNER, Rig, packet

from wgmp import control
from wgmp.counters import Counters
from wgmp.netns import wait_for
from wgmp.offload import Offloads
from wgmp.orders import Begin, RemovePeer, SetLink
from wgmp.protocol.outcome import DropReason
from wgmp.record import Kind, ecn_flags
from wgmp.ring import RingWriter
from wgmp.role import Devices
from wgmp.roles import tun_reader
from wgmp.roles.tun_writer import TunWriter
from wgmp.roles.worker import Worker
from wgmp.tun import TunQueue

from .rawpeer import INITIATION, TRANSPORT, tai64n, with_macs
from .site import Site, text

# --- from outside ---


def _bad_length(site: Site) -> None:
    site.wire().send(b"\x01\0\0\0")


def _bad_type(site: Site) -> None:
    site.wire().send(b"\x05\0\0\0" + bytes(60))


def _unknown_index(site: Site) -> None:
    site.wire().send(struct.pack("<II", TRANSPORT, 77) + bytes(24))


def _no_identity(site: Site) -> None:
    gateway = site.gateway
    gateway.set("private-key", "/dev/null")
    try:
        site.wire().send(site.stranger().initiation().datagram)
        wait_for(lambda: site.drops().get("no_identity"), 5, "the drop is counted")
    finally:
        gateway.set("private-key", "/dev/stdin", stdin=gateway.private_key)


def _bad_mac1(site: Site) -> None:
    site.wire().send(struct.pack("<I", INITIATION) + os.urandom(144))


def _bad_ephemeral(site: Site) -> None:
    known = site.peer()
    known.wire.send(known.raw.initiation(ephemeral_public=bytes(32)).datagram)


def _bad_static(site: Site) -> None:
    head = struct.pack("<I", INITIATION) + os.urandom(112)
    site.wire().send(with_macs(head, site.key))


def _unknown_peer(site: Site) -> None:
    site.wire().send(site.stranger().initiation().datagram)


def _bad_timestamp(site: Site) -> None:
    known = site.peer()
    head = known.raw.initiation().datagram[:88] + os.urandom(28)
    known.wire.send(with_macs(head, site.key))


def _replayed_initiation(site: Site) -> None:
    known = site.peer()
    datagram = known.raw.initiation().datagram
    known.wire.send(datagram)
    time.sleep(0.05)
    known.wire.send(datagram)


def _initiation_flood(site: Site) -> None:
    known = site.peer()
    made = [known.raw.initiation(timestamp=tai64n(n)).datagram for n in (1, 2)]
    for datagram in made:
        known.wire.send(datagram)


def _no_handshake(site: Site) -> None:
    known, initiation = site.called_peer()
    response, session = known.raw.answer(initiation)
    known.wire.send(response)
    assert session.unseal(known.wire.receive())
    known.wire.send(response)


def _bad_response(site: Site) -> None:
    known, initiation = site.called_peer()
    index = struct.unpack_from("<I", initiation, 4)[0]
    head = struct.pack("<III", 2, 1, index) + os.urandom(48)
    known.wire.send(with_macs(head, site.key))


def _bad_cookie_reply(site: Site) -> None:
    known, initiation = site.called_peer()
    known.wire.send(struct.pack("<I", 3) + initiation[4:8] + os.urandom(56))


def _counter_exhausted(site: Site) -> None:
    known = site.peer()
    known.wire.send(known.connect().seal(counter=2**64 - 1))


def _bad_tag(site: Site) -> None:
    known = site.peer()
    known.wire.send(known.connect().seal()[:-1] + b"\0")


def _replayed(site: Site) -> None:
    known = site.peer()
    datagram = known.connect().seal()
    known.wire.send(datagram)
    known.wire.send(datagram)


def _bad_packet(site: Site) -> None:
    known = site.peer()
    known.wire.send(known.connect().seal(b"no packet"))


def _source_not_allowed(site: Site) -> None:
    known = site.peer()
    known.wire.send(known.echo(known.connect(), "10.98.0.1"))


def _no_route(site: Site) -> None:
    site.gateway.namespace.run("ping", "-n", "-c1", "-W0.01", "10.99.255.254", check=False)


def _no_endpoint(site: Site) -> None:
    site.call(site.peer())


def _staged_overflow(site: Site) -> None:
    wire = site.wire()
    known = site.peer("endpoint", wire.name, wire=wire)
    burst = ("ping", "-n", "-q", "-c300", "-i0.001", "-W0.01", known.inner)
    site.gateway.namespace.run(*burst, check=False)


def _peer_removed(site: Site) -> None:
    known, _ = site.called_peer()  # with a packet that waits for the session
    site.gateway.set("peer", text(known.raw.public), "remove")


def _send_failed(site: Site) -> None:
    # There is no route to it (RFC 5737).
    known = site.peer("endpoint", "203.0.113.1:9")
    site.call(known)


OUTSIDE: dict[DropReason, Callable[[Site], None]] = {
    DropReason.BAD_LENGTH: _bad_length,
    DropReason.BAD_TYPE: _bad_type,
    DropReason.UNKNOWN_INDEX: _unknown_index,
    DropReason.NO_IDENTITY: _no_identity,
    DropReason.BAD_MAC1: _bad_mac1,
    DropReason.BAD_EPHEMERAL: _bad_ephemeral,
    DropReason.BAD_STATIC: _bad_static,
    DropReason.UNKNOWN_PEER: _unknown_peer,
    DropReason.BAD_TIMESTAMP: _bad_timestamp,
    DropReason.REPLAYED_INITIATION: _replayed_initiation,
    DropReason.INITIATION_FLOOD: _initiation_flood,
    DropReason.NO_HANDSHAKE: _no_handshake,
    DropReason.BAD_RESPONSE: _bad_response,
    DropReason.BAD_COOKIE_REPLY: _bad_cookie_reply,
    DropReason.COUNTER_EXHAUSTED: _counter_exhausted,
    DropReason.BAD_TAG: _bad_tag,
    DropReason.REPLAYED: _replayed,
    DropReason.BAD_PACKET: _bad_packet,
    DropReason.SOURCE_NOT_ALLOWED: _source_not_allowed,
    DropReason.NO_ROUTE: _no_route,
    DropReason.NO_ENDPOINT: _no_endpoint,
    DropReason.STAGED_OVERFLOW: _staged_overflow,
    DropReason.PEER_REMOVED: _peer_removed,
    DropReason.SEND_FAILED: _send_failed,
}


@pytest.fixture(scope="module")
def told(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], set[str]]:
    """Listen to the gateway's events from now on; give what tells the reasons in them so far."""
    log = tmp_path_factory.mktemp("told") / "events"
    listener = (WGMP, "events", site.gateway.interface, "--json")
    site.gateway.namespace.start(*listener, log=log)

    def listens() -> bool:
        site.peer()  # an event
        return b"\n" in log.read_bytes()

    def reasons() -> set[str]:
        lines = log.read_text().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        return {event["reason"] for event in events if event["event"] == "packets_dropped"}

    wait_for(listens, 10, "the listener listens")
    return reasons


@pytest.mark.root
@pytest.mark.alone
@pytest.mark.parametrize("reason", OUTSIDE, ids=lambda reason: reason.name.lower())
@pytest.mark.usefixtures("told")
def test_a_drop_is_counted_by_its_reason(site: Site, reason: DropReason) -> None:
    name = reason.name.lower()
    before = site.drops().get(name, 0)
    OUTSIDE[reason](site)
    wait_for(lambda: site.drops().get(name, 0) > before, 5, f"{name} is counted")
    assert _scraped(site, name) > before, "and the metrics have it, too"


def _scraped(site: Site, reason: str) -> float:
    (count,) = (s.value for s in site.scrape()["wgmp_drops_total"] if s.labels["reason"] == reason)
    return count


@pytest.mark.root
@pytest.mark.alone
def test_every_one_of_them_is_told_as_an_event(site: Site, told: Callable[[], set[str]]) -> None:
    # What the tests before this one planted has been told by now, but for the last second's.
    for reason, plant in OUTSIDE.items():
        if reason.name.lower() not in told():
            plant(site)
    names = {reason.name.lower() for reason in OUTSIDE}
    wait_for(lambda: told() >= names, 5, "every reason is told by its name")


@pytest.mark.root
@pytest.mark.alone
def test_the_books_balance_after_every_one_of_them(site: Site) -> None:
    def unexplained() -> dict[str, int]:
        stages = control.ask_stats(site.gateway.interface).stages
        return {stage.name: stage.unexplained for stage in stages if stage.unexplained}

    # Peers that were called are called again, so the books are read again, too.
    wait_for(lambda: not unexplained(), 5, "every packet is accounted for")


@pytest.mark.root
@pytest.mark.alone
def test_stats_shows_what_is_counted_by_name(site: Site) -> None:
    before = site.drops()
    _bad_type(site)
    wait_for(lambda: site.drops().get("bad_type", 0) > before.get("bad_type", 0), 5, "it counts")
    shown = site.gateway.stats()["drops"]
    assert shown["bad_type"] == before.get("bad_type", 0) + 1
    assert shown.keys() >= before.keys()


# --- in a role of this process ---


def _ring(rig: Rig, producer: str, consumer: str) -> RingWriter:
    return rig.fabric.context(producer, DEVICES).outputs[consumer]


def _publish(ring: RingWriter, kind: int, datagram: bytes, peer: int = 1, flags: int = 0) -> None:
    record = ring.reserve()
    assert record is not None
    record.begin(Kind.PACKETS, peer, flags)
    record.kind = kind
    record.set_endpoint(HERE)
    record.append(datagram)
    ring.publish()


def _load(rig: Rig, datagrams: list[bytes]) -> None:
    """Let more handshake messages wait than is normal."""
    for datagram in datagrams:
        rig.queue(datagram)
    rig.step()


def _cookie_required(rig: Rig) -> None:
    raw = rig.add_peer()
    _load(rig, [raw.initiation().datagram] * 200)


def _rate_limited(rig: Rig) -> None:
    raw = rig.add_peer()
    first = raw.initiation().datagram
    _load(rig, [first] * 200)
    cookie = raw.open_cookie(rig.sent()[-1], first)
    for _ in range(10):
        rig.deliver(raw.initiation(cookie=cookie).datagram)


def _keypair_expired(rig: Rig) -> None:
    session = rig.connect(rig.add_peer())
    rig.step(181)
    rig.deliver(session.seal())


def _handshake_timeout(rig: Rig) -> None:
    rig.add_peer(endpoint=HERE)
    rig.send(packet())
    for _ in range(20):
        rig.step(5.4)


def _ring_full(rig: Rig) -> None:
    rig.connect(rig.add_peer())
    for _ in range(100):  # nobody takes what the worker seals
        rig.send(packet())


def _ring_corrupt(rig: Rig) -> None:
    _publish(_ring(rig, "udp_reader", "worker0"), 77, bytes(32))
    rig.step()


def _peer_removed_meanwhile(rig: Rig) -> None:
    rig.connect(rig.add_peer())
    rig.obey(RemovePeer(1))
    rig.send(packet())


def _link_down(rig: Rig) -> None:
    rig.connect(rig.add_peer())
    rig.obey(SetLink(False, 1420))
    rig.send(packet())


def _worker_died(rig: Rig) -> None:
    rig.add_peer(endpoint=HERE)
    rig.send(packet())
    rig.worker = Worker(rig.fabric.context("worker0", DEVICES))
    rig.worker.obey(Begin(orderly=False, deaths=1), rig.now, [])


def _congestion_not_ect(rig: Rig) -> None:
    session = rig.connect(rig.add_peer())
    datagram = session.seal(packet(INNER, GATEWAY_INNER, 32))
    ring = _ring(rig, "udp_reader", "worker0")
    _publish(ring, Kind.DATAGRAMS, datagram, flags=ecn_flags(3))
    rig.step()


IN_A_ROLE: dict[DropReason, Callable[[Rig], None]] = {
    DropReason.COOKIE_REQUIRED: _cookie_required,
    DropReason.RATE_LIMITED: _rate_limited,
    DropReason.KEYPAIR_EXPIRED: _keypair_expired,
    DropReason.HANDSHAKE_TIMEOUT: _handshake_timeout,
    DropReason.RING_FULL: _ring_full,
    DropReason.RING_CORRUPT: _ring_corrupt,
    DropReason.PEER_REMOVED: _peer_removed_meanwhile,
    DropReason.LINK_DOWN: _link_down,
    DropReason.CONGESTION_NOT_ECT: _congestion_not_ect,
    DropReason.WORKER_DIED: _worker_died,
}


@pytest.mark.parametrize("reason", IN_A_ROLE, ids=lambda reason: reason.name.lower())
def test_a_drop_is_counted_in_a_role(reason: DropReason) -> None:
    rig = Rig()
    IN_A_ROLE[reason](rig)
    assert rig.drops().get(reason.name.lower(), 0) > 0


def _tunnel() -> tuple[socket.socket, socket.socket]:
    """Two ends of a socket that keeps packets apart, as a TUN does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    return ours, theirs


def _devices(tun: socket.socket) -> Devices:
    return Devices([TunQueue(tun.fileno(), virtio_header=False)], [], Offloads())


def _write_failed(rig: Rig) -> Counters:
    ours, theirs = _tunnel()
    theirs.close()
    writer = TunWriter(rig.fabric.context("tun_writer", _devices(ours)))
    _publish(_ring(rig, "worker0", "tun_writer"), Kind.PACKETS, packet())
    writer.step(rig.now)
    ours.close()
    return writer.counters


def _packet_too_big(rig: Rig) -> Counters:
    ours, theirs = _tunnel()
    reader = tun_reader.TunReader(rig.fabric.context("tun_reader", _devices(ours)))
    rig.add_peer()
    for order in rig.orders:
        reader.obey(order, rig.now, [])
    theirs.send(packet(length=1421))
    reader.readable = True
    reader.step(rig.now)
    ours.close()
    theirs.close()
    return reader.counters


AT_THE_TUNNEL: dict[DropReason, Callable[[Rig], Counters]] = {
    DropReason.WRITE_FAILED: _write_failed,
    DropReason.PACKET_TOO_BIG: _packet_too_big,
}


@pytest.mark.parametrize("reason", AT_THE_TUNNEL, ids=lambda reason: reason.name.lower())
def test_a_drop_is_counted_at_the_tunnel(reason: DropReason) -> None:
    counters = AT_THE_TUNNEL[reason](Rig())
    assert counters.drops() == {reason.name.lower(): 1}


# --- all of them ---


def test_every_reason_has_a_test_here() -> None:
    assert OUTSIDE.keys() | IN_A_ROLE.keys() | AT_THE_TUNNEL.keys() == set(DropReason)


def test_every_reason_is_counted_somewhere_in_the_code() -> None:
    package = Path(tun_reader.__file__).parents[1]
    sources = [path.read_text() for path in package.rglob("*.py") if path.name != "outcome.py"]
    unused = [reason.name for reason in DropReason if not any(reason.name in s for s in sources)]
    assert unused == []
