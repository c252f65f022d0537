"""What runs where: the gateway on Linux and macOS, keys and files everywhere, else a line says so.

Other systems are played by this one: in a process of its own, without the modules they lack.
"""

from __future__ import annotations

import subprocess
import sys

import pytest

from wgmp import platforms
from wgmp.errors import UnsupportedPlatformError
from wgmp.manage.manager import NetworkManager

AS_IF = """
import asyncio, ctypes, importlib.metadata, logging, shutil, subprocess, sys, tempfile
import cryptography.hazmat.primitives.asymmetric.x25519, msgspec, numpy, psutil

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name in {"fcntl", "grp", "pwd", "resource", "termios", "uvloop", "pytun_pmd3"}:
            raise ModuleNotFoundError(f"no module named {name}")

sys.meta_path.insert(0, Missing())
sys.platform = sys.argv.pop(1)
from wgmp.cli import main
sys.exit(main(sys.argv[1:]))
"""


def wgmp(system: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `wgmp` as if on another system."""
    command = [sys.executable, "-c", AS_IF, system, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_the_gateway_says_in_one_line_that_it_does_not_run_on_windows() -> None:
    done = wgmp("win32", "supervise", "wg0")
    (line,) = done.stderr.splitlines()
    assert line.endswith("on Windows: use the official WireGuard, which wgmp.manage can manage")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize("system", ["win32", "darwin"])
@pytest.mark.parametrize("command", ["demo", "doctor"])
def test_what_is_for_linux_says_so_in_one_line(system: str, command: str) -> None:
    done = wgmp(system, command)
    (line,) = done.stderr.splitlines()
    assert f"{command} is for Linux, and does not run on " in line
    assert (done.returncode, done.stdout) == (1, "")


def test_keys_are_made_on_any_system() -> None:
    done = wgmp("win32", "genkey")
    assert done.stderr == ""
    assert len(done.stdout.strip()) == 44


def test_each_system_has_its_back_ends() -> None:
    assert platforms.choose_backend("", "linux") == "wgmp"
    assert platforms.choose_backend("kernel", "linux") == "kernel"
    assert platforms.choose_backend("", "win32") == "windows"
    with pytest.raises(UnsupportedPlatformError, match="no back end kernel on Windows: choose wi"):
        NetworkManager("kernel", system="win32")
    assert platforms.choose_backend("", "darwin") == "wgmp"
    with pytest.raises(UnsupportedPlatformError, match="on plan9: run it on Linux"):
        NetworkManager(system="plan9")
    platforms.require_gateway("linux")
    platforms.require_gateway("darwin")
    platforms.require_linux("it", "linux")
