"""Traffic between the two ends of a pair: iperf3 and ping, and what they report."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from wgmp.errors import CommandError
from wgmp.netns import end, wait_for

from .tunnels import Pair

# How long a run may take beyond its own seconds: connecting, draining, exchanging results.
_GRACE_S = 25.0
_LISTEN_LIMIT_S = 10.0
_PING_INTERVAL_S = 0.01
_PING_TIME = re.compile(r"time=([\d.]+) ms")

_ports = itertools.count(5301)


@dataclass(frozen=True)
class Stream:
    """What iperf3 is to send. `from_a`: a sends to b; `payload_bytes`: of UDP, 0 for TCP.

    `bits_per_second`: of UDP, 0 for as fast as it goes.
    """

    from_a: bool = True
    streams: int = 1
    family: int = 4
    payload_bytes: int = 0
    bits_per_second: int = 0


@dataclass(frozen=True)
class Delivered:
    """What arrived: bytes of payload in so many seconds; for UDP datagrams sent and arrived."""

    bytes: int
    seconds: float
    sent: int = 0
    arrived: int = 0


def send(pair: Pair, stream: Stream, seconds: float) -> Delivered:
    """Send with iperf3; return what arrived. Raises CommandError."""
    with _server(pair, stream) as port:
        return _read(_client(pair, stream, seconds, port))


@contextmanager
def _server(pair: Pair, stream: Stream) -> Iterator[int]:
    """Serve one iperf3 run at b; yields its port."""
    port = next(_ports)
    log = pair.directory / f"iperf3-{port}.log"
    command = ("iperf3", "--server", "--one-off", "--forceflush", "--port", str(port))
    server = pair.b.namespace.start(*command, log=log)
    try:
        wait_for(
            lambda: "listening" in log.read_text(errors="replace"),
            _LISTEN_LIMIT_S,
            "iperf3 listens",
        )
        yield port
    finally:
        end(server)


def _client(pair: Pair, stream: Stream, seconds: float, port: int) -> dict[str, Any]:
    command = ["iperf3", "--client", pair.b.address(stream.family), "--json", "--port", str(port)]
    command += ["--time", f"{seconds:g}", "--parallel", str(stream.streams)]
    if not stream.from_a:
        command.append("--reverse")
    if stream.payload_bytes:
        command += ["--udp", "--bitrate", str(stream.bits_per_second)]
        command += ["--length", str(stream.payload_bytes)]
    done = pair.a.namespace.run(*command, check=False, timeout_s=seconds + _GRACE_S)
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        raise CommandError(f"iperf3 failed: {(done.stderr or done.stdout).strip()}") from None
    if "error" in report:
        raise CommandError(f"iperf3: {report['error']}")
    return report


def _read(report: dict[str, Any]) -> Delivered:
    """Return what the receiver says. Its UDP bytes count lost datagrams out already."""
    received, sent = report["end"]["sum_received"], report["end"]["sum_sent"]
    if "packets" not in received:
        return Delivered(received["bytes"], received["seconds"])
    size = report["start"]["test_start"]["blksize"]
    arrived = received["packets"] - received["lost_packets"]
    return Delivered(arrived * size, received["seconds"], sent["packets"], arrived)


def ping(pair: Pair, seconds: float) -> list[float]:
    """Ping b from a a hundred times a second; return the round trips in ms, lost ones left out.

    Raises CommandError when nothing comes back.
    """
    count = max(1, round(seconds / _PING_INTERVAL_S))
    options = (f"-c{count}", f"-i{_PING_INTERVAL_S}", f"-w{seconds + 2:.0f}")
    done = pair.a.namespace.run(
        "ping", "-n", *options, pair.b.inner4, check=False, timeout_s=seconds + _GRACE_S
    )
    times = [float(found) for found in _PING_TIME.findall(done.stdout)]
    if not times:
        raise CommandError(f"ping: no answer from {pair.b.inner4}")
    return times
