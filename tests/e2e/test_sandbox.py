"""A role can do its work and nothing else; the supervisor keeps what it needs to make roles."""

from __future__ import annotations

import json
import os
import pwd
import signal
from pathlib import Path

import pytest

from wgmp import sandbox
from wgmp.netns import Namespaces, wait_for

from .conftest import MakeTunnel
from .curious_roles import ATTEMPTS, MARK
from .tunnel import WGMP, Gateway, transfer

pytestmark = pytest.mark.root

# What the supervisor keeps, linux/capability.h: KILL, SETGID, SETUID, NET_BIND_SERVICE, NET_ADMIN.
KEPT = {5, 6, 7, 10, 12}


def attempts(gateway: Gateway) -> list[dict[str, str]]:
    """Return what each process of a curious gateway met."""
    lines = gateway.log.read_text().splitlines()
    return [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]


def uid_of(pid: int) -> int:
    """Return the user that a process runs as."""
    return os.stat(f"/proc/{pid}/task/{pid}/comm").st_uid


def status(pid: int) -> dict[str, str]:
    """Return /proc/PID/status by its names."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_a_role_is_refused_all_but_its_work_and_traffic_flows(
    tunnel: MakeTunnel, topology: str
) -> None:
    ends = tunnel("wgmpd-curious", "wireguard-go", topology=topology)
    assert ends.left.ping(ends.right.inner4)
    flow = transfer(ends.left, ends.right, "--seconds", "1")
    flow.finish(30)
    roles = [name for name in ends.left.role_pids() if name != "supervisor"]
    tried = attempts(ends.left)
    assert len(tried) == len(roles)
    for outcomes in tried:
        assert outcomes.keys() == ATTEMPTS.keys()
        assert set(outcomes.values()) <= {"EPERM", "EACCES"}, outcomes


def test_roles_are_nobody_without_capabilities_and_their_successors_too(
    tunnel: MakeTunnel,
) -> None:
    gateway = tunnel("wgmpd", "wireguard-go", environment={"WGMP_USER": "nobody"}).left
    pids = gateway.role_pids()
    os.kill(pids["worker0"], signal.SIGKILL)
    successor = wait_for(
        lambda: (pid := gateway.role_pids()["worker0"]) != pids["worker0"] and pid, 10, "it is back"
    )
    roles = {name: pid for name, pid in pids.items() if name != "supervisor"}
    for pid in [*(roles | {"worker0": successor}).values()]:
        said = status(pid)
        assert said["Uid"].split() == [str(pwd.getpwnam("nobody").pw_uid)] * 4
        assert said["Groups"] == ""
        assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
        assert sandbox.capabilities(pid) == set()
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert "Max core file size        0                    0" in limits
        assert os.stat(f"/proc/{pid}/mem").st_uid == 0, "its own user may not look into it"
    assert sandbox.capabilities(pids["supervisor"]) == KEPT
    figures = gateway.stats()
    assert figures["sandbox"].startswith("user nobody, no capabilities, seccomp")
    assert all(row["pss_bytes"] > 0 for row in figures["processes"])


def test_without_the_sandbox_roles_keep_all_rights_and_statistics_say_so(
    tunnel: MakeTunnel,
) -> None:
    gateway = tunnel("wgmpd", "wireguard-go", environment={"WGMP_SANDBOX": "off"}).left
    assert gateway.stats()["sandbox"] == "off"
    for pid in gateway.role_pids().values():
        assert status(pid)["Seccomp"] == "0"
        assert 0 in sandbox.capabilities(pid)


def test_a_user_that_does_not_exist_is_refused(namespaces: Namespaces) -> None:
    space = namespaces.add("user")
    name = space.interface_name("wg")
    done = space.run(WGMP, "supervise", name, "--user", "no-such-user", check=False)
    assert done.returncode != 0
    assert done.stderr.strip() == (
        "wgmp: --user: there is no user 'no-such-user': `useradd --system no-such-user` makes one"
    )
    assert name not in space.links()
