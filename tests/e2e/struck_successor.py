"""Run wgmp so that something happens in the middle of its taking over: MOMENT, WHAT.

MOMENT: "started", before it says so; "held", when it has the estate and its processes; "prepared",
when it has said that; "left", when those before have ended; "serving", when its own have begun and
the old supervisor is about to hear it.
WHAT: "old", "new" or "both" get SIGTERM; at a path a file is made, with ".here" behind it, and one
with ".go" is waited for.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

from wgmp import cli, estate, succession

moment, what = sys.argv[1:3]
del sys.argv[1:3]
old, new = os.getppid(), os.getpid()
moments = iter(["started", "held", "prepared", "left", "serving"])
give_way, go = succession.Predecessor.give_way, succession.Predecessor.go


def pass_moment() -> None:
    """Let it happen if it is the one."""
    if next(moments, None) != moment:
        return
    if what.startswith("/"):
        Path(f"{what}.here").touch()
        deadline = time.monotonic() + 20
        while not Path(f"{what}.go").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    for pid in {"old": [old], "new": [new], "both": [old, new]}.get(what, []):
        os.kill(pid, signal.SIGTERM)


async def prepared(predecessor: succession.Predecessor) -> bool:
    """Pass the moment before it says so."""
    pass_moment()
    return await give_way(predecessor)


async def serving(predecessor: succession.Predecessor) -> None:
    """Pass the moment before it says so."""
    pass_moment()
    await go(predecessor)


async def receive(sock: socket.socket) -> estate.Message | None:
    """Receive the answer to its being prepared, and whatever comes later."""
    pass_moment()
    message = await estate.receive(sock)
    pass_moment()
    return message


pass_moment()
succession.Predecessor.give_way = prepared  # type: ignore[method-assign]
succession.Predecessor.go = serving  # type: ignore[method-assign]
succession.receive = receive
sys.exit(cli.main())
