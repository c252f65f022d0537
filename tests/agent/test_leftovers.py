"""What a killed agent wrote down is ended and cleared, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.manage.replay import Replay
from wgmp import uapi_server
from wgmp.agent import leftovers
from wgmp.agent.gateway_process import remove_sockets
from wgmp.agent.leftovers import Ledger, started_at
from wgmp.errors import PrivilegeError


@pytest.fixture
def gateway() -> Iterator[subprocess.Popen[bytes]]:
    """Give a test a process that could be a gateway, ended after it."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def write(path: Path, pid: int, started: int) -> None:
    """Write down a gateway as an agent does."""
    path.write_text(json.dumps({"home": {"interface": "wgleft", "pid": pid, "started": started}}))


def clear(path: Path) -> None:
    asyncio.run(Ledger(path).clear(Replay([])))


def test_a_gateway_that_still_runs_is_ended(
    tmp_path: Path, gateway: subprocess.Popen[bytes], caplog: pytest.LogCaptureFixture
) -> None:
    started = started_at(gateway.pid)
    assert started is not None
    write(tmp_path / "networks.json", gateway.pid, started)
    clear(tmp_path / "networks.json")
    assert gateway.wait(5) == -15
    assert "home: clearing what is left of wgleft" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_one_that_does_not_heed_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = tuple((number, 0.2) for number, _ in leftovers._LIMITS_S)
    monkeypatch.setattr(leftovers, "_LIMITS_S", limits)
    stubborn = ["bash", "-c", "trap '' TERM; echo; while :; do sleep 0.1; done"]
    with subprocess.Popen(stubborn, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        process.stdout.readline()
        started = started_at(process.pid)
        assert started is not None
        write(tmp_path / "networks.json", process.pid, started)
        try:
            clear(tmp_path / "networks.json")
            assert process.wait(5) == -9
        finally:
            process.kill()


def test_another_process_with_its_number_is_left_alone(
    tmp_path: Path, gateway: subprocess.Popen[bytes]
) -> None:
    started = started_at(gateway.pid)
    assert started is not None
    write(tmp_path / "networks.json", gateway.pid, started - 1)
    clear(tmp_path / "networks.json")
    assert gateway.poll() is None
    assert list(tmp_path.iterdir()) == [], "there is nothing more to do for it"


def test_a_process_that_has_ended_never_started(gateway: subprocess.Popen[bytes]) -> None:
    ours = started_at(os.getpid())
    theirs = started_at(gateway.pid)
    assert ours is not None
    assert theirs is not None
    assert 0 < ours <= theirs
    gateway.kill()
    os.waitid(os.P_PID, gateway.pid, os.WEXITED | os.WNOWAIT)
    assert started_at(gateway.pid) is None, "a zombie does not run"
    gateway.wait()
    assert started_at(gateway.pid) is None


@pytest.mark.parametrize("damage", [b"", b"\xff", b'{"home": {"interface": "wg0"}}', b"[" * 5000])
def test_a_damaged_list_is_warned_of_and_written_anew(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "networks.json"
    path.write_bytes(damage)
    ledger = Ledger(path)
    assert f"{path} is damaged, and what it names is not cleared" in caplog.text
    ledger.add("one", "wg1", os.getpid())
    ledger.add("two", "wg2", os.getpid())
    ledger.remove("one")
    left = {"interface": "wg2", "pid": os.getpid(), "started": started_at(os.getpid())}
    assert json.loads(path.read_text()) == {"two": left}
    ledger.remove("one")
    ledger.remove("two")
    assert not path.exists()


def test_a_list_that_cannot_be_written_is_said_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "networks.json"
    with pytest.raises(PrivilegeError, match=r"cannot write .*/gone/networks\.json: No such file"):
        Ledger(path).add("home", "wg0", os.getpid())


def test_sockets_are_removed_unless_somebody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uapi_server, "SOCKET_DIRECTORY", tmp_path)
    living, dead = (uapi_server.socket_path(name) for name in ("wg-living", "wg-dead"))
    with socket.socket(socket.AF_UNIX) as served, socket.socket(socket.AF_UNIX) as closed:
        served.bind(str(living))
        served.listen()
        closed.bind(str(dead))
        for name in ("wg-living", "wg-dead", "wg-none"):
            remove_sockets(name)
        assert [path.name for path in tmp_path.iterdir()] == ["wg-living.sock"]
