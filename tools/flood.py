"""Flood a WireGuard port with handshake initiations; for the tests and `tools/bench-flood`.

    python tools/flood.py ADDRESS PORT PUBLIC_KEY --mac1 bad|valid [--rate N] [--seconds S]
                          [--sources N]

Run it in a network namespace, and only there. With `--sources` above 1 every message comes from
another of that many addresses of 198.18.0.0/15 (RFC 2544, benchmarking), which must be local to
the namespace. A valid mac1 costs the receiver a Diffie-Hellman, unless it asks for a cookie.
Prints one JSON object at the end: messages sent, and the seconds it took.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import socket
import struct
import time

_INITIATION = struct.pack("<I", 1)
_HEAD_BYTES = 116
_SIZE = 148
# What is sent again and again. A receiver that keeps no state cannot tell.
_POOL = 1024
# Messages between two looks at the clock; from one source they are one UDP_SEGMENT train.
_TRAIN = 32
_UDP_SEGMENT = 103  # linux/udp.h
_IP_PKTINFO = 8  # linux/in.h
_FIRST_SOURCE = struct.unpack("!I", socket.inet_aton("198.18.0.1"))[0]


def messages(public_key: bytes, valid: bool) -> list[bytes]:
    """Return initiations with random contents and a valid or a random mac1."""
    key = hashlib.blake2s(b"mac1----" + public_key).digest()
    pool = []
    for _ in range(_POOL):
        head = _INITIATION + os.urandom(_HEAD_BYTES - len(_INITIATION))
        mac1 = hashlib.blake2s(head, key=key, digest_size=16).digest()
        pool.append(head + (mac1 if valid else os.urandom(16)) + bytes(16))
    return pool


class Flooder:
    """Sends trains of messages to one address."""

    def __init__(self, target: tuple[str, int], pool: list[bytes], sources: int) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._target = target
        self._pool = pool
        self._sent = 0
        self._sources = [
            struct.pack("=i4s4s", 0, struct.pack("!I", _FIRST_SOURCE + number), bytes(4))
            for number in range(sources)
        ]
        if sources == 1:
            self._socket.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, _SIZE)

    def send_train(self) -> int:
        """Send some messages; return how many."""
        at = self._sent % _POOL
        train = self._pool[at : at + _TRAIN]
        self._sent += len(train)
        if len(self._sources) == 1:
            self._socket.sendto(b"".join(train), self._target)
            return len(train)
        for number, message in enumerate(train, start=self._sent):
            source = self._sources[number % len(self._sources)]
            ancillary = [(socket.IPPROTO_IP, _IP_PKTINFO, source)]
            self._socket.sendmsg([message], ancillary, 0, self._target)
        return len(train)


def flood(flooder: Flooder, rate: float, seconds: float) -> dict[str, float]:
    """Send `rate` messages a second for some seconds, evenly; return what was done."""
    start = time.monotonic()
    sent = 0
    while (elapsed := time.monotonic() - start) < seconds:
        if sent > elapsed * rate:
            time.sleep(sent / rate - elapsed)
            continue
        sent += flooder.send_train()
    return {"sent": sent, "seconds": time.monotonic() - start}


def main() -> None:
    """Flood as the arguments say."""
    parser = argparse.ArgumentParser(description="flood a WireGuard port with initiations")
    parser.add_argument("address")
    parser.add_argument("port", type=int)
    parser.add_argument("public_key", type=base64.b64decode)
    parser.add_argument("--mac1", choices=("bad", "valid"), required=True)
    parser.add_argument("--rate", type=float, default=20_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--sources", type=int, default=1)
    options = parser.parse_args()
    pool = messages(options.public_key, options.mac1 == "valid")
    flooder = Flooder((options.address, options.port), pool, options.sources)
    print(json.dumps(flood(flooder, options.rate, options.seconds)))


if __name__ == "__main__":
    main()
