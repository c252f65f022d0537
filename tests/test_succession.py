"""The side of a program that takes a gateway over: what it takes, and what it refuses.

What was left is as in test_handover.py.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_handover import LEFT, SERVING
from wgmp import __version__, estate
from wgmp.errors import ControlError
from wgmp.estate import ESTATE, FORMAT, Bequest, Estate, Hello, Message, Refused, decode, encode
from wgmp.succession import Predecessor, guarding


class Ends:
    """The socket between the two, whose other end the successor gets."""

    def __init__(self) -> None:
        self.ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.settimeout(10)

    def predecessor(self, message: bytes, *descriptors: int) -> Predecessor:
        """Say something, with descriptors that are closed here; return what the successor has."""
        socket.send_fds(self.ours, [message], list(descriptors))
        for descriptor in descriptors:
            os.close(descriptor)
        return Predecessor(self._theirs.detach())

    def heard(self) -> Message:
        """Return what the successor said next."""
        return decode(self.ours.recv(1 << 16))

    def close(self) -> None:
        """Close what this process has."""
        self.ours.close()
        self._theirs.close()


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Give a test a socket."""
    made = Ends()
    yield made
    made.close()


def test_what_was_left_is_what_is_taken(ends: Ends) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    names = encode(Bequest(["tun", ESTATE]))
    found = ends.predecessor(names, null, estate.write(LEFT))
    assert found.estate == LEFT
    assert [name for name, _ in found.descriptors] == ["tun"]
    assert ends.heard() == Hello(FORMAT, __version__)


@pytest.mark.parametrize(
    ("message", "count"),
    [
        (b"", 0),
        (b"\xc1nonsense", 1),
        (SERVING, 0),
        (encode(Bequest([])), 0),
        (encode(Bequest([ESTATE])), 0),
        (encode(Bequest([ESTATE, "tun"])), 1),
        (encode(Bequest(["tun"])), 1),
        (encode(Bequest([ESTATE])), 1),  # an empty one
    ],
)
def test_an_incomplete_estate_is_not_taken(ends: Ends, message: bytes, count: int) -> None:
    empty = [os.memfd_create("empty") for _ in range(count)]
    with pytest.raises(ControlError, match="the predecessor hands over nothing usable"):
        ends.predecessor(message, *empty)


def content(descriptor: int) -> bytes:
    """Return what is in a memory file, and close it."""
    with open(descriptor, "rb") as file:
        file.seek(0)
        return file.read()


WHOLE = content(estate.write(LEFT))


@settings(deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.binary(max_size=8))
def test_a_damaged_estate_is_refused_or_another_estate_and_nothing_else(
    at: int, instead: bytes
) -> None:
    descriptor = os.memfd_create("damaged")
    os.write(descriptor, WHOLE[:at] + instead + WHOLE[at + len(instead) :] * bool(instead))
    with closing(Ends()) as ends, suppress(ControlError):
        found = ends.predecessor(encode(Bequest([ESTATE])), descriptor)
        assert isinstance(found.estate, Estate)
        assert instead, "a truncated estate was taken for a whole one"


def test_one_that_cannot_take_over_says_why_and_touches_nothing(ends: Ends) -> None:
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            found = ends.predecessor(encode(Bequest([ESTATE])), estate.write(LEFT))
            with guarding(found):
                raise ControlError("there is no room here")
        os._exit(7)
    assert [ends.heard(), ends.heard()][1] == Refused("there is no room here")
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
