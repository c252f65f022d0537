"""The reference fast path: plain Python on `cryptography`, always there, easy to read.

Each function works on a whole record: one call, whatever the number of packets in it. What it
computes per packet is what `Keypair.seal` and `Keypair.open` say; the tests hold it to them.
"""

from __future__ import annotations

import struct
from collections import Counter as Tally
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag

from wgmp.protocol import ip
from wgmp.protocol.constants import REJECT_AFTER_MESSAGES, TAG_SIZE
from wgmp.protocol.keypair import Keypair, padded_length
from wgmp.protocol.messages import MessageType
from wgmp.protocol.outcome import DropReason
from wgmp.record import Record

_HEADER = struct.Struct("<IIQ")  # type, receiver index, counter (whitepaper 5.4.6)
_NONCE = struct.Struct("<IQ")
_COUNTER_OFFSET = 8
_TRANSPORT = MessageType.TRANSPORT.value


def seal(keypair: Keypair, packets: Sequence[memoryview], out: Record, mtu: int) -> int:
    """Seal `packets` into `out` as transport datagrams; return how many.

    `packets`: inner packets of one peer, borrowed until return; at most what fits `out` with
    SEALING_ROOM each. `mtu`: bytes that padding does not pass. Fewer are sealed only when the
    keypair's counter reaches REJECT_AFTER_MESSAGES.
    """
    payload = out.payload
    encrypt_into = keypair.sealer.encrypt_into
    receiver = keypair.remote_index
    counter = keypair.send_counter
    sealed = 0
    for packet in packets:
        if counter >= REJECT_AFTER_MESSAGES:
            break
        length = padded_length(len(packet), mtu)
        at = out.used
        body = at + _HEADER.size
        end = body + length + TAG_SIZE
        _HEADER.pack_into(payload, at, _TRANSPORT, receiver, counter)
        plain = packet if len(packet) == length else bytes(packet).ljust(length, b"\0")
        encrypt_into(_NONCE.pack(0, counter), plain, None, payload[body:end])
        out.commit(end - at)
        counter += 1
        sealed += 1
    keypair.send_counter = counter
    return sealed


@dataclass(slots=True)
class Opened:
    """What `open_datagrams` found: authenticated, unseen datagrams by sort, and the drops.

    `received_bytes`: outer bytes of every authenticated, unseen datagram.
    """

    data: int = 0
    keepalives: int = 0
    received_bytes: int = 0
    drops: Tally[DropReason] = field(default_factory=Tally)


def open_datagrams(
    keypair: Keypair,
    datagrams: Sequence[memoryview],
    out: Record,
    is_allowed_source: Callable[[bytes], bool],
) -> Opened:
    """Open transport `datagrams` of one keypair into `out` as inner packets, trimmed.

    `datagrams`: each at least 32 bytes with the keypair's receiver index, borrowed until
    return. `is_allowed_source`: whether the inner source address routes to this peer. Never
    raises on what the datagrams contain. What failed its tag is wiped from `out`'s memory.
    """
    result = Opened()
    payload = out.payload
    decrypt_into = keypair.opener.decrypt_into
    accept = keypair.replay.accept
    for datagram in datagrams:
        (counter,) = struct.unpack_from("<Q", datagram, _COUNTER_OFFSET)
        body = datagram[_HEADER.size :]
        length = len(body) - TAG_SIZE
        plain = payload[out.used : out.used + length]
        if counter >= REJECT_AFTER_MESSAGES:
            result.drops[DropReason.COUNTER_EXHAUSTED] += 1
            continue
        try:
            decrypt_into(_NONCE.pack(0, counter), body, None, plain)
        except InvalidTag:
            plain[:] = bytes(length)
            result.drops[DropReason.BAD_TAG] += 1
            continue
        if not accept(counter):
            plain[:] = bytes(length)
            result.drops[DropReason.REPLAYED] += 1
            continue
        result.received_bytes += len(datagram)
        if not length:
            result.keepalives += 1
            continue
        result.data += 1
        true_length = ip.true_length(plain)
        source = ip.source(plain)
        if isinstance(true_length, DropReason) or isinstance(source, DropReason):
            result.drops[DropReason.BAD_PACKET] += 1
        elif not is_allowed_source(source):
            result.drops[DropReason.SOURCE_NOT_ALLOWED] += 1
        else:
            out.commit(true_length)
    return result
