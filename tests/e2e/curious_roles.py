"""Run wgmpd with roles that try, before their first packet, what a role must not be able to do.

Each prints one line: CURIOUS, and as JSON what became of every attempt: an errno's name, or "done".
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import signal
import socket
import sys
from collections.abc import Callable

from wgmp import process

MARK = "CURIOUS "


def _fork() -> None:
    if not os.fork():
        os._exit(0)


ATTEMPTS: dict[str, Callable[[], object]] = {
    "open a file": lambda: os.open("/etc/hostname", os.O_RDONLY),
    "open a device": lambda: os.open("/dev/net/tun", os.O_RDWR),
    "open its own memory": lambda: os.open("/proc/self/mem", os.O_RDWR),
    "fork": _fork,
    "open a UDP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "open a Unix socket": lambda: socket.socketpair(),
    "make code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
    "become root": lambda: os.setresuid(0, 0, 0),
    "signal its supervisor": lambda: os.kill(os.getppid(), signal.SIGCONT),
    "execute": lambda: os.execv("/bin/true", ["true"]),
}


def _outcome(attempt: Callable[[], object]) -> str:
    try:
        attempt()
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def be_curious(loop: process.Loop) -> None:
    """Try everything, tell, and then do the work."""
    outcomes = {name: _outcome(attempt) for name, attempt in ATTEMPTS.items()}
    os.write(2, f"{MARK}{json.dumps(outcomes)}\n".encode())
    _work(loop)


_work = process.Loop.run

if __name__ == "__main__":
    process.Loop.run = be_curious  # type: ignore[method-assign]
    from wgmp.cli import main_wgmpd

    sys.exit(main_wgmpd())
