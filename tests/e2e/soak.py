"""Two gateways at work for a long time: what grows?

Sessions are replaced every few seconds (short_timers.py), TCP comes and goes both ways. Every
few seconds each process is measured. Memory may rise while tables and caches fill, so what
counts is the last quarter of the time against the second.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from wgmp.netns import Namespaces

from .torture import flow
from .tunnel import Gateway, build, transfer

_ROUND_S = 4.0
_FINISH_LIMIT_S = 60.0
# What a process may have more in the end: noise of the allocator.
_GROWTH_BYTES = 2 << 20


@dataclass
class Soak:
    """What was measured, by gateway and process: bytes of its own memory, and descriptors.

    `differences`: of what the ends count as transferred, in bytes, round by round.
    """

    memory: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    descriptors: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    differences: list[int] = field(default_factory=list)
    handshakes: int = 0
    bytes: int = 0

    def complaints(self) -> list[str]:
        """Return what grew, and whether the ends disagree in the end."""
        found = []
        for name, values in self.memory.items():
            before, after = _quarters(values)
            if after - before > _GROWTH_BYTES:
                found.append(f"{name}: memory grew from {before / 1e6:.1f} to {after / 1e6:.1f} MB")
        for name, values in self.descriptors.items():
            before, after = _quarters(values)
            if after > before:
                found.append(f"{name}: {before:.0f} descriptors became {after:.0f}")
        if self.differences[-1]:
            found.append(f"the ends' counts differ by {self.differences[-1]} bytes")
        return found


def _quarters(values: list[int]) -> tuple[float, float]:
    quarter = max(1, len(values) // 4)
    return statistics.median(values[quarter : 2 * quarter]), statistics.median(values[-quarter:])


def soak(
    world: Namespaces,
    directory: Path,
    seconds: float,
    topology: str = "pipeline",
    megabytes: int = 0,
) -> Soak:
    """Let two gateways work for `seconds` or a little longer.

    `megabytes`: each way in a round, with pings for the rest of it, so that the machine has time
    for others; 0: as much as goes through.
    """
    environment = {"LOG_LEVEL": "error"}
    ends = build(
        world,
        directory,
        "wgmpd-short",
        "wgmpd-short",
        topology=topology,
        environment=environment,
    )
    assert ends.left.ping(ends.right.inner4)
    found = Soak()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ways = (ends.left, ends.right, 5201), (ends.right, ends.left, 5202)
        if megabytes:
            limit = "--bytes", str(megabytes * 1_000_000)
            flows = [transfer(here, there, *limit, port=port) for here, there, port in ways]
        else:
            flows = [
                flow(here, there, port, "--seconds", str(_ROUND_S)) for here, there, port in ways
            ]
        found.bytes += sum(each.finish(_FINISH_LIMIT_S).bytes for each in flows)
        if megabytes:
            assert ends.left.ping_all(ends.right.inner4, int(_ROUND_S / 0.01), 100)
        for gateway in (ends.left, ends.right):
            _measure(gateway, found)
        found.differences.append(_difference(ends.left, ends.right))
    blocks = [role["counters"] for role in ends.left.stats()["roles"]]
    found.handshakes = sum(int(block["handshakes_completed"]) for block in blocks)
    return found


def _measure(gateway: Gateway, found: Soak) -> None:
    side = gateway.log.stem.partition("-")[0]
    supervisor = psutil.Process(gateway.process.pid)
    for process in (supervisor, *supervisor.children()):
        name = f"{side} {process.name()}"
        found.memory[name].append(process.memory_full_info().uss)
        found.descriptors[name].append(process.num_fds())


def _difference(left: Gateway, right: Gateway) -> int:
    """Return by how many bytes the ends disagree once nothing is on its way."""
    for _ in range(20):
        (here,), (there,) = left.peers().values(), right.peers().values()
        difference = abs(here.sent - there.received) + abs(there.sent - here.received)
        if not difference:
            return 0
        time.sleep(0.1)
    return difference
