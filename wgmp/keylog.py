"""A key log in Wireshark's format (wiki.wireshark.org/WireGuard, "Key Log Format").

With it Wireshark decrypts the handshakes of a capture, and the sessions that come of them.
"""

from __future__ import annotations

import os
from typing import TextIO

from wgmp.taphost import CaptureStarted


class KeyLog:
    """The file. `started` has the keys that are known from the beginning."""

    def __init__(self, path: str, started: CaptureStarted) -> None:
        """Create the file for its owner alone. Raises OSError."""
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.fchmod(descriptor, 0o600)
        self._file: TextIO = os.fdopen(descriptor, "w")
        self._preshared_keys = started.preshared_keys
        if started.private_key:
            self._line("LOCAL_STATIC_PRIVATE_KEY", started.private_key)
        for public_key in started.peers.values():
            self._line("REMOTE_STATIC_PUBLIC_KEY", public_key)
        self._file.flush()

    def ephemeral(self, key: str, peer: int) -> None:
        """Note an ephemeral private key, and the preshared key that belongs to its handshake."""
        self._line("LOCAL_EPHEMERAL_PRIVATE_KEY", key)
        if peer in self._preshared_keys:
            self._line("PRESHARED_KEY", self._preshared_keys[peer])
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _line(self, name: str, key: str) -> None:
        self._file.write(f"{name} = {key}\n")
