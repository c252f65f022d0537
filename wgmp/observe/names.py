"""Friendly names of peers, from the comments of a configuration.

    [Peer]
    # friendly_name = Anna's phone
    PublicKey = ...

This is what prometheus_wireguard_exporter reads; `name` is taken as well, and the comment may
stand anywhere in its section. `wg-quick` does not tell what file it read, so unless told
otherwise a gateway looks into `/etc/wireguard/IFACE.conf`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

MAX_NAME = 64

_SECTION = re.compile(r"\s*\[([A-Za-z]+)\]\s*(?:#.*)?$")
_NAME = re.compile(r"\s*#\s*(?:friendly_?name|name)\s*[=:]\s*(\S.*?)\s*$", re.IGNORECASE)
_KEY = re.compile(r"\s*PublicKey\s*=\s*([A-Za-z0-9+/]{43}=)\s*(?:#.*)?$", re.IGNORECASE)


def names_in(text: str) -> dict[str, str]:
    """Return the names that a configuration gives, by public key.

    A name has at most 64 characters, without those that a terminal would obey.
    """
    names: dict[str, str] = {}
    name = key = ""
    for line in [*text.splitlines(), "[End]"]:
        if _SECTION.match(line):
            if name and key:
                names[key] = name
            name = key = ""
        elif found := _NAME.match(line):
            name = "".join(filter(str.isprintable, found[1]))[:MAX_NAME]
        elif found := _KEY.match(line):
            key = found[1]
    return names


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
                try:
                    self._names |= names_in(file.read_text(errors="replace"))
                except OSError:
                    continue
        return self._names


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
