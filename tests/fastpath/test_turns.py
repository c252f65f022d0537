"""Turns without Python: what readers and writers do in them, and what they leave to it."""

from __future__ import annotations

import ctypes
import os
import platform
import select
import signal
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.fastpath.ends import BELL, Ring
from tests.fastpath.test_intakes import Tun, make_tun, packet
from wgmp import seccomp, udp
from wgmp.counters import Counter, Counters, create_counters
from wgmp.fastpath import virtio
from wgmp.fastpath.choice import Choice, load, native_is_missing
from wgmp.fastpath.interface import DatagramWriter, Part
from wgmp.interest import Interest
from wgmp.peertable import IndexTable, PeerTable
from wgmp.protocol.outcome import Endpoint
from wgmp.record import Kind
from wgmp.ring import Doorbell, RingReader
from wgmp.shm import Segment
from wgmp.syscalls import prctl
from wgmp.system import boottime
from wgmp.tun import TunQueue

PATHS = [Choice.REFERENCE] if native_is_missing() else [Choice.NATIVE, Choice.REFERENCE]
pytestmark = pytest.mark.parametrize("path", PATHS)

LIMIT_S = 10
PAUSE_S = 0.05
MESSAGE = struct.pack("<I", 1).ljust(148, b"m")


class Loop:
    """The turns of a process of these parts, which reads from `descriptors`."""

    def __init__(
        self,
        path: Choice,
        *parts: tuple[Part, list[RingReader]],
        descriptors: list[int],
        bell: Doorbell = BELL,
    ) -> None:
        self._interest = Interest()
        self._interest.read(descriptors)
        self._turns = load(path).turns(self._interest, bell, list(parts), None)

    @property
    def sleeps(self) -> int:
        """How often it slept."""
        return self._turns.sleeps

    def pause(self, busy: bool = False, blocked: bool = False) -> list[tuple[int, int]]:
        """Turn for a while; return what is ready and Python's."""
        return self._turns.wait(busy, boottime() + PAUSE_S, blocked)

    def wait(self) -> list[tuple[int, int]]:
        """Turn until there is something for Python, which there has to be."""
        until = boottime() + LIMIT_S
        events = self._turns.wait(False, until, False)
        assert boottime() < until
        return events


@pytest.fixture
def tun(path: Choice) -> Iterator[Tun]:
    """An intake, and the other end of what it reads."""
    made = make_tun(path)
    with closing(made):
        yield made


def test_packets_with_a_route_need_nobody(path: Choice, tun: Tun) -> None:
    loop = Loop(path, (tun.intake, []), descriptors=[tun.device.fileno()])
    for number in range(6):
        tun.write(packet(1 + number % 2, 60 + number))
    assert loop.pause() == []
    assert [(peer, len(body)) for _, peer, _, body in tun.taken()] == [
        (2, 61), (2, 63), (2, 65), (1, 60), (1, 62), (1, 64),
    ]  # fmt: skip
    assert tun.read() == []


def test_all_that_comes_while_it_sleeps_is_handed_on(path: Choice, tun: Tun) -> None:
    loop = Loop(path, (tun.intake, []), descriptors=[tun.device.fileno()])
    wanted = [packet(1, 60 + number) for number in range(6)]

    def write() -> None:
        for each in wanted:
            tun.write(each)

    writer = threading.Timer(PAUSE_S / 2, write)
    writer.start()
    taken: list[bytes] = []
    until = boottime() + LIMIT_S
    while len(taken) < len(wanted) and boottime() < until:
        assert loop.pause() == []
        taken += [body for *_, body in tun.taken()]
    writer.join()
    assert taken == wanted


def test_a_packet_without_a_route_waits_for_python_and_the_others_do_not(
    path: Choice, tun: Tun
) -> None:
    loop = Loop(path, (tun.intake, []), descriptors=[tun.device.fileno()])
    strange = [packet(77, 60), packet(1, 1421), b"rubbish"]
    for each in (packet(1, 60), *strange, packet(1, 61)):
        tun.write(each)
    assert loop.wait() == [(tun.device.fileno(), select.POLLIN)]
    assert [len(body) for *_, body in tun.taken()] == [60, 61]
    assert [refused[virtio.SIZE :] for refused in tun.read()] == strange
    assert tun.read() == []


def test_a_device_that_is_gone_is_pythons_to_find(path: Choice, tun: Tun) -> None:
    loop = Loop(path, (tun.intake, []), descriptors=[tun.device.fileno()])
    tun.device.shutdown(socket.SHUT_RD)
    tun.end.close()
    ((descriptor, _),) = loop.wait()
    assert descriptor == tun.device.fileno()


def test_handshake_messages_wait_for_python_and_data_does_not(path: Choice) -> None:
    port, sockets = udp.open_sockets(0, 0, gro=True)
    peers, indices, counters = PeerTable(), IndexTable(), Counters(create_counters(1), 0)
    peers.set_owner(3, 0)
    index = indices.draw(3, 0, 1, bytes)
    ring = Ring()
    intake = load(path).datagram_intake([ring.writer], peers, indices, counters)
    intake.use(sockets)
    loop = Loop(path, (intake, []), descriptors=[sock.fileno() for sock in sockets])
    data = struct.pack("<II", 4, index).ljust(64, b"d")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.connect(("127.0.0.1", port))
        for datagram in (data, data):
            sender.send(datagram)
        assert loop.pause() == []
        assert not intake.has_messages
        for datagram in (MESSAGE, data, b"\7" * 64):
            sender.send(datagram)
        ((descriptor, _),) = loop.wait()
    assert descriptor in {sock.fileno() for sock in sockets}
    assert [len(datagrams) for *_, datagrams in ring.take()] == [2, 1]
    assert intake.has_messages
    more, messages = intake.burst(lambda message: None)
    assert [message for message, _ in messages] == [MESSAGE]
    assert (more, intake.has_messages) == (False, False)
    assert counters.outward.drops() == {"bad_type": 1}
    for sock in sockets:
        sock.close()


