"""Which of this host's addresses a peer would see."""

from __future__ import annotations

import socket
from functools import lru_cache

from wgmp.addresses import format_address, parse_address

_DISCARD_PORT = 9

# RFC 5737 and RFC 3849: addresses that nobody has, so only a default route leads there.
_ELSEWHERE = (bytes([192, 0, 2, 1]), b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01")


@lru_cache
def toward(remote: bytes, scope_id: int = 0) -> bytes:
    """Return the packed address that the kernel would send from, zeros where it cannot send."""
    family = socket.AF_INET if len(remote) == 4 else socket.AF_INET6
    zone = (0, scope_id) if family == socket.AF_INET6 else ()
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((format_address(remote), _DISCARD_PORT, *zone))  # sends nothing
        except OSError:
            return bytes(len(remote))
        return parse_address(probe.getsockname()[0].partition("%")[0])


def public() -> str:
    """Return the address by which other networks may reach this host, "" without a guess."""
    for remote in _ELSEWHERE:
        address = toward(remote)
        if any(address):
            text = format_address(address)
            return f"[{text}]" if ":" in text else text
    return ""
