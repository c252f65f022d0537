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
from .wire import Wire

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
    """A peer's initiations under load, and the answers, which may come late.

    `wire`: where it knocks, its own socket unless told otherwise.
    """

    def __init__(self, known: Known, wire: Wire | None = None) -> None:
        self.known = known
        self._wire = wire or known.wire
        self._sent: dict[int, Initiation] = {}

    def knock(self, cookie: bytes, limit_s: float) -> tuple[Initiation, bytes] | None:
        """Send an initiation; return the next answer, with what it answers, or None.

        Answers to what somebody else has sent from there are not heard.
        """
        initiation = self.known.raw.initiation(cookie=cookie)
        self._sent[initiation.index] = initiation
        self._wire.send(initiation.datagram)
        while (answer := self._wire.poll(limit_s)) is not None:
            at = 8 if kind_of(answer) == RESPONSE else 4
            answered = self._sent.get(struct.unpack_from("<I", answer, at)[0])
            if answered is not None:
                return answered, answer
        return None