@pytest.fixture
def out(path: Choice) -> Iterator[tuple[DatagramWriter, Counters]]:
    """A writer at sockets of its own."""
    _, sockets = udp.open_sockets(0, 0, gro=False)
    counters = Counters(create_counters(1), 0)
    yield load(path).datagram_writer(sockets, True, counters), counters
    for sock in sockets:
        sock.close()


def test_what_is_to_be_sent_and_written_needs_nobody(
    path: Choice, out: tuple[DatagramWriter, Counters]
) -> None:
    writer, sent = out
    written = Counters(create_counters(1), 0)
    datagrams, packets = [Ring(), Ring()], Ring()
    device, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    packet_writer = load(path).packet_writer(TunQueue(device.fileno(), True), written)
    with device, end, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(LIMIT_S)
        there = Endpoint(bytes([127, 0, 0, 1]), receiver.getsockname()[1])
        loop = Loop(
            path,
            (writer, [ring.reader for ring in datagrams]),
            (packet_writer, [packets.reader]),
            descriptors=[],
        )
        for number, ring in enumerate(datagrams):
            record = ring.writer.reserve()
            assert record is not None
            record.begin(Kind.DATAGRAMS)
            record.set_endpoint(there)
            record.append(bytes([number]) * 100)
            ring.writer.publish()
        packets.offer(Kind.PACKETS, [virtio.PLAIN + packet(1, 60)])
        assert loop.pause() == []
        assert {receiver.recv(1000) for _ in datagrams} == {bytes(100), b"\1" * 100}
        assert end.recv(1000) == virtio.PLAIN + packet(1, 60)
    assert sent.value(Counter.PACKETS_OUT) == 2
    assert written.value(Counter.PACKETS_OUT) == 1


def test_while_a_role_waits_for_room_its_rings_stay_as_they_are(
    path: Choice, out: tuple[DatagramWriter, Counters]
) -> None:
    datagrams, bell = Ring(), Doorbell(Segment("bells", 64), 0)
    loop = Loop(path, (out[0], [datagrams.reader]), descriptors=[bell.descriptor], bell=bell)
    datagrams.offer(Kind.DATAGRAMS, [bytes(100)])
    assert loop.pause(blocked=True) == []
    assert loop.sleeps == 1
    bell.fall_asleep()
    assert bell.ring()
    assert loop.pause(blocked=True) == []
    assert datagrams.reader.waiting() == 1
    assert loop.pause() == []
    assert datagrams.reader.waiting() == 0
    bell.close()


def test_who_has_nothing_left_to_do_sleeps(path: Choice) -> None:
    ring = Ring()
    loop = Loop(path, (None, [ring.reader]), descriptors=[])
    assert loop.pause(busy=True) == []
    assert loop.sleeps == 1


def test_a_bell_that_was_rung_wakes_once(path: Choice) -> None:
    bell = Doorbell(Segment("bells", 64), 0)
    loop = Loop(path, (None, [Ring().reader]), descriptors=[bell.descriptor], bell=bell)
    bell.fall_asleep()
    assert bell.ring()
    assert loop.pause() == []
    assert loop.sleeps == 2
    bell.close()


def test_records_of_a_role_without_a_part_are_pythons(path: Choice) -> None:
    ring = Ring()
    loop = Loop(path, (None, [ring.reader]), descriptors=[])
    assert loop.pause() == []
    ring.offer(Kind.ADDRESSED_MESSAGES, [b"hello"])
    assert loop.wait() == []
    assert ring.reader.waiting() == 1


# linux/prctl.h, linux/seccomp.h, linux/filter.h: kill the process at one call, allow all others
NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 38, 22, 2
LOAD_NUMBER, ALLOW, KILL = (0x20, 0, 0, 0), (0x06, 0, 0, 0x7FFF_0000), (0x06, 0, 0, 0x8000_0000)


def end_at_yielding() -> None:
    """Let the kernel end this process when it lets others run."""
    column = ("x86_64", "aarch64").index(platform.machine())
    is_yielding = 0x15, 0, 1, seccomp.NUMBERS["sched_yield"][column]
    lines = [LOAD_NUMBER, is_yielding, KILL, ALLOW]
    program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    prctl(NO_NEW_PRIVILEGES, 1)
    prctl(SET_SECCOMP, FILTER, struct.pack("@HP", len(lines), ctypes.addressof(program)))


@pytest.mark.skipif(not seccomp.supported(), reason="needs seccomp on x86-64 or aarch64")
@pytest.mark.parametrize(("records", "yields"), [(1, False), (16, False), (17, True)])
def test_who_has_work_left_for_another_turn_lets_others_run(
    path: Choice, records: int, yields: bool
) -> None:
    packets, written = Ring(32), Counters(create_counters(1), 0)
    device, end = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    with device, end:
        writer = load(path).packet_writer(TunQueue(device.fileno(), True), written)
        loop = Loop(path, (writer, [packets.reader]), descriptors=[])
        for _ in range(records):
            packets.offer(Kind.PACKETS, [virtio.PLAIN + packet(1, 60)])
        child = os.fork()
        if not child:
            code = 1
            try:
                end_at_yielding()
                loop.pause()
                code = 0
            finally:
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    # The reference fast path has no turns so quick that others would have to be let.
    assert status == (-signal.SIGSYS if yields and path is Choice.NATIVE else 0)
