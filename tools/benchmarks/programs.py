"""A gateway program as the command line names it: "WGMP_TOPOLOGY=compact wgmpd".

It is started as `PROGRAM -f INTERFACE`, which wireguard-go, wgmpd and boringtun-cli understand.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from wgmp.errors import CommandError, ConfigError

_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")
_VERSION_LIMIT_S = 10.0


@dataclass(frozen=True)
class Program:
    """A command with what is added to its environment. `label`: as the operator wrote it."""

    label: str
    command: tuple[str, ...]
    environment: dict[str, str]

    def version(self) -> str:
        """Return the first line of `PROGRAM --version`, "" when it prints none."""
        try:
            done = subprocess.run(
                [*self.command, "--version"],
                capture_output=True,
                text=True,
                timeout=_VERSION_LIMIT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        lines = (done.stdout or done.stderr).splitlines()
        return lines[0].strip() if lines and not done.returncode else ""


def parse_program(text: str, assignments: Iterable[str] = ()) -> Program:
    """Return the program that `text` names: assignments, command and options, as for a shell.

    `assignments`: more of them, "NAME=value". "wgmpd" is this checkout's own. Raises
    ConfigError when it makes no sense, CommandError when it is not installed.
    """
    words = shlex.split(text)
    environment = list(assignments)
    while words and _ASSIGNMENT.match(words[0]):
        environment.append(words.pop(0))
    for assignment in environment:
        if not _ASSIGNMENT.match(assignment):
            raise ConfigError(f"{assignment!r} sets no variable: write NAME=value")
    if not words:
        raise ConfigError(f"{text!r} names no program: write for example wgmpd")
    label = shlex.join(words)
    return Program(
        label=" ".join([*environment, label]),
        command=(_find(words[0]), *words[1:]),
        environment=dict(assignment.split("=", 1) for assignment in environment),
    )


def _find(name: str) -> str:
    own = Path(sys.prefix) / "bin" / name
    if name == "wgmpd" and own.exists():
        return str(own)
    found = shutil.which(name)
    if found is None:
        raise CommandError(f"{name} is not installed")
    return found
