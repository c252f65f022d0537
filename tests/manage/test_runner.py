"""Commands: what they print is kept, what takes too long is killed, what failed is said."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest
import uvloop

from wgmp.errors import CommandError
from wgmp.manage.runner import Commands, Done

from .replay import Recorder, Replay


def run(*command: str, stdin: str = "", check: bool = True, limit_s: float = 10) -> Done:
    return asyncio.run(Commands().run(*command, stdin=stdin, check=check, limit_s=limit_s))


def test_a_command_keeps_both_outputs_apart_and_reads_its_input() -> None:
    done = run("sh", "-c", "cat; echo wrong >&2; exit 3", stdin="given\n", check=False)
    assert (done.code, done.stdout, done.stderr) == (3, "given\n", "wrong\n")


def test_a_failure_names_the_command_and_what_it_printed() -> None:
    with pytest.raises(
        CommandError, match=r"^`sh -c echo no such thing >&2; false` failed \(1\): no such thing$"
    ):
        run("sh", "-c", "echo no such thing >&2; false")
    with pytest.raises(CommandError, match="it printed nothing"):
        run("false")


def test_a_program_that_is_missing_is_said_with_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CommandError, match="there is no `ip` command: install iproute2"):
        run("ip", "link")
    with pytest.raises(CommandError, match="there is no `frobnicate` command: install it, or"):
        run("frobnicate")
    assert not Commands().has("ip")


def test_a_command_that_takes_too_long_is_killed_with_all_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(CommandError, match=r"did not end within 0\.5 s"):
        run("sh", "-c", f"sleep 60 & echo $$ $! > {pids}; wait", limit_s=0.5)
    for pid in pids.read_text().split():
        deadline = time.monotonic() + 5
        while Path(f"/proc/{pid}/stat").exists() and time.monotonic() < deadline:
            if " Z " in Path(f"/proc/{pid}/stat").read_text():
                break  # killed, and waiting for whoever adopted it
            time.sleep(0.01)
        else:
            assert not Path(f"/proc/{pid}").exists()


def test_a_cancelled_command_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    async def cancel() -> None:
        task = asyncio.create_task(
            Commands().run("sh", "-c", f"echo $$ > {pid_file}; exec sleep 60", limit_s=60)
        )
        while not (pid_file.exists() and pid_file.read_text()):
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(asyncio.wait_for(cancel(), 10))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_a_command_that_ends_when_it_is_cancelled_is_cancelled_all_the_same() -> None:
    async def cancel(turns: int) -> None:
        task = asyncio.create_task(Commands().run("sleep", "0.1"))
        await asyncio.sleep(0.05)
        time.sleep(0.1)  # the loop hears of its end from now on
        for _ in range(turns):
            await asyncio.sleep(0)
        if not task.done():
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for turns in range(12):
            runner.run(cancel(turns))


def test_what_a_command_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    done = run("sh", "-c", "sleep 30 & echo $!", limit_s=5)
    os.kill(int(done.stdout), 9)


def test_a_record_of_real_commands_can_be_replayed() -> None:
    recorder = Recorder(Commands())

    async def twice() -> None:
        await recorder.run("echo", "one")
        await recorder.run("false", check=False)

    asyncio.run(twice())
    replay = Replay(recorder.record)

    async def again() -> None:
        assert (await replay.run("echo", "one")).stdout == "one\n"
        with pytest.raises(CommandError, match=r"`false` failed \(1\)"):
            await replay.run("false")
        with pytest.raises(CommandError, match="`echo one` is not in the record"):
            await replay.run("echo", "one")

    asyncio.run(again())
    assert replay.ran == [("echo", "one"), ("false",), ("echo", "one")]
