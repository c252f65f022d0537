"""Send garbage to a WireGuard port. Run in a namespace:

    python garbage.py ADDRESS PORT PUBLIC_KEY

Prints a JSON object: which drop reason the receiver owes us how many times. The peer's traffic
to ADDRESS must be visible here, for one datagram of it is sent again, whole and altered.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator

SIZES = {1: 148, 2: 92, 3: 64}
HEADERS = {kind: struct.pack("<I", kind) for kind in (1, 2, 3, 4)}
ETH_P_ALL = 3
TRANSPORT_MIN = 32


def shapeless() -> Iterator[tuple[str, bytes]]:
    """Yield datagrams that are no message by length or type, with the reason they are owed."""
    for length in [*range(1500), 4000, 16000, 65507]:
        if length < 4:
            yield "bad_length", os.urandom(length)
        else:  # the type word's last byte is zero in no message's
            yield "bad_type", os.urandom(3) + b"\xff" + os.urandom(length - 4)
    for kind, size in SIZES.items():
        for length in (4, size - 1, size + 1, size + 1000):
            yield "bad_length", HEADERS[kind] + os.urandom(length - 4)
    for length in (4, 16, TRANSPORT_MIN - 1):
        yield "bad_length", HEADERS[4] + os.urandom(length - 4)
    for kind in (0, 5, 255, 0x0101, 0x04000000, 0x00000104):
        yield "bad_type", struct.pack("<I", kind) + os.urandom(144)


def unauthentic(public_key: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield messages of the right shape that nobody with a key has made."""
    for _ in range(1000):
        yield "bad_mac1", HEADERS[1] + os.urandom(SIZES[1] - 4)
        yield "bad_mac1", HEADERS[2] + os.urandom(SIZES[2] - 4)
        yield "unknown_index", HEADERS[3] + os.urandom(SIZES[3] - 4)
        yield "unknown_index", HEADERS[4] + os.urandom(random.randrange(28, 1400))
    for _ in range(50):
        yield "bad_static", with_mac1(HEADERS[1] + os.urandom(112), public_key)
        yield "unknown_index", with_mac1(HEADERS[2] + os.urandom(56), public_key)


def with_mac1(head: bytes, public_key: bytes) -> bytes:
    """Return the message with a valid mac1 and a random mac2 (whitepaper 5.4.4)."""
    key = hashlib.blake2s(b"mac1----" + public_key).digest()
    mac1 = hashlib.blake2s(head, key=key, digest_size=16).digest()
    return head + mac1 + os.urandom(16)


def captured(address: str, port: int) -> bytes:
    """Return the payload of a real transport datagram on its way to the address over IPv4."""
    wanted = socket.inet_aton(address)
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL)) as tap:
        tap.settimeout(10)
        while True:
            packet = tap.recv(65535)
            header = 4 * (packet[0] & 15)
            udp = packet[header:]
            if packet[0] >> 4 != 4 or packet[9] != socket.IPPROTO_UDP or packet[16:20] != wanted:
                continue
            if struct.unpack_from("!H", udp, 2)[0] == port and udp[8:12] == HEADERS[4]:
                return udp[8:]


def replays(datagram: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the datagram again, and again with its tag, its counter or its body altered."""
    for _ in range(100):
        yield "replayed", datagram
        at = random.randrange(16, len(datagram))
        altered = bytes([datagram[at] ^ (1 << random.randrange(8))])
        yield "bad_tag", datagram[:at] + altered + datagram[at + 1 :]
        later = struct.pack("<Q", struct.unpack_from("<Q", datagram, 8)[0] + 1_000_000)
        yield "bad_tag", datagram[:8] + later + datagram[16:]


def main() -> None:
    """Send everything, slowly enough that the receiver's socket buffer loses none of it."""
    address, port, public_key = sys.argv[1], int(sys.argv[2]), base64.b64decode(sys.argv[3])
    owed: Counter[str] = Counter()
    datagram = captured(address, port)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for source in (shapeless(), unauthentic(public_key), replays(datagram)):
            for number, (reason, garbage) in enumerate(source):
                sender.sendto(garbage, (address, port))
                owed[reason] += 1
                if number % 8 == 7:
                    time.sleep(0.003)
    print(json.dumps(owed))


if __name__ == "__main__":
    main()
