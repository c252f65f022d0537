"""The four messages on the wire: every layout and every offset of WireGuard is in this file.

| message | size | fields (little-endian) |
|---|---|---|
| initiation | 148 | type, sender, ephemeral 32, static 32+16, timestamp 12+16, mac1 16, mac2 16 |
| response | 92 | type, sender, receiver, ephemeral 32, empty 16, mac1 16, mac2 16 |
| cookie reply | 64 | type, receiver, nonce 24, cookie 16+16 |
| transport data | 32.. | type, receiver, counter u64, packet+16 |

The type byte and the three reserved zero bytes after it are read as one u32, as are the
indices (WP 5.4). `unpack` never raises: other sizes and types are a DropReason.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, Final, NamedTuple

from wgmp.protocol.constants import COOKIE_NONCE_SIZE, COOKIE_SIZE, MAC_SIZE, TAG_SIZE
from wgmp.protocol.crypto import Bytes
from wgmp.protocol.outcome import DropReason

_NO_MAC: Final = bytes(MAC_SIZE)
_U32: Final = struct.Struct("<I")


class MessageType(Enum):
    """The type word. Not an IntEnum: a type must never compare equal to a DropReason."""

    INITIATION = 1
    RESPONSE = 2
    COOKIE_REPLY = 3
    TRANSPORT = 4


@dataclass(frozen=True, slots=True)
class Initiation:
    """The first handshake message (WP 5.4.2). `static` and `timestamp` are sealed."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<II32s48s28s16s16s")
    SIZE: ClassVar[int] = LAYOUT.size

    sender: int
    ephemeral: bytes
    static: bytes
    timestamp: bytes
    mac1: bytes = _NO_MAC
    mac2: bytes = _NO_MAC

    def pack(self) -> bytes:
        """Return the 148-byte datagram."""
        return self.LAYOUT.pack(
            MessageType.INITIATION.value,
            self.sender,
            self.ephemeral,
            self.static,
            self.timestamp,
            self.mac1,
            self.mac2,
        )

    @classmethod
    def unpack(cls, datagram: Bytes) -> Initiation | DropReason:
        """Return the message of a datagram of any length."""
        wrong = _misfit(datagram, MessageType.INITIATION)
        return cls(*cls.LAYOUT.unpack(datagram)[1:]) if wrong is None else wrong


@dataclass(frozen=True, slots=True)
class Response:
    """The second handshake message (WP 5.4.3). `empty` is the tag of a sealed nothing."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<III32s16s16s16s")
    SIZE: ClassVar[int] = LAYOUT.size

    sender: int
    receiver: int
    ephemeral: bytes
    empty: bytes
    mac1: bytes = _NO_MAC
    mac2: bytes = _NO_MAC

    def pack(self) -> bytes:
        """Return the 92-byte datagram."""
        return self.LAYOUT.pack(
            MessageType.RESPONSE.value,
            self.sender,
            self.receiver,
            self.ephemeral,
            self.empty,
            self.mac1,
            self.mac2,
        )

    @classmethod
    def unpack(cls, datagram: Bytes) -> Response | DropReason:
        """Return the message of a datagram of any length."""
        wrong = _misfit(datagram, MessageType.RESPONSE)
        return cls(*cls.LAYOUT.unpack(datagram)[1:]) if wrong is None else wrong


@dataclass(frozen=True, slots=True)
class CookieReply:
    """The answer of a responder under load (WP 5.4.7). `cookie` is sealed."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct(
        f"<II{COOKIE_NONCE_SIZE}s{COOKIE_SIZE + TAG_SIZE}s"
    )
    SIZE: ClassVar[int] = LAYOUT.size

    receiver: int
    nonce: bytes
    cookie: bytes

    def pack(self) -> bytes:
        """Return the 64-byte datagram."""
        return self.LAYOUT.pack(
            MessageType.COOKIE_REPLY.value, self.receiver, self.nonce, self.cookie
        )

    @classmethod
    def unpack(cls, datagram: Bytes) -> CookieReply | DropReason:
        """Return the message of a datagram of any length."""
        wrong = _misfit(datagram, MessageType.COOKIE_REPLY)
        return cls(*cls.LAYOUT.unpack(datagram)[1:]) if wrong is None else wrong


