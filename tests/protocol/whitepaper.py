"""The handshake written a second time, straight from the whitepaper's formulas (5.4).

Shares no code with `wgmp`: plain functions on hashlib, `cryptography` and struct, in the
whitepaper's notation, to compare `wgmp.protocol.noise` with.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


def H(data: bytes) -> bytes:
    """Hash."""
    return hashlib.blake2s(data).digest()


def Hmac(key: bytes, data: bytes) -> bytes:
    """HMAC, from its definition in RFC 2104: BLAKE2s has blocks of 64 bytes."""
    block = key.ljust(64, b"\0")
    inner = bytes(byte ^ 0x36 for byte in block)
    outer = bytes(byte ^ 0x5C for byte in block)
    return H(outer + H(inner + data))


def Kdf(n: int, key: bytes, data: bytes) -> list[bytes]:
    """Kdf_n: t0 = Hmac(key, data), t1 = Hmac(t0, 1), ti = Hmac(t0, t(i-1) || i)."""
    t0 = Hmac(key, data)
    outputs: list[bytes] = []
    for i in range(1, n + 1):
        outputs.append(Hmac(t0, (outputs[-1] if outputs else b"") + bytes([i])))
    return outputs


def DH(private: bytes, public: bytes) -> bytes:
    """X25519."""
    key = X25519PrivateKey.from_private_bytes(private)
    return key.exchange(X25519PublicKey.from_public_bytes(public))


def Pub(private: bytes) -> bytes:
    """Return a private key's public key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def Aead(key: bytes, counter: int, plaintext: bytes, auth: bytes) -> bytes:
    """ChaCha20-Poly1305 under 32 zero bits and a little-endian counter."""
    return ChaCha20Poly1305(key).encrypt(struct.pack("<IQ", 0, counter), plaintext, auth)


def Mac(key: bytes, data: bytes) -> bytes:
    """Keyed BLAKE2s of 16 bytes."""
    return hashlib.blake2s(data, key=key, digest_size=16).digest()


class Transcript(NamedTuple):
    """A whole handshake."""

    initiation: bytes
    response: bytes
    initiator_to_responder: bytes
    responder_to_initiator: bytes


def handshake(
    S_i: bytes, S_r: bytes, E_i: bytes, E_r: bytes, Q: bytes, timestamp: bytes, I_i: int, I_r: int
) -> Transcript:
    """Run both sides at once. All keys are private ones; Q is the preshared key."""
    # 5.4.2 First Message: Initiator to Responder
    C = H(b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s")
    h = H(C + b"WireGuard v1 zx2c4 Jason@zx2c4.com")
    h = H(h + Pub(S_r))
    [C] = Kdf(1, C, Pub(E_i))
    h = H(h + Pub(E_i))
    C, k = Kdf(2, C, DH(E_i, Pub(S_r)))
    static = Aead(k, 0, Pub(S_i), h)
    h = H(h + static)
    C, k = Kdf(2, C, DH(S_i, Pub(S_r)))
    sealed_timestamp = Aead(k, 0, timestamp, h)
    h = H(h + sealed_timestamp)
    initiation = b"\x01\0\0\0" + struct.pack("<I", I_i) + Pub(E_i) + static + sealed_timestamp
    initiation += Mac(H(b"mac1----" + Pub(S_r)), initiation) + bytes(16)

    # 5.4.3 Second Message: Responder to Initiator
    [C] = Kdf(1, C, Pub(E_r))
    h = H(h + Pub(E_r))
    [C] = Kdf(1, C, DH(E_r, Pub(E_i)))
    [C] = Kdf(1, C, DH(E_r, Pub(S_i)))
    C, tau, k = Kdf(3, C, Q)
    h = H(h + tau)
    empty = Aead(k, 0, b"", h)
    response = b"\x02\0\0\0" + struct.pack("<II", I_r, I_i) + Pub(E_r) + empty
    response += Mac(H(b"mac1----" + Pub(S_i)), response) + bytes(16)

    # 5.4.5 Transport Data Key Derivation
    first, second = Kdf(2, C, b"")
    return Transcript(initiation, response, first, second)
