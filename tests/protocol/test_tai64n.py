"""TAI64N labels."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wgmp.protocol import tai64n

unix_ns = st.integers(0, 2**62)


def test_label_matches_the_specs_example() -> None:
    # cr.yp.to: 1992-06-02 08:07:09 TAI is 400000002a2b2c2d, 10 leap seconds base ahead of Unix.
    assert tai64n.label((0x2A2B2C2D - 10) * 10**9) == bytes.fromhex("400000002a2b2c2d00000000")


def test_nanoseconds_lose_their_low_24_bits() -> None:
    assert tai64n.label(999_999_999)[8:] == bytes.fromhex("3b000000")
    assert tai64n.label(0xFFFFFF) == tai64n.label(0)


@given(unix_ns, unix_ns)
def test_labels_sort_by_time(one: int, other: int) -> None:
    assert len(tai64n.label(one)) == 12
    if one <= other:
        assert tai64n.label(one) <= tai64n.label(other)
    assert tai64n.label(one) < tai64n.label(one + 2**24)


@given(unix_ns, unix_ns)
def test_after_is_the_present_unless_that_is_not_later(previous_ns: int, present_ns: int) -> None:
    previous, present = tai64n.label(previous_ns), tai64n.label(present_ns)
    label = tai64n.after(previous, present)
    assert label > previous
    assert label == present or present <= previous


@given(unix_ns)
def test_after_steps_to_the_next_label_there_is(previous_ns: int) -> None:
    previous = tai64n.label(previous_ns)
    label = tai64n.after(previous, bytes(12))
    seconds, nanoseconds = divmod(previous_ns, 10**9)
    # What the label says of the second, and one step more, or the next second.
    step = (nanoseconds >> 24) + 1 << 24
    following = (seconds, step) if step < 10**9 else (seconds + 1, 0)
    assert label == tai64n.label(following[0] * 10**9 + following[1])
