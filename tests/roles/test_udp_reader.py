"""udp_reader and handshake messages: turned away at once, or gathered for admission."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hostile import rawcrypto
from hostile.rawpeer import INITIATION, RawPeer

from wgmp import udp
from wgmp.fabric import Fabric
from wgmp.offload import Offloads
from wgmp.orders import SetPrivateKey
from wgmp.record import ENDPOINT_BYTES, unpack_endpoint
from wgmp.role import Devices
from wgmp.roles.udp_reader import UdpReader
from wgmp.topology import Shape, build
from wgmp.tun import TunQueue

PRIVATE_KEY = rawcrypto.digest(b"the gateway")


@dataclass
class Bench:
    """A reader on real sockets, the ring to admission, and a stranger's socket."""

    reader: UdpReader
    fabric: Fabric
    devices: Devices
    stranger: socket.socket

    def __post_init__(self) -> None:
        self.admission = self.fabric.context("admission", self.devices).inputs["udp_reader"]
        self.raw = RawPeer(rawcrypto.public_of(PRIVATE_KEY))

    def send(self, datagram: bytes) -> None:
        """A datagram comes, and the reader takes a turn."""
        self.stranger.send(datagram)
        self.reader.readable = True
        self.reader.step(0.0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    port, sockets = udp.open_sockets(0, 0)
    devices = Devices([TunQueue(-1, virtio_header=True)], sockets, Offloads())
    fabric = Fabric(build(Shape.PIPELINE, 1))
    reader = UdpReader(fabric.context("udp_reader", devices))
    reader.obey(SetPrivateKey(PRIVATE_KEY), 0.0, [])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.connect(("127.0.0.1", port))
        yield Bench(reader, fabric, devices, stranger)
    for each in (*sockets, *fabric.doorbells.values(), fabric.taps):
        each.close()


def test_a_message_lies_behind_its_sender(bench: Bench) -> None:
    initiation = bench.raw.initiation().datagram
    bench.send(initiation)
    record = bench.admission.peek()
    assert record is not None
    (addressed,) = record.packets()
    assert addressed[ENDPOINT_BYTES:] == initiation
    endpoint = unpack_endpoint(addressed)
    assert endpoint is not None
    assert endpoint.port == bench.stranger.getsockname()[1]


def test_a_wrong_mac1_goes_no_further(bench: Bench) -> None:
    bench.send(struct.pack("<I", INITIATION) + os.urandom(144))
    assert bench.admission.peek() is None
    assert bench.reader.counters.drops() == {"bad_mac1": 1}


def test_without_a_key_nobody_gets_further(bench: Bench) -> None:
    bench.reader.obey(SetPrivateKey(b""), 0.0, [])
    bench.send(bench.raw.initiation().datagram)
    assert bench.reader.counters.drops() == {"no_identity": 1}


def test_messages_gather_while_admission_is_behind(bench: Bench) -> None:
    initiation = bench.raw.initiation().datagram
    bench.send(initiation)
    assert bench.admission.waiting() == 1, "nobody is made to wait when admission is idle"
    for _ in range(10):
        bench.send(initiation)
    assert bench.admission.waiting() <= 2
    assert bench.reader.deadline() is not None, "what gathered is not forgotten"
    bench.reader.readable = False
    bench.reader.step(0.0)
    assert bench.reader.deadline() is None
    counts = []
    while (record := bench.admission.peek()) is not None:
        counts.append(record.count)
        bench.admission.release()
    assert sum(counts) == 11
    assert len(counts) <= 3


def test_a_cookie_reply_stands_between_the_data_before_and_after_it(bench: Bench) -> None:
    worker = bench.fabric.context("worker0", bench.devices).inputs["udp_reader"]
    index = bench.fabric.indices.draw(0, 0, 1, os.urandom)
    first, second = (struct.pack("<II", 4, index) + os.urandom(24) for _ in range(2))
    cookie_reply = struct.pack("<II", 3, index) + os.urandom(56)
    came = []
    for datagram in (first, cookie_reply, second):
        bench.send(datagram)
        while (record := worker.peek()) is not None:
            came += [bytes(packet) for packet in record.packets()]
            worker.release()
    assert came == [first, cookie_reply, second]
    assert not any(bench.reader.counters.drops().values())
