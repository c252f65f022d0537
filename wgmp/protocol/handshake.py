"""One peer's handshakes: which are under way, which may still come, and the messages' MACs.

No timers and no sessions here: `peer.py` asks for messages when it wants them, and makes
keypairs of the keys. State changes only after a message has authenticated.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Final, Protocol

from wgmp.protocol import noise, tai64n
from wgmp.protocol.constants import INITIATION_INTERVAL, KEY_SIZE, TIMESTAMP_SIZE
from wgmp.protocol.cookie import CookieJar
from wgmp.protocol.crypto import Bytes
from wgmp.protocol.messages import CookieReply, Response
from wgmp.protocol.noise import Identity, OpenedInitiation, OutstandingInitiation, SessionKeys
from wgmp.protocol.outcome import DropReason

_NEVER: Final = bytes(TIMESTAMP_SIZE)


class IndexSpace(Protocol):
    """Where receiver indices come from: random u32, unique over handshakes and sessions."""

    def draw(self, peer: int) -> int:
        """Return an index for the peer that nobody else holds."""

    def free(self, index: int) -> None:
        """Give an index back."""


class Handshake:
    """The handshakes with the owner of `public_key`.

    `preshared_key` may be set at any time; the next message made or read uses it.
    `greatest_timestamp`: the newest initiation consumed, 12 bytes. `present()`: a TAI64N
    label of the present.
    """

    __slots__ = (
        "_consume_again_at",
        "_cookies",
        "_indices",
        "_outstanding",
        "_peer",
        "_present",
        "_randomness",
        "_static_static",
        "_timestamp_sent",
        "greatest_timestamp",
        "identity",
        "preshared_key",
        "public_key",
    )

    def __init__(
        self,
        peer: int,
        identity: Identity | None,
        public_key: bytes,
        preshared_key: bytes,
        greatest_timestamp: bytes,
        indices: IndexSpace,
        randomness: Callable[[int], bytes],
        present: Callable[[], bytes],
    ) -> None:
        self._peer = peer
        self.identity = identity
        self.public_key = public_key
        self.preshared_key = preshared_key
        self.greatest_timestamp = greatest_timestamp
        self._indices = indices
        self._randomness = randomness
        self._present = present
        self._timestamp_sent = _NEVER
        self._static_static: bytes | None = None
        self._outstanding: OutstandingInitiation | None = None
        self._cookies = CookieJar()
        self._consume_again_at = -inf

    def set_identity(self, identity: Identity | None) -> None:
        """Take another static key; what was under way with the old one is abandoned."""
        self.abandon()
        self.identity = identity
        self._static_static = None

    def abandon(self) -> None:
        """Expect no response any more."""
        if self._outstanding is not None:
            self._indices.free(self._outstanding.local_index)
            self._outstanding = None

    def initiate(self, now: float) -> bytes | DropReason:
        """Return a new initiation; it takes the place of an outstanding one.

        NO_IDENTITY without a private key, BAD_STATIC when the peer's key is of low order.
        """
        if self.identity is None:
            return DropReason.NO_IDENTITY
        static_static = self._shared(self.identity)
        if static_static is None:
            return DropReason.BAD_STATIC
        self.abandon()
        index = self._indices.draw(self._peer)
        self._timestamp_sent = tai64n.after(self._timestamp_sent, self._present())
        made = noise.create_initiation(
            self.identity,
            self.public_key,
            static_static,
            self._randomness(KEY_SIZE),
            self._timestamp_sent,
            index,
        )
        if isinstance(made, DropReason):
            self._indices.free(index)
            return made
        message, self._outstanding = made
        return self._cookies.add_macs(message.pack(), self.public_key, now)

    def answer(
        self, opened: OpenedInitiation, now: float
    ) -> tuple[bytes, SessionKeys] | DropReason:
        """Return the response to an initiation of this peer, and the session's keys.

        REPLAYED_INITIATION when it is not newer than the newest one, INITIATION_FLOOD when
        the last one was consumed less than 20 ms ago (WP 5.1, kernel noise.c).
        """
        if self.identity is None:
            return DropReason.NO_IDENTITY
        static_static = self._shared(self.identity)
        if static_static is None:
            return DropReason.BAD_STATIC
        initiation = noise.complete_initiation(opened, static_static)
        if isinstance(initiation, DropReason):
            return initiation
        if initiation.timestamp <= self.greatest_timestamp:
            return DropReason.REPLAYED_INITIATION
        if now < self._consume_again_at:
            return DropReason.INITIATION_FLOOD
        self.greatest_timestamp = initiation.timestamp
        self._consume_again_at = now + INITIATION_INTERVAL
        index = self._indices.draw(self._peer)
        ephemeral = self._randomness(KEY_SIZE)
        made = noise.create_response(initiation, self.preshared_key, ephemeral, index)
        if isinstance(made, DropReason):
            self._indices.free(index)
            return made
        message, keys = made
        return self._cookies.add_macs(message.pack(), self.public_key, now), keys

    def finish(self, datagram: Bytes) -> SessionKeys | DropReason:
        """Return the keys that a response completes; its index becomes the session's.

        NO_HANDSHAKE when it does not answer the outstanding initiation. A wrong response
        leaves that one outstanding, so that a forger cannot stop a handshake.
        """
        response = Response.unpack(datagram)
        if isinstance(response, DropReason):
            return response
        outstanding = self._outstanding
        if outstanding is None or response.receiver != outstanding.local_index:
            return DropReason.NO_HANDSHAKE
        assert self.identity is not None  # or nothing would be outstanding
        keys = noise.consume_response(self.identity, outstanding, response, self.preshared_key)
        if not isinstance(keys, DropReason):
            self._outstanding = None
        return keys

    def keep_cookie(self, datagram: Bytes, now: float) -> DropReason | None:
        """Keep a cookie reply's cookie for later messages; a reason when it is not one."""
        reply = CookieReply.unpack(datagram)
        if isinstance(reply, DropReason):
            return reply
        kept = self._cookies.accept(reply, self.public_key, now)
        return None if kept else DropReason.BAD_COOKIE_REPLY

    def _shared(self, identity: Identity) -> bytes | None:
        """Return static-static, computed at its first use: a start with many peers is quick."""
        if self._static_static is None:
            self._static_static = identity.static_static(self.public_key)
        return self._static_static
