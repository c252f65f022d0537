"""Sockets of this process inside a test's namespaces: raw packets in and out of a TUN.

What is sent on a packet socket of the TUN reaches the gateway byte for byte, and what the
gateway writes is seen as written, super-packets included (PACKET_VNET_HDR).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from tests.fastpath.test_segment import cut
from wgmp.fastpath import virtio
from wgmp.fastpath.virtio import VirtioHeader
from wgmp.netns import Namespace

_CLONE_NEWNET = 0x40000000  # sched.h
_ETH_P_ALL, _ETH_P_IP, _ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD  # linux/if_ether.h
_SOL_PACKET, _PACKET_VNET_HDR = 263, 15  # linux/socket.h, linux/if_packet.h
_PACKET_OUTGOING = 4
_BUFFER_BYTES = 32 << 20
_SO_RCVBUFFORCE = 33


@contextlib.contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Let this thread make sockets in the namespace; they stay there."""
    libc = ctypes.CDLL(None, use_errno=True)
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(Path("/run/netns") / namespace.name, os.O_RDONLY)
    try:
        assert libc.setns(there, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(home, _CLONE_NEWNET) == 0
        os.close(there)
        os.close(home)


def udp_socket(namespace: Namespace, address: str, port: int = 0) -> socket.socket:
    """Return a bound UDP socket in the namespace, with a time limit on what it waits for."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(namespace):
        sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
    sock.bind((address, port))
    sock.settimeout(5)
    return sock


class Tap:
    """A packet socket on an interface: `send` raw IP packets, `receive` what is written."""

    def __init__(self, namespace: Namespace, interface: str) -> None:
        with inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
            self._socket.bind((interface, _ETH_P_ALL))
        self._interface = interface
        self.super_packets = 0

    def send(self, packet: bytes) -> None:
        """Send one IP packet out of the interface, as it is."""
        protocol = _ETH_P_IP if packet[0] >> 4 == 4 else _ETH_P_IPV6
        self._socket.sendto(virtio.PLAIN + packet, (self._interface, protocol))

    def receive(self, count: int, limit_s: float = 5.0) -> list[bytes]:
        """Return the next `count` incoming packets, super-packets taken apart."""
        self._socket.settimeout(limit_s)
        packets: list[bytes] = []
        while len(packets) < count:
            try:
                raw, address = self._socket.recvfrom(1 << 17)
            except TimeoutError:
                break
            if address[2] == _PACKET_OUTGOING or _is_noise(raw[virtio.SIZE :]):
                continue
            header, packet = VirtioHeader.unpack(raw), raw[virtio.SIZE :]
            if header.gso_type == virtio.GSO_NONE:
                packets.append(packet)
            else:
                self.super_packets += 1
                packets += cut(header, packet)
        return packets

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


def _is_noise(packet: bytes) -> bool:
    """Tell whether it is of a ping, or what IPv6 says by itself on every interface."""
    if packet[0] >> 4 == 4:
        return packet[9] == 1
    return packet[6] == 58 or packet[24] == 0xFF
