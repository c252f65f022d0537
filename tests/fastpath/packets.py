"""Whole, valid TCP and UDP packets, built the slow and obvious way."""

from __future__ import annotations

from dataclasses import dataclass, replace

ACK, PSH, FIN, SYN, URG, ECE, CWR = 0x10, 0x08, 0x01, 0x02, 0x20, 0x40, 0x80


def checksum(data: bytes) -> int:
    """RFC 1071, word by word."""
    data += b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(data[at : at + 2], "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@dataclass(frozen=True)
class Packet:
    """One packet; `build` gives its bytes with right lengths and checksums."""

    payload: bytes
    version: int = 4
    protocol: int = 6
    source: int = 1
    identification: int = 100
    fragment: int = 0x4000
    tos: int = 0
    ttl: int = 64
    port: int = 1000
    sequence: int = 5000
    acknowledgement: int = 77
    flags: int = ACK
    window: int = 500
    options: bytes = b"\x01\x01\x08\x0a" + bytes(8)

    def build(self) -> bytes:
        l4 = self._l4(0)
        addresses = self._addresses()
        pseudo = addresses + len(l4).to_bytes(4, "big") + self.protocol.to_bytes(4, "big")
        value = checksum(pseudo + l4)
        if self.protocol == 17 and not value:
            value = 0xFFFF
        return self._l3(len(l4)) + self._l4(value)

    def _addresses(self) -> bytes:
        width = 4 if self.version == 4 else 16
        return self.source.to_bytes(width, "big") + (2).to_bytes(width, "big")

    def _l3(self, length: int) -> bytes:
        if self.version == 6:
            first = (6 << 28 | self.tos << 20).to_bytes(4, "big")
            rest = bytes([self.protocol, self.ttl])
            return first + length.to_bytes(2, "big") + rest + self._addresses()
        header = bytes([0x45, self.tos]) + (20 + length).to_bytes(2, "big")
        header += (self.identification & 0xFFFF).to_bytes(2, "big")
        header += self.fragment.to_bytes(2, "big") + bytes([self.ttl, self.protocol])
        value = checksum(header + b"\0\0" + self._addresses())
        return header + value.to_bytes(2, "big") + self._addresses()

    def _l4(self, value: int) -> bytes:
        ports = self.port.to_bytes(2, "big") + (80).to_bytes(2, "big")
        if self.protocol == 17:
            length = 8 + len(self.payload)
            return ports + length.to_bytes(2, "big") + value.to_bytes(2, "big") + self.payload
        offset = (5 + len(self.options) // 4) << 4
        return (
            ports
            + (self.sequence & 0xFFFF_FFFF).to_bytes(4, "big")
            + self.acknowledgement.to_bytes(4, "big")
            + bytes([offset, self.flags])
            + self.window.to_bytes(2, "big")
            + value.to_bytes(2, "big")
            + bytes(2)
            + self.options
            + self.payload
        )


def flow(first: Packet, sizes: list[int], last_flags: int | None = None) -> list[Packet]:
    """Return the packets of one flow whose payloads have the given sizes."""
    packets = []
    sequence = first.sequence
    for number, size in enumerate(sizes):
        payload = bytes((number + at) & 0xFF for at in range(size))
        packet = replace(
            first,
            payload=payload,
            identification=first.identification + number,
            sequence=sequence,
        )
        packets.append(packet)
        sequence += size
    if last_flags is not None:
        packets[-1] = replace(packets[-1], flags=last_flags)
    return packets
