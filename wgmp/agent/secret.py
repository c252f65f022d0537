"""Secret keys in memory: shown nowhere, and wiped after use as far as Python lets us.

What we hold is a bytearray that is overwritten in the end. The library's base64 decoder makes a
copy on the way, which Python frees without wiping.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import NoReturn

from wgmp import keys

_HEX = [b"%02x" % value for value in range(256)]


class SecretKey:
    """32 secret bytes. Its repr and its text are "(hidden)", and it cannot be pickled."""

    __slots__ = ("_bytes",)

    def __init__(self, key: bytes | bytearray) -> None:
        self._bytes = bytearray(key)

    def __repr__(self) -> str:
        return "(hidden)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret key stays where it is")

    def public(self) -> bytes:
        """Return the 32-byte public key of this private key."""
        return keys.public_key_of(bytes(self._bytes))

    def append_hex(self, buffer: bytearray) -> None:
        """Append the 64 hex digits to a buffer that its owner wipes."""
        for value in self._bytes:
            buffer += _HEX[value]

    def wipe(self) -> None:
        """Overwrite the key with zeros."""
        wipe(self._bytes)


def wipe(buffer: bytearray) -> None:
    """Overwrite a buffer with zeros, in place."""
    buffer[:] = bytes(len(buffer))


class Secrets:
    """The secret keys of a network while its gateway is told them; wiped when the block ends.

    `preshared`: by the peer's public key as base64, for the peers that have one.
    """

    def __init__(self, private: SecretKey, preshared: dict[str, SecretKey]) -> None:
        self.private = private
        self.preshared = preshared

    def __enter__(self) -> Secrets:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for key in self._all():
            key.wipe()

    def _all(self) -> Iterable[SecretKey]:
        yield self.private
        yield from self.preshared.values()
