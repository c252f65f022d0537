"""Measure how many handshakes a core answers, and how many initiations it turns away.

    .venv/bin/python tools/bench_handshakes.py [--peers N] [--rounds N]

udp_reader, admission and one worker run in this process, on a real UDP socket over loopback and
real rings, one after the other, so that the seconds spent are seconds of one core. What is sent
was made beforehand and is not counted; the kernel's part of receiving is. Prints the median and
the spread over the rounds, each in messages a second and core.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
sys.path.insert(0, str(ROOT / "tools"))

from flood import messages  # noqa: E402
from hostile import rawcrypto  # noqa: E402
from hostile.rawpeer import RawPeer  # noqa: E402

from wgmp import udp  # noqa: E402
from wgmp.fabric import Fabric  # noqa: E402
from wgmp.offload import Offloads  # noqa: E402
from wgmp.orders import Begin, Order, SetPeer, SetPrivateKey  # noqa: E402
from wgmp.ring import RingReader  # noqa: E402
from wgmp.role import Devices  # noqa: E402
from wgmp.roles.admission import Admission  # noqa: E402
from wgmp.roles.udp_reader import UdpReader  # noqa: E402
from wgmp.roles.worker import Worker  # noqa: E402
from wgmp.topology import Shape, build  # noqa: E402
from wgmp.tun import TunQueue  # noqa: E402

# Messages in flight: few enough that nobody is asked for a cookie, unless that is measured.
_BATCH = 64
_FLOOD_BATCH = 2048


class Bench:
    """A gateway's way of a handshake message, in one process."""

    def __init__(self) -> None:
        self.private_key = os.urandom(32)
        self.public_key = rawcrypto.public_of(self.private_key)
        port, sockets = udp.open_sockets(0, 0)
        devices = Devices([TunQueue(-1, virtio_header=True)], sockets, Offloads())
        self.fabric = Fabric(build(Shape.COMPACT, 1))
        self.reader = UdpReader(self.fabric.context("udp_reader", devices))
        self.admission = Admission(self.fabric.context("admission", devices))
        self.worker = Worker(self.fabric.context("worker0", devices))
        self.roles = [self.reader, self.admission, self.worker]
        self._answers = self.fabric.context("udp_writer", devices).inputs.values()
        self._sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._sender.connect(("127.0.0.1", port))
        self._now = 1000.0
        self.obey(SetPrivateKey(self.private_key))
        self.obey(Begin())

    def obey(self, order: Order) -> None:
        """Give all roles an order."""
        for role in self.roles:
            role.obey(order, self._now, [])

    def add_peers(self, count: int) -> list[RawPeer]:
        """Make peers that the gateway knows."""
        peers = [RawPeer(self.public_key) for _ in range(count)]
        for number, peer in enumerate(peers, start=1):
            self.fabric.peers.set_owner(number, 0)
            self.obey(SetPeer(number, peer.public, bytes(32), 0, None))
        return peers

    def run(self, datagrams: list[bytes], batch: int) -> float:
        """Let the roles deal with datagrams; return the seconds that took them."""
        spent = 0.0
        for start in range(0, len(datagrams), batch):
            for datagram in datagrams[start : start + batch]:
                self._sender.send(datagram)
            self._now += 0.1
            spent += self._work()
        return spent

    def rest(self) -> None:
        """Let the load of the past be forgotten."""
        self._now += 2.0
        self._work()

    def _work(self) -> float:
        self.reader.readable = True
        spent, busy = 0.0, True
        while busy:
            start = time.perf_counter()
            stepped = [role.step(self._now) for role in self.roles]
            spent += time.perf_counter() - start
            answered = [self._take(ring) for ring in self._answers]
            busy = any(stepped) or any(answered)
        return spent

    def _take(self, ring: RingReader) -> bool:
        """Take answers as udp_writer would, uncounted."""
        taken = False
        while ring.peek() is not None:
            ring.release()
            taken = True
        return taken

    def drops(self) -> dict[str, int]:
        """Return all drops by reason."""
        counts: dict[str, int] = {}
        for role in self.roles:
            for reason, count in role.counters.drops().items():
                counts[reason] = counts.get(reason, 0) + count
        return counts


def measure(name: str, rounds: int, once: Callable[[], tuple[int, float]]) -> None:
    """Print how many messages a second were dealt with."""
    rates = []
    for _ in range(rounds):
        count, seconds = once()
        rates.append(count / seconds)
    print(f"{name}: median {statistics.median(rates):.0f}/s, {min(rates):.0f} to {max(rates):.0f}")


def main() -> None:
    """Measure as the arguments say."""
    parser = argparse.ArgumentParser(description="handshakes a second and core")
    parser.add_argument("--peers", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    bench = Bench()
    peers = bench.add_peers(options.peers)

    def answered() -> tuple[int, float]:
        initiations = [peer.initiation().datagram for peer in peers]
        return len(initiations), bench.run(initiations, _BATCH)

    def turned_away(pool: list[bytes], batch: int) -> Callable[[], tuple[int, float]]:
        def once() -> tuple[int, float]:
            bench.rest()
            datagrams = (pool * (1 + _FLOOD_BATCH * 2 // len(pool)))[: _FLOOD_BATCH * 2]
            return len(datagrams), bench.run(datagrams, batch)

        return once

    measure("handshakes answered", options.rounds, answered)
    bad, good = (messages(bench.public_key, valid) for valid in (False, True))
    strangers = [RawPeer(bench.public_key).initiation().datagram for _ in range(256)]
    measure("rejected, wrong mac1", options.rounds, turned_away(bad, _BATCH))
    measure("rejected, static key does not open", options.rounds, turned_away(good, _BATCH))
    measure("rejected, unknown peer", options.rounds, turned_away(strangers, _BATCH))
    measure("asked for a cookie, under load", options.rounds, turned_away(good, _FLOOD_BATCH))
    print(f"drops: {bench.drops()}")


if __name__ == "__main__":
    main()
