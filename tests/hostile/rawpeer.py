"""A raw WireGuard peer that does what it is told, right or wrong: an initiator and a responder.

It keeps no timers and no state but what a test holds in its hands, so that a test can send
every message twice, late, altered, or from elsewhere. Section numbers are the whitepaper's.
"""

from __future__ import annotations

import itertools
import os
import struct
import time
from dataclasses import dataclass

from . import rawcrypto as crypto

INITIATION, RESPONSE, COOKIE_REPLY, TRANSPORT = 1, 2, 3, 4
SIZES = {INITIATION: 148, RESPONSE: 92, COOKIE_REPLY: 64}
KEEPALIVE_SIZE = 32

_CHAIN = crypto.digest(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
_HASH = crypto.digest(_CHAIN, b"WireGuard v1 zx2c4 Jason@zx2c4.com")
_TAI64_BASE = 0x400000000000000A
_indices = itertools.count(int.from_bytes(os.urandom(3), "little"))


def kind_of(datagram: bytes) -> int:
    """The type word of a datagram."""
    return int(struct.unpack_from("<I", datagram)[0])


def tai64n(unix_s: float) -> bytes:
    """The 12-byte label of a Unix time."""
    seconds = int(unix_s)
    return struct.pack(">QI", _TAI64_BASE + seconds, int((unix_s - seconds) * 1e9))


def with_macs(head: bytes, receiver: bytes, cookie: bytes = b"") -> bytes:
    """The message with its mac1, and its mac2 if there is a cookie (5.4.4)."""
    mac1 = crypto.mac(crypto.digest(b"mac1----", receiver), head)
    mac2 = crypto.mac(cookie, head + mac1) if cookie else bytes(16)
    return head + mac1 + mac2


def replace_cookie(datagram: bytes, cookie: bytes) -> bytes:
    """The same handshake message with the mac2 of another cookie."""
    return datagram[:-16] + crypto.mac(cookie, datagram[:-16])


def mac1_of(datagram: bytes) -> bytes:
    """The mac1 of a handshake message."""
    return datagram[-32:-16]


@dataclass(frozen=True)
class Initiation:
    """An initiation we made, and what is needed to understand its response."""

    datagram: bytes
    index: int
    ephemeral: bytes
    chain: bytes
    hash: bytes


class Session:
    """The keys of a finished handshake, and two indices: `local` is the one we are called by."""

    def __init__(self, local: int, remote: int, sending: bytes, receiving: bytes) -> None:
        self.local = local
        self.remote = remote
        self.sending = sending
        self.receiving = receiving
        self.counter = 0

    def seal(self, packet: bytes = b"", counter: int | None = None) -> bytes:
        """A transport datagram: the packet padded to 16, under the next or a given counter."""
        if counter is None:
            counter = self.counter
            self.counter += 1
        padded = packet + bytes(-len(packet) % 16)
        header = struct.pack("<IIQ", TRANSPORT, self.remote, counter)
        return header + crypto.seal(self.sending, counter, padded)

    def unseal(self, datagram: bytes) -> bytes | None:
        """The padded packet in a datagram of this session, else None."""
        kind, index, counter = struct.unpack_from("<IIQ", datagram)
        if (kind, index) != (TRANSPORT, self.local):
            return None
        return crypto.unseal(self.receiving, counter, datagram[16:])


class RawPeer:
    """A static key that shakes hands with the owner of `gateway`, a public key of 32 bytes."""

    def __init__(
        self, gateway: bytes, preshared_key: bytes = bytes(32), private: bytes | None = None
    ) -> None:
        self.gateway = gateway
        self.preshared_key = preshared_key
        self.private = private or os.urandom(32)
        self.public = crypto.public_of(self.private)

    # As the initiator

    def initiation(
        self,
        *,
        timestamp: bytes | None = None,
        ephemeral_public: bytes | None = None,
        cookie: bytes = b"",
    ) -> Initiation:
        """An initiation (5.4.2). `ephemeral_public`: what to send in place of a real one."""
        private = os.urandom(32)
        public = ephemeral_public or crypto.public_of(private)
        index = next(_indices)
        (chain,) = crypto.kdf(_CHAIN, public, 1)
        state = crypto.digest(crypto.digest(_HASH, self.gateway), public)
        # A point of low order makes every secret zero, whoever computes it.
        shared = crypto.dh(private, self.gateway) if ephemeral_public is None else bytes(32)
        chain, key = crypto.kdf(chain, shared, 2)
        static = crypto.seal(key, 0, self.public, state)
        state = crypto.digest(state, static)
        chain, key = crypto.kdf(chain, crypto.dh(self.private, self.gateway), 2)
        label = crypto.seal(key, 0, timestamp or tai64n(time.time()), state)
        state = crypto.digest(state, label)
        head = struct.pack("<II", INITIATION, index) + public + static + label
        return Initiation(with_macs(head, self.gateway, cookie), index, private, chain, state)

    def finish(self, initiation: Initiation, response: bytes) -> Session:
        """The session of a response to our initiation (5.4.3); fails when it is not one."""
        kind, remote, local = struct.unpack_from("<III", response)
        assert (kind, len(response), local) == (RESPONSE, SIZES[RESPONSE], initiation.index)
        assert response == with_macs(response[:-32], self.public), "its mac1 is for us"
        public, empty = response[12:44], response[44:60]
        (chain,) = crypto.kdf(initiation.chain, public, 1)
        state = crypto.digest(initiation.hash, public)
        for private in (initiation.ephemeral, self.private):
            (chain,) = crypto.kdf(chain, crypto.dh(private, public), 1)
        chain, tau, key = crypto.kdf(chain, self.preshared_key, 3)
        state = crypto.digest(state, tau)
        assert crypto.unseal(key, 0, empty, state) == b"", "the response authenticates"
        sending, receiving = crypto.kdf(chain, b"", 2)
        return Session(local, remote, sending, receiving)

    # As the responder

    def answer(
        self, datagram: bytes, *, ephemeral_public: bytes | None = None
    ) -> tuple[bytes, Session]:
        """The response to the gateway's initiation, and the session it makes."""
        (kind, remote) = struct.unpack_from("<II", datagram)
        assert (kind, len(datagram)) == (INITIATION, SIZES[INITIATION])
        theirs, static, label = datagram[8:40], datagram[40:88], datagram[88:116]
        (chain,) = crypto.kdf(_CHAIN, theirs, 1)
        state = crypto.digest(crypto.digest(_HASH, self.public), theirs)
        chain, key = crypto.kdf(chain, crypto.dh(self.private, theirs), 2)
        assert crypto.unseal(key, 0, static, state) == self.gateway, "it is the gateway's"
        state = crypto.digest(state, static)
        chain, key = crypto.kdf(chain, crypto.dh(self.private, self.gateway), 2)
        assert crypto.unseal(key, 0, label, state) is not None
        state = crypto.digest(state, label)

        private, local = os.urandom(32), next(_indices)
        public = ephemeral_public or crypto.public_of(private)
        (chain,) = crypto.kdf(chain, public, 1)
        state = crypto.digest(state, public)
        for point in (theirs, self.gateway):
            shared = crypto.dh(private, point) if ephemeral_public is None else bytes(32)
            (chain,) = crypto.kdf(chain, shared, 1)
        chain, tau, key = crypto.kdf(chain, self.preshared_key, 3)
        state = crypto.digest(state, tau)
        empty = crypto.seal(key, 0, b"", state)
        receiving, sending = crypto.kdf(chain, b"", 2)
        head = struct.pack("<III", RESPONSE, local, remote) + public + empty
        return with_macs(head, self.gateway), Session(local, remote, sending, receiving)

    def timestamp_of(self, datagram: bytes) -> bytes:
        """The 12 bytes of the TAI64N label in the gateway's initiation."""
        theirs, static, label = datagram[8:40], datagram[40:88], datagram[88:116]
        (chain,) = crypto.kdf(_CHAIN, theirs, 1)
        state = crypto.digest(crypto.digest(_HASH, self.public), theirs)
        chain, _ = crypto.kdf(chain, crypto.dh(self.private, theirs), 2)
        state = crypto.digest(state, static)
        _, key = crypto.kdf(chain, crypto.dh(self.private, self.gateway), 2)
        timestamp = crypto.unseal(key, 0, label, state)
        assert timestamp is not None
        return timestamp

    # Cookies

    def open_cookie(self, reply: bytes, sent: bytes) -> bytes:
        """The cookie in the gateway's reply to the message `sent` (5.4.7)."""
        kind, index = struct.unpack_from("<II", reply)
        assert (kind, len(reply)) == (COOKIE_REPLY, SIZES[COOKIE_REPLY])
        assert index == struct.unpack_from("<I", sent, 4)[0]
        key = crypto.digest(b"cookie--", self.gateway)
        cookie = crypto.xunseal(key, reply[8:32], reply[32:], mac1_of(sent))
        assert cookie is not None, "the cookie reply authenticates"
        return cookie

    def cookie_reply(self, datagram: bytes, cookie: bytes) -> bytes:
        """Our cookie reply to a handshake message of the gateway."""
        (index,) = struct.unpack_from("<I", datagram, 4)
        nonce = os.urandom(24)
        key = crypto.digest(b"cookie--", self.public)
        sealed = crypto.xseal(key, nonce, cookie, mac1_of(datagram))
        return struct.pack("<II", COOKIE_REPLY, index) + nonce + sealed
