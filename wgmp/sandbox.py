"""Least privilege: what a role gives up before its first packet, a supervisor after its start.

| a role gives up | by | without it |
|---|---|---|
| its user | setresuid to `--user`, wgmp or nobody | a supervisor that is not root |
| capabilities, and getting any | capset, PR_SET_NO_NEW_PRIVS | |
| core dumps, being looked into | RLIMIT_CORE, PR_SET_DUMPABLE | |
| opening files, TCP, signals to others | landlock.py | kernels before 5.13 |
| all system calls but those of its loop | seccomp.py | kernels without seccomp; other CPUs |

Systems other than Linux have the first row, and core dumps (not `system.FULL`).

What is to be had is decided once, when the supervisor starts (`decide`). A role that cannot
carry it out does not start. The supervisor forks the roles, and so must stay able to: it keeps

| capability | for |
|---|---|
| CAP_NET_ADMIN | the TUN and its addresses, fwmark, socket buffers |
| CAP_NET_BIND_SERVICE | UDP ports below 1024 |
| CAP_SETUID, CAP_SETGID | making roles of another user |
| CAP_KILL | ending them, also by its own death: the kernel asks for it then as well |

and loses the others, also for whatever it executes.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import resource
import signal
import struct
import time
from dataclasses import dataclass

from wgmp import landlock, seccomp, system
from wgmp.errors import ConfigError
from wgmp.syscalls import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, prctl

# linux/capability.h
CAP_KILL, CAP_SETGID, CAP_SETUID = 5, 6, 7
CAP_NET_BIND_SERVICE, CAP_NET_ADMIN = 10, 12
_KEPT = (CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_NET_BIND_SERVICE, CAP_NET_ADMIN)
_CAPABILITY_VERSION_3 = 0x2008_0522
_CAPABILITY_SETS = struct.Struct("=6I")  # effective, permitted, inheritable: low words, then high

# linux/prctl.h
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_USERS = ("wgmp", "nobody")

# Roles keep session memory out of swap (sessions.py: a page for each row of the peer table).
_LOCKED_BYTES = 128 << 20


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What roles run under: the table's rows. `user`: "" when they keep the supervisor's.

    `landlock`: the version of the kernel's, 0 for none. Not `on`: nothing is given up at all.
    """

    on: bool = False
    user: str = ""
    uid: int = 0
    gid: int = 0
    seccomp: bool = False
    landlock: int = 0

    def __str__(self) -> str:
        """Describe it for an operator, as in "user nobody, no capabilities, seccomp"."""
        if not self.on:
            return "off"
        parts = [f"user {self.user}" if self.user else "the supervisor's user"]
        if system.FULL:
            parts.append("no capabilities")
        if self.seccomp:
            parts.append("seccomp")
        if self.landlock:
            parts.append(f"landlock {self.landlock}")
        return ", ".join(parts)


OFF = Sandbox()


def decide(wanted: bool, user: str) -> Sandbox:
    """Return what roles of this process shall run under, as far as kernel and privileges go.

    `user`: a name, "" for the default. Raises ConfigError when there is no such user.
    """
    if not wanted:
        return OFF
    entry = _find_user(user)
    kernel = (seccomp.supported(), landlock.version()) if system.FULL else (False, 0)
    if entry is None or not _can_become(entry.pw_uid, entry.pw_gid):
        return Sandbox(True, "", os.getuid(), os.getgid(), *kernel)
    return Sandbox(True, entry.pw_name, entry.pw_uid, entry.pw_gid, *kernel)


def _find_user(name: str) -> pwd.struct_passwd | None:
    for each in (name,) if name else _USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(each)
    if name:
        raise ConfigError(f"--user: there is no user {name!r}: `useradd --system {name}` makes one")
    return None


def _can_become(uid: int, gid: int) -> bool:
    """Try it in a child: besides the privileges, a user namespace may not have the user."""
    child = os.fork()
    if not child:
        try:
            system.become(uid, gid)
            os._exit(0)
        except OSError:
            os._exit(1)
    return os.waitpid(child, 0)[1] == 0


def enter(sandbox: Sandbox) -> None:
    """Give up, in a role's process, all that the table says; nothing of it comes back.

    That it ends with its parent stays. Raises OSError.
    """
    if not sandbox.on:
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    time.tzset()  # a log line's time needs a file, once
    if sandbox.user:
        system.become(sandbox.uid, sandbox.gid)
    if not system.FULL:
        return
    # The kernel forgets this one with the old user.
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _set_capabilities(())
    prctl(PR_SET_DUMPABLE, 0)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if sandbox.landlock:
        landlock.enter(sandbox.landlock)
    if sandbox.seccomp:
        seccomp.enter()


def narrow_supervisor() -> None:
    """Give up, in the supervisor's process, all capabilities but those of the second table.

    Those it does not have it does not get. Raises OSError. There are none but on Linux.
    """
    if not system.FULL:
        return
    with contextlib.suppress(OSError, ValueError):  # no CAP_SYS_RESOURCE: limited from outside
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (_LOCKED_BYTES, _LOCKED_BYTES))
    for capability in range(64):
        if capability not in _KEPT and _in_bounding_set(capability):
            with contextlib.suppress(PermissionError):  # no CAP_SETPCAP: bounded from outside
                prctl(_PR_CAPBSET_DROP, capability)
    present = capabilities()
    _set_capabilities(tuple(capability for capability in _KEPT if capability in present))


def _in_bounding_set(capability: int) -> bool:
    try:
        return prctl(_PR_CAPBSET_READ, capability) == 1
    except OSError:  # the kernel has no such capability
        return False


def capabilities(pid: int | None = None) -> set[int]:
    """Return the capabilities that a process (None: this one) has in force. Raises OSError."""
    with open(f"/proc/{pid or 'self'}/status") as status:
        line = next(line for line in status if line.startswith("CapEff:"))
    bits = int(line.split()[1], 16)
    return {capability for capability in range(64) if bits >> capability & 1}


def _set_capabilities(kept: tuple[int, ...]) -> None:
    """Keep only these, in force and permitted; let nothing inherit any."""
    with contextlib.suppress(OSError):  # kernels before 4.3 have none to clear
        prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    bits = sum(1 << capability for capability in kept)
    header = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0)
    low, high = bits & 0xFFFF_FFFF, bits >> 32
    capset = ctypes.CDLL(None, use_errno=True).capset
    if capset(header, _CAPABILITY_SETS.pack(low, low, 0, high, high, 0)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
