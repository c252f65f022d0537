"""Run wgmp so that SIGTERM comes in the middle of its taking over: struck_successor.py MOMENT WHOM.

MOMENT: "prepared", when its processes wait; "left", when those before have ended; "serving", when
its own have begun. WHOM: "old", "new" or "both".
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from wgmp import cli, estate, succession

moment, whom = sys.argv[1:3]
del sys.argv[1:3]
victims = {"old": [os.getppid()], "new": [os.getpid()], "both": [os.getppid(), os.getpid()]}[whom]
moments = iter(["prepared", "left", "serving"])


def pass_moment() -> None:
    """Strike if it is the one."""
    if next(moments, None) == moment:
        for pid in victims:
            os.kill(pid, signal.SIGTERM)


async def receive(sock: socket.socket) -> estate.Message | None:
    """Receive what comes when it has prepared, and when its processes serve."""
    pass_moment()
    message = await estate.receive(sock)
    pass_moment()
    return message


succession.receive = receive
sys.exit(cli.main())
