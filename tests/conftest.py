"""What all tests share: the `root` marker; namespaces and terminals that go away again."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.terminal import MakeTerminal, Terminal
from wgmp import shm
from wgmp.errors import CommandError
from wgmp.netns import Namespaces


@cache
def _missing_for_root_tests() -> str:
    """Say why tests marked `root` cannot run here, "" when they can."""
    if os.geteuid() != 0:
        return "needs root"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun"
    for program in ("ip", "wg", "wg-quick", "wireguard-go", "ping", "setpriv"):
        if shutil.which(program) is None:
            return f"needs {program}"
    try:
        with Namespaces() as world:
            world.add("probe")
    except CommandError as error:
        return f"needs network namespaces: {error}"
    return ""


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `root` where it cannot run, and say why."""
    if item.get_closest_marker("root") and (missing := _missing_for_root_tests()):
        pytest.skip(missing)


@pytest.fixture
def fences(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], object]]:
    """Be on a CPU that reorders stores: each fence takes and calls the next of these, if any."""
    calls: list[Callable[[], object]] = []
    monkeypatch.setattr(shm, "STORES_ARE_ORDERED", False)
    monkeypatch.setattr(shm, "_fences", [lambda: calls and calls.pop(0)()])
    return calls


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    """Give a test namespaces of its own, taken down after it."""
    with Namespaces() as world:
        yield world


@pytest.fixture
def terminal() -> Iterator[MakeTerminal]:
    """Give `terminal(command, ...)`: a program in a terminal, ended after the test."""
    with contextlib.ExitStack() as stack:

        def make(*command: str) -> Terminal:
            made = Terminal(*command)
            stack.callback(made.close)
            return made

        yield make
