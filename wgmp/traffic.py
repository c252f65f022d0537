"""TCP traffic that proves itself: random bytes from a sender to a receiver, SHA-256 at both ends.

`Transfer` runs this module as a program in two namespaces: `python -m wgmp.traffic receive
ADDRESS PORT` serves one connection, `python -m wgmp.traffic send ADDRESS PORT [--bytes N]
[--seconds S]` feeds it. Both print one JSON object a line: `{"bytes": N, "seconds": S}` about
five times a second (`--every S` for another pace), and at the end the same with the `sha256` of
the whole stream. The receiver reports 0 bytes once it listens; the sender ends its stream early on
SIGINT. Used by the demo, the tests and the benchmark.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from wgmp.errors import CommandError
from wgmp.netns import Namespace, end, wait_for

_CHUNK_BYTES = 1 << 18
_REPORT_EVERY_S = 0.2
_LISTEN_LIMIT_S = 15.0


class Report(msgspec.Struct):
    """How far an end is: `bytes` after `seconds`. `sha256`: in hex, "" before the end.

    `at`: the moment it is said, in seconds of the machine's monotonic clock.
    """

    bytes: int = 0
    seconds: float = 0.0
    sha256: str = ""
    at: float = 0.0


class Transfer:
    """A transfer that runs from one namespace to another, begun by the constructor.

    `address`, `port`: where the receiver listens. `directory`: where both ends' output goes.
    `limits`: options of the sender, such as "--bytes", "1000000". `every_s`: how often the
    receiver says at the most how far it is. Raises CommandError.
    """

    def __init__(
        self,
        sender: Namespace,
        receiver: Namespace,
        address: str,
        port: int,
        directory: Path,
        *limits: str,
        every_s: float = _REPORT_EVERY_S,
    ) -> None:
        where = (address, str(port))
        tag = f"{receiver.name}-{port}-{time.monotonic_ns()}.log"
        self._logs = (directory / f"receive-{tag}", directory / f"send-{tag}")
        command = (sys.executable, "-m", "wgmp.traffic")
        pace = ("--every", str(every_s))
        self._receiver = receiver.start(*command, "receive", *where, *pace, log=self._logs[0])
        wait_for(self._listens, _LISTEN_LIMIT_S, f"the receiver listens on {address}")
        self._sender = sender.start(*command, "send", *where, *limits, log=self._logs[1])

    def _listens(self) -> bool:
        _runs(self._receiver, self._logs[0])
        return self._logs[0].read_text().startswith("{")

    def running(self) -> bool:
        """Tell whether an end still runs. Raises CommandError when one has failed."""
        receiving = _runs(self._receiver, self._logs[0])
        sending = _runs(self._sender, self._logs[1])
        return receiving or sending

    def received(self) -> Report:
        """Return the receiver's last report."""
        return _last_report(self._logs[0])

    def arrivals(self) -> list[Report]:
        """Return all of the receiver's reports so far, each just after something arrived."""
        return _reports(self._logs[0])

    def sent(self) -> Report:
        """Return the sender's last report."""
        return _last_report(self._logs[1])

    def finish(self, limit_s: float) -> Report:
        """Wait for both ends; return the receiver's report.

        Raises CommandError when that takes too long, or what arrived is not what was sent.
        """
        wait_for(lambda: not self.running(), limit_s, f"the transfer ends, at {self.received()}")
        sent, received = self.sent(), self.received()
        if not received.sha256 or (sent.bytes, sent.sha256) != (received.bytes, received.sha256):
            raise CommandError(f"{sent} was sent, but {received} arrived")
        return received

    def conclude(self, limit_s: float) -> Report:
        """Let the sender send no more, and `finish`."""
        self._sender.send_signal(signal.SIGINT)
        return self.finish(limit_s)

    def stop(self) -> None:
        """End both ends at once."""
        end(self._sender)
        end(self._receiver)


def _runs(process: subprocess.Popen[bytes], log: Path) -> bool:
    """Tell whether an end runs; raise CommandError when it failed."""
    code = process.poll()
    if code:
        raise CommandError(f"an end of the transfer failed: {log.read_text()[-300:].strip()}")
    return code is None


def _last_report(log: Path) -> Report:
    reports = _reports(log, most=1)
    return reports[0] if reports else Report()


def _reports(log: Path, most: int = 0) -> list[Report]:
    """Return the last `most` reports of an end, all for 0."""
    # The last line may be half written, and an error is no report.
    lines = log.read_text().rpartition("\n")[0].splitlines()
    reports = [line for line in lines if line.startswith("{")]
    return [msgspec.json.decode(line, type=Report) for line in reports[-most:]]


def send(address: str, port: int, limit_bytes: int, limit_s: float) -> None:
    """Connect and send random bytes until either limit, or SIGINT. Raises OSError."""
    enough = threading.Event()
    signal.signal(signal.SIGINT, lambda number, frame: enough.set())
    with socket.create_connection((address, port), timeout=60.0) as connection:
        report = _Reporter()
        while not enough.is_set() and report.elapsed() < limit_s and report.count < limit_bytes:
            chunk = os.urandom(min(_CHUNK_BYTES, limit_bytes - report.count))
            connection.sendall(chunk)
            report.add(chunk)
        connection.shutdown(socket.SHUT_WR)
        # The receiver closes once it has read all: only then has everything arrived.
        connection.recv(1)
        report.finish()


def receive(address: str, port: int, every_s: float = _REPORT_EVERY_S) -> None:
    """Take one connection and read it to its end. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as server:
        _say(Report())
        connection, _ = server.accept()
        with connection:
            report = _Reporter(every_s)
            while chunk := connection.recv(_CHUNK_BYTES):
                report.add(chunk)
            report.finish()


class _Reporter:
    """Counts and hashes the stream; prints where it stands, not too often."""

    def __init__(self, every_s: float = _REPORT_EVERY_S) -> None:
        self.count = 0
        self._every_s = every_s
        self._digest = hashlib.sha256()
        self._start = self._last = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def add(self, chunk: bytes) -> None:
        self.count += len(chunk)
        self._digest.update(chunk)
        now = time.monotonic()
        if now - self._last >= self._every_s:
            self._last = now
            _say(Report(self.count, self.elapsed()))

    def finish(self) -> None:
        _say(Report(self.count, self.elapsed(), self._digest.hexdigest()))


def _say(report: Report) -> None:
    report.at = time.monotonic()
    print(msgspec.json.encode(report).decode(), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as the sender or the receiver the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m wgmp.traffic")
    parser.add_argument("direction", choices=("send", "receive"))
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--bytes", type=int, default=1 << 62)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--every", type=float, default=_REPORT_EVERY_S)
    options = parser.parse_args(arguments)
    work: dict[str, Callable[[], None]] = {
        "send": lambda: send(options.address, options.port, options.bytes, options.seconds),
        "receive": lambda: receive(options.address, options.port, options.every),
    }
    try:
        work[options.direction]()
    except OSError as error:
        print(f"wgmp.traffic {options.direction}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
