"""A stand-in for systemd, which cannot run here: what sd_notify(3) tells it, and its keeping of
descriptors for a service that it starts again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wgmp.netns import Namespace, end, wait_for

from .tunnel import WGMP, Gateway

_MESSAGE_BYTES = 4096
_DESCRIPTORS = 24

# Under its own pid, as systemd has it: the descriptors from 3 on, and then the service.
_START = """
import os, sys
count = int(sys.argv[1])
os.environ["LISTEN_PID"] = str(os.getpid())
os.environ["LISTEN_FDS"] = str(count)
os.execv(sys.argv[2], sys.argv[2:])
"""


class Systemd:
    """Plays systemd to one service.

    `messages`: all that it said, each as its lines; `log`: the file of its log lines.
    """

    def __init__(self, path: Path, log: Path) -> None:
        self.messages: list[list[str]] = []
        self.kept: list[tuple[str, int]] = []
        self._path = path
        self.log = log
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.bind(str(path))
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, namespace: Namespace, *command: str, **environment: str) -> int:
        """Start the service with what is kept; return the pid it is found under."""
        kept = [descriptor for _, descriptor in self.kept]
        # The copies for the service are numbered from 3, which takes a moment with none of them.
        first = 3
        copies = [os.dup(descriptor) for descriptor in kept]
        arrange = "".join(f"os.dup2({fd}, {200 + n});" for n, fd in enumerate(copies))
        arrange += "".join(f"os.dup2({200 + n}, {first + n});" for n in range(len(copies)))
        arrange += f"os.closerange({first + len(copies)}, 300)"
        command = (sys.executable, "-c", f"import os; {arrange}{_START}", str(len(kept)), *command)
        with self.log.open("ab") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", namespace.name, *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=copies,
                env={
                    **os.environ,
                    "NOTIFY_SOCKET": str(self._path),
                    "LISTEN_FDNAMES": ":".join(name for name, _ in self.kept),
                    **environment,
                },
            )
        for descriptor in copies:
            os.close(descriptor)
        self._running.append(process)
        return process.pid

    def wait_for(self, line: str, limit_s: float = 10.0, after: int = 0) -> list[str]:
        """Wait for a message with this line, not among the first `after`; return the message."""

        def heard() -> list[str] | None:
            self.listen()
            for message in self.messages[after:]:
                if line in message:
                    return message
            return None

        found = wait_for(heard, limit_s, f"{line}, but: {self.log.read_text()[-2000:]}")
        assert found is not None
        return found

    def wait_for_line(self, beginning: str, after: int = 0) -> list[str]:
        """Wait for a message whose first line begins so, as `wait_for` does."""

        def heard() -> list[str] | None:
            self.listen()
            messages = self.messages[after:]
            return next((lines for lines in messages if lines[0].startswith(beginning)), None)

        found = wait_for(heard, 10.0, beginning)
        assert found is not None
        return found

    def listen(self) -> None:
        """Take what was said by now, and the descriptors that came with it."""
        while True:
            try:
                text, descriptors, _, _ = socket.recv_fds(
                    self._socket, _MESSAGE_BYTES, _DESCRIPTORS
                )
            except BlockingIOError:
                return
            lines = text.decode().splitlines()
            self.messages.append(lines)
            name = next((line[7:] for line in lines if line.startswith("FDNAME=")), "stored")
            if "FDSTOREREMOVE=1" in lines:
                self._forget(name)
            if "FDSTORE=1" in lines:
                self.kept += [(name, descriptor) for descriptor in descriptors]

    def kill(self) -> None:
        """Kill the service that runs, with SIGKILL, and wait for its end."""
        self._running[-1].kill()
        self._running[-1].wait()

    def _forget(self, name: str) -> None:
        for descriptor in [fd for kept, fd in self.kept if kept == name]:
            os.close(descriptor)
        self.kept = [(kept, fd) for kept, fd in self.kept if kept != name]

    def close(self) -> None:
        """End what runs and close what is kept."""
        for process in self._running:
            end(process)
        self.listen()
        for name in {name for name, _ in self.kept}:
            self._forget(name)
        self._socket.close()


@dataclass
class Service:
    """A gateway that systemd has started with a file, beside a peer that is up."""

    systemd: Systemd
    space: Namespace
    interface: str
    file: Path
    text: str
    peer: Gateway

    def start(self, **environment: str) -> int:
        """Start it and wait until it is ready."""
        heard = len(self.systemd.messages)
        command = (WGMP, "supervise", self.interface, "--foreground", "--config", str(self.file))
        pid = self.systemd.start(self.space, *command, **environment)
        self.systemd.wait_for("READY=1", after=heard)
        return pid

    def write(self, text: str) -> None:
        """Write its file."""
        self.file.write_text(text)
        self.file.chmod(0o600)

    def pings(self) -> bool:
        """Tell whether its peer answers."""
        ping = ("ping", "-n", "-c1", "-i0.2", "-w5", self.peer.inner4)
        return self.space.run(*ping, check=False).returncode == 0

    def show(self, what: str) -> str:
        """Return what `wg show INTERFACE WHAT` prints."""
        return self.space.run("wg", "show", self.interface, what).stdout.strip()


@contextmanager
def played(directory: Path) -> Iterator[Systemd]:
    """Play systemd while the block lasts."""
    systemd = Systemd(directory / "notify", directory / "service.log")
    try:
        yield systemd
    finally:
        systemd.close()
