"""Friendly names of peers, from the comments of a configuration (config_grammar.py reads them).

    [Peer]
    # friendly_name = Anna's phone
    PublicKey = ...

`wg-quick` does not tell what file it read, so unless told otherwise a gateway looks into
`/etc/wireguard/IFACE.conf`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from wgmp import config
from wgmp.errors import ConfigError
from wgmp.files import read_bytes
from wgmp.keys import to_base64

MAX_NAME = 64


def names_in(text: str) -> dict[str, str]:
    """Return the names that a configuration gives, by public key; none if it is not one.

    A name has at most 64 characters, without those that a terminal would obey.
    """
    try:
        peers = config.parse(text, "names").peers
    except ConfigError:
        return {}
    return {
        to_base64(peer.public_key): "".join(filter(str.isprintable, peer.name))[:MAX_NAME]
        for peer in peers
        if peer.name
    }


def default_file(interface: str) -> Path:
    """Return where `wg-quick` has the configuration of an interface."""
    return Path("/etc/wireguard") / f"{interface}.conf"


class Names:
    """The names that `files` give, those of later ones first; read again when a file changes."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = files
        self._seen: list[tuple[int, int] | None] = []
        self._names: dict[str, str] = {}

    def current(self) -> dict[str, str]:
        """Return the names by public key. A file that cannot be read gives none."""
        seen = [_stamp(file) for file in self._files]
        if seen != self._seen:
            self._seen = seen
            self._names = {}
            for file in self._files:
                with contextlib.suppress(ConfigError):
                    self._names |= names_in(read_bytes(file).decode(errors="replace"))
        return self._names


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
