"""What is measured between two ends: each case gives a few figures with their units."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from wgmp.netns import Namespaces

from .cost import cpu_seconds, machine_busy_seconds, memory
from .figures import percentile
from .traffic import Delivered, Stream, ping, send
from .tunnels import Pair, star

GROUPS = ("tcp", "udp", "ping", "memory", "peers")

# A tunnel's UDP payloads: small, middling, and about the largest that is not fragmented.
UDP_SIZES = (64, 512, 1200)

_PEERS = 8
_PEER_STREAM = Stream(payload_bytes=1200, bits_per_second=20_000_000)
# Beyond those of the pairs, which exist meanwhile.
_STAR_NETWORK = 200

_GB = 1e9
_MB = 1e6
# How long a load runs before anything is measured under it.
_SETTLE_S = 1.0


class Figure(NamedTuple):
    """One figure of a case: "CPU a", "s/GB", 4.2."""

    what: str
    unit: str
    value: float


@dataclass(frozen=True)
class Case:
    """One measurement. `measure(pair, seconds)` raises CommandError when it does not work."""

    name: str
    measure: Callable[[Pair, float], list[Figure]]


def cases(groups: Iterable[str], udp_sizes: Iterable[int], mixed: bool) -> Iterator[Case]:
    """Yield the cases of the groups. `mixed`: ends may differ, so UDP is sent both ways too."""
    wanted = set(groups)
    ways = {"a > b": True, "b > a": False}
    if "tcp" in wanted:
        for streams, family, name in (
            (1, 4, "TCP, 1 stream"),
            (4, 4, "TCP, 4 streams"),
            (1, 6, "TCP, IPv6 inside"),
        ):
            for way, from_a in ways.items():
                stream = Stream(from_a, streams, family)
                yield Case(f"{name}, {way}", partial(_tcp, stream))
    if "udp" in wanted:
        for size in udp_sizes:
            for way, from_a in list(ways.items())[: 2 if mixed else 1]:
                stream = Stream(from_a, payload_bytes=size)
                yield Case(f"UDP, {size} bytes, {way}", partial(_udp, stream))
    if "ping" in wanted:
        yield Case("ping, idle", _ping_idle)
        yield Case("ping, under TCP load", _ping_loaded)
    if "memory" in wanted:
        yield Case("memory, under TCP load", _memory)
    if "peers" in wanted:
        yield Case(f"a with {_PEERS} peers b", _peers)


def _tcp(stream: Stream, pair: Pair, seconds: float) -> list[Figure]:
    ends = {"a": pair.a.processes(), "b": pair.b.processes()}
    before = {name: cpu_seconds(pids) for name, pids in ends.items()}
    busy = machine_busy_seconds()
    delivered = send(pair, stream, seconds)
    busy = machine_busy_seconds() - busy
    gigabytes = max(delivered.bytes, 1) / _GB
    figures = [Figure("throughput", "Gbit/s", _gbit(delivered))]
    figures += [
        Figure(f"CPU of {name}", "s/GB", (cpu_seconds(pids) - before[name]) / gigabytes)
        for name, pids in ends.items()
        if pids
    ]
    return [*figures, Figure("CPU of the machine", "s/GB", busy / gigabytes)]


def _gbit(delivered: Delivered) -> float:
    return 8 * delivered.bytes / delivered.seconds / _GB


def _udp(stream: Stream, pair: Pair, seconds: float) -> list[Figure]:
    delivered = send(pair, stream, seconds)
    lost = max(0, delivered.sent - delivered.arrived) / max(1, delivered.sent)
    return [
        Figure("goodput", "Gbit/s", _gbit(delivered)),
        Figure("delivered", "packets/s", delivered.arrived / delivered.seconds),
        Figure("loss", "%", 100 * lost),
    ]


def _peers(pair: Pair, seconds: float) -> list[Figure]:
    """Let peers send moderate UDP all at once, then TCP both ways. Nothing on a bare veth."""
    if pair.programs is None:
        return []
    with Namespaces() as world:
        pairs = star(world, pair.directory, *pair.programs, _PEERS, _STAR_NETWORK)
        udp = _all_at_once([(each, _PEER_STREAM) for each in pairs], seconds)
        pids = pairs[0].b.processes()
        before = cpu_seconds(pids)
        both = (Stream(from_a=True), Stream(from_a=False))
        tcp = _all_at_once([(each, stream) for each in pairs for stream in both], seconds)
        used = cpu_seconds(pids) - before
    sent, arrived = sum(d.sent for d in udp), sum(d.arrived for d in udp)
    return [
        Figure("TCP both ways at once, in all", "Gbit/s", sum(_gbit(each) for each in tcp)),
        Figure("CPU of a at that", "s/GB", used * _GB / max(1, sum(each.bytes for each in tcp))),
        Figure("UDP, 20 Mbit/s each, loss", "%", 100 * max(0, sent - arrived) / max(1, sent)),
    ]


def _all_at_once(loads: list[tuple[Pair, Stream]], seconds: float) -> list[Delivered]:
    with ThreadPoolExecutor(len(loads)) as executor:
        sending = [executor.submit(send, pair, stream, seconds) for pair, stream in loads]
        return [each.result() for each in sending]


def _ping_idle(pair: Pair, seconds: float) -> list[Figure]:
    return _round_trips(ping(pair, seconds))


def _ping_loaded(pair: Pair, seconds: float) -> list[Figure]:
    with _load(pair, seconds):
        return _round_trips(ping(pair, max(1.0, seconds - _SETTLE_S)))


def _round_trips(times_ms: list[float]) -> list[Figure]:
    return [
        Figure("median", "ms", statistics.median(times_ms)),
        Figure("p99", "ms", percentile(times_ms, 99)),
    ]


def _memory(pair: Pair, seconds: float) -> list[Figure]:
    figures = []
    with _load(pair, min(seconds, 3.0)):
        for name, end in (("a", pair.a), ("b", pair.b)):
            if pids := end.processes():
                used = memory(pids)
                figures.append(Figure(f"PSS of {name}", "MB", used.pss / _MB))
                figures.append(Figure(f"PSS of {name} if alone", "MB", used.alone / _MB))
    return figures


@contextmanager
def _load(pair: Pair, seconds: float) -> Iterator[None]:
    """Keep one TCP stream from a to b going during the block, which is shorter than that."""
    with ThreadPoolExecutor(1) as executor:
        load = executor.submit(send, pair, Stream(), seconds + _SETTLE_S)
        time.sleep(_SETTLE_S)
        yield
        load.result()
