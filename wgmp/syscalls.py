"""System calls that Python has no function for, through the C library's `prctl` and `syscall`;
and names of signals, of which it does not know all.
"""

from __future__ import annotations

import ctypes
import os
import signal
from typing import Any

# linux/prctl.h
PR_SET_PDEATHSIG, _PR_GET_PDEATHSIG = 1, 2
PR_SET_DUMPABLE = 4

_libc = ctypes.CDLL(None, use_errno=True)


def prctl(option: int, *arguments: Any) -> int:
    """Call prctl(2); numbers go as unsigned longs. Raises OSError."""
    filled = [*arguments, *(0 for _ in range(4 - len(arguments)))]
    return _checked(_libc.prctl(option, *map(_word, filled)))


def parent_death_signal() -> int:
    """Return the signal that this process gets when its parent ends, 0 for none."""
    number = ctypes.c_int()
    prctl(_PR_GET_PDEATHSIG, ctypes.byref(number))
    return number.value


def syscall(number: int, *arguments: Any) -> int:
    """Call the system call of that number; numbers go as unsigned longs. Raises OSError."""
    _libc.syscall.restype = ctypes.c_long
    return _checked(_libc.syscall(ctypes.c_long(number), *map(_word, arguments)))


def signal_name(number: int) -> str:
    """Return a signal's name, such as SIGKILL; most of the real-time signals have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _word(argument: Any) -> Any:
    return ctypes.c_ulong(argument) if isinstance(argument, int) else argument


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
