"""A gateway that is told to stop before it is up leaves nothing behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from wgmp.manage.journal import Journal
from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for

from .nameserver import NameServer
from .tunnel import WGMP, key

pytestmark = pytest.mark.root

LIMIT_S = 20


@dataclass
class Early:
    """A gateway with a file in which a hook writes down that it was there."""

    space: Namespace
    interface: str
    directory: Path

    @property
    def log(self) -> Path:
        """The file of its log lines."""
        return self.directory / "log"

    def start(self, lines: str) -> None:
        """Start it with further lines about the interface."""
        written, file = self.directory / "hooks", self.directory / "early.conf"
        file.write_text(
            f"[Interface]\nPrivateKey = {key('genkey')}\n"
            f"PreUp = echo up >> {written}\n{lines}PostDown = echo down >> {written}\n"
            f"[Peer]\nPublicKey = {key('pubkey', key('genkey'))}\n"
            "Endpoint = vpn.example.org:51820\n"
        )
        command = (WGMP, "supervise", self.interface, "--config", str(file), "--run-hooks")
        self.process = self.space.start(*command, "--foreground", log=self.log)

    def hooks(self) -> list[str]:
        """Return what the hooks have written."""
        written = self.directory / "hooks"
        return written.read_text().split() if written.exists() else []

    def is_stopped(self) -> None:
        """Tell it to stop, and wait for its end."""
        self.process.terminate()
        assert self.process.wait(LIMIT_S) == 1


@pytest.fixture
def early(namespaces: Namespaces, tmp_path: Path) -> Iterator[Early]:
    """Give a gateway that is not started yet; nothing of it is left in the end."""
    space = namespaces.add("early")
    made = Early(space, space.interface_name("wg"), tmp_path)
    yield made
    assert made.log.read_text().splitlines()[-1].endswith("told to stop before it was up")
    assert not Journal.of(made.interface).path.exists()
    for directory in (UAPI_DIRECTORY, Path("/run/wgmp")):
        assert not (directory / f"{made.interface}.sock").exists()
    assert made.interface not in space.links()
    assert made.hooks() == ["up", "down"]


def test_while_it_asks_for_a_name_what_it_has_done_is_undone(
    early: Early, name_server: Callable[[Namespace], NameServer]
) -> None:
    server = name_server(early.space)
    early.start("")
    server.wait_until_asked()
    assert early.hooks() == ["up"]
    early.is_stopped()


def test_a_reload_before_it_is_up_is_told_to_have_come_too_early(
    early: Early, name_server: Callable[[Namespace], NameServer]
) -> None:
    server = name_server(early.space)
    early.start("")
    server.wait_until_asked()
    early.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "the gateway is not up yet" in early.log.read_text(), LIMIT_S, "it is told")
    early.is_stopped()


def test_while_a_hook_runs_that_is_ended_and_what_was_done_is_undone(early: Early) -> None:
    early.start("PreUp = sleep 1000\n")
    wait_for(early.hooks, LIMIT_S, "the first hook has run")
    early.is_stopped()
    listed = early.space.run("ps", "-e", "-o", "args").stdout
    assert "sleep 1000" not in listed.splitlines()
