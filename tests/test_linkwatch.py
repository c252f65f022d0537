"""The watches over an interface, the one that hears the kernel and the one that looks: what they
tell."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from wgmp.netns import Namespace, Namespaces, wait_for

pytestmark = pytest.mark.root

LIMIT_S = 10.0
# Longer than the watch waits before it looks again, and than two ForgetSources are apart.
QUIET_S = 1.6

PROGRAM = """
import asyncio, signal, socket, subprocess, sys
from wgmp.errors import TunDeviceError
from wgmp.linkpoll import LinkPoll
from wgmp.linkwatch import LinkWatch

def say(*words):
    print(*words, flush=True)

async def main():
    kind, name = sys.argv[1:]
    loop = asyncio.get_running_loop()
    index = socket.if_nametoindex(name)

    def name_now():
        try:
            return socket.if_indextoname(index)
        except OSError:
            raise TunDeviceError("gone")

    watch = {"hears": LinkWatch, "looks": LinkPoll}[kind](
        name_now, lambda orders: [say(order) for order in orders], lambda: say("gone"))
    say("made", watch.link)
    watch.stop()
    subprocess.run(["ip", "link", "set", "mtu", "1300", "dev", name], check=True)
    watch.start(loop)
    loop.add_signal_handler(signal.SIGUSR1, lambda: (watch.stop(), watch.stop(), say("stopped")))
    say("started", watch.link)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@dataclass
class Watched:
    """An interface, and the program that watches it."""

    space: Namespace
    name: str
    log: Path
    process: subprocess.Popen[bytes]

    def lines(self) -> list[str]:
        """Return what the watch has told so far."""
        return self.log.read_text().splitlines()

    def ip(self, *arguments: str) -> None:
        """Run `ip`."""
        self.space.run("ip", *arguments)

    def told(self, change: Callable[[], object], count: int = 1) -> list[str]:
        """Return the lines that come after a change."""
        before = len(self.lines())
        change()
        wait_for(lambda: len(self.lines()) >= before + count, LIMIT_S, f"{count} lines come")
        return self.lines()[before:]


@pytest.fixture(params=["hears", "looks"])
def watched(request: pytest.FixtureRequest, namespaces: Namespaces, tmp_path: Path) -> Watched:
    """Give an interface that is watched."""
    space = namespaces.add("watched")
    name = space.interface_name("wl")
    space.run("ip", "tuntap", "add", "dev", name, "mode", "tun")
    space.run("ip", "link", "set", "lo", "up")
    log = tmp_path / "log"
    process = space.start(sys.executable, "-c", PROGRAM, request.param, name, log=log)
    made = Watched(space, name, log, process)
    wait_for(lambda: "started" in log.read_text(), LIMIT_S, log.read_text())
    return made


def test_what_changed_before_the_start_and_after_is_told_once(watched: Watched) -> None:
    name = watched.name
    assert watched.lines() == [
        "made SetLink(up=False, mtu=1500)",
        "SetLink(up=False, mtu=1300)",
        "started SetLink(up=False, mtu=1300)",
    ]
    up = watched.told(lambda: watched.ip("link", "set", "up", "dev", name))
    assert up[0] == "SetLink(up=True, mtu=1300)"
    larger = watched.told(lambda: watched.ip("link", "set", "mtu", "1400", "dev", name))
    assert "SetLink(up=True, mtu=1400)" in larger
    down = watched.told(lambda: watched.ip("link", "set", "down", "dev", name))
    assert "SetLink(up=False, mtu=1400)" in down
    time.sleep(QUIET_S)
    told = [line for line in watched.lines() if line.startswith("SetLink")]
    assert len(told) == 4, "a state that has not changed is not told again"


def test_a_deleted_interface_is_gone_and_another_one_is_not_ours(watched: Watched) -> None:
    watched.ip("link", "add", "other0", "type", "veth", "peer", "name", "other1")
    watched.ip("link", "delete", "other0")
    time.sleep(QUIET_S)
    assert "gone" not in watched.lines()
    lines = watched.told(lambda: watched.ip("link", "delete", watched.name))
    wait_for(lambda: "gone" in watched.lines(), LIMIT_S, f"it is gone: {lines}")
    assert watched.process.poll() is None


def test_who_hears_no_more_is_told_nothing(watched: Watched) -> None:
    assert watched.told(lambda: watched.process.send_signal(signal.SIGUSR1)) == ["stopped"]
    watched.ip("link", "set", "up", "mtu", "1400", "dev", watched.name)
    watched.ip("route", "add", "192.0.2.0/24", "dev", "lo")
    watched.ip("link", "delete", watched.name)
    time.sleep(QUIET_S)
    assert watched.lines()[-1] == "stopped"
    assert watched.process.poll() is None


@pytest.mark.parametrize("watched", ["hears"], indirect=True)
def test_routes_that_change_all_the_time_forget_sources_once_a_second(watched: Watched) -> None:
    time.sleep(QUIET_S)  # what came with the interface is over
    before = len(watched.lines())

    def change(what: str) -> None:
        routes = [f"route {what} 198.51.100.{number} dev lo" for number in range(100)]
        watched.space.run("ip", "-batch", "-", stdin="\n".join(routes))

    started = time.monotonic()
    first = watched.told(lambda: change("add"))
    assert first[0] == "ForgetSources()"
    change("delete")
    time.sleep(QUIET_S)
    took = time.monotonic() - started
    told = watched.lines()[before:]
    assert all(re.fullmatch(r"ForgetSources\(\)", line) for line in told)
    assert 2 <= len(told) <= 1 + took, "at once, and once more for what came after"
    time.sleep(QUIET_S)
    assert watched.lines()[before:] == told
