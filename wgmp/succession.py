"""Taking a running gateway over: the side of the newly started program (handover.py).

As long as the predecessor has not gone, this process owns nothing. Should it fail, it says why
and is gone at once, without taking anything down: the predecessor goes on with all of it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterator, MutableMapping
from typing import Never

from wgmp import __version__
from wgmp.errors import UNDECODABLE, ControlError
from wgmp.estate import (
    ESTATE,
    FORMAT,
    MAX_DESCRIPTORS,
    MAX_MESSAGE_BYTES,
    Bequest,
    Estate,
    Go,
    Hello,
    Prepared,
    Refused,
    Serving,
    decode,
    encode,
    named,
    read,
    receive,
)
from wgmp.handover import DESCRIPTOR_VARIABLE

log = logging.getLogger("wgmp")

_LIMIT_S = 30.0


class Predecessor:
    """The supervisor that leaves, at the other end of `descriptor`.

    `estate`, and `descriptors` by their names: what it leaves. Raises ControlError when it does
    not send them.
    """

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=descriptor)
        self._socket.settimeout(_LIMIT_S)
        self._pending = True
        try:
            self._socket.send(encode(Hello(FORMAT, __version__)))
            text, descriptors, _, _ = socket.recv_fds(
                self._socket, MAX_MESSAGE_BYTES, MAX_DESCRIPTORS
            )
            message = decode(text)
            assert isinstance(message, Bequest)
            self.descriptors = named(message.names, descriptors)
            by_name = dict(self.descriptors)
            self.estate: Estate = read(by_name[ESTATE])
        except (OSError, AssertionError, ValueError, KeyError, *UNDECODABLE) as error:
            raise ControlError(f"the predecessor hands over nothing usable: {error}") from error
        self.descriptors = [row for row in self.descriptors if row[0] != ESTATE]

    async def give_way(self) -> bool:
        """Say that all processes wait to begin; return whether those before ended in order.

        Ends this process when the predecessor stays after all.
        """
        self._socket.send(encode(Prepared()))
        message = await receive(self._socket)
        if not isinstance(message, Go):
            self.refuse("the predecessor stays")
        return message.orderly

    async def go(self) -> None:
        """Say that all processes work; return when the predecessor is gone."""
        self._socket.send(encode(Serving()))
        await receive(self._socket)
        self._pending = False
        self._socket.close()

    def fail(self, error: BaseException) -> None:
        """As long as the predecessor is there: say what happened, and be gone."""
        if self._pending:
            log.debug("not taking over", exc_info=error)
            self.refuse(str(error) or type(error).__name__)

    def refuse(self, reason: str) -> Never:
        """Say why this process cannot take over, and be gone."""
        try:
            self._socket.send(encode(Refused(reason)))
        except OSError:
            log.debug("nobody hears: %s", reason)
        finally:
            os._exit(1)


def find_predecessor(environment: MutableMapping[str, str]) -> Predecessor | None:
    """Return the predecessor that started this process, None when none did."""
    descriptor = environment.pop(DESCRIPTOR_VARIABLE, "")
    return Predecessor(int(descriptor)) if descriptor.isdigit() else None


@contextlib.contextmanager
def guarding(predecessor: Predecessor | None) -> Iterator[None]:
    """Let no error of the block reach what takes things down, as long as they are not ours."""
    try:
        yield
    except BaseException as error:
        if predecessor is not None:
            predecessor.fail(error)
        raise
