"""The virtio_net_hdr that stands before every packet read from or written to the TUN.

Ten bytes in host byte order (linux/virtio_net.h; Documentation/networking/tuntap.rst):
flags u8, gso_type u8, hdr_len u16, gso_size u16, csum_start u16, csum_offset u16.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

_LAYOUT: Final = struct.Struct("=BBHHHH")
SIZE: Final = _LAYOUT.size

NEEDS_CSUM: Final = 1

GSO_NONE: Final = 0
GSO_TCPV4: Final = 1
GSO_TCPV6: Final = 4
GSO_UDP_L4: Final = 5
GSO_ECN: Final = 0x80  # a bit beside the TCP types: the first segment carries CWR

PLAIN: Final = bytes(SIZE)


def is_super(packet: memoryview) -> bool:
    """Return whether the header says that it is a super-packet's. `packet`: at least 10 bytes."""
    return packet[1] != GSO_NONE


def needs_checksum(packet: memoryview) -> bool:
    """Return whether the header says that a checksum is still to be computed."""
    return packet[0] & NEEDS_CSUM != 0


class VirtioHeader(NamedTuple):
    """One header's fields. Offsets are in bytes from the start of the IP header.

    `hdr_len` is a hint that is wrong for forwarded packets; nobody may rely on it.
    """

    flags: int
    gso_type: int
    hdr_len: int
    gso_size: int
    csum_start: int
    csum_offset: int

    def pack(self) -> bytes:
        """Return the 10 bytes."""
        return _LAYOUT.pack(*self)

    @classmethod
    def unpack(cls, buffer: memoryview | bytes) -> VirtioHeader:
        """Return the header at the start of `buffer`, at least 10 bytes."""
        return cls(*_LAYOUT.unpack_from(buffer))

    def wire_length(self, packet: memoryview) -> int:
        """Return the length of the longest packet that `packet`, behind this header, becomes.

        Never raises: what is no super-packet after all is as long as it is.
        """
        offset = self.csum_start + 12
        if self.gso_type == GSO_NONE or offset >= len(packet):
            return len(packet)
        tcp = self.gso_type != GSO_UDP_L4
        l4_header = (packet[offset] >> 4) * 4 if tcp else 8
        return min(len(packet), self.csum_start + l4_header + self.gso_size)
