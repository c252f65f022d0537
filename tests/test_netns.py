"""Namespaces work, and are taken down whatever happens in them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.tunnel import exists

from wgmp.errors import CommandError
from wgmp.netns import UAPI_DIRECTORY, Namespaces, wait_for
from wgmp.traffic import Transfer

pytestmark = pytest.mark.root

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ignored", flush=True)
time.sleep(60)
"""
DAEMON = """
import os, time
if os.fork():
    os._exit(0)
os.setsid()
os.closerange(0, 3)
time.sleep(60)
"""


def existing() -> str:
    """Return what `ip netns` lists."""
    return subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout


def test_connected_namespaces_reach_each_other_over_both_families(namespaces: Namespaces) -> None:
    left, right = namespaces.add("left"), namespaces.add("right")
    for network in (2, 3):
        link = namespaces.connect(left, right, network)
        for address in (link.right4, link.right6):
            assert left.run("ping", "-c1", "-W5", address).returncode == 0
        for address in (link.left4, link.left6, "127.0.0.1", "::1"):
            assert right.run("ping", "-c1", "-W5", address).returncode == 0


def test_everything_is_gone_after_an_exception(tmp_path: Path) -> None:
    pids: list[int] = []
    with contextlib.suppress(ZeroDivisionError), Namespaces() as world:
        space = world.add("one")
        process = space.start(sys.executable, "-c", STUBBORN, log=tmp_path / "log")
        space.run(sys.executable, "-c", DAEMON)
        wait_for((tmp_path / "log").read_text, 10, "the signal is ignored")
        stale = UAPI_DIRECTORY / f"{space.interface_name('wg')}.sock"
        stale.parent.mkdir(parents=True, exist_ok=True)
        stale.touch()
        pids = space.processes()
        _ = 1 / 0
    assert len(pids) == 2
    assert not [pid for pid in pids if exists(pid)]
    assert process.returncode is not None
    assert space.name not in existing()
    assert not stale.exists()


def test_interface_names_fit_the_kernel_and_differ(namespaces: Namespaces) -> None:
    spaces = namespaces.add("left"), namespaces.add("right")
    names = [space.interface_name("wg") for space in spaces for _ in range(50)]
    assert len(set(names)) == 100
    assert max(map(len, names)) <= 15
    with pytest.raises(ValueError, match="longer than 15"):
        spaces[0].interface_name("much-too-long-")


def test_failures_say_what_was_run_and_what_it_printed(namespaces: Namespaces) -> None:
    space = namespaces.add("one")
    with pytest.raises(CommandError, match=r"link show dev nowhere.*does not exist"):
        space.run("ip", "link", "show", "dev", "nowhere")
    with pytest.raises(CommandError, match=r"did not end within 0\.2 s"):
        space.run("sleep", "5", timeout_s=0.2)
    assert space.run("false", check=False).returncode == 1


def test_a_transfer_reports_sizes_and_hash(namespaces: Namespaces, tmp_path: Path) -> None:
    space = namespaces.add("one")
    for address, port in (("127.0.0.1", 5201), ("::1", 5202)):
        transfer = Transfer(space, space, address, port, tmp_path, "--bytes", "1000001")
        report = transfer.finish(20)
        assert report.bytes == 1_000_001
        assert len(report.sha256) == 64
        assert report == transfer.received()


def test_a_transfer_without_end_is_concluded(namespaces: Namespaces, tmp_path: Path) -> None:
    space = namespaces.add("one")
    transfer = Transfer(space, space, "127.0.0.1", 5201, tmp_path)
    wait_for(lambda: transfer.received().bytes, 20, "the transfer gets going")
    assert transfer.conclude(20).bytes > 0


def test_a_transfer_that_cannot_connect_fails_with_the_reason(
    namespaces: Namespaces, tmp_path: Path
) -> None:
    space = namespaces.add("one")
    with pytest.raises(CommandError, match="Cannot assign requested address"):
        Transfer(space, space, "192.0.2.99", 5201, tmp_path)
