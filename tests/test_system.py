"""What a gateway has from its operating system: Linux's means, and those of any POSIX system.

Both run here. What stands in `posix.py` is what macOS uses.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import socket
import time
from contextlib import nullcontext
from itertools import count
from types import ModuleType

import pytest

from wgmp import shm
from wgmp.errors import RingError
from wgmp.fabric import Fabric
from wgmp.fastpath import reference
from wgmp.system import linux, posix
from wgmp.system.line import MAX_MESSAGE_BYTES, StreamLine, pair
from wgmp.topology import Shape, build

EVERY = pytest.mark.parametrize("system", [linux, posix], ids=["linux", "posix"])
LIMIT_S = 10.0


def readable(descriptor: int, limit_s: float = LIMIT_S) -> bool:
    return bool(select.select([descriptor], [], [], limit_s)[0])


@EVERY
def test_boot_time_goes_on(system: ModuleType) -> None:
    before = system.boottime()
    time.sleep(0.01)
    assert 0.01 <= system.boottime() - before < LIMIT_S


@EVERY
def test_a_poller_tells_what_a_descriptor_is_ready_for(system: ModuleType) -> None:
    ours, theirs = socket.socketpair()
    with system.Poller() as poller:
        poller.register(ours.fileno(), select.POLLIN)
        assert poller.poll(0.0) == []
        theirs.send(b"x")
        assert poller.poll(LIMIT_S) == [(ours.fileno(), select.POLLIN)]
        poller.modify(ours.fileno(), select.POLLOUT)
        assert poller.poll(LIMIT_S) == [(ours.fileno(), select.POLLOUT)]
        poller.modify(ours.fileno(), select.POLLIN)
        theirs.close()
        ours.recv(1)
        ((_, mask),) = poller.poll(LIMIT_S)
        assert mask & select.POLLHUP
        poller.unregister(ours.fileno())
        assert poller.poll(0.0) == []
    ours.close()


@EVERY
def test_a_bell_is_readable_until_it_is_silenced(system: ModuleType) -> None:
    heard, struck = system.open_bell()
    assert not readable(heard, 0)
    with pytest.raises(BlockingIOError):
        system.silence(heard)
    for _ in range(3):
        system.strike(struck, 1)
    assert readable(heard)
    system.silence(heard)
    assert not readable(heard, 0)
    for descriptor in {heard, struck}:
        os.close(descriptor)


def test_nobody_waits_for_a_pipe_that_is_full_of_strikes() -> None:
    heard, struck = posix.open_bell()
    for _ in range(100):
        posix.strike(struck, 4096)
    assert readable(heard)
    os.close(heard)
    os.close(struck)


@EVERY
def test_memory_is_shared_with_children_and_reads_as_zeros_once_discarded(
    system: ModuleType,
) -> None:
    size = 4 * mmap.PAGESIZE
    descriptor = system.open_memory("test", size)
    mapping = mmap.mmap(descriptor, size, mmap.MAP_SHARED)
    system.keep_from_dumps(mapping)
    system.keep_from_children(mapping, True)
    system.keep_from_children(mapping, False)
    assert mapping[:] == bytes(size)
    child = os.fork()
    if not child:
        mapping[:] = b"x" * size
        os._exit(0)
    os.waitpid(child, 0)
    assert mapping[:] == b"x" * size
    for kept in (3 * mmap.PAGESIZE + 1, 2 * mmap.PAGESIZE, mmap.PAGESIZE - 1):
        system.discard(mapping, kept)
        assert mapping[:] == b"x" * kept + bytes(size - kept)
    assert system.lock(mapping) in (True, False)


@EVERY
def test_a_memory_file_can_be_read_after_its_writer_has_died(system: ModuleType) -> None:
    descriptor = system.memory_file("test")
    child = os.fork()
    if not child:
        os.write(descriptor, b"last words")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert os.pread(descriptor, 100, 0) == b"last words"
    os.close(descriptor)


@EVERY
def test_a_lifeline_is_readable_when_the_child_has_ended_and_not_before(
    system: ModuleType,
) -> None:
    lifelines, children, ends = [], [], []
    for _ in range(2):
        lifelines.append(system.Lifeline())
        child = os.fork()
        if not child:
            system.die_with(os.getppid())
            system.close_others(lifelines[-1].in_child())
            signal.pause()
        children.append(child)
        ends.append(lifelines[-1].in_parent(child))
    first, second = ends
    assert not readable(first, 0.05)
    os.kill(children[0], signal.SIGKILL)
    assert readable(first)
    assert not readable(second, 0.05), "the other one lives"
    os.kill(children[1], signal.SIGKILL)
    assert readable(second)
    for child, end in zip(children, ends, strict=True):
        os.waitpid(child, 0)
        os.close(end)


@EVERY
def test_a_child_can_close_all_descriptors_but_some(system: ModuleType) -> None:
    kept, other = os.pipe()
    report, told = os.pipe()
    child = os.fork()
    if not child:
        system.close_others([kept, told])
        os.write(told, " ".join(sorted(os.listdir("/proc/self/fd"))).encode())
        os._exit(0)
    os.waitpid(child, 0)
    open_there = set(map(int, os.read(report, 1000).split()))
    assert {0, 1, 2, kept, told} <= open_there
    assert other not in open_there
    assert len(open_there) == 6, "and the listing's own"
    for descriptor in (kept, other, report, told):
        os.close(descriptor)


@EVERY
def test_a_line_keeps_messages_and_their_descriptors_apart(system: ModuleType) -> None:
    ours, theirs = system.line_pair()
    first, second = os.pipe(), os.pipe()
    ours.send(b"one", [])
    ours.send(b"two", [first[0]])
    ours.send(b"x" * MAX_MESSAGE_BYTES, [])
    ours.send(b"four", [second[0], second[1]])
    assert theirs.receive() == (b"one", [])
    message, descriptors = theirs.receive()
    assert (message, len(descriptors)) == (b"two", 1)
    os.write(first[1], b"through it")
    assert os.read(descriptors[0], 100) == b"through it"
    assert theirs.receive() == (b"x" * MAX_MESSAGE_BYTES, [])
    message, more = theirs.receive()
    assert (message, len(more)) == (b"four", 2)
    with pytest.raises(BlockingIOError):
        theirs.receive()
    theirs.send(b"answer", [])
    assert ours.receive() == (b"answer", [])
    for descriptor in (*first, *second, *descriptors, *more):
        os.close(descriptor)
    ours.close()
    theirs.close()


@EVERY
def test_a_line_ends_when_the_other_end_hangs_up_or_is_closed(system: ModuleType) -> None:
    ours, theirs = system.line_pair()
    ours.send(b"last", [])
    ours.hang_up()
    assert theirs.receive()[0] == b"last"
    assert theirs.receive() == (b"", [])
    theirs.send(b"still heard", [])
    assert ours.receive()[0] == b"still heard"
    theirs.close()
    assert ours.receive() == (b"", [])
    with pytest.raises(BrokenPipeError):
        ours.send(b"x", [])
    ours.hang_up()
    ours.close()


@EVERY
def test_nobody_waits_on_a_line_that_is_full(system: ModuleType) -> None:
    ours, theirs = system.line_pair()
    for sent in count():
        try:
            ours.send(sent.to_bytes(4, "big") * 1000, [])
        except BlockingIOError:
            break
    for number in range(sent):
        assert theirs.receive()[0] == number.to_bytes(4, "big") * 1000
        assert not ours.flush()
    with pytest.raises(BlockingIOError):
        theirs.receive()
    ours.close()
    theirs.close()


def test_a_stream_that_breaks_within_a_message_has_ended() -> None:
    ours, theirs = pair(socket.SOCK_STREAM)
    line = StreamLine(theirs)
    ours.send(b"\0\0\0\x05ab")
    with pytest.raises(BlockingIOError):
        line.receive()
    ours.send(b"c")
    with pytest.raises(BlockingIOError):
        line.receive()
    ours.close()
    assert line.receive() == (b"", [])
    theirs.close()


@pytest.mark.parametrize(("workers", "refused"), [(1, False), (2, True)])
def test_stores_need_an_order_only_where_another_process_reads(
    monkeypatch: pytest.MonkeyPatch, workers: int, refused: bool
) -> None:
    monkeypatch.setattr(shm, "STORES_ARE_ORDERED", False)
    monkeypatch.setattr(shm, "_fences", [])
    topology = build(Shape.COMPACT, workers)
    with pytest.raises(RingError, match="may reorder stores") if refused else nullcontext():
        Fabric(topology, fastpath=reference)
