"""The reference fast path: plain Python on `cryptography` and numpy, always there.

```
out  tun_io.PacketIntake -> seal.Sealer (segment.py) -> udp_io.DatagramWriter
in   udp_io.DatagramIntake -> open.Opener (sink.py, coalesce.py) -> tun_io.PacketWriter
```

Each works on whole records: one call, whatever the number of packets in it, with the fields of
all packets computed at once and nothing per packet but the cryptography. What comes out is, packet
by packet, what `Keypair.seal` and `Keypair.open` say; the tests hold it to them.

Roles whose packets are captured use these classes whichever fast path runs, for they show every
record that they publish to a tap.
"""

from __future__ import annotations

from wgmp.counters import Block
from wgmp.fastpath.interface import AllowedIPs, Find, Part
from wgmp.fastpath.leases import Leases as leases
from wgmp.fastpath.open import Opener
from wgmp.fastpath.routes import Routes as allowed_ips
from wgmp.fastpath.seal import Sealer
from wgmp.fastpath.steps import step_of
from wgmp.fastpath.tun_io import PacketIntake as packet_intake
from wgmp.fastpath.tun_io import PacketWriter as packet_writer
from wgmp.fastpath.turns import Turns
from wgmp.fastpath.udp_io import DatagramIntake as datagram_intake
from wgmp.fastpath.udp_io import DatagramWriter as datagram_writer
from wgmp.interest import Interest
from wgmp.peerdrops import PeerDrops
from wgmp.ring import Doorbell, RingReader, RingWriter
from wgmp.stream import RecordStream

NAME = "reference"
AEAD = "cryptography"

__all__ = [
    "AEAD",
    "NAME",
    "allowed_ips",
    "datagram_intake",
    "datagram_writer",
    "leases",
    "opener",
    "packet_intake",
    "packet_writer",
    "sealer",
    "turns",
]


def sealer(out: RingWriter, counters: Block, drops: PeerDrops) -> Sealer:
    """Return the worker's way out."""
    return Sealer(RecordStream(out, counters), counters, drops)


def opener(
    out: RingWriter,
    allowed_ips: AllowedIPs,
    counters: Block,
    drops: PeerDrops,
    coalesce: frozenset[int],
    find: Find,
) -> Opener:
    """Return the worker's way in."""
    return Opener(RecordStream(out, counters), allowed_ips, counters, drops, coalesce, find)


def turns(
    interest: Interest,
    doorbell: Doorbell,
    parts: list[tuple[Part, list[RingReader]]],
    captured: memoryview | None,
) -> Turns:
    """Return the turns of a process."""
    return Turns(interest, doorbell, [step_of(*each) for each in parts], captured)
