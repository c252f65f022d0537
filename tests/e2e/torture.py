"""Role processes killed one after the other while TCP flows both ways: what does it cost?

`torture` builds a tunnel and kills; the `Findings` say how long traffic paused around each kill,
which handshakes there were, and whether a receiver index and counter were ever on the wire twice
with different bytes. That what arrived is what was sent is checked by the transfers themselves.
"""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import threading
import time
from bisect import bisect_right
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from hostile.wire import inside

from wgmp.netns import Namespace, Namespaces, wait_for
from wgmp.traffic import Report, Transfer

from .tunnel import WGMP, Gateway, build, exists

# How often the receivers say that something has arrived: the resolution of a pause.
_ARRIVALS_EVERY_S = 0.01
_SETTLE_S = 3.0
_FINISH_LIMIT_S = 60.0
_GOING_BYTES = 1_000_000

# linux/if_ether.h, linux/if_packet.h, asm-generic/socket.h
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_RCVBUFFORCE = 33
_CAPTURE_BUFFER_BYTES = 64 << 20

_IPV4_UDP = 28
_HEADER, _TAG = 16, 16
_Words = np.typing.NDArray[np.uint64]


@dataclass
class Findings:
    """What came of it. `pauses`: seconds without progress in either direction, by kill.

    `victims`: whom each kill hit. `handshakes`: begun or answered by the wgmpd ends meanwhile.
    `datagrams`: transport datagrams seen on the wire; `missed`: packets the capture could not
    take; `reused`: (receiver index, counter) pairs seen with different bytes.
    """

    seconds: float = 0.0
    received: list[Report] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    victims: list[str] = field(default_factory=list)
    handshakes: int = 0
    datagrams: int = 0
    missed: int = 0
    reused: int = 0


class Wiretap:
    """The transport datagrams on an interface: index and counter of each, and the bytes' tag.

    The authentication tag stands for the datagram: two of one key and nonce differ in it if they
    differ at all, but for a chance of 2^-64 in its half that is kept.
    """

    def __init__(self, namespace: Namespace, interface: str) -> None:
        with inside(namespace):
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)
            )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _CAPTURE_BUFFER_BYTES)
        self._socket.bind((interface, _ETH_P_ALL))
        self._socket.setblocking(False)
        self._found: list[tuple[bytes, bytes, bytes]] = []
        self._stopping = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        room = memoryview(bytearray(1 << 17))
        while not self._stopping:
            select.select([self._socket], [], [], 0.2)
            try:
                for _ in range(100):
                    self._take(room[: self._socket.recv_into(room)])
            except BlockingIOError:
                continue

    def _take(self, packet: memoryview) -> None:
        """Note the datagrams in a packet; a train is one packet here, to be taken apart."""
        if len(packet) < _IPV4_UDP + _HEADER + _TAG or packet[0] != 0x45 or packet[9] != 17:
            return
        content = bytes(packet[_IPV4_UDP:])
        if content[:4] != b"\x04\0\0\0":
            return
        # All but the last of a train are of one length, and begin with the same eight bytes.
        step = content.find(content[:8], _HEADER + _TAG)
        step = len(content) if step < 0 else step
        whole = len(content) // step
        rows = np.frombuffer(content, np.uint8, whole * step).reshape(whole, step)
        self._note(rows)
        if len(content) > whole * step:
            self._note(np.frombuffer(content, np.uint8, offset=whole * step).reshape(1, -1))

    def _note(self, rows: np.typing.NDArray[np.uint8]) -> None:
        ends = rows.shape[1]
        parts = (rows[:, 4:8], rows[:, 8:16], rows[:, ends - 8 :])
        self._found.append((parts[0].tobytes(), parts[1].tobytes(), parts[2].tobytes()))

    def close(self) -> tuple[int, int, int]:
        """Stop; return how many datagrams there were, were missed, and reused a counter."""
        self._stopping = True
        self._thread.join()
        statistics = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        self._socket.close()
        if not self._found:
            return 0, 0, 0
        indices, counters, tags = (b"".join(part) for part in zip(*self._found, strict=True))
        seen = (
            np.frombuffer(indices, "<u4"),
            np.frombuffer(counters, "<u8"),
            np.frombuffer(tags, "<u8"),
        )
        return len(seen[0]), int.from_bytes(statistics[4:], "little"), reused(*seen)


