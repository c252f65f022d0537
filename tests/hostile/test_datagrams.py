"""Transport data that is replayed, reordered, altered or not allowed; messages of no shape."""

from __future__ import annotations

import os
import struct
from functools import partial

import pytest

from .rawpeer import SIZES, Session
from .site import Known, Site, echo_number, ping, text
from .wire import Wire

pytestmark = [pytest.mark.root, pytest.mark.alone]

# RFC 6479 with 8192 bits: this far behind the highest counter a datagram may be.
WINDOW = 8128


@pytest.fixture(scope="module")
def talking(site: Site) -> tuple[Known, Session]:
    """A peer with a session, for tests that do not end it."""
    known = site.peer()
    return known, known.connect()


def answers(known: Known, session: Session, wire: Wire | None = None) -> list[int]:
    """The numbers of the echo replies that come back."""
    packets = [session.unseal(each) for each in (wire or known.wire).drain(quiet_s=0.15)]
    return [echo_number(packet) for packet in packets if packet]


def test_replayed_data_is_dropped(site: Site, talking: tuple[Known, Session]) -> None:
    known, session = talking
    datagram = known.echo(session)
    known.wire.send(datagram)
    assert len(answers(known, session)) == 1

    def replay() -> None:
        for _ in range(5):
            known.wire.send(datagram)

    site.counts(replay, replayed=5)
    assert answers(known, session) == []


def test_data_is_accepted_in_any_order_within_the_window(site: Site) -> None:
    known = site.peer()
    session = known.connect()
    counters = [WINDOW + 10, 11, 5000, 4999, WINDOW + 9, 10]
    packets = [ping(known.inner) for _ in counters]
    for counter, packet in zip(counters, packets, strict=True):
        known.wire.send(session.seal(bytes(packet), counter))
    assert answers(known, session) == [echo_number(bytes(packet)) for packet in packets]
    beyond = session.seal(bytes(ping(known.inner)), 9)
    site.counts(lambda: known.wire.send(beyond), replayed=1)
    for counter in counters:
        again = session.seal(bytes(ping(known.inner)), counter)
        site.counts(partial(known.wire.send, again), replayed=1)


def test_altered_data_is_dropped_and_spends_no_counter(
    site: Site, talking: tuple[Known, Session]
) -> None:
    known, session = talking
    datagram = known.echo(session)
    for at in (16, 40, len(datagram) - 1):
        altered = datagram[:at] + bytes([datagram[at] ^ 0x80]) + datagram[at + 1 :]
        site.counts(partial(known.wire.send, altered), bad_tag=1)
    far_ahead = datagram[:8] + struct.pack("<Q", 1 << 40) + datagram[16:]
    site.counts(lambda: known.wire.send(far_ahead), bad_tag=1)
    known.wire.send(datagram)
    assert len(answers(known, session)) == 1, "the real one is no replay of the forgeries"


def test_a_counter_at_the_limit_is_refused(site: Site, talking: tuple[Known, Session]) -> None:
    known, session = talking
    for counter in (2**64 - 2**13 - 1, 2**64 - 1):
        datagram = session.seal(b"", counter)
        site.counts(partial(known.wire.send, datagram), counter_exhausted=1)


def test_counters_above_32_bits_are_accepted(site: Site) -> None:
    known = site.peer()
    session = known.connect()
    for counter in (2**32 - 1, 2**32, 2**32 + 1, 2**60 + 5, 2**64 - 2**13 - 2):
        session.counter = counter
        assert known.answered(session), f"counter {counter}"
    below = session.seal(bytes(ping(known.inner)), 2**32 + 2)
    site.counts(lambda: known.wire.send(below), replayed=1)


def test_unknown_indices_are_dropped(site: Site, talking: tuple[Known, Session]) -> None:
    known, session = talking
    for bit in (0, 7, 20, 31):
        head = struct.pack("<II", 4, session.remote ^ 1 << bit)
        datagram = head + os.urandom(64)
        site.counts(partial(known.wire.send, datagram), unknown_index=1)
    cookie_reply = struct.pack("<II", 3, session.remote ^ 1 << 30) + os.urandom(56)
    site.counts(lambda: known.wire.send(cookie_reply), unknown_index=1)


