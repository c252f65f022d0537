"""Session memory, with its owner killed at every line on the way."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import pytest

from wgmp import sessions as module
from wgmp.peertable import PeerTable
from wgmp.protocol import keypairs as keypairs_module
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.keypairs import Keypairs
from wgmp.protocol.noise import SessionKeys
from wgmp.sessions import SessionMemory

PEER = 5
_WATCHED = {module.__file__, keypairs_module.__file__}


class Memory:
    """The shared memory of one peer; `open` gives it to another owner."""

    def __init__(self) -> None:
        self.table = PeerTable()
        self.table.row(PEER).adopt()
        self.sessions = SessionMemory()

    def open(self, orderly: bool = False) -> Keypairs:
        """Return the keypairs as an owner finds them."""
        store = self.sessions.of(PEER, self.table.row(PEER), orderly)
        keypairs = Keypairs(lambda index: None, store)
        keypairs.resume()
        return keypairs

    def bytes_in_use(self) -> int:
        """How many bytes of the page are not zero."""
        return sum(1 for byte in self.sessions._segment.bytes if byte)


def made(number: int, is_initiator: bool) -> Keypair:
    """A keypair that tells its number by all that is in it."""
    sending, receiving = bytes([number]) * 32, bytes([number + 100]) * 32
    keys = SessionKeys(sending, receiving, number, number + 1000, is_initiator)
    return Keypair(keys, 10.0 * number)


def numbers(keypairs: Keypairs) -> list[int]:
    """The numbers of previous, current and next, 0 for none; all of each must fit together."""
    found = []
    for keypair in (keypairs.previous, keypairs.current, keypairs.next):
        if keypair is None:
            found.append(0)
            continue
        number = keypair.local_index
        assert keypair.keys == made(number, keypair.is_initiator).keys
        assert keypair.created_at == 10.0 * number
        assert keypair.send_counter == number
        found.append(number)
    return found


def install(number: int, is_initiator: bool) -> Callable[[Keypairs], None]:
    """The change that a finished handshake is."""

    def change(keypairs: Keypairs) -> None:
        keypair = made(number, is_initiator)
        keypair.send_counter = number
        keypairs.install(keypair)

    return change


# What may happen to a peer's slots, one after the other, and the slots afterwards.
HISTORY: list[tuple[Callable[[Keypairs], None], list[int]]] = [
    (install(1, True), [0, 1, 0]),
    (install(2, True), [1, 2, 0]),
    (install(3, False), [0, 2, 3]),
    (install(4, False), [0, 2, 4]),
    (Keypairs.promote, [2, 4, 0]),
    (install(5, False), [0, 4, 5]),
    (Keypairs.promote, [4, 5, 0]),
    (install(6, False), [0, 5, 6]),
    (install(7, True), [6, 7, 0]),
    (install(8, False), [0, 7, 8]),
    (Keypairs.clear, [0, 0, 0]),
    (install(9, True), [0, 9, 0]),
]


def test_a_successor_finds_the_slots_as_they_were() -> None:
    memory = Memory()
    keypairs = memory.open()
    for change, after in HISTORY:
        change(keypairs)
        assert numbers(keypairs) == after
        keypairs = memory.open()
        assert numbers(keypairs) == after


def test_the_state_is_that_of_this_moment_not_of_the_last_save() -> None:
    memory = Memory()
    keypairs = memory.open()
    install(1, True)(keypairs)
    assert keypairs.current is not None
    keypairs.current.send_counter = 77
    assert keypairs.current.replay.accept(500)
    found = memory.open(orderly=True).current
    assert found is not None
    assert found.send_counter == 77
    assert found.rekey_at == keypairs.current.rekey_at
    assert not found.replay.accept(500)
    assert found.replay.accept(499)
    killed = memory.open(orderly=False).current
    assert killed is not None
    assert not killed.replay.accept(498), "who knows whether it was seen"
    assert killed.replay.accept(501)


def test_keys_that_are_no_longer_in_use_are_wiped() -> None:
    memory = Memory()
    keypairs = memory.open()
    for change, _ in HISTORY:
        change(keypairs)
    keypairs.clear()
    assert memory.bytes_in_use() == 0


def test_a_page_that_makes_no_sense_is_no_session() -> None:
    memory = Memory()
    install(1, True)(memory.open())
    for word in (0x0101, 0x0400, 0xFFFFFFFFFFFFFFFF, 0x030201):
        memory.table.row(PEER).set_sessions(word)
        assert numbers(memory.open()) in ([0, 0, 0], [1, 0, 0])
    assert memory.bytes_in_use() == 0 or memory.open().previous


def _lines_until_death(step: int) -> Callable[[FrameType, str, Any], Any]:
    """Trace: end the process before the `step`th line in the modules watched."""
    left = step

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in _WATCHED:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os._exit(1)
        return trace

    return trace


def _deaths(memory: Memory, change: Callable[[Keypairs], None]) -> Iterator[int]:
    """Let one owner after the other be killed one line later, until one survives."""
    page = bytes(memory.sessions._segment.bytes)
    word = memory.table.row(PEER).sessions()
    for step in range(1000):
        memory.sessions._segment.bytes[:] = page
        memory.table.row(PEER).set_sessions(word)
        pid = os.fork()
        if not pid:
            keypairs = memory.open()
            sys.settrace(_lines_until_death(step))
            change(keypairs)
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        yield step
        if status == 0:
            return
    pytest.fail("it never comes to its end")


def test_an_owner_killed_at_any_line_leaves_the_old_slots_or_the_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ROWS", PEER + 1)
    memory = Memory()
    before = [0, 0, 0]
    for change, after in HISTORY:
        deaths = 0
        for deaths in _deaths(memory, change):  # noqa: B007
            found = numbers(memory.open())
            assert found in (before, [0, *before[1:]], after)
            in_use = memory.bytes_in_use()
            expected = sum(1 for number in found if number)
            assert (in_use > 0) == (expected > 0)
            assert in_use <= expected * 1152
        assert deaths > 5
        assert numbers(memory.open()) == after
        before = after
