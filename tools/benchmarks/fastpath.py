"""The fast path's functions as the benchmarks call them: the only place that knows how."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat

from wgmp.fastpath import reference
from wgmp.protocol.constants import TAG_SIZE
from wgmp.protocol.keypair import Keypair, padded_length
from wgmp.protocol.messages import TransportHeader
from wgmp.protocol.noise import SessionKeys
from wgmp.protocol.replay import ReplayWindow
from wgmp.record import SLOT_BYTES, Kind, Record

MTU = 1420
_PACKETS = 40
_OVERHEAD = TransportHeader.SIZE + TAG_SIZE


@dataclass(frozen=True)
class Function:
    """A function on a record of `packets` packets; `bare`: the AEAD alone on as many."""

    name: str
    packets: int
    call: Callable[[], object]
    bare: Callable[[], object] | None = None


def packet(length: int, source: bytes, destination: bytes) -> bytes:
    """Return an IPv4 packet of `length` bytes; its checksum is not looked at."""
    return (b"\x45\0" + length.to_bytes(2, "big") + bytes(8) + source + destination).ljust(length)


def fill(record: Record, peer: int, inner: bytes) -> None:
    """Make a record such as tun_reader makes of a flow: full of the same packet."""
    record.begin(Kind.PACKETS, peer)
    while record.fits(len(inner)):
        record.append(inner)


def functions(size: int) -> Iterator[Function]:
    """Yield the functions, set up for packets of `size` bytes."""
    inner = packet(size, bytes(4), bytes(4))
    sender = Keypair(SessionKeys(bytes(32), bytes(32), 1, 2, True), 0.0)
    receiver = Keypair(SessionKeys(bytes(32), bytes(32), 2, 1, False), 0.0)
    packets = [memoryview(inner)] * _PACKETS
    datagrams = [memoryview(sender.seal(inner, MTU)) for _ in packets]
    out = Record(memoryview(bytearray(SLOT_BYTES)))

    def seal() -> None:
        out.begin(Kind.DATAGRAMS)
        reference.seal(sender, packets, out, MTU)

    def open_() -> None:
        receiver.replay = ReplayWindow()
        out.begin(Kind.PACKETS)
        reference.open_datagrams(receiver, datagrams, out, lambda _: True)

    nonces = [bytes(4) + counter.to_bytes(8, "little") for counter in range(_PACKETS)]
    padded = inner.ljust(padded_length(size, MTU), b"\0")
    room = memoryview(bytearray(_PACKETS * (len(padded) + TAG_SIZE)))
    stride = len(padded) + TAG_SIZE
    sealed = [room[at : at + stride] for at in range(0, len(room), stride)]
    opened = [view[: len(padded)] for view in sealed]
    bodies = [datagram[TransportHeader.SIZE :] for datagram in datagrams]

    def bare_seal() -> None:
        list(map(sender.sealer.encrypt_into, nonces, repeat(padded), repeat(None), sealed))

    def bare_open() -> None:
        list(map(receiver.opener.decrypt_into, nonces, bodies, repeat(None), opened))

    yield Function("seal", _PACKETS, seal, bare_seal)
    yield Function("open", _PACKETS, open_, bare_open)
