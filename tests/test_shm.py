"""Segments: who has them mapped, what keeps their secrets in, and what orders their words."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wgmp import shm
from wgmp.errors import RingError
from wgmp.fabric import Fabric
from wgmp.sessions import SessionMemory
from wgmp.shm import PAGE_BYTES, LastingMemory, Segment
from wgmp.topology import Shape, build

# What earlier tests have left mapped.
_left: set[str] = set()


def _mappings() -> dict[str, str]:
    """Return every mapping of this process: what smaps says of it, by its first line."""
    text = Path("/proc/self/smaps").read_text()
    blocks = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", text)
    return {block.partition("\n")[0]: block for block in blocks}


@pytest.fixture(autouse=True)
def _of_earlier_tests() -> None:
    gc.collect()
    _left.clear()
    _left.update(_mappings())


def mapped(name: str) -> list[str]:
    """Return the flags (proc(5), VmFlags) of each mapping of that name that is this test's."""
    found = [block for line, block in _mappings().items() if f"/memfd:{name} " in line]
    mine = [block for block in found if block.partition("\n")[0] not in _left]
    return [re.findall(r"VmFlags: (.*)", block)[0] for block in mine]


def in_child(question: Callable[[], bool]) -> bool:
    """Return what a child that is forked now answers."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if question() else 7)
        finally:
            os._exit(1)
    return {0: True, 7: False}[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


def test_session_memory_is_in_no_core_dump_and_no_swap() -> None:
    memory = SessionMemory()
    (flags,) = mapped("wgmp:sessions")
    assert "dd" in flags.split()
    assert memory.lock()
    (flags,) = mapped("wgmp:sessions")
    assert "lo" in flags.split()
    memory.close()
    assert mapped("wgmp:sessions") == []


@pytest.mark.parametrize("worker", [True, False])
def test_only_a_process_with_a_worker_keeps_session_memory(worker: bool) -> None:
    fabric = Fabric(build(Shape.PIPELINE, 1))

    def guarded() -> bool:
        fabric.guard_sessions(["worker0" if worker else "udp_reader"])
        return [" lo" in flags for flags in mapped("wgmp:sessions")] == [True] * worker

    assert in_child(guarded)
    fabric.close()


def test_a_generation_that_is_to_come_does_not_inherit_the_rings_before_it() -> None:
    fabric = Fabric(build(Shape.PIPELINE, 1))
    rings = ("wgmp:udp_reader>worker0", "wgmp:tap:worker0")
    shared = ("wgmp:peers", "wgmp:counters", "wgmp:indices", "wgmp:sessions")

    def has(names: tuple[str, ...]) -> bool:
        return all(map(mapped, names))

    fabric.keep_from_children()
    assert in_child(lambda: not any(map(mapped, rings)) and has(shared))
    assert has(rings)
    fabric.keep_from_children(False)
    assert in_child(lambda: has(rings) and has(shared))
    fabric.close()


@contextmanager
def another_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be on a CPU that reorders stores, without a fence, for the block."""
    with monkeypatch.context() as patched:
        patched.setattr(shm, "STORES_ARE_ORDERED", False)
        patched.setattr(shm, "_fences", [])
        yield


def test_a_cpu_that_reorders_stores_needs_a_fence_and_then_uses_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fenced: list[str] = []
    with another_cpu(monkeypatch):
        with pytest.raises(RingError, match=r"may reorder stores.*--topology compact --workers 1"):
            shm.require_ordered_stores()
        shm.full_fence()
        shm.use_fence(lambda: fenced.append("once"))
        shm.require_ordered_stores()
        shm.full_fence()
        shm.use_fence(lambda: fenced.append("another"))
        shm.full_fence()
    assert fenced == ["once", "another"]


def test_memory_that_lasts_is_handed_on_by_name_and_what_is_new_is_empty() -> None:
    memory = LastingMemory()
    first = memory.segment("peers", PAGE_BYTES + 1, Segment)
    second = memory.segment("counters", 8, Segment)
    assert (first.size, second.size) == (2 * PAGE_BYTES, PAGE_BYTES)
    first.words[0], second.words[0] = 1, 2
    left = {name: os.dup(descriptor) for name, descriptor in memory.descriptors()}
    assert list(left) == ["peers", "counters"]
    taken = LastingMemory(left)
    assert taken.segment("counters", 8, Segment).words[0] == 2
    assert taken.segment("peers", PAGE_BYTES + 1, Segment).words[0] == 1
    assert taken.segment("indices", 8, Segment).words[0] == 0
    assert [name for name, _ in taken.descriptors()] == ["counters", "peers", "indices"]
    for _, descriptor in (*memory.descriptors(), *taken.descriptors()):
        os.close(descriptor)
