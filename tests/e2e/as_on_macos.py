"""Run wgmpd as on macOS, with a Linux TUN in the place of utun.

Before anything of wgmp is loaded, `sys.platform` says darwin, and what Python has on Linux alone is
taken away. What is left of Linux: the TUN, opened through pytun-pmd3 so that it puts four bytes
before each packet as utun does (a `struct tun_pi`, with an EtherType in the place of the family),
and the numbers of three ioctls. With --short-timers first, sessions are short (short_timers.py).
"""

from __future__ import annotations

import fcntl
import logging.handlers  # noqa: F401
import mmap
import os
import select
import shutil  # noqa: F401
import signal
import socket
import struct
import subprocess  # noqa: F401
import sys
import tempfile  # noqa: F401
import time

import numpy  # noqa: F401
import psutil  # noqa: F401
import pytun_pmd3
import uvloop  # noqa: F401

LINUX_ONLY = {
    mmap: ("MADV_DODUMP", "MADV_DOFORK", "MADV_DONTDUMP", "MADV_DONTFORK", "MADV_REMOVE"),
    os: (
        *(name for name in dir(os) if name.startswith(("EFD_", "MFD_", "SCHED_", "P_"))),
        *(name for name in dir(os) if name.startswith(("eventfd", "sched_", "setres", "getres"))),
        *("memfd_create", "pidfd_open", "pipe2", "waitid", "getrandom", "splice"),
    ),
    select: tuple(name for name in dir(select) if name.lower().startswith("epoll")),
    signal: ("pidfd_send_signal", "sigtimedwait", "sigwaitinfo"),
    socket: (
        *(name for name in dir(socket) if name.startswith(("AF_NETLINK", "NETLINK_", "MSG_CMSG"))),
        *(name for name in dir(socket) if name.startswith(("IPV6_RECV", "IP_RECV", "SO_PEER"))),
        *("SOCK_NONBLOCK", "SOCK_CLOEXEC", "SO_MARK", "AF_PACKET", "IPV6_PKTINFO", "IPV6_TCLASS"),
    ),
    time: ("CLOCK_BOOTTIME",),
}
for module, names in LINUX_ONLY.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
sys.platform = "darwin"

if sys.argv[1] == "--short-timers":
    from short_timers import shorten

    del sys.argv[1]
    shorten()

from wgmp import syscalls  # noqa: E402


def missing(*arguments: object) -> int:
    """Stand for a system call that only Linux has."""
    raise AssertionError(f"a system call of Linux: {arguments}")


syscalls.prctl = syscalls.syscall = missing

from wgmp import tun, utun  # noqa: E402

_IFF_TUN = 0x0001
_TUNGETIFF = 0x8004_54D2


def open_tun(name: str) -> int:
    """Open a TUN in the place of a utun; the system's choice for "utun" is the process id."""
    chosen = f"utun{os.getpid()}" if name == "utun" else name
    device = pytun_pmd3.TunTapDevice(chosen, _IFF_TUN)
    device.mtu = tun.DEFAULT_MTU
    descriptor = os.dup(device.fileno())
    device.close()
    os.set_blocking(descriptor, False)
    return descriptor


def name_of(descriptor: int) -> str:
    """Ask Linux for the name of a TUN."""
    return fcntl.ioctl(descriptor, _TUNGETIFF, bytes(40)).split(b"\0", 1)[0].decode()


utun.open_tun, utun.name_of = open_tun, name_of
utun._FAMILIES.update({4: bytes([0, 0, 0x08, 0x00]), 6: bytes([0, 0, 0x86, 0xDD])})
tun._SIOCGIFFLAGS, tun._SIOCGIFMTU = 0x8913, 0x8921
tun._IFREQ_INT, tun._IFREQ_FLAGS = struct.Struct("=16si20x"), struct.Struct("=16sH22x")

if __name__ == "__main__":
    from wgmp.cli import main_wgmpd

    sys.exit(main_wgmpd())
