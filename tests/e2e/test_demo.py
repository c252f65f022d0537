"""`wgmp demo` shows a working tunnel, and takes everything down again, Ctrl-C or not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from wgmp.netns import wait_for

from .tunnel import WGMP, exists

pytestmark = pytest.mark.root


def namespaces_of(pid: int) -> list[str]:
    """Return the network namespaces that a process made with `wgmp.netns`."""
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    return re.findall(rf"^wgmp-{pid}-\S+", listed, re.MULTILINE)


def pids_in(names: list[str]) -> list[int]:
    """Return the processes in namespaces."""
    found = []
    for name in names:
        listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True)
        found += [int(pid) for pid in listed.stdout.split()]
    return found


def start(log: Path) -> subprocess.Popen[bytes]:
    """Start the demo in the background."""
    with log.open("wb") as output:
        return subprocess.Popen([WGMP, "demo"], stdout=output, stderr=subprocess.STDOUT)


def test_the_demo_moves_traffic_and_leaves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    demo = start(log)
    code = demo.wait(90)
    printed = log.read_text()
    assert code == 0, printed
    assert "5 packets transmitted, 5 received" in printed
    assert re.search(r"SHA-256 [0-9a-f]{64}\b", printed)
    assert printed.count("udp_writer") >= 2, "the statistics of both gateways"
    assert namespaces_of(demo.pid) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["two gateways started", "ping through the tunnel"])
def test_an_interrupted_demo_leaves_nothing(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    log = tmp_path / "log"
    demo = start(log)
    wait_for(lambda: moment in log.read_text() or demo.poll() is not None, 60, moment)
    names = namespaces_of(demo.pid)
    processes = pids_in(names)
    assert len(names) == 2
    assert len(processes) > 8
    demo.send_signal(number)
    assert demo.wait(30) == 130, log.read_text()
    assert namespaces_of(demo.pid) == []
    assert not [pid for pid in processes if exists(pid)]


def test_a_demo_that_fails_says_why_shows_the_logs_and_leaves_nothing(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("ip", "ping"):  # and no wg
        found = shutil.which(name)
        assert found is not None
        (programs / name).symlink_to(found)
    environment = {**os.environ, "PATH": str(programs)}
    with subprocess.Popen(
        [WGMP, "demo"], stdout=subprocess.PIPE, text=True, env=environment
    ) as demo:
        try:
            printed, _ = demo.communicate(timeout=60)
        finally:
            demo.kill()
    assert demo.returncode == 1
    lines = printed.splitlines()
    failed = lines.index(next(line for line in lines if line.startswith("failed: ")))
    assert "wg setconf" in lines[failed]
    for end in ("left", "right"):
        assert f"the end of the log {end}.log:" in lines[failed:]
    assert lines[-1] == "* namespaces, gateways and interfaces are gone again"
    assert namespaces_of(demo.pid) == []


def test_who_may_not_make_namespaces_is_told_to_become_root() -> None:
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", WGMP, "demo"]
    done = subprocess.run(as_nobody, capture_output=True, text=True, timeout=30, check=False)
    if "Permission denied" in done.stderr:
        pytest.skip("nobody may not run this checkout")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith("network namespaces and TUN devices: run it as root\n")
