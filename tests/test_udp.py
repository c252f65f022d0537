"""The UDP sockets on loopback: one port for both families, endpoints, sources, full buffers."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import wait

import pytest

from tests.e2e.wire import inside
from wgmp import datagrams
from wgmp.datagrams import Receiver, Sender
from wgmp.netns import Namespaces
from wgmp.protocol import ecn
from wgmp.protocol.constants import HANDSHAKE_TRAFFIC_CLASS
from wgmp.protocol.outcome import Endpoint
from wgmp.udp import explain, mark_of, open_sockets, set_mark

Pair = tuple[tuple[int, list[socket.socket]], tuple[int, list[socket.socket]]]

LOOPBACK4 = b"\x7f\0\0\1"
LOOPBACK6 = bytes(15) + b"\1"


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two gateways' sockets, with the port of each."""
    left, right = open_sockets(0, 0), open_sockets(0, 0)
    yield left, right
    for _, sockets in (left, right):
        for sock in sockets:
            sock.close()


def receive(sockets: list[socket.socket]) -> tuple[bytes, Endpoint]:
    ready = wait(sockets, 5)
    buffer = memoryview(bytearray(65_507))
    received = Receiver().receive(ready[0], [buffer])
    assert received is not None
    length, source = received
    assert source is not None
    return bytes(buffer[:length]), source.endpoint


def test_what_is_remembered_of_sources_and_endpoints_is_bounded(
    monkeypatch: pytest.MonkeyPatch, pair: Pair
) -> None:
    monkeypatch.setattr(datagrams, "_CACHE_ENTRIES", 2)
    (_, ours), (_, theirs) = pair
    receiver, sender = Receiver(), Sender(ours, True)
    ports = [sock.getsockname()[1] for sock in theirs]
    for last in range(1, 7):
        address = b"\x7f\0\0" + bytes([last])
        sender.send(memoryview(b"x"), Endpoint(address, ports[0], source=address))
        sender._single_only.add(Endpoint(address, 1))
        ready = wait(theirs, 5)
        assert receiver.receive(ready[0], [memoryview(bytearray(8))]) is not None
    for remembered in (receiver._sources, receiver._read, sender._routes, sender._single_only):
        assert 0 < len(remembered) <= 2


def test_both_families_share_the_port_that_was_picked() -> None:
    port, sockets = open_sockets(0, 0)
    assert {sock.getsockname()[1] for sock in sockets} == {port}
    assert len(sockets) == 2
    for sock in sockets:
        sock.close()


@pytest.mark.root
def test_a_mark_may_have_any_of_its_32_bits() -> None:
    _, sockets = open_sockets(0, 0x8000_0001)
    for sock in sockets:
        assert mark_of(sock) == 0x8000_0001
        set_mark(sock, 0xFFFF_FFFF)
        assert mark_of(sock) == 0xFFFF_FFFF
        sock.close()


@pytest.mark.root
def test_another_port_is_picked_when_the_first_one_is_not_free_for_both_families(
    namespaces: Namespaces,
) -> None:
    space = namespaces.add("ports")
    space.run("sysctl", "-qw", "net.ipv4.ip_local_port_range=50000 50001")
    with inside(space), ExitStack() as stack:
        for taken in (50000, 50001):
            holder = stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM))
            holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            holder.bind(("::", taken))
            if taken == 50001:
                with pytest.raises(OSError, match="no port is free for both IPv4 and IPv6"):
                    open_sockets(0, 0)
                break
            for _ in range(8):
                port, sockets = open_sockets(0, 0)
                assert (port, len(sockets)) == (50001, 2)
                for sock in sockets:
                    sock.close()


def test_taken_port_is_an_error_that_names_it() -> None:
    port, sockets = open_sockets(0, 0)
    with pytest.raises(OSError, match="in use") as failure:
        open_sockets(port, 0)
    assert failure.value.errno == errno.EADDRINUSE
    assert str(port) in str(explain(failure.value, port))
    for sock in sockets:
        sock.close()


