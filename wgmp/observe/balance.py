"""The books of every stage of the data path: what came in went out, ended here, or was dropped.

    in + made + cut  =  out + joined + taken + staged + dropped

| term | packets that |
|---|---|
| in | the stage took from a descriptor or a ring |
| made | it made itself: initiations, responses, keepalives, cookie replies, ICMP errors |
| cut | came out of super-packets, less the super-packets |
| out | it gave to a ring or the kernel |
| joined | went into super-packets, less the super-packets |
| taken | ended here as they should: keepalives and handshake messages |
| staged | wait for a session |
| dropped | went no further, each for one reason |

A role is one stage, a worker two: one out to the network, one in from it. The books balance while
nothing is on its way. Under traffic they are read in the middle of things, and a role that was
killed leaves the record in its hands open: lost, or counted twice.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from wgmp.counters import Block, Counter, Counters
from wgmp.protocol.outcome import DropReason

_MADE_OUTWARD = (
    Counter.HANDSHAKES_BEGUN,
    Counter.HANDSHAKES_ANSWERED,
    Counter.KEEPALIVES_SENT,
    Counter.COOKIES_SENT,
)
# tun_reader's ICMP errors go straight back to the TUN and are no part of its way out.
_MADE_INWARD = (Counter.ICMP_ERRORS,)
_TAKEN = (Counter.KEEPALIVES_RECEIVED, Counter.MESSAGES_TAKEN)


class Stage(msgspec.Struct):
    """The books of one stage, in packets (see above); records and bytes for the rates.

    `unexplained`: what is missing on the right side of the equation.
    """

    name: str
    packets_in: int
    made: int
    cut: int
    packets_out: int
    joined: int
    taken: int
    staged: int
    dropped: int
    unexplained: int
    records_in: int
    records_out: int
    bytes_in: int
    bytes_out: int


def books(counters: Mapping[str, Counters]) -> list[Stage]:
    """Return the books of every stage. `counters`: by the role's name, in the topology's order."""
    stages = []
    for name, role in counters.items():
        if name.startswith("worker"):
            stages.append(_stage(f"{name} out", role.outward, _MADE_OUTWARD))
            stages.append(_stage(f"{name} in", role.inward, _MADE_INWARD))
        else:
            stages.append(_stage(name, role.outward, _MADE_OUTWARD))
    return stages


def _stage(name: str, block: Block, made_by: tuple[Counter, ...]) -> Stage:
    made = sum(map(block.value, made_by))
    taken = sum(map(block.value, _TAKEN))
    dropped = sum(map(block.dropped, DropReason))
    packets_in, packets_out = block.value(Counter.PACKETS_IN), block.value(Counter.PACKETS_OUT)
    cut, joined = block.value(Counter.CUT), block.value(Counter.JOINED)
    staged = block.value(Counter.STAGED)
    came = packets_in + made + cut
    return Stage(
        name=name,
        packets_in=packets_in,
        made=made,
        cut=cut,
        packets_out=packets_out,
        joined=joined,
        taken=taken,
        staged=staged,
        dropped=dropped,
        unexplained=came - (packets_out + joined + taken + staged + dropped),
        records_in=block.value(Counter.RECORDS_IN),
        records_out=block.value(Counter.RECORDS_OUT),
        bytes_in=block.value(Counter.BYTES_IN),
        bytes_out=block.value(Counter.BYTES_OUT),
    )
