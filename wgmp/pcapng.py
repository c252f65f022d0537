"""pcapng: the file that Wireshark and tshark read (draft-ietf-opsawg-pcapng).

Blocks in little-endian order: a section header, a description per interface, then packets. All
interfaces are of raw IP packets (LINKTYPE_RAW) with times in nanoseconds.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import BinaryIO, Final

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_PACKET: Final = 6
_BYTE_ORDER: Final = 0x1A2B3C4D
_LINKTYPE_RAW: Final = 101
_SNAP_LENGTH: Final = 262_144

# Options of the blocks (sections 3.5, 4.1 to 4.3).
_END, _COMMENT, _PACKET_FLAGS = 0, 1, 2
_NAME, _DESCRIPTION, _TIME_RESOLUTION = 2, 3, 9
_APPLICATION: Final = 4


class Direction(IntEnum):
    """Which way a packet goes, as seen from the host (epb_flags, bits 0 and 1)."""

    INBOUND = 1
    OUTBOUND = 2


class PcapngWriter:
    """Writes to `file`. `interfaces`: (name, description) of each, by number in this order."""

    def __init__(self, file: BinaryIO, application: str, interfaces: list[tuple[str, str]]) -> None:
        self._file = file
        section = struct.pack("<IHHq", _BYTE_ORDER, 1, 0, -1)
        self._block(_SECTION, section + _options((_APPLICATION, application.encode())))
        for name, description in interfaces:
            body = struct.pack("<HHI", _LINKTYPE_RAW, 0, _SNAP_LENGTH)
            options = [(_NAME, name.encode()), (_DESCRIPTION, description.encode())]
            self._block(_INTERFACE, body + _options(*options, (_TIME_RESOLUTION, b"\x09")))

    def packet(
        self, interface: int, time_ns: int, packet: bytes, direction: Direction, comment: str = ""
    ) -> None:
        """Write one whole IP packet. `time_ns`: Unix time."""
        head = struct.pack(
            "<IIIII",
            interface,
            time_ns >> 32,
            time_ns & 0xFFFF_FFFF,
            len(packet),
            len(packet),
        )
        options = [(_COMMENT, comment.encode())] if comment else []
        flags = (_PACKET_FLAGS, struct.pack("<I", direction))
        self._block(_PACKET, head + _padded(packet) + _options(*options, flags))

    def flush(self) -> None:
        """Let readers see what was written."""
        self._file.flush()

    def _block(self, kind: int, body: bytes) -> None:
        length = struct.pack("<I", len(body) + 12)
        self._file.write(struct.pack("<I", kind) + length + body + length)


def _options(*options: tuple[int, bytes]) -> bytes:
    encoded = [struct.pack("<HH", code, len(value)) + _padded(value) for code, value in options]
    return b"".join(encoded) + struct.pack("<HH", _END, 0)


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)
