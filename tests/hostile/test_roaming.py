"""Where the gateway believes its peers to be, and from which of its addresses it answers."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator
from functools import partial

import pytest

from wgmp.netns import wait_for

from .rawpeer import INITIATION, TRANSPORT, kind_of, replace_cookie, with_macs
from .site import Known, Site
from .wire import Wire

pytestmark = [pytest.mark.root, pytest.mark.alone]

REKEY_TIMEOUT_S = 5.0
SECOND = {4: "192.0.2.77/24", 6: "2001:db8:2::77/64"}


def test_the_gateway_follows_authentic_data_and_answers_there(site: Site) -> None:
    known, elsewhere = site.peer(), site.wire()
    session = known.connect()
    assert known.answered(session)
    assert site.endpoint(known) == known.wire.name
    assert known.answered(session, elsewhere)
    assert site.endpoint(known) == elsewhere.name
    assert known.wire.poll(0.05) is None


def test_the_gateway_follows_a_peer_from_one_family_to_the_other(site: Site) -> None:
    known, over6 = site.peer(), site.wire(site.outer6)
    session = known.connect()
    assert known.answered(session, over6)
    assert site.endpoint(known) == over6.name
    assert known.answered(session)
    assert site.endpoint(known) == known.wire.name


def test_the_gateway_follows_a_keepalive_and_an_initiation(site: Site) -> None:
    known, second, third = site.peer(), site.wire(), site.wire()
    session = known.connect()
    second.send(session.seal())
    wait_for(lambda: site.endpoint(known) == second.name, 2, "the keepalive moves the endpoint")
    time.sleep(0.03)
    initiation = known.raw.initiation()
    third.send(initiation.datagram)
    known.raw.finish(initiation, third.receive())
    assert site.endpoint(known) == third.name


def test_the_gateway_follows_the_answer_to_its_own_initiation(site: Site) -> None:
    known, initiation = site.called_peer()
    elsewhere = site.wire()
    response, session = known.raw.answer(initiation)
    elsewhere.send(response)
    assert session.unseal(elsewhere.receive())
    assert site.endpoint(known) == elsewhere.name


def test_nothing_unauthenticated_moves_the_endpoint(site: Site) -> None:
    known, liar = site.peer(), site.wire()
    session = known.connect()
    datagram = known.echo(session)
    known.wire.send(datagram)
    assert known.wire.poll(2)
    forgeries = {
        "replayed": datagram,
        "bad_tag": datagram[:8] + struct.pack("<Q", 900) + datagram[16:],
        "bad_mac1": known.raw.initiation().datagram[:-32] + os.urandom(32),
        "bad_static": with_macs(known.raw.initiation().datagram[:40] + os.urandom(76), site.key),
        "bad_timestamp": with_macs(known.raw.initiation().datagram[:88] + os.urandom(28), site.key),
        "bad_length": datagram[:31],
        "unknown_index": struct.pack("<II", TRANSPORT, session.remote ^ 1 << 25) + os.urandom(32),
    }
    for reason, forgery in forgeries.items():
        site.counts(partial(liar.send, forgery), **{reason: 1})
    assert site.endpoint(known) == known.wire.name
    assert known.answered(session)
    assert liar.poll(0.05) is None


def test_an_authentic_packet_with_a_forbidden_source_still_moves_the_endpoint(site: Site) -> None:
    """The tag is right, so the peer is there, whatever it says inside (kernel receive.c)."""
    known, elsewhere = site.peer(), site.wire()
    session = known.connect()
    wrong = known.echo(session, "10.98.0.1")
    site.counts(lambda: elsewhere.send(wrong), source_not_allowed=1)
    wait_for(lambda: site.endpoint(known) == elsewhere.name, 2, "the endpoint moves")


def test_a_cookie_reply_does_not_move_the_endpoint_but_its_cookie_is_used(site: Site) -> None:
    known, initiation = site.called_peer()
    elsewhere = site.wire()
    cookie = os.urandom(16)
    elsewhere.send(known.raw.cookie_reply(initiation, cookie))
    # A second reply to the same message, and one that is forged, are not believed.
    other = known.raw.cookie_reply(initiation, os.urandom(16))
    site.counts(lambda: elsewhere.send(other), bad_cookie_reply=1)
    forged = other[:8] + os.urandom(56)
    site.counts(lambda: elsewhere.send(forged), bad_cookie_reply=1)
    retry = known.wire.receive(REKEY_TIMEOUT_S + 2)
    assert kind_of(retry) == INITIATION
    assert retry == replace_cookie(retry, cookie), "its mac2 is under the cookie"
    assert site.endpoint(known) == known.wire.name
    assert elsewhere.poll() is None
    response, session = known.raw.answer(retry)
    known.wire.send(response)
    assert session.unseal(known.wire.receive())


def test_both_families_serve_one_port(site: Site) -> None:
    for address in (site.outer4, site.outer6):
        known = site.peer(wire=site.wire(address))
        assert known.answered(known.connect())


# From which address


@pytest.fixture(params=[4, 6])
def second(site: Site, request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Give the gateway's host a second address, and the world's of the same family."""
    prefix, here = SECOND[request.param], site.outer4 if request.param == 4 else site.outer6
    site.gateway.namespace.add_address(outer_interface(site), prefix)
    yield prefix.partition("/")[0], here
    remove_address(site, prefix)