def test_port_taken_for_ipv6_alone_is_an_error_and_leaks_no_ipv4_socket() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as taken:
        taken.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        taken.bind(("::", 0))
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            open_sockets(port, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("", port))


@pytest.mark.parametrize("address", [LOOPBACK4, LOOPBACK6], ids=["ipv4", "ipv6"])
def test_answer_returns_to_where_the_datagram_came_from(pair: Pair, address: bytes) -> None:
    (left_port, left), (right_port, right) = pair
    assert Sender(left, True).send(memoryview(b"ask"), Endpoint(address, right_port)) is None
    question, asker = receive(right)
    assert (question, asker.address, asker.port) == (b"ask", address, left_port)
    assert asker.source == address
    Sender(right, True).send(memoryview(b"answer"), asker, HANDSHAKE_TRAFFIC_CLASS)
    answer, answerer = receive(left)
    assert (answer, answerer.port) == (b"answer", right_port)


def test_answer_leaves_from_the_address_that_was_asked(pair: Pair) -> None:
    (_, left), (right_port, right) = pair
    asked = b"\x7f\0\0\x09"
    Sender(left, True).send(memoryview(b"ask"), Endpoint(asked, right_port))
    _, asker = receive(right)
    assert asker.source == asked
    Sender(right, True).send(memoryview(b"answer"), asker)
    assert receive(left)[1].address == asked


def test_source_address_that_is_gone_does_not_stop_the_datagram(pair: Pair) -> None:
    (_, left), (right_port, right) = pair
    gone = Endpoint(LOOPBACK4, right_port, 0, b"\xc0\0\x02\x01", 0)
    assert Sender(left, True).send(memoryview(b"still"), gone) is None
    assert receive(right)[0] == b"still"


@pytest.mark.parametrize("address", [LOOPBACK4, LOOPBACK6], ids=["ipv4", "ipv6"])
def test_traffic_class_is_sent_and_its_ecn_field_received(pair: Pair, address: bytes) -> None:
    (_, left), (right_port, right) = pair
    buffer = memoryview(bytearray(10))
    receiver = Receiver()
    for sent in (ecn.NOT_ECT, ecn.CE, HANDSHAKE_TRAFFIC_CLASS, ecn.ECT_1, ecn.ECT_0, ecn.NOT_ECT):
        Sender(left, True).send(memoryview(b"x"), Endpoint(address, right_port), sent)
        ready = wait(right, 5)
        received = receiver.receive(ready[0], [buffer])
        assert received is not None
        assert received[1] is not None
        assert received[1].congestion == sent & ecn.MASK
        here = Endpoint(address, left[0].getsockname()[1], 0, address, 1)
        assert received[1].endpoint == here


def test_whole_traffic_class_is_on_the_wire(pair: Pair) -> None:
    (_, left), (right_port, right) = pair
    for traffic_class in (HANDSHAKE_TRAFFIC_CLASS, 0):
        Sender(left, True).send(memoryview(b"x"), Endpoint(LOOPBACK4, right_port), traffic_class)
    classes = []
    for _ in range(2):
        wait([right[0]], 5)
        _, ancillary, _, _ = right[0].recvmsg(10, 256)
        classes += [content[0] for _, kind, content in ancillary if kind == socket.IP_TOS]
    assert classes == [HANDSHAKE_TRAFFIC_CLASS, 0]


def test_oversized_datagram_is_reported_without_an_endpoint() -> None:
    port, sockets = open_sockets(0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(bytes(100), ("127.0.0.1", port))
    wait(sockets, 5)
    assert Receiver().receive(sockets[0], [memoryview(bytearray(50))]) == (50, None)
    for sock in sockets:
        sock.close()


def test_refused_port_is_not_an_error_of_the_next_datagram() -> None:
    _, sockets = open_sockets(0, 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        dead = Endpoint(LOOPBACK4, closed.getsockname()[1])
    sender = Sender(sockets, True)
    for _ in range(5):
        assert sender.send(memoryview(b"x"), dead) is None
    assert Receiver().receive(sockets[0], [memoryview(bytearray(50))]) is None
    for sock in sockets:
        sock.close()
