"""The traffic class on its way through the roles: ECN, and DSCP on handshakes.

Records are split where it changes, nowhere else.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

import pytest
from fuzz.house import GATEWAY4, KNOWN4, KNOWN6, House, ipv4, ipv6
from hostile.rawpeer import INITIATION, RESPONSE, TRANSPORT

from wgmp.counters import Counter
from wgmp.fastpath import virtio
from wgmp.protocol.ecn import CE, ECT_0, ECT_1, NOT_ECT

IP_RECVTOS = 13


@pytest.fixture
def house() -> Iterator[House]:
    """A gateway in this process."""
    made = House()
    yield made
    made.close()


def marked(packet: bytes, field: int) -> bytes:
    """The packet with an ECN field; IPv4's checksum is not looked at."""
    shift = 0 if packet[0] >> 4 == 4 else 4
    return packet[:1] + bytes([packet[1] | field << shift]) + packet[2:]


def test_each_datagram_carries_its_packets_field_in_order(house: House) -> None:
    house.connect()
    house.sent()
    house.wire.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
    fields = [NOT_ECT, NOT_ECT, ECT_0, ECT_0, CE, ECT_1, NOT_ECT]
    records = house.roles["tun_reader"].counters.value(Counter.RECORDS_OUT)
    for number, field in enumerate(fields):
        packet = ipv4(KNOWN4, b"x") if number % 2 else ipv6(KNOWN6, b"x")
        house.tun.send(virtio.PLAIN + marked(packet, field))
    house.settle()
    classes = []
    for _ in fields:
        _, ancillary, _, _ = house.wire.recvmsg(2000, 100)
        classes += [content[0] for _, kind, content in ancillary if kind == socket.IP_TOS]
    assert classes == fields
    made = house.roles["tun_reader"].counters.value(Counter.RECORDS_OUT) - records
    assert made == 5, "one for each run of equal fields"


def test_handshake_messages_carry_af41_and_data_does_not(house: House) -> None:
    house.wire.setsockopt(socket.IPPROTO_IP, IP_RECVTOS, 1)
    house.receive(house.raw.initiation().datagram)
    seen = classes(house)
    response, _ = house.raw.answer(house.call())
    house.receive(response)
    house.settle(600.0)
    house.take(ipv4(KNOWN4, b"once more"))
    assert seen | classes(house) == {
        (INITIATION, 0x88),
        (RESPONSE, 0x88),
        (TRANSPORT, 0),
    }


def classes(house: House) -> set[tuple[int, int]]:
    """The types of what was sent since the last call, each with its traffic class."""
    found = set()
    with contextlib.suppress(BlockingIOError):
        while True:
            datagram, ancillary, _, _ = house.wire.recvmsg(2000, 100)
            found |= {
                (datagram[0], content[0]) for _, kind, content in ancillary if kind == socket.IP_TOS
            }
    return found


@pytest.mark.parametrize(("outer", "inner", "expected"), [(CE, ECT_0, CE), (CE, NOT_ECT, None)])
def test_a_congested_datagram_marks_or_loses_its_packet(
    house: House, outer: int, inner: int, expected: int | None
) -> None:
    session = house.connect()
    house.written()
    packet = ipv4(GATEWAY4, b"payload", source=KNOWN4)
    house.wire.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, outer)
    house.receive(session.seal(marked(packet, inner)))
    house.wire.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, NOT_ECT)
    house.receive(session.seal(marked(packet, inner)))
    first, *rest = [struct.unpack_from(">BB", each)[1] for each in house.written()]
    if expected is None:
        assert (first, rest) == (inner, []), "only the second one came through"
        assert house.drops()["congestion_not_ect"] == 1
    else:
        assert (first, rest) == (expected, [inner])
