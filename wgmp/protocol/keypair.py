"""A keypair: one session's keys, counters and replay window.

`Keypair.seal` and `Keypair.open` are the specification of transport data (WP 5.4.6). The
batch fast path does the same on the same words, many datagrams at a time.

All that changes while a keypair carries data is in `Keypair.state`, a memoryview of
STATE_WORDS 8-byte words (format "Q"), private or shared memory:

| word | holds |
|---|---|
| 0 | send counter: the next one to use |
| 1 | highest receive counter accepted, plus 1; 0 for none |
| 2..129 | replay bitmap: counter c is bit c & 63 of word 2 + ((c >> 6) & 127) |

One process writes them, in this order, so that nothing is used twice whatever is killed when:
word 0 covers a whole train before its first datagram is sealed; word 1 covers a counter before
blocks are cleared for it, and both words and bits before a packet is handed on. Who takes the
words over from a writer that died takes every counter below word 1 as seen
(`ReplayWindow.close`), for some of its bits may be missing.
"""

from __future__ import annotations

from math import inf
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wgmp.protocol.constants import (
    PADDING_MULTIPLE,
    REJECT_AFTER_MESSAGES,
    REJECT_AFTER_TIME,
    REKEY_AFTER_MESSAGES,
    REKEY_AFTER_TIME,
    REKEY_ON_RECEIVE_AFTER_TIME,
)
from wgmp.protocol.crypto import Bytes
from wgmp.protocol.messages import TransportHeader
from wgmp.protocol.noise import SessionKeys
from wgmp.protocol.outcome import DropReason
from wgmp.protocol.replay import BITMAP_WORDS, ReplayWindow

STATE_WORDS: Final = 2 + BITMAP_WORDS
_NONCE_PREFIX: Final = bytes(4)


def padded_length(length: int, mtu: int) -> int:
    """Return the length of a packet of `length` bytes once padded: to 16, not past the MTU.

    A packet longer than the MTU (it shrank meanwhile) is padded no further than it is.
    """
    rounded = length + -length % PADDING_MULTIPLE
    return max(length, min(mtu, rounded))


class Keypair:
    """One session. The attributes are public: the fast path works on them.

    `keys`: as the handshake gave them; `sealer`, `opener`: the AEADs of the two directions;
    `state`: the words of the table above; `created_at`: seconds; `rekey_at`: when sending asks
    for a new handshake (a responder never does by age: WP 6.2); `confirmed`: the other end has
    shown that it has the keys; `fast`: the fast path's own form of the keypair, if it has one.
    """

    __slots__ = (
        "confirmed",
        "created_at",
        "fast",
        "is_initiator",
        "keys",
        "local_index",
        "opener",
        "rekey_at",
        "remote_index",
        "replay",
        "sealer",
        "state",
    )

    def __init__(
        self, keys: SessionKeys, created_at: float, state: memoryview | None = None
    ) -> None:
        """Go on with `keys` as `state` says: STATE_WORDS words, borrowed; new ones by default."""
        self.state = memoryview(bytearray(STATE_WORDS * 8)).cast("Q") if state is None else state
        self.keys = keys
        self.fast: object | None = None
        self.sealer = ChaCha20Poly1305(keys.sending)
        self.opener = ChaCha20Poly1305(keys.receiving)
        self.local_index = keys.local_index
        self.remote_index = keys.remote_index
        self.is_initiator = keys.is_initiator
        self.confirmed = keys.is_initiator
        self.created_at = created_at
        self.rekey_at = created_at + REKEY_AFTER_TIME if keys.is_initiator else inf
        self.replay = ReplayWindow(self.state[1:])

    @property
    def send_counter(self) -> int:
        """The next counter to seal with."""
        return self.state[0]

    @send_counter.setter
    def send_counter(self, counter: int) -> None:
        self.state[0] = counter

    def move(self, state: memoryview) -> None:
        """Go on in other memory: STATE_WORDS words, borrowed."""
        state[:] = self.state
        self.state = state
        self.replay = ReplayWindow(state[1:])
        self.fast = None

    def expired(self, now: float) -> bool:
        """Return whether the keys are too old to seal or open with (WP 6.2)."""
        return now >= self.created_at + REJECT_AFTER_TIME

    def sendable(self, now: float) -> bool:
        """Return whether the next packet may be sealed with these keys."""
        return (
            self.confirmed and self.send_counter < REJECT_AFTER_MESSAGES and not self.expired(now)
        )

    def wants_rekey_on_send(self, now: float) -> bool:
        """Return whether having sent on it is reason for a new handshake (WP 6.2)."""
        return now >= self.rekey_at or self.send_counter > REKEY_AFTER_MESSAGES

    def wants_rekey_on_receive(self, now: float) -> bool:
        """Return whether it is the last minute for an initiator that only receives (WP 6.2)."""
        return self.is_initiator and now >= self.created_at + REKEY_ON_RECEIVE_AFTER_TIME

    def settled_until(self) -> float:
        """Return the time before which its age is no reason for anything, used either way."""
        # An initiator's last minute comes later.
        return min(self.rekey_at, self.created_at + REJECT_AFTER_TIME)

    def retire(self) -> None:
        """Never seal with these keys again; what is still under way can be opened."""
        self.send_counter = REJECT_AFTER_MESSAGES

    def seal(self, packet: bytes, mtu: int) -> bytes:
        """Return the transport datagram of a packet, padded; b"" makes a keepalive.

        The caller has asked `sendable`; a counter past its limit breaks an invariant.
        """
        counter = self.send_counter
        assert counter < REJECT_AFTER_MESSAGES
        self.send_counter = counter + 1
        header = TransportHeader(self.remote_index, counter).pack()
        padded = packet.ljust(padded_length(len(packet), mtu), b"\0")
        return header + self.sealer.encrypt(_nonce(counter), padded, None)

    def open(self, datagram: Bytes) -> bytes | DropReason:
        """Return the padded packet in a transport datagram, b"" for a keepalive.

        BAD_TAG or REPLAYED, in this order: only an authentic counter may move the window.
        Age is the caller's to check. Never raises.
        """
        header = TransportHeader.unpack(datagram)
        if isinstance(header, DropReason):
            return header
        if header.counter >= REJECT_AFTER_MESSAGES:
            return DropReason.COUNTER_EXHAUSTED
        try:
            sealed = datagram[TransportHeader.SIZE :]
            packet = self.opener.decrypt(_nonce(header.counter), sealed, None)
        except InvalidTag:
            return DropReason.BAD_TAG
        return packet if self.replay.accept(header.counter) else DropReason.REPLAYED


def _nonce(counter: int) -> bytes:
    return _NONCE_PREFIX + counter.to_bytes(8, "little")
