"""A name server for a namespace, which answers when it is told to, and knows no name."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from wgmp.netns import Namespace, wait_for

_LIMIT_S = 20.0
_RESOLV_CONF = "nameserver 127.0.0.53\noptions timeout:30 attempts:1\n"

# Takes questions, and answers once there is a file: no such name (RFC 1035, 4.1.1).
_SERVER = """
import pathlib, socket, struct, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.53", 53))
may_answer = pathlib.Path(sys.argv[1])
while True:
    question, asker = sock.recvfrom(512)
    print("asked", flush=True)
    while not may_answer.exists():
        time.sleep(0.01)
    sock.sendto(question[:2] + struct.pack("!H", 0x8183) + question[4:], asker)
"""


class NameServer:
    """The only name server of a namespace, from then on when something is started there."""

    def __init__(self, space: Namespace, directory: Path) -> None:
        self._etc = Path("/etc/netns", space.name)  # ip-netns(8)
        self._etc.mkdir(parents=True)
        (self._etc / "resolv.conf").write_text(_RESOLV_CONF)
        self._log = directory / "name-server.log"
        self._may_answer = directory / "answer"
        space.start(sys.executable, "-c", _SERVER, str(self._may_answer), log=self._log)

    def wait_until_asked(self, times: int = 1) -> None:
        """Wait until there were so many questions."""
        wait_for(lambda: self._log.read_text().count("asked") >= times, _LIMIT_S, "it is asked")

    def answer(self) -> None:
        """Answer what was asked, and whatever comes."""
        self._may_answer.touch()

    def close(self) -> None:
        """Let the namespace have the machine's again."""
        shutil.rmtree(self._etc)
