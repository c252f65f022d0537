"""Counters in shared memory: one block per role, one writer each, readable at any time.

| words of a role's block | written by |
|---|---|
| 0..63 by `Counter` | the role's process |
| 64..127 by `DropReason`, offset 64 | the role's process |

A block outlives the process that writes it, so counts go on over a restart. Reading takes no
lock and asks nobody: a word is one 8-byte load.
"""

from __future__ import annotations

from enum import IntEnum, unique

from wgmp.protocol.outcome import DropReason
from wgmp.shm import WORD_BYTES, Segment

_DROPS = 64
BLOCK_WORDS = 128


@unique
class Counter(IntEnum):
    """What a role counts. The value is the word in its block."""

    STARTS = 0  # processes that ever ran this role
    HEARTBEAT = 1  # monotonic nanoseconds of the last turn of its loop
    SLEEPS = 2  # times its loop waited in epoll
    RECORDS_IN = 3
    RECORDS_OUT = 4
    PACKETS_IN = 5  # datagrams or packets, as the role sees them
    PACKETS_OUT = 6
    BYTES_IN = 7
    BYTES_OUT = 8
    PEERS = 9  # peers the worker owns
    SEALED = 10  # packets encrypted, keepalives included
    OPENED = 11  # datagrams decrypted and not seen before, keepalives included
    HANDSHAKES_BEGUN = 12  # initiations sent
    HANDSHAKES_ANSWERED = 13  # initiations answered with a response
    HANDSHAKES_COMPLETED = 14
    COOKIES_SENT = 15
    KEEPALIVES_SENT = 16
    KEEPALIVES_RECEIVED = 17
    ICMP_ERRORS = 18  # told the TUN side: unreachable, too big
    UDP_SEGMENT = 19  # gauge: trains go out in one call
    TRAINS_IN = 20  # receive calls that brought several datagrams


class Counters:
    """One role's block. `index` is the role's position in the topology."""

    __slots__ = ("_words",)

    def __init__(self, segment: Segment, index: int) -> None:
        start = index * BLOCK_WORDS
        self._words = segment.words[start : start + BLOCK_WORDS]

    def add(self, counter: Counter, amount: int = 1) -> None:
        """Count `amount` more. Only the role's own process may."""
        self._words[counter] += amount

    def store(self, counter: Counter, value: int) -> None:
        """Set a gauge. Only the role's own process may."""
        self._words[counter] = value

    def drop(self, reason: DropReason, count: int = 1) -> None:
        """Count `count` drops for one reason. Only the role's own process may."""
        self._words[_DROPS + reason] += count

    def value(self, counter: Counter) -> int:
        """Return one counter."""
        return self._words[counter]

    def dropped(self, reason: DropReason) -> int:
        """Return how many were dropped for one reason."""
        return self._words[_DROPS + reason]

    def figures(self) -> dict[str, int]:
        """Return every counter by its lower-case name."""
        return {counter.name.lower(): self._words[counter] for counter in Counter}

    def drops(self) -> dict[str, int]:
        """Return the drops that happened, by the reason's lower-case name."""
        counts = ((reason.name.lower(), self._words[_DROPS + reason]) for reason in DropReason)
        return {name: count for name, count in counts if count}


def create_counters(roles: int) -> Segment:
    """Return zeroed blocks for `roles` roles."""
    return Segment("counters", roles * BLOCK_WORDS * WORD_BYTES)
