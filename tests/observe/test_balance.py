"""The books of every stage balance exactly: packets in are packets out, or drops with a reason."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Iterator

import pytest
from fuzz.house import KNOWN4, SILENT4, House, ipv4
from hostile.rawpeer import COOKIE_REPLY, INITIATION, TRANSPORT, with_macs
from roles.rig import HERE, Rig, packet

from wgmp.fastpath import virtio
from wgmp.fastpath.choice import Choice, load, native_is_missing
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.observe.balance import Stage, books
from wgmp.orders import RemovePeer

STRANGE4 = bytes([10, 99, 0, 77])


@pytest.fixture(params=["reference", "native"])
def house(request: pytest.FixtureRequest) -> Iterator[House]:
    """A gateway in this process, on each fast path there is."""
    if request.param == "native" and (missing := native_is_missing()):
        pytest.skip(missing)
    made = House(load(Choice(request.param)))
    yield made
    made.close()


def of(house: House | Rig) -> dict[str, Stage]:
    return {stage.name: stage for stage in books(house.fabric.counters)}


def balanced(stages: dict[str, Stage]) -> None:
    assert {name: stage.unexplained for name, stage in stages.items() if stage.unexplained} == {}
    # What one stage gave to a ring, the next has taken from it.
    worker_out, worker_in = stages["worker0 out"], stages["worker0 in"]
    admission, cookies = stages["admission"], stages["admission"].made
    assert stages["tun_reader"].packets_out == worker_out.packets_in
    assert worker_in.packets_out == stages["tun_writer"].packets_in
    assert worker_out.packets_out + cookies == stages["udp_writer"].packets_in
    handed_on = stages["udp_reader"].packets_out + admission.packets_out - cookies
    assert handed_on == admission.packets_in + worker_in.packets_in


def test_a_fresh_gateway_has_empty_books(house: House) -> None:
    stages = of(house)
    balanced(stages)
    assert not any(stage.packets_in or stage.packets_out for stage in stages.values())


def test_a_session_and_its_packets_balance(house: House) -> None:
    session = house.connect()
    for _ in range(10):
        house.receive(session.seal(ipv4(bytes([10, 77, 0, 1]), b"ping", KNOWN4)))
        house.take(ipv4(KNOWN4, b"pong"))
    house.receive(session.seal())  # a keepalive ends in the worker
    stages = of(house)
    balanced(stages)
    assert stages["worker0 in"].taken >= 3, "an initiation and two keepalives"
    assert stages["worker0 out"].made >= 1, "the response"
    assert stages["tun_writer"].packets_out == 10


def test_super_packets_are_cut_and_joined_in_the_books(house: House) -> None:
    session = house.connect()
    house.sent()
    header = VirtioHeader(virtio.NEEDS_CSUM, virtio.GSO_UDP_L4, 28, 100, 20, 6)
    udp = struct.pack("!HHHH", 1, 2, 8 + 1000, 0) + bytes(1000)
    house.take(ipv4(KNOWN4, udp), header.pack())
    for datagram in house.sent():
        assert session.unseal(datagram)
    stages = of(house)
    balanced(stages)
    assert stages["worker0 out"].packets_in == 1
    assert stages["worker0 out"].cut == 9
    assert stages["udp_writer"].packets_out == 10 + 1, "and the response"


def test_staged_packets_are_a_term_of_their_own_until_the_session_comes(house: House) -> None:
    house.sent()
    house.take(ipv4(KNOWN4, b"one"))
    house.take(ipv4(KNOWN4, b"two"))
    stages = of(house)
    balanced(stages)
    assert stages["worker0 out"].staged == 2
    initiation = house.sent()[0]
    response, _ = house.raw.answer(initiation)
    house.receive(response)
    stages = of(house)
    balanced(stages)
    assert stages["worker0 out"].staged == 0


def test_garbage_of_every_kind_balances(house: House) -> None:
    """A thousand pieces of garbage, drawn by a fixed seed."""
    draw = random.Random(20)
    session = house.connect()
    for _ in range(1000):
        match draw.randrange(9):
            case 0:
                house.receive(os.urandom(draw.randrange(1, 1400)))
            case 1:
                house.receive(
                    with_macs(struct.pack("<I", INITIATION) + os.urandom(112), house.public_key)
                )
            case 2:
                house.receive(struct.pack("<I", COOKIE_REPLY) + os.urandom(60))
            case 3:
                house.receive(struct.pack("<I", TRANSPORT) + os.urandom(draw.randrange(28, 900)))
            case 4:
                datagram = session.seal(ipv4(bytes([10, 77, 0, 1]), b"x", KNOWN4))
                house.receive(datagram)
                house.receive(datagram)
                house.receive(datagram[:-1] + bytes([datagram[-1] ^ 1]))
            case 5:
                house.receive(session.seal(ipv4(bytes([10, 77, 0, 1]), b"x", STRANGE4)))
            case 6:
                train = b"".join(session.seal(os.urandom(64)) for _ in range(4))
                house.receive_train(train, len(train) // 4)
            case 7:
                house.take(os.urandom(draw.randrange(1, 200)))
                house.take(ipv4(STRANGE4, b"no route"))
                house.take(ipv4(SILENT4, b"no endpoint"))
            case _:
                house.take(ipv4(KNOWN4, b"good"), os.urandom(virtio.SIZE))
        house.written()
        house.sent()
    stages = of(house)
    balanced(stages)
    assert len([count for count in house.drops().values() if count]) >= 9, "it was of many kinds"


def test_every_drop_of_a_removed_peer_is_in_the_books() -> None:
    rig = Rig()
    rig.add_peer(endpoint=HERE)
    rig.send(packet())
    rig.send(packet())
    rig.obey(RemovePeer(1))
    (out,) = (stage for stage in books(rig.fabric.counters) if stage.name == "worker0 out")
    assert (out.staged, out.dropped, out.unexplained) == (0, 2, 0)
