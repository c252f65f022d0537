"""The four messages: layouts, exact sizes, and parsers that never raise."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmp.protocol import messages
from wgmp.protocol.messages import (
    CookieReply,
    Initiation,
    MessageType,
    Response,
    TransportHeader,
)
from wgmp.protocol.noise import OpenedInitiation
from wgmp.protocol.outcome import DropReason

u32 = st.integers(min_value=0, max_value=2**32 - 1)
u64 = st.integers(min_value=0, max_value=2**64 - 1)


def exactly(size: int) -> st.SearchStrategy[bytes]:
    """Return bytes of one size."""
    return st.binary(min_size=size, max_size=size)


initiations = st.builds(
    Initiation, u32, exactly(32), exactly(48), exactly(28), exactly(16), exactly(16)
)
responses = st.builds(Response, u32, u32, exactly(32), exactly(16), exactly(16), exactly(16))
cookie_replies = st.builds(CookieReply, u32, exactly(24), exactly(32))


@given(initiations)
def test_initiation_survives_packing(message: Initiation) -> None:
    assert len(message.pack()) == Initiation.SIZE == 148
    assert Initiation.unpack(message.pack()) == message
    assert messages.message_type(message.pack()) is MessageType.INITIATION
    assert messages.sender_index(message.pack()) == message.sender


@given(responses)
def test_response_survives_packing(message: Response) -> None:
    assert len(message.pack()) == Response.SIZE == 92
    assert Response.unpack(message.pack()) == message
    assert messages.message_type(message.pack()) is MessageType.RESPONSE
    assert messages.sender_index(message.pack()) == message.sender
    assert messages.receiver_index(message.pack()) == message.receiver


@given(cookie_replies)
def test_cookie_reply_survives_packing(message: CookieReply) -> None:
    assert len(message.pack()) == CookieReply.SIZE == 64
    assert CookieReply.unpack(message.pack()) == message
    assert messages.message_type(message.pack()) is MessageType.COOKIE_REPLY
    assert messages.receiver_index(message.pack()) == message.receiver


@given(u32, u64, st.binary(min_size=16, max_size=100))
def test_transport_header_survives_packing(receiver: int, counter: int, sealed: bytes) -> None:
    header = TransportHeader(receiver, counter)
    datagram = header.pack() + sealed
    assert TransportHeader.SIZE == 16
    assert TransportHeader.unpack(datagram) == header
    assert messages.message_type(datagram) is MessageType.TRANSPORT
    assert messages.receiver_index(memoryview(datagram)) == receiver


def test_fields_lie_where_the_whitepaper_puts_them() -> None:
    initiation = Initiation(0x04030201, b"e" * 32, b"s" * 48, b"t" * 28, b"m" * 16, b"n" * 16)
    assert initiation.pack() == (
        b"\1\0\0\0\1\2\3\4" + b"e" * 32 + b"s" * 48 + b"t" * 28 + b"m" * 16 + b"n" * 16
    )
    response = Response(0x04030201, 0x08070605, b"e" * 32, b"x" * 16, b"m" * 16, b"n" * 16)
    assert response.pack() == (
        b"\2\0\0\0\1\2\3\4\5\6\7\x08" + b"e" * 32 + b"x" * 16 + b"m" * 16 + b"n" * 16
    )
    assert CookieReply(1, b"n" * 24, b"c" * 32).pack() == (
        b"\3\0\0\0\1\0\0\0" + b"n" * 24 + b"c" * 32
    )
    assert TransportHeader(1, 2**63 + 5).pack() == b"\4\0\0\0\1\0\0\0\5\0\0\0\0\0\0\x80"


def test_macs_cover_everything_before_them() -> None:
    datagram = Initiation(1, b"e" * 32, b"s" * 48, b"t" * 28, b"1" * 16, b"2" * 16).pack()
    parts = messages.macs(memoryview(datagram))
    assert (parts.mac1, parts.mac2) == (b"1" * 16, b"2" * 16)
    assert parts.mac1_covers == datagram[:116]
    assert parts.mac2_covers == datagram[:132]


@pytest.mark.parametrize(("kind", "size"), [(1, 148), (2, 92), (3, 64)])
def test_only_the_exact_size_is_accepted(kind: int, size: int) -> None:
    for length in range(4, 300):
        verdict = messages.message_type(struct.pack("<I", kind).ljust(length, b"\0"))
        assert verdict is (MessageType(kind) if length == size else DropReason.BAD_LENGTH)


@pytest.mark.parametrize("message", [Initiation, Response, CookieReply, TransportHeader])
@pytest.mark.parametrize("kind", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [31, 64, 92, 148])
def test_a_message_of_another_type_or_size_is_not_unpacked(
    message: type[Initiation | Response | CookieReply | TransportHeader], kind: int, size: int
) -> None:
    datagram = struct.pack("<I", kind).ljust(size, b"x")
    found, unpacked = messages.message_type(datagram), message.unpack(datagram)
    if found is DropReason.BAD_LENGTH:
        assert unpacked is DropReason.BAD_LENGTH
    elif message is {1: Initiation, 2: Response, 3: CookieReply, 4: TransportHeader}[kind]:
        assert isinstance(unpacked, message)
    else:
        assert unpacked is DropReason.BAD_TYPE


def test_transport_data_has_at_least_a_header_and_a_tag() -> None:
    for length in range(4, 2000):
        verdict = messages.message_type(b"\4\0\0\0".ljust(length, b"\0"))
        assert verdict is (MessageType.TRANSPORT if length >= 32 else DropReason.BAD_LENGTH)


@pytest.mark.parametrize("position", [1, 2, 3])
@pytest.mark.parametrize(("kind", "size"), [(1, 148), (2, 92), (3, 64), (4, 64)])
def test_reserved_bytes_must_be_zero(kind: int, size: int, position: int) -> None:
    datagram = bytearray(struct.pack("<I", kind).ljust(size, b"\0"))
    assert messages.message_type(datagram) is MessageType(kind)
    datagram[position] = 1
    assert messages.message_type(datagram) is DropReason.BAD_TYPE


@pytest.mark.parametrize("kind", [0, 5, 255])
def test_other_types_are_dropped(kind: int) -> None:
    assert messages.message_type(bytes([kind]) + bytes(147)) is DropReason.BAD_TYPE


def test_message_types_never_equal_drop_reasons() -> None:
    # DropReason is an IntEnum; an int for the type would make BAD_TYPE an initiation.
    assert not set(MessageType) & set(DropReason)


@given(st.binary(max_size=200) | st.builds(bytes.__add__, exactly(4), exactly(144)))
def test_parsers_never_raise(datagram: bytes) -> None:
    kind = messages.message_type(datagram)
    for parser, own in (
        (Initiation.unpack, MessageType.INITIATION),
        (Response.unpack, MessageType.RESPONSE),
        (CookieReply.unpack, MessageType.COOKIE_REPLY),
        (TransportHeader.unpack, MessageType.TRANSPORT),
    ):
        assert isinstance(parser(datagram), DropReason) == (kind is not own)
    assert isinstance(OpenedInitiation.unpack(datagram), DropReason)


@given(st.sampled_from([1, 2, 3, 4]), st.binary(max_size=200))
def test_a_right_type_word_with_anything_behind_it_never_raises(kind: int, rest: bytes) -> None:
    datagram = struct.pack("<I", kind) + rest
    verdict = messages.message_type(datagram)
    assert verdict in (MessageType(kind), DropReason.BAD_LENGTH)