@dataclass(frozen=True, slots=True)
class TransportHeader:
    """What precedes the sealed packet in transport data (WP 5.4.6)."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<IIQ")
    SIZE: ClassVar[int] = LAYOUT.size
    MESSAGE_MIN: ClassVar[int] = SIZE + TAG_SIZE

    receiver: int
    counter: int

    def pack(self) -> bytes:
        """Return the 16-byte header."""
        return self.LAYOUT.pack(MessageType.TRANSPORT.value, self.receiver, self.counter)

    @classmethod
    def unpack(cls, datagram: Bytes) -> TransportHeader | DropReason:
        """Return the header of a datagram of any length."""
        wrong = _misfit(datagram, MessageType.TRANSPORT)
        return cls(*cls.LAYOUT.unpack_from(datagram)[1:]) if wrong is None else wrong


# Plain integers: these are asked for every datagram, and an enum's `value` costs ten times as much.
_TRANSPORT: Final = MessageType.TRANSPORT.value
_TRANSPORT_MIN: Final = TransportHeader.MESSAGE_MIN
_EXACT_SIZES: Final = {
    MessageType.INITIATION.value: (MessageType.INITIATION, Initiation.SIZE),
    MessageType.RESPONSE.value: (MessageType.RESPONSE, Response.SIZE),
    MessageType.COOKIE_REPLY.value: (MessageType.COOKIE_REPLY, CookieReply.SIZE),
}
_RECEIVER_OFFSETS: Final = {
    MessageType.RESPONSE.value: 8,
    MessageType.COOKIE_REPLY.value: 4,
    MessageType.TRANSPORT.value: 4,
}


def message_type(datagram: Bytes) -> MessageType | DropReason:
    """Return a datagram's type, or BAD_TYPE or BAD_LENGTH; any length, never raises."""
    length = len(datagram)
    if length < _U32.size:
        return DropReason.BAD_LENGTH
    (word,) = _U32.unpack_from(datagram)
    if word == _TRANSPORT:
        return MessageType.TRANSPORT if length >= _TRANSPORT_MIN else DropReason.BAD_LENGTH
    exact = _EXACT_SIZES.get(word)
    if exact is None:
        return DropReason.BAD_TYPE
    kind, size = exact
    return kind if length == size else DropReason.BAD_LENGTH


def _misfit(datagram: Bytes, wanted: MessageType) -> DropReason | None:
    kind = message_type(datagram)
    if isinstance(kind, DropReason):
        return kind
    return None if kind is wanted else DropReason.BAD_TYPE


def sender_index(datagram: Bytes) -> int:
    """Return the sender's index of an initiation or a response that `message_type` accepted."""
    index: int = _U32.unpack_from(datagram, 4)[0]
    return index


def receiver_index(datagram: Bytes) -> int:
    """Return the receiver index of any message but an initiation; its type has been checked."""
    index: int = _U32.unpack_from(datagram, _RECEIVER_OFFSETS[datagram[0]])[0]
    return index


class Macs(NamedTuple):
    """The two MACs that end an initiation or a response, and the bytes each covers."""

    mac1_covers: bytes
    mac1: bytes
    mac2_covers: bytes
    mac2: bytes


def macs(datagram: Bytes) -> Macs:
    """Return the MACs of an initiation or a response that `message_type` accepted (WP 5.4.4)."""
    whole = bytes(datagram)
    return Macs(
        whole[: -2 * MAC_SIZE],
        whole[-2 * MAC_SIZE : -MAC_SIZE],
        whole[:-MAC_SIZE],
        whole[-MAC_SIZE:],
    )
