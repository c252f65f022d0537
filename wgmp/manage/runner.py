"""Running other programs, asynchronously: `ip`, `nft`, `wg`, `ping`, and an operator's hooks.

All of wgmp.manage runs commands through a `Runner`. `Commands` runs them on this machine, or in a
network namespace of it; tests have others, for platforms that are not at hand.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from typing import BinaryIO, Protocol

import msgspec

from wgmp.errors import CommandError

LIMIT_S = 10.0

_PACKAGES = {
    "bash": "bash",
    "ip": "iproute2",
    "nft": "nftables",
    "ping": "iputils-ping",
    "resolvconf": "resolvconf",
    "sysctl": "procps",
    "wg": "wireguard-tools",
}
"""Debian's packages of what wgmp runs."""


class Done(msgspec.Struct, frozen=True):
    """A command that has ended: its exit code (negative: a signal) and what it printed."""

    command: tuple[str, ...]
    code: int = 0
    stdout: str = ""
    stderr: str = ""

    def failure(self) -> CommandError:
        """Return the error that says what failed, and what it printed."""
        printed = (self.stderr or self.stdout).strip()
        return CommandError(
            f"`{' '.join(self.command)}` failed ({self.code}): {printed or 'it printed nothing'}"
        )


class Runner(Protocol):
    """What runs commands. `run` never prints and never asks a shell."""

    async def run(
        self, *command: str, stdin: str = "", check: bool = True, limit_s: float = LIMIT_S
    ) -> Done:
        """Run a command to its end.

        `limit_s`: seconds after which it is killed. Raises CommandError when there is no such
        program, when it takes too long, and with `check` when its exit code is not 0.
        """

    def has(self, program: str) -> bool:
        """Tell whether the program is installed."""


class Commands:
    """Runs commands here, or with a `prefix` such as ("ip", "netns", "exec", "name")."""

    def __init__(self, *prefix: str) -> None:
        self._prefix = prefix

    async def run(
        self, *command: str, stdin: str = "", check: bool = True, limit_s: float = LIMIT_S
    ) -> Done:
        """See `Runner.run`. The command and all it started are killed when it takes too long."""
        # Files, not pipes: a program left in the background by a hook would keep a pipe open.
        with _scratch() as given, _scratch() as stdout, _scratch() as stderr:
            given.write(stdin.encode())
            given.seek(0)
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._prefix,
                    *command,
                    stdin=given,
                    stdout=stdout,
                    stderr=stderr,
                    start_new_session=True,
                    env={**os.environ, "LC_ALL": "C"},
                )
            except FileNotFoundError:
                raise missing(command[0]) from None
            except OSError as error:
                raise CommandError(
                    f"`{' '.join(command)}`: {error.strerror}", error.errno or 0
                ) from error
            try:
                # Not by `wait_for`, in which a cancellation at the end of the process is lost.
                async with asyncio.timeout(limit_s):
                    code = await process.wait()
            except TimeoutError:
                raise CommandError(
                    f"`{' '.join(command)}` did not end within {limit_s:g} s"
                ) from None
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    await process.wait()
            done = Done(command, code, _text(stdout), _text(stderr))
        if check and code:
            raise done.failure()
        return done

    def has(self, program: str) -> bool:
        """See `Runner.has`."""
        return shutil.which(program) is not None


def missing(program: str) -> CommandError:
    """Return the error for a program that is not installed."""
    package = _PACKAGES.get(program)
    remedy = f"install {package}" if package else "install it, or put it into PATH"
    return CommandError(f"there is no `{program}` command: {remedy}")


def _scratch() -> BinaryIO:
    """Return a file without a name, in memory where the system can."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("wgmp command"), "w+b")
    return tempfile.TemporaryFile()


def _text(file: BinaryIO) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
