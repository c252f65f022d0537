"""A socket that takes no more for a while: what waits is sent later, once and in order."""

from __future__ import annotations

import select
import socket
from contextlib import closing

import pytest

from tests.fastpath.test_intakes import both_paths
from wgmp.fabric import Fabric
from wgmp.fastpath.choice import Choice, load
from wgmp.netns import Namespaces
from wgmp.offload import Offloads
from wgmp.protocol.outcome import Endpoint
from wgmp.record import Kind
from wgmp.role import Devices
from wgmp.roles.udp_writer import UdpWriter
from wgmp.topology import Shape, build
from wgmp.tun import TunQueue

from .wire import udp_socket

pytestmark = pytest.mark.root

COUNT, SIZE = 40, 500


@both_paths
def test_record_that_is_sent_in_part_is_finished_and_nothing_is_sent_twice(
    path: Choice, namespaces: Namespaces
) -> None:
    space = namespaces.add("slow")
    space.run("tc", "qdisc", "add", "dev", "lo", "root", "tbf", "rate", "800kbit", "burst", "1600",
              "limit", "1mb")  # fmt: skip
    sender, receiver = (udp_socket(space, "127.0.0.1") for _ in range(2))
    with closing(sender), closing(receiver):
        sender.setblocking(False)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        fabric = Fabric(build(Shape.PIPELINE, 1), fastpath=load(path))
        devices = Devices([TunQueue(-1, virtio_header=True)], [sender], Offloads())
        writer = UdpWriter(fabric.context("udp_writer", devices))
        ring = fabric.context("worker0", devices).outputs["udp_writer"]
        record = ring.reserve()
        assert record is not None
        record.begin(Kind.DATAGRAMS)
        record.set_endpoint(Endpoint(b"\x7f\0\0\1", receiver.getsockname()[1]))
        sent = [number.to_bytes(2, "big") * (SIZE // 2) for number in range(COUNT)]
        for datagram in sent:
            record.append(datagram)
        ring.publish()
        waits = 0
        while writer.has_input():
            writer.step(0.0)
            if (descriptor := writer.blocked_on()) is not None:
                waits += 1
                with select.epoll() as room:  # takes any descriptor, however many are open
                    room.register(descriptor, select.EPOLLOUT)
                    assert room.poll(5)
        assert waits > 0, "the socket never refused anything"
        assert [receiver.recv(SIZE + 1) for _ in range(COUNT)] == sent
        receiver.settimeout(0.2)
        with pytest.raises(TimeoutError):
            receiver.recv(SIZE)
