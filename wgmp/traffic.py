"""TCP traffic that proves itself: random bytes from a sender to a receiver, SHA-256 at both ends.

Run as a program in a namespace: `python -m wgmp.traffic receive ADDRESS PORT` serves one
connection, `python -m wgmp.traffic send ADDRESS PORT [--bytes N | --seconds S]` feeds it. Both
print one JSON object a line: `{"bytes": N, "seconds": S}` about five times a second, and at the
end the same with the `sha256` of the whole stream. The receiver says `{"listening": true}`
first. Used by the demo, the tests and the benchmark.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence

_CHUNK_BYTES = 1 << 18
_REPORT_EVERY_S = 0.2


def send(address: str, port: int, limit_bytes: int, limit_s: float) -> None:
    """Connect and send random bytes until either limit. Raises OSError."""
    with socket.create_connection((address, port), timeout=60.0) as connection:
        report = _Report()
        while (left := limit_bytes - report.count) > 0 and report.elapsed() < limit_s:
            chunk = os.urandom(min(_CHUNK_BYTES, left))
            connection.sendall(chunk)
            report.add(chunk)
        connection.shutdown(socket.SHUT_WR)
        # The receiver closes once it has read all: only then has everything arrived.
        connection.recv(1)
        report.finish()


def receive(address: str, port: int) -> None:
    """Take one connection and read it to its end. Raises OSError."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, port), family=family) as server:
        _say({"listening": True})
        connection, _ = server.accept()
        with connection:
            report = _Report()
            while chunk := connection.recv(_CHUNK_BYTES):
                report.add(chunk)
            report.finish()


class _Report:
    """Counts and hashes the stream; prints where it stands, not too often."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.sha256()
        self._start = self._last = time.monotonic()

    def elapsed(self) -> float:
        return time.monotonic() - self._start

    def add(self, chunk: bytes) -> None:
        self.count += len(chunk)
        self._digest.update(chunk)
        now = time.monotonic()
        if now - self._last >= _REPORT_EVERY_S:
            self._last = now
            _say({"bytes": self.count, "seconds": self.elapsed()})

    def finish(self) -> None:
        digest = self._digest.hexdigest()
        _say({"bytes": self.count, "seconds": self.elapsed(), "sha256": digest})


def _say(line: dict[str, object]) -> None:
    print(json.dumps(line), flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run as the sender or the receiver the arguments name; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m wgmp.traffic", description=__doc__)
    parser.add_argument("direction", choices=("send", "receive"))
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("--bytes", type=int, default=1 << 62)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    options = parser.parse_args(arguments)
    work: dict[str, Callable[[], None]] = {
        "send": lambda: send(options.address, options.port, options.bytes, options.seconds),
        "receive": lambda: receive(options.address, options.port),
    }
    try:
        work[options.direction]()
    except OSError as error:
        print(f"wgmp.traffic {options.direction}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
