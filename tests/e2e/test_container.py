"""A gateway that is process 1, as in a container: it lives, replaces its dead and ends as ever."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from wgmp import control
from wgmp.errors import ControlError
from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for

from .tunnel import WGMPD, is_listened_at

pytestmark = pytest.mark.root

LIMIT_S = 15.0
ALONE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


def told(pid: int, file: str) -> str:
    """Return a file of /proc/PID, "" when the process has gone."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/{file}").read_text()
    return ""


def pids_of(space: Namespace, name: str) -> list[int]:
    """Return the processes of that name."""
    return [pid for pid in space.processes() if told(pid, "comm").strip() == name]


def supervisor_of(space: Namespace) -> int:
    """Return the process that is number 1 where it lives."""
    for pid in space.processes():
        lines = told(pid, "status").splitlines()
        numbers = next((line.split() for line in lines if line.startswith("NSpid:")), [])
        if len(numbers) > 2 and numbers[-1] == "1":
            return pid
    raise AssertionError("there is no process 1")


def test_process_1_is_a_gateway_like_any_other_but_cannot_be_upgraded(
    namespaces: Namespaces, tmp_path: Path
) -> None:
    space = namespaces.add("container")
    name, log = space.interface_name("wg"), tmp_path / "log"
    settings = {"WGMP_TOPOLOGY": "pipeline", "WGMP_WORKERS": "1"}
    gateway = space.start(*ALONE, WGMPD, "-f", name, log=log, environment=settings)
    wait_for(lambda: is_listened_at(control.socket_path(name)), LIMIT_S, "the gateway starts")
    space.run("wg", "show", name)  # which is answered when the roles are ready
    with pytest.raises(ControlError, match="this gateway is process 1, which cannot be another"):
        control.upgrade(name, [sys.executable, "-m", "wgmp"])

    (first,) = pids_of(space, "wgmp:worker0")
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: pids_of(space, "wgmp:worker0") not in ([], [first]), LIMIT_S, "one comes")
    assert space.run("wg", "show", name, "listen-port").stdout.strip()

    os.kill(supervisor_of(space), signal.SIGTERM)
    assert gateway.wait(LIMIT_S) == 0, log.read_text()
    assert space.processes() == []
    assert name not in space.links()
    assert not (UAPI_DIRECTORY / f"{name}.sock").exists()
    assert not control.socket_path(name).exists()
