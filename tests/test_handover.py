"""A gateway that is to be handed over goes on with everything unless its successor works.

The gateway is one that notes what is asked of it; the other programs are real ones.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from wgmp import handover
from wgmp.errors import ControlError
from wgmp.estate import (
    FORMAT,
    Estate,
    Hello,
    PeerEstate,
    Prepared,
    Refused,
    Serving,
    encode,
)
from wgmp.options import Options
from wgmp.orders import EndpointOrder

HELLO = encode(Hello(FORMAT, "9.9"))
PREPARED, SERVING = encode(Prepared()), encode(Serving())
ENDPOINT = EndpointOrder(b"\1" * 4, 51820)
LEFT = Estate(
    Options(interface="wg0"),
    ["worker0"],
    b"\7" * 32,
    [1, 0, 2],
    [PeerEstate(1 << 20, b"\1" * 32, b"\2" * 32, 25, ENDPOINT, [(b"\n\0\0\0", 8)])],
)


class Gateway:
    """Notes what is asked of it (`handover.Leaving`)."""

    interface = "wg0"
    ending = False

    def __init__(self) -> None:
        self.done: list[str] = []

    async def hold(self) -> None:
        """Note it."""
        self.done.append("hold")

    async def resume(self) -> None:
        """Note it."""
        self.done.append("resume")

    async def leave(self) -> bool:
        """Note it."""
        self.done.append("leave")
        return True

    def followed_by(self, pid: int) -> None:
        """Note it."""
        self.done.append("followed")

    def bequeath(self) -> tuple[Estate, list[tuple[str, int]]]:
        """Leave an estate, and lend a descriptor."""
        return LEFT, [("tun", 0)]


def program(*says: bytes, then: str = "s.recv(1)") -> list[str]:
    """Return a program that says something, each after it has heard what was said before."""
    lines = ["import os, socket; s = socket.socket(fileno=int(os.environ['WGMP_HANDOVER']))"]
    for number, message in enumerate(says):
        lines += ["s.recv(99999)"] * (number > 0) + [f"s.send({message!r})"]
    return [sys.executable, "-c", "\n".join([*lines, then])]


def open_files() -> set[str]:
    """Return the descriptors that this process has open, without those of earlier tests' litter."""
    gc.collect()
    return set(os.listdir("/proc/self/fd"))


STAYS: list[str] = []
HELD = ["hold", "resume"]
LEFT_AND_BACK = ["hold", "leave", "resume"]


@pytest.mark.parametrize(
    ("successor", "done", "reason"),
    [
        (program(then=""), STAYS, "it ended; the log may say why"),
        (program(b"", b"\xc1nonsense"), STAYS, "it ended; the log may say why"),
        (program(b"\xc1nonsense"), STAYS, "it ended; the log may say why"),
        (program(encode(Refused("no room here"))), STAYS, "no room here"),
        (program(SERVING), STAYS, "it answered Serving"),
        (program(encode(Hello(FORMAT + 1, "9.9"))), STAYS, "version 9.9 has another format"),
        (program(HELLO, then=""), HELD, "it ended; the log may say why"),
        (program(HELLO, HELLO), HELD, "it answered Hello"),
        (program(HELLO, encode(Refused("no room here"))), HELD, "no room here"),
        (program(HELLO, PREPARED, then=""), LEFT_AND_BACK, "it ended; the log may say why"),
        (program(HELLO, PREPARED, PREPARED), LEFT_AND_BACK, "it answered Prepared"),
        (["/no/such/program"], STAYS, "/no/such/program cannot be run: No such file"),
        (["with\0nul"], STAYS, "cannot be run: embedded null byte"),
    ],
)
def test_whatever_goes_wrong_the_gateway_goes_on_and_the_reason_is_told(
    successor: list[str], done: list[str], reason: str
) -> None:
    gateway, before = Gateway(), open_files()
    with pytest.raises(ControlError, match=reason):
        asyncio.run(handover.hand_over(gateway, successor))
    assert gateway.done == done
    assert open_files() <= before
    with pytest.raises(ChildProcessError):  # the program is gone
        os.waitpid(-1, os.WNOHANG)


