"""Reading a pcapng file with scapy: the tests' other reader of the format."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

from scapy.utils import RawPcapNgReader


class Found(NamedTuple):
    """One packet of a file. `wire_bytes`: how long it is said to have been."""

    content: bytes
    interface: str
    time_ns: int
    direction: int
    comment: str
    wire_bytes: int
    linktype: int


def read(file: str | BinaryIO) -> list[Found]:
    """Return the packets of a file, by its name or itself."""
    found = []
    for content, meta in RawPcapNgReader(file):
        assert meta.tsresol == 1_000_000_000
        # Scapy before 2.6.2 knows one comment.
        comments = meta.comments if hasattr(meta, "comments") else [meta.comment]
        found.append(
            Found(
                content,
                meta.ifname.decode(),
                meta.tshigh << 32 | meta.tslow,
                meta.direction,
                b"".join(filter(None, comments or [])).decode(),
                meta.wirelen,
                meta.linktype,
            )
        )
    return found