def remove_address(site: Site, prefix: str) -> None:
    """Take an address from the gateway's host, if it is still there."""
    command = ("ip", "address", "del", prefix, "dev", outer_interface(site))
    site.gateway.namespace.run(*command, check=False)


def outer_interface(site: Site) -> str:
    """The gateway's end of the veth pair."""
    return next(name for name in site.gateway.namespace.links() if name.startswith("veth"))


def source_of_answer(known: Known, datagram: bytes, wire: Wire) -> str:
    """Send a datagram and return the address that the next datagram comes from."""
    wire.drain(quiet_s=0.02)
    wire.send(datagram)
    return wire.receive_from()[1][0]


def test_answers_leave_from_the_address_that_was_asked(site: Site, second: tuple[str, str]) -> None:
    address, here = second
    wire = Wire(site.world, here, (address, site.gateway.port))
    site.wires.append(wire)
    known = site.peer(wire=wire)
    assert source_of_answer(known, known.raw.initiation().datagram, wire) == address
    time.sleep(0.03)
    session = known.connect()
    assert source_of_answer(known, known.echo(session), wire) == address
    # What the gateway sends of itself leaves from there, too.
    wire.drain(quiet_s=0.02)
    site.call(known)
    assert wire.receive_from()[1][0] == address
    # The peer asks at the first address: answers come from there.
    wire.gateway = (site.gateway.outer4 if "." in here else site.gateway.outer6, wire.gateway[1])
    assert source_of_answer(known, known.echo(session), wire) == wire.gateway[0]


def test_an_address_that_has_gone_is_not_answered_from(site: Site, second: tuple[str, str]) -> None:
    address, here = second
    first = site.gateway.outer4 if "." in here else site.gateway.outer6
    wire = Wire(site.world, here, (address, site.gateway.port))
    site.wires.append(wire)
    known = site.peer(wire=wire)
    session = known.connect()
    assert source_of_answer(known, known.echo(session), wire) == address
    remove_address(site, SECOND[4 if "." in address else 6])
    site.call(known)
    datagram, source = wire.receive_from()
    assert session.unseal(datagram)
    assert source[0] == first


def test_another_port_is_spoken_from_at_once(site: Site) -> None:
    known = site.peer()
    session = known.connect()
    assert known.answered(session)
    port = site.gateway.port
    try:
        site.gateway.set("listen-port", str(port + 1))
        site.call(known)
        assert session.unseal(known.wire.receive())
        known.wire.gateway = (known.wire.gateway[0], port + 1)
        assert known.answered(session)
    finally:
        site.gateway.set("listen-port", str(port))
