"""Which offloads the kernel gives us, and what the operator allows.

| offload | lets | probed by |
|---|---|---|
| tun_tcp | TCP super-packets through the TUN, checksums left to us | TUNSETOFFLOAD |
| tun_udp | UDP super-packets through the TUN (kernel 6.2 and newer) | TUNSETOFFLOAD |
| udp_segment | one send carry a train of datagrams (UDP_SEGMENT) | getsockopt |
| udp_gro | one receive bring a train of datagrams (UDP_GRO) | setsockopt |

They are probed at start, on Linux; other systems have none of them. The kernel may still refuse
UDP_SEGMENT later, for one path or for good; the udp_writer then goes on without it (datagrams.py).
"""

from __future__ import annotations

import fcntl
import socket
from dataclasses import dataclass

from wgmp import system
from wgmp.record import MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS
from wgmp.tun import has_virtio_header

# linux/if_tun.h
TUNSETOFFLOAD = 0x400454D0
CSUM = 0x01
TSO4 = 0x02
TSO6 = 0x04
USO4 = 0x20
USO6 = 0x40

# linux/udp.h
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104


# Headers of transport data and its tag; IPv4 and TCP headers with timestamps; and what
# net/tcp.h calls MAX_TCP_HEADER, plus one, on the kernels looked at.
_DATAGRAM_OVERHEAD = 32
_TCP_HEADERS = 52
_HEADER_ROOM = 321


@dataclass(frozen=True, slots=True)
class Offloads:
    """The table's rows: which are in use."""

    tun_tcp: bool = False
    tun_udp: bool = False
    udp_segment: bool = False
    udp_gro: bool = False


def set_up(tun: int, wanted: bool) -> Offloads:
    """Turn on, on the TUN, whatever it has (nothing if not `wanted`); return what is in use."""
    if not system.FULL:
        return Offloads()
    tun_tcp = tun_udp = False
    if has_virtio_header(tun):
        tun_tcp = _set_tun(tun, (CSUM | TSO4 | TSO6) if wanted else 0) and wanted
        tun_udp = tun_tcp and _set_tun(tun, CSUM | TSO4 | TSO6 | USO4 | USO6)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        udp_segment = wanted and _knows(probe, UDP_SEGMENT)
        udp_gro = wanted and enable_gro(probe)
    return Offloads(tun_tcp, tun_udp, udp_segment, udp_gro)


def enable_gro(sock: socket.socket) -> bool:
    """Let a UDP socket receive trains; return False where the kernel cannot."""
    try:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    except OSError:
        return False
    return True


def _knows(sock: socket.socket, option: int) -> bool:
    try:
        sock.getsockopt(SOL_UDP, option)
    except OSError:
        return False
    return True


def _set_tun(tun: int, flags: int) -> bool:
    try:
        fcntl.ioctl(tun, TUNSETOFFLOAD, flags)
    except OSError:
        return False
    return True


def super_packet_bytes(mtu: int) -> int:
    """Return the gso_max_size with which one TCP super-packet is one UDP_SEGMENT train.

    A train has at most MAX_TRAIN_DATAGRAMS datagrams and MAX_TRAIN_BYTES. The kernel keeps
    back room for headers (MAX_TCP_HEADER + 1) from the size, and cuts the rest by the MSS.
    """
    datagrams = min(MAX_TRAIN_DATAGRAMS, MAX_TRAIN_BYTES // (mtu + _DATAGRAM_OVERHEAD))
    payload = max(1, datagrams) * max(1, mtu - _TCP_HEADERS)
    return min(65_536, max(mtu + _HEADER_ROOM, payload + _HEADER_ROOM))


class TrainRefusedError(OSError):
    """The kernel does not cut this train: its datagrams have to go one by one."""
