"""Counters in shared memory: two blocks per role, one writer each, readable at any time.

| words of a block | written by |
|---|---|
| 0..63 by `Counter` | the role's process |
| 64..127 by `DropReason`, offset 64 | the role's process |

A worker works both ways, and counts in a block for each: what comes from the TUN, with the
initiations, responses and keepalives that it makes itself, in the first; what comes from the
network, with all handshake messages, in the second (`inward`), which other roles do not use.

A packet is an entry of a record: a super-packet is one, until a worker cuts it (`CUT`) and after
a worker has made it (`JOINED`); a datagram in a train is one. A drop counts as many. So, while
nothing is on its way, the books of each block balance (`observe/balance.py` has the terms):

    in + made + cut  =  out + joined + taken + staged + dropped

A block outlives the process that writes it, so counts go on over a restart. Reading takes no
lock and asks nobody: a word is one 8-byte load.
"""

from __future__ import annotations

from enum import IntEnum, unique
from typing import Final

from wgmp.protocol.outcome import DropReason
from wgmp.shm import WORD_BYTES, LastingMemory, Segment, make

DROPS = 64  # the first word of the drops
BLOCK_WORDS = 128


@unique
class Counter(IntEnum):
    """What a role counts. The value is the word in its block."""

    STARTS = 0  # processes that ever ran this role
    HEARTBEAT = 1  # boot time in ns of the last turn of its loop, or nearly
    SLEEPS = 2  # times its loop waited in epoll
    RECORDS_IN = 3
    RECORDS_OUT = 4
    PACKETS_IN = 5  # taken from a descriptor or a ring
    PACKETS_OUT = 6  # given to a ring, or taken by the kernel
    BYTES_IN = 7
    BYTES_OUT = 8
    PEERS = 9  # gauge: peers the worker owns
    SEALED = 10  # packets encrypted, keepalives included
    OPENED = 11  # inward: datagrams decrypted and not seen before, keepalives included
    HANDSHAKES_BEGUN = 12  # initiations made
    HANDSHAKES_ANSWERED = 13  # responses made
    HANDSHAKES_COMPLETED = 14
    COOKIES_SENT = 15  # cookie replies made
    KEEPALIVES_SENT = 16  # keepalives made
    KEEPALIVES_RECEIVED = 17  # inward
    ICMP_ERRORS = 18  # told the TUN side: unreachable, too big (inward, where a worker does)
    UDP_SEGMENT = 19  # gauge: trains go out in one call
    TRAINS_IN = 20  # receive calls that brought several datagrams
    CUT = 21  # packets that super-packets were cut into, less the super-packets
    JOINED = 22  # inward: packets that super-packets were made of, less the super-packets
    STAGED = 23  # gauge: packets that wait for a session
    MESSAGES_TAKEN = 24  # inward: handshake messages acted upon
    LOADED_UNTIL = 25  # gauge: boottime nanoseconds up to which cookies are asked for
    COOKIES_TAKEN = 26  # inward: cookie replies among the messages taken
    HANDSHAKES_GIVEN_UP = 27  # those that nobody answered for 90 s


# Plain integers: these are asked for with every record, and an enum's members are looked up.
_RECORDS_IN: Final = Counter.RECORDS_IN.value
_RECORDS_OUT: Final = Counter.RECORDS_OUT.value
_PACKETS_IN: Final = Counter.PACKETS_IN.value
_PACKETS_OUT: Final = Counter.PACKETS_OUT.value
_BYTES_IN: Final = Counter.BYTES_IN.value
_BYTES_OUT: Final = Counter.BYTES_OUT.value


class Block:
    """One block of 128 words. `words`: themselves, of format "Q"."""

    __slots__ = ("words",)

    def __init__(self, words: memoryview) -> None:
        self.words = words

    def add(self, counter: Counter, amount: int = 1) -> None:
        """Count `amount` more. Only the role's own process may."""
        self.words[counter] += amount

    def store(self, counter: Counter, value: int) -> None:
        """Set a gauge. Only the role's own process may."""
        self.words[counter] = value

    def drop(self, reason: DropReason, count: int = 1) -> None:
        """Count `count` drops for one reason. Only the role's own process may."""
        self.words[DROPS + reason] += count

    def record_in(self, packets: int, length: int) -> None:
        """Count a record taken from a ring, of so many packets and bytes in all."""
        words = self.words
        words[_RECORDS_IN] += 1
        words[_PACKETS_IN] += packets
        words[_BYTES_IN] += length

    def record_out(self, packets: int, length: int) -> None:
        """Count a record given to a ring, of so many packets and bytes in all."""
        words = self.words
        words[_RECORDS_OUT] += 1
        words[_PACKETS_OUT] += packets
        words[_BYTES_OUT] += length

    def packets_in(self, packets: int, length: int) -> None:
        """Count packets taken from a descriptor, of so many bytes in all."""
        words = self.words
        words[_PACKETS_IN] += packets
        words[_BYTES_IN] += length

    def packets_out(self, packets: int, length: int) -> None:
        """Count packets taken by the kernel, of so many bytes in all."""
        words = self.words
        words[_PACKETS_OUT] += packets
        words[_BYTES_OUT] += length

    def value(self, counter: Counter) -> int:
        """Return one counter."""
        return self.words[counter]

    def dropped(self, reason: DropReason) -> int:
        """Return the drops for one reason."""
        return self.words[DROPS + reason]

    def figures(self) -> dict[str, int]:
        """Return every counter by its lower-case name."""
        return {counter.name.lower(): self.value(counter) for counter in Counter}

    def drops(self) -> dict[str, int]:
        """Return the drops that happened, by the reason's lower-case name."""
        counts = ((reason.name.lower(), self.dropped(reason)) for reason in DropReason)
        return {name: count for name, count in counts if count}


class Counters(Block):
    """One role's counters. `index` is the role's position in the topology.

    It writes its first block and reads the sum of both; `inward` is the second one.
    """

    __slots__ = ("inward", "outward")

    def __init__(self, segment: Segment, index: int) -> None:
        middle = (2 * index + 1) * BLOCK_WORDS
        super().__init__(segment.words[middle - BLOCK_WORDS : middle])
        self.outward = Block(self.words)
        self.inward = Block(segment.words[middle : middle + BLOCK_WORDS])

    def value(self, counter: Counter) -> int:
        """Return one counter, the sum of both blocks."""
        return self.words[counter] + self.inward.value(counter)

    def dropped(self, reason: DropReason) -> int:
        """Return the drops for one reason, the sum of both blocks."""
        return self.outward.dropped(reason) + self.inward.dropped(reason)


def create_counters(roles: int, memory: LastingMemory | None = None) -> Segment:
    """Return blocks for `roles` roles, zeroed or a predecessor's, in `memory` if that is given."""
    return make(memory, "counters", roles * 2 * BLOCK_WORDS * WORD_BYTES, Segment)
