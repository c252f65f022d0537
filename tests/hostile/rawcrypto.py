"""The primitives of WireGuard for the raw peer, on hashlib and `cryptography` alone.

Nothing here comes from the gateway's protocol core: two readings of the whitepaper that agree
are worth more than one. Section numbers are the whitepaper's.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


def digest(*parts: bytes) -> bytes:
    """BLAKE2s-256 of the parts, one behind the other."""
    return hashlib.blake2s(b"".join(parts)).digest()


def mac(key: bytes, message: bytes) -> bytes:
    """Keyed BLAKE2s-128."""
    return hashlib.blake2s(message, key=key, digest_size=16).digest()


def kdf(key: bytes, material: bytes, count: int) -> list[bytes]:
    """`count` outputs of HKDF over HMAC-BLAKE2s (5.4)."""
    secret = hmac.new(key, material, hashlib.blake2s).digest()
    outputs: list[bytes] = []
    last = b""
    for number in range(1, count + 1):
        last = hmac.new(secret, last + bytes([number]), hashlib.blake2s).digest()
        outputs.append(last)
    return outputs


def public_of(private: bytes) -> bytes:
    """The public key of 32 private bytes."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def dh(private: bytes, public: bytes) -> bytes:
    """X25519; zeros for a point of low order, as an attacker would go on with."""
    try:
        key = X25519PrivateKey.from_private_bytes(private)
        return key.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return bytes(32)


def seal(key: bytes, counter: int, plain: bytes, associated: bytes = b"") -> bytes:
    """ChaCha20-Poly1305 with WireGuard's nonce (5.4)."""
    nonce = struct.pack("<IQ", 0, counter)
    return ChaCha20Poly1305(key).encrypt(nonce, plain, associated)


def unseal(key: bytes, counter: int, sealed: bytes, associated: bytes = b"") -> bytes | None:
    """The reverse of `seal`, None when the tag is wrong."""
    nonce = struct.pack("<IQ", 0, counter)
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, sealed, associated)
    except InvalidTag:
        return None


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & 0xFFFFFFFF


def _quarter_round(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for bits in ((16, 12), (8, 7)):
        state[a] = (state[a] + state[b]) & 0xFFFFFFFF
        state[d] = _rotate(state[d] ^ state[a], bits[0])
        state[c] = (state[c] + state[d]) & 0xFFFFFFFF
        state[b] = _rotate(state[b] ^ state[c], bits[1])


_COLUMNS = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15))
_DIAGONALS = ((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))


def _hchacha20(key: bytes, nonce: bytes) -> bytes:
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))
    for _ in range(10):
        for places in _COLUMNS + _DIAGONALS:
            _quarter_round(state, *places)
    return struct.pack("<8I", *state[:4], *state[12:])


def xseal(key: bytes, nonce: bytes, plain: bytes, associated: bytes) -> bytes:
    """XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03); `nonce`: 24 bytes."""
    subkey = _hchacha20(key, nonce[:16])
    return ChaCha20Poly1305(subkey).encrypt(bytes(4) + nonce[16:], plain, associated)


def xunseal(key: bytes, nonce: bytes, sealed: bytes, associated: bytes) -> bytes | None:
    """The reverse of `xseal`, None when the tag is wrong."""
    subkey = _hchacha20(key, nonce[:16])
    try:
        return ChaCha20Poly1305(subkey).decrypt(bytes(4) + nonce[16:], sealed, associated)
    except InvalidTag:
        return None
