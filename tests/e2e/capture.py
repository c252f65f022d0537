"""What passes an interface in a namespace, as scapy packets: the tests' eye on the wire."""

from __future__ import annotations

import socket
import time
from typing import Any

from hostile.wire import inside
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6

from wgmp.netns import Namespace

# linux/if_ether.h, asm-generic/socket.h, linux/if_packet.h
_ETH_P_ALL = 3
_SO_RCVBUFFORCE = 33
_BUFFER_BYTES = 4 << 20


class Capture:
    """IP packets of one interface, both ways, from now on."""

    def __init__(self, namespace: Namespace, interface: str) -> None:
        with inside(namespace):
            # SOCK_DGRAM leaves the link's own header out, where there is one.
            self._socket = socket.socket(
                socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL)
            )
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.bind((interface, _ETH_P_ALL))

    def packets(self, seconds: float = 0.2) -> list[Any]:
        """Return what has passed since the last call and passes in the next `seconds`."""
        deadline = time.monotonic() + seconds
        found: list[Any] = []
        while True:
            # What has passed already is taken, however long that takes.
            self._socket.settimeout(max(0.0, deadline - time.monotonic()))
            try:
                content = self._socket.recv(1 << 17)
            except (TimeoutError, BlockingIOError):
                return found
            version = content[0] >> 4
            if version in (4, 6):
                found.append(IP(content) if version == 4 else IPv6(content))

    def close(self) -> None:
        """Look no more."""
        self._socket.close()
