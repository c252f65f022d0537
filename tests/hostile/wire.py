"""UDP sockets of this process in other network namespaces.

A socket belongs to the namespace it was made in, whatever its process does afterwards. So a
test visits a namespace only to open a socket there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import struct
import time
from collections.abc import Iterator

from wgmp.netns import Namespace

_CLONE_NEWNET = 0x40000000
_IP_PKTINFO = 8  # linux/in.h
_libc = ctypes.CDLL(None, use_errno=True)

Address = tuple[str, int]


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@contextlib.contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Let this thread be in the namespace meanwhile."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace.name}", os.O_RDONLY)
    try:
        _setns(there)
        yield
    finally:
        _setns(home)
        os.close(home)
        os.close(there)


class Wire:
    """A UDP socket in a namespace, bound to `address` and a port, that talks to one gateway."""

    def __init__(self, namespace: Namespace, address: str, gateway: Address, port: int = 0) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(namespace):
            self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind((address, port))
        self.gateway = gateway

    @property
    def name(self) -> str:
        """Our end as `wg` writes it: "192.0.2.1:1234" or "[2001:db8::1]:1234"."""
        host, port = self.socket.getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def send(self, datagram: bytes, source: str = "") -> None:
        """Send to the gateway, from another IPv4 address of the host when `source` says so."""
        if not source:
            self.socket.sendto(datagram, self.gateway)
            return
        info = struct.pack("=i4s4s", 0, socket.inet_aton(source), bytes(4))
        ancillary = [(socket.IPPROTO_IP, _IP_PKTINFO, info)]
        self.socket.sendmsg([datagram], ancillary, 0, self.gateway)

    def receive(self, limit_s: float = 3.0) -> bytes:
        """The next datagram; fails the test when none comes in time."""
        return self.receive_from(limit_s)[0]

    def poll(self, limit_s: float = 0.0) -> bytes | None:
        """The next datagram, or None when none comes in time."""
        received = self.poll_from(limit_s)
        return None if received is None else received[0]

    def receive_from(self, limit_s: float = 3.0) -> tuple[bytes, Address]:
        """The next datagram and where it came from; fails the test when none comes in time."""
        received = self.poll_from(limit_s)
        assert received is not None, f"nothing came to {self.name} in {limit_s} s"
        return received

    def poll_from(self, limit_s: float = 0.0) -> tuple[bytes, Address] | None:
        """The next datagram and where it came from, or None."""
        self.socket.settimeout(max(limit_s, 1e-6))
        try:
            datagram, address = self.socket.recvfrom(65535)
        except (TimeoutError, BlockingIOError):
            return None
        return datagram, (address[0], address[1])

    def drain(self, quiet_s: float = 0.05, limit_s: float = 2.0) -> list[bytes]:
        """All that comes until it has been quiet for a while."""
        deadline = time.monotonic() + limit_s
        datagrams = []
        while time.monotonic() < deadline and (datagram := self.poll(quiet_s)) is not None:
            datagrams.append(datagram)
        return datagrams

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
