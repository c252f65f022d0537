"""A flood of handshake messages, and a peer that wants to be heard in it."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
from pathlib import Path

from .rawpeer import RESPONSE, Initiation, kind_of
from .site import Known, Site

FLOODER = Path(__file__).parents[2] / "tools" / "flood.py"
SOURCES = 20_000


class Flood:
    """A flood from the world on a gateway, in a process of its own, until `end` or its time."""

    def __init__(self, site: Site, directory: Path, *options: str) -> None:
        gateway = site.gateway
        target = (gateway.outer4, str(gateway.port), gateway.public_key)
        self._log = directory / f"flood-{time.monotonic_ns()}"
        command = (sys.executable, str(FLOODER), *target, *options)
        self._process: subprocess.Popen[bytes] = site.world.start(*command, log=self._log)

    def sent(self) -> int:
        """Wait for its end; return how many messages were sent."""
        assert self._process.wait(30) == 0, self._log.read_text()
        return int(json.loads(self._log.read_text())["sent"])

    def end(self) -> None:
        """End it now."""
        self._process.kill()
        self._process.wait()


class Knocking:
    """A peer's initiations under load, and the answers, which may come late."""

    def __init__(self, known: Known) -> None:
        self.known = known
        self._sent: dict[int, Initiation] = {}

    def knock(self, cookie: bytes, limit_s: float) -> tuple[Initiation, bytes] | None:
        """Send an initiation; return the next answer, with what it answers, or None."""
        initiation = self.known.raw.initiation(cookie=cookie)
        self._sent[initiation.index] = initiation
        self.known.wire.send(initiation.datagram)
        answer = self.known.wire.poll(limit_s)
        if answer is None:
            return None
        at = 8 if kind_of(answer) == RESPONSE else 4
        return self._sent[struct.unpack_from("<I", answer, at)[0]], answer