def reused(indices: np.typing.NDArray[np.uint32], counters: _Words, tags: _Words) -> int:
    """Return how many datagrams have the index and counter of another, but other bytes."""
    order = np.lexsort((tags, counters, indices))
    indices, counters, tags = indices[order], counters[order], tags[order]
    same = (indices[1:] == indices[:-1]) & (counters[1:] == counters[:-1])
    return int(np.count_nonzero(same & (tags[1:] != tags[:-1])))


def torture(
    world: Namespaces,
    directory: Path,
    right: str = "wgmpd",
    *,
    kills: int,
    interval_s: float,
    topology: str = "pipeline",
    sessions: str = "shared",
    resharding: bool = False,
    seed: int = 0,
) -> Findings:
    """Kill `kills` role processes of the wgmpd ends, one each `interval_s` on average.

    `resharding`: every fifth of them while the number of workers is being changed, or nearly.
    """
    chance = random.Random(seed)
    environment = {"WGMP_SESSIONS": sessions, "LOG_LEVEL": "error"}
    ends = build(world, directory, "wgmpd", right, topology=topology, environment=environment)
    gateways = [each for each in (ends.left, ends.right) if each.program == "wgmpd"]
    assert ends.left.ping(ends.right.inner4), "the right end learns where the left one is"
    findings = Findings()
    handshakes = sum(map(_handshakes, gateways))
    tap = Wiretap(ends.left.namespace, ends.left.outer_interface())
    flows = [flow(ends.left, ends.right, 5201), flow(ends.right, ends.left, 5202)]
    wait_for(
        lambda: all(each.received().bytes > _GOING_BYTES for each in flows), 20, "traffic flows"
    )
    moments = []
    start = time.monotonic()
    for number in range(kills):
        time.sleep(interval_s * chance.uniform(0.5, 1.5))
        gateway = chance.choice(gateways)
        if resharding and number % 5 == 0:
            _change_workers(gateway, chance)
        pid, name = chance.choice(role_processes(gateway))
        moments.append(time.monotonic())
        findings.victims.append(f"{gateway.log.stem.partition('-')[0]} {name}")
        os.kill(pid, signal.SIGKILL)
    time.sleep(_SETTLE_S)
    findings.seconds = time.monotonic() - start
    arrivals = [[report.at for report in each.arrivals()] for each in flows]
    findings.received = [each.conclude(_FINISH_LIMIT_S) for each in flows]
    findings.datagrams, findings.missed, findings.reused = tap.close()
    findings.handshakes = sum(map(_handshakes, gateways)) - handshakes
    for moment, end in zip(moments, [*moments[1:], moments[-1] + _SETTLE_S], strict=True):
        findings.pauses.append(max(longest_gap(times, moment, end) for times in arrivals))
    return findings


def _change_workers(gateway: Gateway, chance: random.Random) -> None:
    """Ask for another number of workers, and do not wait until there is."""
    count = str(chance.randint(1, 4))
    log = gateway.log.with_suffix(".workers")
    gateway.namespace.start(WGMP, "workers", count, gateway.interface, log=log)
    time.sleep(chance.uniform(0.2, 1.0))


def flow(sender: Gateway, receiver: Gateway, port: int, *limits: str) -> Transfer:
    """Begin a transfer whose receiver tells every 10 ms that something has arrived."""
    return Transfer(
        sender.namespace,
        receiver.namespace,
        receiver.inner4,
        port,
        sender.log.parent,
        *limits,
        every_s=_ARRIVALS_EVERY_S,
    )


def longest_gap(times: list[float], start: float, end: float) -> float:
    """Return the longest time between two arrivals, of which the later is in start..end."""
    first = max(1, bisect_right(times, start))
    last = min(len(times), bisect_right(times, end) + 1)
    return max((times[at] - times[at - 1] for at in range(first, last)), default=end - start)


def role_processes(gateway: Gateway) -> list[tuple[int, str]]:
    """Return the running role processes: (process id, the process's name, cut to 10 letters)."""
    pid = gateway.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    found = []
    for child in map(int, children):
        try:
            found.append((child, Path(f"/proc/{child}/comm").read_text().strip()))
        except (FileNotFoundError, ProcessLookupError):
            continue
    running = [(child, name) for child, name in found if ":" in name and exists(child)]
    return [(child, name.partition(":")[2]) for child, name in running]


def _handshakes(gateway: Gateway) -> int:
    """Return how many handshakes the gateway has begun or answered."""
    return gateway.total("handshakes_begun") + gateway.total("handshakes_answered")