def test_a_successor_that_says_nothing_is_not_waited_for_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handover, "_PREPARE_LIMIT_S", 0.1)
    gateway = Gateway()
    with pytest.raises(ControlError, match="it said nothing for 0 s"):
        asyncio.run(handover.hand_over(gateway, program(HELLO, then="s.recv(1); s.recv(1)")))
    assert gateway.done == HELD


def with_roles(pids: Path, last: bytes) -> list[str]:
    """Return a program that has two processes, notes them in a file, and says `last` at the end."""
    lines = f"""
import time
s.recv(99999)
children = [os.fork() or time.sleep(20) for _ in range(2)]  # they do not die with it
open({str(pids)!r}, "w").write(" ".join(map(str, children)))
s.send({PREPARED!r})
s.recv(99)
s.send({last!r})
s.recv(99)
"""
    return program(HELLO, then=lines)


def test_processes_of_a_successor_that_failed_are_gone_before_the_gateway_goes_on(
    tmp_path: Path,
) -> None:
    pids = tmp_path / "pids"
    lived: list[bool] = []

    class Watching(Gateway):
        async def resume(self) -> None:
            lived.extend(_lives(int(pid)) for pid in pids.read_text().split())
            await super().resume()

    gateway, before = Watching(), open_files()
    with pytest.raises(ControlError, match="it answered Prepared"):
        asyncio.run(handover.hand_over(gateway, with_roles(pids, PREPARED)))
    assert gateway.done == LEFT_AND_BACK
    assert lived == [False, False]
    assert open_files() <= before


def test_processes_of_a_successor_that_works_are_left_alone(tmp_path: Path) -> None:
    pids, before = tmp_path / "pids", open_files()
    asyncio.run(handover.hand_over(Gateway(), with_roles(pids, SERVING)))
    roles = [int(pid) for pid in pids.read_text().split()]
    assert [_lives(pid) for pid in roles] == [True, True]
    assert open_files() <= before
    for pid in roles:
        os.kill(pid, signal.SIGKILL)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def test_a_gateway_that_cannot_say_what_it_has_goes_on() -> None:
    class Confused(Gateway):
        def bequeath(self) -> tuple[Estate, list[tuple[str, int]]]:
            raise LookupError("where is it?")

    gateway = Confused()
    with pytest.raises(ControlError, match=r"internal error: LookupError: where is it\? \(test_h"):
        asyncio.run(handover.hand_over(gateway, program(HELLO, PREPARED)))
    assert gateway.done == HELD


@pytest.mark.parametrize(
    ("told", "done"), [("before", STAYS), ("hold", HELD), ("leave", LEFT_AND_BACK)]
)
def test_a_gateway_that_is_told_to_stop_before_its_successor_works_stays_and_stops(
    told: str, done: list[str]
) -> None:
    class Stopping(Gateway):
        ending = told == "before"

        async def hold(self) -> None:
            self.ending = told == "hold"
            await super().hold()

        async def leave(self) -> bool:
            self.ending = True
            return await super().leave()

    gateway = Stopping()
    with pytest.raises(ControlError, match="the gateway was told to stop"):
        asyncio.run(handover.hand_over(gateway, program(HELLO, PREPARED, SERVING)))
    assert gateway.done == done


def test_what_stops_a_gateway_that_has_left_stops_its_successor() -> None:
    class Stopping(Gateway):
        def followed_by(self, pid: int) -> None:
            self.ending = True

    says_how = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(42)); s.recv(1)"
    )
    pause = "import time; s.close(); time.sleep(20)"
    gone = handover.hand_over(
        Stopping(), program(HELLO, PREPARED, SERVING, then=f"{says_how}; {pause}")
    )
    pid, _, _ = asyncio.run(gone)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 42


def test_a_successor_that_works_has_the_gateway() -> None:
    gateway, before = Gateway(), open_files()
    handed = handover.hand_over(gateway, program(HELLO, PREPARED, SERVING))
    pid, version, pause_s = asyncio.run(handed)
    assert gateway.done == ["hold", "leave", "followed"]
    assert (version, pause_s >= 0.0) == ("9.9", True)
    assert open_files() <= before
    with suppress(ProcessLookupError, ChildProcessError):  # it ends when the socket does
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
