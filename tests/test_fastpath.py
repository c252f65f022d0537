"""The fast path against the obvious slow model: `Keypair.seal` and `Keypair.open`."""

from __future__ import annotations

from collections import Counter as Tally

from hypothesis import given, settings
from hypothesis import strategies as st

from wgmp.fastpath import reference
from wgmp.protocol import ip
from wgmp.protocol.constants import REJECT_AFTER_MESSAGES
from wgmp.protocol.keypair import Keypair
from wgmp.protocol.noise import SessionKeys
from wgmp.protocol.outcome import DropReason
from wgmp.record import SLOT_BYTES, Kind, Record

KEYS = (b"\x11" * 32, b"\x22" * 32)
OURS = b"\x0a\0\0\1"
MTU = 1420


def keypairs() -> tuple[Keypair, Keypair]:
    """Return the two ends of one session."""
    return (
        Keypair(SessionKeys(KEYS[0], KEYS[1], 1, 2, True), 0.0),
        Keypair(SessionKeys(KEYS[1], KEYS[0], 2, 1, False), 0.0),
    )


def out_record() -> Record:
    record = Record(memoryview(bytearray(SLOT_BYTES)))
    record.begin(Kind.DATAGRAMS)
    return record


def ipv4(payload: bytes, source: bytes = OURS) -> bytes:
    length = (20 + len(payload)).to_bytes(2, "big")
    return b"\x45\0" + length + bytes(8) + source + bytes(4) + payload


def allowed(source: bytes) -> bool:
    return source == OURS


@given(st.lists(st.binary(min_size=1, max_size=1500), min_size=1, max_size=20))
@settings(max_examples=50)
def test_seal_makes_the_same_bytes_as_the_keypair(packets: list[bytes]) -> None:
    fast, slow = keypairs()[0], keypairs()[0]
    out = out_record()
    assert reference.seal(fast, [memoryview(p) for p in packets], out, MTU) == len(packets)
    assert [bytes(d) for d in out.packets()] == [slow.seal(p, MTU) for p in packets]
    assert fast.send_counter == slow.send_counter


def test_seal_stops_where_the_counter_ends() -> None:
    sender, _ = keypairs()
    sender.send_counter = REJECT_AFTER_MESSAGES - 2
    out = out_record()
    assert reference.seal(sender, [memoryview(b"x")] * 5, out, MTU) == 2
    assert out.count == 2
    assert sender.send_counter == REJECT_AFTER_MESSAGES


Mangle = st.sampled_from(["keep", "keep", "keep", "twice", "flip", "tag", "counter", "swap"])


@given(
    st.lists(
        st.tuples(
            st.one_of(
                st.just(b""),
                st.binary(min_size=1, max_size=60),
                st.binary(max_size=200).map(ipv4),
                st.binary(max_size=50).map(lambda p: ipv4(p, b"\x0b\0\0\1")),
            ),
            Mangle,
            st.integers(0, 10_000),
        ),
        max_size=25,
    )
)
@settings(max_examples=100)
def test_open_agrees_with_the_keypair_on_every_datagram(
    script: list[tuple[bytes, str, int]],
) -> None:
    sender, fast = keypairs()
    slow = keypairs()[1]
    datagrams: list[bytes] = []
    for packet, mangle, where in script:
        datagram = bytearray(sender.seal(packet, MTU))
        if mangle == "flip":
            datagram[16 + where % (len(datagram) - 16)] ^= 1
        elif mangle == "tag":
            datagram[-1] ^= 0x80
        elif mangle == "counter":
            datagram[8:16] = b"\xff" * 8
        datagrams.append(bytes(datagram))
        if mangle == "twice":
            datagrams.append(bytes(datagram))
        elif mangle == "swap":
            datagrams.reverse()

    expected: list[bytes] = []
    drops: Tally[DropReason] = Tally()
    data = keepalives = 0
    for datagram in datagrams:
        padded = slow.open(datagram)
        if isinstance(padded, DropReason):
            drops[padded] += 1
            continue
        data += bool(padded)
        keepalives += not padded
        if not padded:
            continue
        packet = ip.trim(padded)
        if isinstance(packet, DropReason):
            drops[packet] += 1
        elif ip.source(packet) != OURS:
            drops[DropReason.SOURCE_NOT_ALLOWED] += 1
        else:
            expected.append(packet)

    out = out_record()
    opened = reference.open_datagrams(fast, [memoryview(d) for d in datagrams], out, allowed)
    assert [bytes(packet) for packet in out.packets()] == expected
    assert opened.drops == drops
    assert (opened.data, opened.keepalives) == (data, keepalives)
    assert fast.replay.highest == slow.replay.highest


def test_unauthenticated_plaintext_is_wiped() -> None:
    sender, receiver = keypairs()
    datagram = bytearray(sender.seal(ipv4(b"secret" * 20), MTU))
    datagram[-1] ^= 1
    out = out_record()
    reference.open_datagrams(receiver, [memoryview(datagram)], out, allowed)
    assert not any(out.payload)
