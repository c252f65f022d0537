"""The filter of system calls that a role runs under: a list of what it may do, no more.

A classic BPF program, which the kernel runs before every system call (seccomp(2)):

    another CPU's way of calling            -> end the process
    a call in the table below               -> allow
    mmap, mprotect without PROT_EXEC        -> allow
    ioctl that asks for an interface's MTU  -> allow
    tgkill of the process itself            -> allow (abort, and the C library's last words)
    all else                                -> fails with EPERM

The calls a role makes all the time have no conditions: since Linux 5.11 the kernel keeps the
answer for those in a bitmap and runs no program for them.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import struct

from wgmp.syscalls import prctl

# linux/prctl.h, linux/seccomp.h
_PR_GET_SECCOMP, _PR_SET_SECCOMP = 21, 22
_SECCOMP_MODE_FILTER = 2
_ALLOW = 0x7FFF_0000
_FAIL = 0x0005_0000
_KILL_PROCESS = 0x8000_0000

# linux/bpf_common.h: load a word of seccomp_data; jump if equal, if greater, if any bit is set.
_LOAD, _JUMP_EQUAL, _JUMP_GREATER, _JUMP_BITS, _RETURN = 0x20, 0x15, 0x25, 0x45, 0x06
# struct seccomp_data: number, architecture, instruction pointer, six arguments of 8 bytes.
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16
_INSTRUCTION = struct.Struct("=HBBI")

# linux/audit.h; on x86-64 the x32 ABI calls with this bit set in the number.
_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_X32_BIT = 0x4000_0000

# asm/unistd_64.h of x86-64, asm-generic/unistd.h of aarch64; None: there is no such call.
NUMBERS: dict[str, tuple[int | None, int | None]] = {
    # the packets, and the doorbells
    "read": (0, 63),
    "write": (1, 64),
    "readv": (19, 65),
    "writev": (20, 66),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "recvmmsg": (299, 243),
    "sendmmsg": (307, 269),
    # the loop
    "epoll_create1": (291, 20),
    "epoll_ctl": (233, 21),
    "epoll_wait": (232, None),
    "epoll_pwait": (281, 22),
    "epoll_pwait2": (441, 441),
    "poll": (7, None),
    "ppoll": (271, 73),
    "sched_yield": (24, 124),
    "nanosleep": (35, 101),
    "clock_nanosleep": (230, 115),
    "restart_syscall": (219, 128),
    # sockets that come with an order, or are replaced by it
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "close": (3, 57),
    "fstat": (5, 80),
    # time and randomness, where the vDSO cannot
    "clock_gettime": (228, 113),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "getrandom": (318, 278),
    "getcpu": (309, 168),
    # memory and locks
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "futex": (202, 98),
    "membarrier": (324, 283),
    # signals, the fault handler's report, the end
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "sigaltstack": (131, 132),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "exit": (60, 93),
    "exit_group": (231, 94),
}
# These with conditions, see `program`.
CONDITIONAL: dict[str, tuple[int, int]] = {
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "ioctl": (16, 29),
    "tgkill": (234, 131),
}

# linux/if_tun.h, linux/sockios.h
_TUNGETIFF = 0x800454D2
_SIOCGIFMTU = 0x8921


def supported() -> bool:
    """Return whether this machine's calls are in the tables, and its kernel has seccomp."""
    try:
        prctl(_PR_GET_SECCOMP)
    except OSError:
        return False
    return platform.machine() in _ARCHITECTURES


def program(machine: str, pid: int) -> bytes:
    """Return the filter for process `pid`, as struct sock_filter one after another.

    Raises ValueError for a machine that has no table.
    """
    column = list(_ARCHITECTURES).index(machine)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_JUMP_EQUAL, 1, 0, _ARCHITECTURES[machine]),
        (_RETURN, 0, 0, _KILL_PROCESS),
        (_LOAD, 0, 0, _NUMBER_AT),
    ]
    if machine == "x86_64":
        lines += [(_JUMP_GREATER, 0, 1, _X32_BIT - 1), (_RETURN, 0, 0, _KILL_PROCESS)]
    for numbers in NUMBERS.values():
        number = numbers[column]
        if number is not None:
            lines += [(_JUMP_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for name, argument, accepted in (
        ("mmap", 2, None),
        ("mprotect", 2, None),
        ("ioctl", 1, (_SIOCGIFMTU, _TUNGETIFF)),
        ("tgkill", 0, (pid,)),
    ):
        verdict = _without_exec() if accepted is None else _one_of(accepted)
        lines.append((_JUMP_EQUAL, 0, 1 + len(verdict), CONDITIONAL[name][column]))
        lines.append((_LOAD, 0, 0, _ARGUMENTS_AT + 8 * argument))
        lines += verdict
    lines.append(_FAILS)
    return b"".join(_INSTRUCTION.pack(*line) for line in lines)


_FAILS = (_RETURN, 0, 0, _FAIL | errno.EPERM)


def _without_exec() -> list[tuple[int, int, int, int]]:
    return [(_JUMP_BITS, 0, 1, mmap.PROT_EXEC), _FAILS, (_RETURN, 0, 0, _ALLOW)]


def _one_of(values: tuple[int, ...]) -> list[tuple[int, int, int, int]]:
    lines = []
    for value in values:
        lines += [(_JUMP_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*lines, _FAILS]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def enter() -> None:
    """Put this process under the filter, for good. No new privileges must be set before.

    Raises OSError where the kernel refuses.
    """
    lines = program(platform.machine(), os.getpid())
    filled = _Program(len(lines) // _INSTRUCTION.size, lines)
    prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(filled))
