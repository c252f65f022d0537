"""A line: the two ends between a supervisor and one of its processes, for whole messages.

| | keeps messages apart by | ends when |
|---|---|---|
| `PacketLine` | the kernel: SOCK_SEQPACKET | the other end is closed or shut down |
| `StreamLine` | four bytes of length before each | the same |

Nobody waits on either. Descriptors travel with the first byte of a message.
"""

from __future__ import annotations

import array
import socket
import struct
from typing import Protocol

MAX_MESSAGE_BYTES = 1 << 16
MAX_DESCRIPTORS = 4

_BUFFER_BYTES = 4 << 20
_LENGTH = struct.Struct(">I")


class Line(Protocol):
    """One end."""

    def fileno(self) -> int:
        """Return the descriptor that is readable when there is a message, or the end."""

    def send(self, message: bytes, descriptors: list[int]) -> None:
        """Send a message, at most MAX_MESSAGE_BYTES, with descriptors, at most MAX_DESCRIPTORS.

        Raises BlockingIOError when there is no room, OSError when nobody is there.
        """

    def flush(self) -> bool:
        """Send more of what `send` has begun; return whether some still waits. Raises OSError."""

    def receive(self) -> tuple[bytes, list[int]]:
        """Return the next message and its descriptors, b"" at the end. Raises BlockingIOError."""

    def hang_up(self) -> None:
        """Let the other end read the end, as soon as it has read what was sent."""

    def close(self) -> None:
        """Close this end."""


class PacketLine:
    """An end of a SEQPACKET pair."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.fileno = sock.fileno
        self.close = sock.close

    def send(self, message: bytes, descriptors: list[int]) -> None:
        """Send all of it or nothing."""
        if descriptors:
            socket.send_fds(self._socket, [message], descriptors)
        else:
            self._socket.send(message)

    def flush(self) -> bool:
        """Nothing is ever sent by half."""
        return False

    def receive(self) -> tuple[bytes, list[int]]:
        """Receive one packet; a connection that broke has ended."""
        try:
            return _receive(self._socket, MAX_MESSAGE_BYTES)
        except ConnectionError:
            return b"", []

    def hang_up(self) -> None:
        """Shut down the sending direction."""
        _hang_up(self._socket)


class StreamLine:
    """An end of a stream pair. What the socket does not take of a message waits here."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._unsent = b""
        self._inbox = bytearray()
        self._descriptors: list[int] = []
        self.fileno = sock.fileno
        self.close = sock.close

    def send(self, message: bytes, descriptors: list[int]) -> None:
        """Send at least the beginning; `flush`, or the next `send`, sends the rest."""
        if self.flush():
            raise BlockingIOError
        framed = _LENGTH.pack(len(message)) + message
        sent = (
            socket.send_fds(self._socket, [framed], descriptors)
            if descriptors
            else self._socket.send(framed)
        )
        self._unsent = framed[sent:]

    def flush(self) -> bool:
        """Send the rest of the last message."""
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except BlockingIOError:
                return True
            self._unsent = self._unsent[sent:]
        return False

    def receive(self) -> tuple[bytes, list[int]]:
        """Receive up to the end of one message and not beyond, for the next one's descriptors."""
        while missing := self._missing():
            try:
                part, descriptors = _receive(self._socket, missing)
            except ConnectionError:
                part = b""
            if not part:
                return b"", []
            self._inbox += part
            self._descriptors += descriptors
        message, descriptors = bytes(self._inbox[_LENGTH.size :]), self._descriptors
        self._inbox.clear()
        self._descriptors = []
        return message, descriptors

    def _missing(self) -> int:
        """Return how many bytes are missing for the length, or else for the message."""
        if len(self._inbox) < _LENGTH.size:
            return _LENGTH.size - len(self._inbox)
        (length,) = _LENGTH.unpack_from(self._inbox)
        return int(_LENGTH.size + length - len(self._inbox))

    def hang_up(self) -> None:
        """Shut down the sending direction."""
        _hang_up(self._socket)


def pair(kind: socket.SocketKind, *force: int) -> tuple[socket.socket, socket.socket]:
    """Return a connected pair that never waits; the first has much room for what it sends.

    `force`: an option that passes over the system's limit of that, if it has one.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    for sock in (ours, theirs):
        sock.setblocking(False)
    for option in (*force, socket.SO_SNDBUF):
        try:
            ours.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
            break
        except OSError:  # no privilege, or more than the system allows: it works with less
            continue
    return ours, theirs


def _receive(sock: socket.socket, most: int) -> tuple[bytes, list[int]]:
    room = socket.CMSG_SPACE(MAX_DESCRIPTORS * array.array("i").itemsize)
    message, ancillary, _, _ = sock.recvmsg(most, room)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
    return message, list(descriptors)


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the other end has gone already
