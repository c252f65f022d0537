"""A sealer and an opener of one fast path between rings of their own, and all that they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.fastpath.test_segment import cut
from wgmp.counters import Counters, create_counters
from wgmp.fastpath import virtio
from wgmp.fastpath.interface import FastPath, Received, Refused
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.peertable import PeerTable
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.noise import SessionKeys
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import SLOT_BYTES, Kind, Record, pack_endpoint
from wgmp.ring import Doorbell, RingReader, RingWriter, create_ring
from wgmp.shm import PAGE_BYTES, Segment

PEER = 3
STRANGER = 4
KEYS = b"\x11" * 32, b"\x22" * 32
ENDPOINT = Endpoint(bytes([192, 0, 2, 1]), 51820, 0, bytes([192, 0, 2, 2]), 7)
MTU = 1420

# What the fast path says of what it opened.
Opened = tuple[list[Received], list[Refused]]

# Nobody sleeps behind the rings. One for all: each has a descriptor.
BELL = Doorbell(Segment("bells", 64), 0)


class Ring:
    """A ring and both its ends."""

    def __init__(self, slots: int = 8) -> None:
        segment = create_ring("test", slots, SLOT_BYTES)
        # What earlier records left in its slots.
        segment.bytes[PAGE_BYTES:] = b"\xa5" * (len(segment.bytes) - PAGE_BYTES)
        self.writer = RingWriter(segment, BELL)
        self.reader = RingReader(segment)

    def offer(
        self,
        kind: Kind,
        packets: Sequence[bytes],
        flags: int = 0,
        peer: int = PEER,
        endpoint: Endpoint = ENDPOINT,
    ) -> None:
        """Publish a record of packets."""
        record = self.writer.reserve()
        assert record is not None
        record.begin(kind, peer, flags)
        record.set_endpoint(endpoint)
        for packet in packets:
            record.append(packet)
        self.writer.publish()

    def take(self) -> list[tuple[int, int, Endpoint | None, list[bytes]]]:
        """Take all records out: flags, peer, endpoint and packets of each."""
        found = []
        while (record := self.reader.peek()) is not None:
            found.append(_seen(record))
            self.reader.release()
        return found


def _seen(record: Record) -> tuple[int, int, Endpoint | None, list[bytes]]:
    endpoint = record.endpoint() if record.kind == Kind.DATAGRAMS else None
    return record.flags, record.peer, endpoint, [bytes(packet) for packet in record.packets()]


@dataclass
class Ends:
    """One end of a session on `fastpath`. IPv4 source 0.0.0.1 and IPv6 ::1 are the peer's."""

    fastpath: FastPath
    initiator: bool = True
    slots: int = 8
    coalesce: frozenset[int] = frozenset({6, 17})
    refuse: dict[int, DropReason] = field(default_factory=dict)

    def __post_init__(self) -> None:
        keys, index = (KEYS, 1) if self.initiator else (KEYS[::-1], 2)
        self.keypair = Keypair(SessionKeys(*keys, index, 3 - index, self.initiator), 0.0)
        self.counters = Counters(create_counters(1), 0)
        self.peers = PeerTable()
        self.packets, self.datagrams = Ring(), Ring()
        self.sealed, self.opened = Ring(self.slots), Ring(self.slots)
        routes = self.fastpath.allowed_ips()
        routes.insert(bytes(4), 0, STRANGER)
        routes.insert((1).to_bytes(4, "big"), 32, PEER)
        routes.insert((1).to_bytes(16, "big"), 128, PEER)
        self.peers.row(PEER).adopt()
        refuse, keypair = self.refuse, self.keypair

        def find(index: int) -> tuple[Keypair, int] | DropReason:
            # Knows no more than it needs: an opener that led back to this object would keep it,
            # with its shared memory, for ever.
            return refuse.get(index) or (keypair, PEER)

        drops = self.peers.peer_drops
        self._sealer = self.fastpath.sealer(self.sealed.writer, self.counters, drops)
        self._opener = self.fastpath.opener(
            self.opened.writer, routes, self.counters.inward, drops, self.coalesce, find
        )

    def seal(self, packets: Sequence[bytes], flags: int = 0) -> tuple[int, int]:
        """Seal one record of packets behind virtio headers."""
        self.packets.offer(Kind.PACKETS, packets, flags)
        return self.seal_waiting()

    def seal_waiting(self) -> tuple[int, int]:
        """Seal what waits in the ring, as far as one call goes."""
        endpoint = pack_endpoint(ENDPOINT)
        return self._sealer.seal(self.packets.reader, self.keypair, PEER, endpoint, MTU)

    def open(self, datagrams: Sequence[bytes], flags: int = 0) -> Opened:
        """Open one record of datagrams; return what the fast path said of it."""
        self.datagrams.offer(Kind.DATAGRAMS, datagrams, flags)
        return self.open_waiting()

    def open_waiting(self) -> Opened:
        """Open what waits in the ring, as far as one call goes."""
        return self._opener.open(self.datagrams.reader)

    def written(self) -> list[bytes]:
        """What the TUN is given, super-packets cut apart again."""
        return apart([packet for _, _, _, packets in self.opened.take() for packet in packets])

    def books(self) -> dict[str, object]:
        """Every counter and drop, by block and by peer, and the keypair's words.

        A super-packet more is a packet less, so how many are made of the same packets is left out.
        """
        inward, outward = self.counters.inward.figures(), self.counters.outward.figures()
        made = inward.pop("packets_out") + inward.pop("joined")
        for size in ("bytes_out", "records_out"):
            inward.pop(size)
        return {
            "outward": outward,
            "inward": inward | {"packets made": made},
            "drops": (self.counters.outward.drops(), self.counters.inward.drops()),
            "peer": self.peers.drops(PEER),
            "state": self.keypair.state.tolist(),
        }


def apart(written: list[bytes]) -> list[bytes]:
    """Return single packets from what the TUN is given."""
    packets = []
    for each in written:
        header, body = VirtioHeader.unpack(each), each[virtio.SIZE :]
        packets += [body] if header.gso_type == virtio.GSO_NONE else cut(header, body)
    return packets