def test_messages_of_a_wrong_size_are_dropped(site: Site, talking: tuple[Known, Session]) -> None:
    known, session = talking
    for kind, size in SIZES.items():
        for length in (0, 1, 3, 4, size - 1, size + 1, 1500, 60000):
            datagram = (struct.pack("<I", kind) + os.urandom(length))[:length]
            site.counts(partial(known.wire.send, datagram), bad_length=1)
    for length in (4, 15, 16, 31):
        datagram = known.echo(session)[:length]
        site.counts(partial(known.wire.send, datagram), bad_length=1)
    assert known.answered(session)


def test_a_cut_off_datagram_is_dropped(site: Site, talking: tuple[Known, Session]) -> None:
    known, session = talking
    datagram = known.echo(session)
    site.counts(lambda: known.wire.send(datagram[:-1]), bad_tag=1)
    site.counts(lambda: known.wire.send(datagram + b"\0"), bad_tag=1)


def test_reserved_bytes_must_be_zero(site: Site, talking: tuple[Known, Session]) -> None:
    known, session = talking
    for whole in (known.raw.initiation().datagram, known.echo(session)):
        for at in (1, 2, 3):
            datagram = whole[:at] + b"\x01" + whole[at + 1 :]
            site.counts(partial(known.wire.send, datagram), bad_type=1)
    assert answers(known, session) == []


def test_the_largest_datagrams_harm_nobody(site: Site, talking: tuple[Known, Session]) -> None:
    known, session = talking
    packet = bytes(ping(known.inner) / os.urandom(65507 - 32 - 15 - 28))
    datagram = session.seal(packet)
    site.counts(lambda: known.wire.send(datagram[:16] + os.urandom(65507 - 16)), bad_tag=1)
    known.wire.send(datagram)
    assert known.answered(session)


def test_what_is_no_ip_packet_is_dropped(site: Site, talking: tuple[Known, Session]) -> None:
    known, session = talking
    whole = bytes(ping(known.inner))
    too_long = whole[:2] + struct.pack("!H", 2000) + whole[4:]
    for packet in (os.urandom(1), b"\x45" + bytes(15), b"\x60" + bytes(31), b"\x70" * 40, too_long):
        datagram = session.seal(packet)
        site.counts(partial(known.wire.send, datagram), bad_packet=1)


def test_a_source_that_is_not_the_peers_is_dropped(
    site: Site, talking: tuple[Known, Session]
) -> None:
    known, session = talking
    for source in ("10.77.0.1", "10.98.0.1", "127.0.0.1", site.peer().inner):
        datagram = known.echo(session, source)
        site.counts(partial(known.wire.send, datagram), source_not_allowed=1)


def test_a_prefix_inside_ones_own_that_another_peer_has_cannot_be_used(site: Site) -> None:
    wide = site.peer(allowed="10.99.200.0/24")
    narrow = site.peer(allowed="10.99.200.7/32")
    wide.inner, narrow.inner = "10.99.200.6", "10.99.200.7"
    sessions = wide.connect(), narrow.connect()
    assert wide.answered(sessions[0])
    assert narrow.answered(sessions[1])
    stolen = wide.echo(sessions[0], "10.99.200.7")
    site.counts(lambda: wide.wire.send(stolen), source_not_allowed=1)
    outside = narrow.echo(sessions[1], "10.99.200.6")
    site.counts(lambda: narrow.wire.send(outside), source_not_allowed=1)
    # It is the table that decides, at this moment: the hole closes when its owner goes.
    site.gateway.set("peer", text(narrow.raw.public), "remove")
    wide.inner = "10.99.200.7"
    assert wide.answered(sessions[0])


def test_a_session_is_not_another_peers_to_use(site: Site) -> None:
    """Data of one peer under another's receiver index does not open."""
    one, other = site.peer(), site.peer()
    sessions = one.connect(), other.connect()
    mixed = Session(0, sessions[1].remote, sessions[0].sending, b"")
    site.counts(lambda: one.wire.send(mixed.seal(counter=50)), bad_tag=1)
