"""What a run ran on: the machine, its kernel, and the versions of all that was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

from wgmp import __version__
from wgmp.doctor import cpu_model

from .programs import Program

_CHECKOUT = Path(__file__).resolve().parents[2]
_GIB = 1 << 30


def describe(programs: Iterable[Program]) -> dict[str, str]:
    """Return what there is to know, by name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    facts = {
        "CPU": cpu_model(Path("/proc/cpuinfo").read_text()),
        "cores": str(len(os.sched_getaffinity(0))),
        "virtual": _first_line("systemd-detect-virt", "--vm") or "not known",
        "memory": f"{memory / _GIB:.1f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "cryptography": f"{version('cryptography')}, {backend.openssl_version_text()}",
        "iperf3": _first_line("iperf3", "--version") or "not installed",
        "wgmp": f"{__version__}, {_commit()}",
    }
    for program in programs:
        facts[program.label] = program.version() or "prints no version"
    return facts


def _commit() -> str:
    commit = _first_line("git", "-C", str(_CHECKOUT), "rev-parse", "--short", "HEAD")
    changed = _first_line("git", "-C", str(_CHECKOUT), "status", "--porcelain", "-uno")
    return f"commit {commit}{', changed' if changed else ''}" if commit else "no checkout"


def _first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.splitlines()[0].strip() if done.stdout.strip() else ""


def stolen_seconds() -> float:
    """Return the CPU time that the hypervisor gave to others while this machine wanted it."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(fields[8]) / os.sysconf("SC_CLK_TCK")
