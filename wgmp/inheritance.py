"""What a supervisor takes over from one that was there before it.

| name | what | kept as long as |
|---|---|---|
| tun | the TUN descriptors; with them the interface, its addresses and routes | the name is ours |
| udp | the UDP sockets, and with them the port | both are on one port |
| uapi, control | the listening sockets of `wg` and of `wgmp` | its path is there |
| metrics | the listening socket of `/metrics` | |
| peers, indices, ... | shared memory that lasts (`shm.LastingMemory`) | |

They come from systemd, which kept the first three for a supervisor that was killed, or from one
that hands over to us (`wgmp/handover.py`). What is of no use is closed.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from wgmp import netlink, tun
from wgmp.errors import TunDeviceError

log = logging.getLogger("wgmp")

TUN, UDP, UAPI, CONTROL, METRICS = "tun", "udp", "uapi", "control", "metrics"
MEMORY = frozenset({"peers", "peer drops", "indices", "sessions", "counters"})


@dataclass
class Inheritance:
    """The table's rows; whoever takes one from here owns it.

    `roles`: whose counters are in the memory, in order. `link`: what was known of the interface
    (`linkwatch.LinkWatch`).
    """

    tun: list[int] = field(default_factory=list)
    udp: list[socket.socket] = field(default_factory=list)
    uapi: socket.socket | None = None
    control: socket.socket | None = None
    metrics: socket.socket | None = None
    memory: dict[str, int] = field(default_factory=dict)
    roles: list[str] = field(default_factory=list)
    link: tuple[int, int] | None = None


def sort(named: Iterable[tuple[str, int]], interface: str | None = None) -> Inheritance:
    """Return what of the named descriptors a supervisor can use.

    `interface`: the only one it wants, None for that which there is, whatever its name is by now.
    """
    found = Inheritance()
    for name, descriptor in named:
        match name:
            case "tun" if _is_tun_of(descriptor, interface):
                found.tun.append(descriptor)
            case "udp":
                _add(found.udp, socket.socket(fileno=descriptor))
            case "uapi" if found.uapi is None and _is_reachable(descriptor):
                found.uapi = socket.socket(fileno=descriptor)
            case "control" if found.control is None and _is_reachable(descriptor):
                found.control = socket.socket(fileno=descriptor)
            case "metrics" if found.metrics is None:
                found.metrics = socket.socket(fileno=descriptor)
            case _ if name in MEMORY:
                found.memory[name] = descriptor
            case _:
                log.info("descriptor %d (%s) is of no use any more", descriptor, name)
                os.close(descriptor)
    found.tun.sort(key=tun.is_detached)  # as they are opened: the one that is written comes last
    return found


def renew_tun(found: Inheritance, interface: str, queues: int) -> None:
    """Give up an interface that is not of so many queues: it has them for its life.

    It is deleted, for others may hold it too. Raises TunDeviceError.
    """
    if not found.tun or tun.are_queues(found.tun, queues):
        return
    log.warning("%s is made anew, with %d TUN queue%s", interface, queues, "s" * (queues > 1))
    try:
        netlink.delete_link(tun.index_of(interface))
    except OSError as error:
        raise TunDeviceError(f"{interface} cannot be made anew: {error.strerror}") from error
    for descriptor in found.tun:
        os.close(descriptor)
    found.tun = []


def _is_tun_of(descriptor: int, interface: str | None) -> bool:
    try:
        return tun.name_of(descriptor) == interface or interface is None
    except TunDeviceError:  # its interface was deleted
        return False


def _add(sockets: list[socket.socket], sock: socket.socket) -> None:
    """Add a socket of the same port and another family; IPv4 goes first."""
    port = sock.getsockname()[1]
    if any(sock.family == other.family or port != other.getsockname()[1] for other in sockets):
        sock.close()
        return
    sock.setblocking(False)
    sockets.append(sock)
    sockets.sort(key=lambda each: each.family)


def _is_reachable(descriptor: int) -> bool:
    with socket.socket(fileno=os.dup(descriptor)) as listener:
        path = listener.getsockname()
    return bool(path) and Path(path).is_socket()
