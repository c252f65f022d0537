"""What passes an interface in a namespace, as scapy packets: the tests' eye on the wire."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from wgmp.netns import Namespace

_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33


class Capture:
    """Packets of one interface, from `begin` on. `raw`: it has no link-layer header (TUN)."""

    def __init__(self, namespace: Namespace, interface: str, raw: bool = False) -> None:
        self._raw = raw
        with inside(namespace):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
            self._socket.bind((interface, _ETH_P_ALL))

    def packets(self, seconds: float = 0.3) -> list[Any]:
        """Return what passed until now and in the next `seconds`, as IP or IPv6 packets."""
        deadline = time.monotonic() + seconds
        found = []
        while (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(left)
            try:
                content = self._socket.recv(70_000)
            except TimeoutError:
                break
            packet = self._parse(content)
            if packet is not None:
                found.append(packet)
        return found

    def _parse(self, content: bytes) -> Any:
        if self._raw:
            return IP(content) if content[0] >> 4 == 4 else IPv6(content)
        frame = Ether(content)
        return frame.payload if frame.type in (0x0800, 0x86DD) else None

    def close(self) -> None:
        """Look no more."""
        self._socket.close()


@contextmanager
def inside(namespace: Namespace) -> Iterator[None]:
    """Be in the namespace's network: sockets made meanwhile stay there."""
    with open("/proc/thread-self/ns/net") as home, open(f"/run/netns/{namespace.name}") as there:
        os_setns(there.fileno())
        try:
            yield
        finally:
            os_setns(home.fileno())


def os_setns(descriptor: int) -> None:
    """Enter a network namespace (Python 3.12 has os.setns)."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
