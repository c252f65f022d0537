"""`wgmp doctor`: what this host can do, what is missing, and what to do about it.

| check | a gateway needs it | looked at |
|---|---|---|
| Python, cryptography | yes | versions |
| CPU | yes | x86-64, the native fast path, or one process (shm.py); its features, cores |
| TUN device | yes | /dev/net/tun opens; whether the kernel has interfaces of several queues |
| privileges | yes | CAP_NET_ADMIN |
| sandbox | | what the roles of a gateway would run under |
| UDP sockets | yes | opened as a gateway does, with the buffers they got |
| namespaces | | one is made and removed |
| wg, wg-quick, ip | | found in PATH |
| fast path | | the native one, and compiled roles, where they were built with the package |
| AEAD | | whether there is another than ring's to ask for |
| kernel WireGuard | | loaded, built in, or a module of this kernel |
| offloads | | with --offload: super-packets are sent, see superpackets.py |

Nothing of the host is changed: what is made goes again at once.
"""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from wgmp import ring, sandbox, tun, udp
from wgmp.errors import CommandError, RingError
from wgmp.fastpath.choice import ipsec_mb_is_missing, native_is_missing
from wgmp.netns import Namespaces
from wgmp.sandbox import Sandbox
from wgmp.shm import require_ordered_stores
from wgmp.superpackets import Finding
from wgmp.topology import Shape, choose

TUN_DEVICE = Path("/dev/net/tun")

_MIN_PYTHON = (3, 11)
_MIN_CRYPTOGRAPHY = 47  # encrypt_into, decrypt_into
# linux/capability.h
_CAP_NET_ADMIN = 12
# Below this a burst at full speed can overrun the socket before the reader runs.
_GOOD_BUFFER_BYTES = 4 << 20
_X86_FEATURES = ("sse2", "ssse3", "avx", "avx2", "avx512f", "avx512vl", "bmi2", "adx", "aes")
_ARM_FEATURES = ("asimd", "sve")
_OFFLOAD_LIMIT_S = 60.0

_TOOLS = {
    "wg": ("wireguard-tools", "configures gateways"),
    "wg-quick": ("wireguard-tools", "brings interfaces up from files"),
    "ip": ("iproute2", "sets addresses and routes; --config needs it"),
}


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    MISSING = "missing"


@dataclass(frozen=True)
class Check:
    """One line. `remedy`: what to do about it; `needed`: no gateway can run without it."""

    name: str
    state: State
    detail: str
    remedy: str = ""
    needed: bool = False

    def __str__(self) -> str:
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.state:<8} {self.name}: {self.detail}{remedy}"


def examine(offload: bool) -> Iterator[Check]:
    """Yield every check's result, offloads too if asked. Never raises for what is missing."""
    # Loaded before the CPU is judged, it lends its fence to those that need one.
    no_native = native_is_missing()
    yield check_python(sys.version_info[:3])
    yield check_cryptography(_installed("cryptography"))
    yield check_cpu(Path("/proc/cpuinfo").read_text(), len(os.sched_getaffinity(0)))
    yield check_tun(TUN_DEVICE)
    yield check_privileges(Path("/proc/self/status").read_text())
    yield check_sandbox(sandbox.decide(True, ""))
    yield check_sockets()
    yield check_namespaces()
    for tool in _TOOLS:
        yield check_tool(tool)
    yield check_kernel_wireguard(Path("/"), platform.release())
    yield check_fast_path(no_native, compiled=not str(ring.__file__).endswith(".py"))
    if not no_native:
        yield check_aead(ipsec_mb_is_missing())
    yield from _offloads() if offload else [_NOT_TESTED]


def check_fast_path(missing: str, *, compiled: bool) -> Check:
    """Say which fast path a gateway takes. `missing`: why not the native one, "" if it is.

    `compiled`: the roles' Python was, when the package was installed.
    """
    if not missing:
        roles = "compiled" if compiled else "interpreted"
        return Check("fast path", State.OK, f"native, in Rust; the roles' Python is {roles}")
    return Check(
        "fast path",
        State.OK,
        f"reference, in Python on cryptography and numpy; no native one: {missing}",
        "for speed, install wgmp again on a machine with Rust 1.88 or newer",
    )


def check_aead(missing: str) -> Check:
    """Say which AEADs the native fast path can have. `missing`: why not ipsec-mb, "" if it can."""
    if missing:
        return Check("AEAD", State.OK, f"ring; not ipsec-mb: {missing}")
    detail = "ring, or ipsec-mb, which is faster on this CPU"
    return Check("AEAD", State.OK, detail, "--aead ipsec-mb chooses it")


_NOT_TESTED = Check(
    "offloads", State.OK, "not tested", "run `wgmp doctor --offload` as root to send super-packets"
)


def can_run(checks: list[Check]) -> bool:
    """Return whether a gateway can run on a host with these results."""
    return not any(check.needed and check.state is State.MISSING for check in checks)


def _check(name: str, good: bool, detail: str, remedy: str = "", needed: bool = False) -> Check:
    """Return a check's result; the remedy is for a bad one."""
    state = State.OK if good else State.MISSING
    return Check(name, state, detail, "" if good else remedy, needed)


def check_python(found: tuple[int, ...]) -> Check:
    """Judge the interpreter's version."""
    good = found >= _MIN_PYTHON
    return _check("Python", good, ".".join(map(str, found)), "install Python 3.11 or newer", True)


def check_cryptography(found: str) -> Check:
    """Judge cryptography's version, "" when it is not installed."""
    major = found.partition(".")[0]
    good = major.isdigit() and int(major) >= _MIN_CRYPTOGRAPHY
    remedy = f"pip install 'cryptography>={_MIN_CRYPTOGRAPHY}'"
    return _check("cryptography", good, found or "not installed", remedy, True)


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def cpu_model(cpuinfo: str) -> str:
    """Return the CPU's name as /proc/cpuinfo (its text given) has it."""
    return _cpu_field(cpuinfo, "model name") or platform.machine()


def _cpu_field(cpuinfo: str, name: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def check_cpu(cpuinfo: str, cores: int) -> Check:
    """Judge the CPU: the text of /proc/cpuinfo, and how many cores may be used."""
    flags = (_cpu_field(cpuinfo, "flags") or _cpu_field(cpuinfo, "Features")).split()
    features = " ".join(name for name in (*_X86_FEATURES, *_ARM_FEATURES) if name in flags)
    detail = f"{cpu_model(cpuinfo)}, {cores} core(s), {features or 'features not known'}"
    try:
        if len(choose(Shape.AUTO, None, cores).processes) > 1:
            require_ordered_stores()
    except RingError as error:
        return _check("CPU", False, detail, str(error), True)
    if "sse2" in flags and "avx2" not in flags:
        detail += " (no avx2: ChaCha20-Poly1305 takes about twice as long)"
    return Check("CPU", State.OK, detail, needed=True)


def check_tun(device: Path) -> Check:
    """See whether the TUN device can be opened, and what for. That alone makes no interface."""
    try:
        several = tun.has_several_queues(device)
    except PermissionError:
        return _check("TUN device", False, f"{device} may not be opened", "run as root", True)
    except OSError as error:
        remedy = f"modprobe tun; in a container, pass the device in (--device {device})"
        return _check("TUN device", False, f"{device}: {error.strerror}", remedy, True)
    queues = "of one queue or several" if several else "of one queue: --tun-queues needs Linux 3.8"
    return Check("TUN device", State.OK, f"{device} opens, for interfaces {queues}", needed=True)


def check_privileges(status: str) -> Check:
    """Judge the effective capabilities in the text of /proc/self/status."""
    capabilities = int(_cpu_field(status, "CapEff") or "0", 16)
    good = bool(capabilities >> _CAP_NET_ADMIN & 1)
    detail = "CAP_NET_ADMIN" if good else "no CAP_NET_ADMIN"
    return _check("privileges", good, detail, "run as root or grant CAP_NET_ADMIN", True)


def check_sandbox(limits: Sandbox) -> Check:
    """Judge what roles would run under. A gateway runs with less, and says so in its statistics."""
    lacks = {"another user": limits.user, "seccomp": limits.seccomp, "landlock": limits.landlock}
    missing = [name for name, found in lacks.items() if not found]
    remedy = "run as root" if not limits.user else "a newer kernel has it"
    detail = f"{limits}" + (f"; without {', '.join(missing)}" if missing else "")
    return _check("sandbox", not missing, detail, remedy)


def check_sockets() -> Check:
    """Open UDP sockets as a gateway does, and see what buffers the kernel gave them."""
    try:
        _, sockets = udp.open_sockets(0, 0)
    except OSError as error:
        remedy = "allow them to this process: seccomp, an address family filter, or its descriptors"
        return _check("UDP sockets", False, error.strerror or str(error), remedy, True)
    with ExitStack() as stack:
        for sock in sockets:
            stack.callback(sock.close)
        # The kernel reports twice what may be used, socket(7).
        sizes = [
            min(sock.getsockopt(socket.SOL_SOCKET, option) for sock in sockets) // 2
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF)
        ]
    families = " and ".join("IPv4" if s.family == socket.AF_INET else "IPv6" for s in sockets)
    return judge_buffers(families, *sizes)


def judge_buffers(families: str, received: int, sent: int) -> Check:
    """Judge the sockets' buffer sizes in bytes. Small ones cost throughput and no more."""
    detail = f"{families}, buffers of {received >> 10} KiB in and {sent >> 10} KiB out"
    if min(received, sent) < _GOOD_BUFFER_BYTES:
        return Check(
            "UDP sockets",
            State.OK,
            f"{detail}, which is little for full speed",
            "run as root, or sysctl -w net.core.rmem_max=7340032 net.core.wmem_max=7340032",
            needed=True,
        )
    return Check("UDP sockets", State.OK, detail, needed=True)


def check_namespaces() -> Check:
    """Make a network namespace and remove it again: demo, tests and benchmark use them."""
    try:
        with Namespaces() as world:
            world.add("doctor")
    except CommandError as error:
        remedy = "run as root, with CAP_SYS_ADMIN (only demo, tests and benchmark need them)"
        return _check("namespaces", False, str(error), remedy)
    return Check("namespaces", State.OK, "one was made and removed")


def check_tool(name: str) -> Check:
    """See whether one of the tools that work on gateways is in PATH."""
    package, purpose = _TOOLS[name]
    found = shutil.which(name)
    return _check(name, found is not None, found or f"it {purpose}", f"apt-get install {package}")


def check_kernel_wireguard(root: Path, release: str) -> Check:
    """See whether the kernel has WireGuard. wgmp does without it; `wg-quick` prefers it."""
    modules = root / "lib/modules" / release
    lists = (modules / "modules.builtin", modules / "modules.dep")
    if (root / "sys/module/wireguard").exists():
        detail = "loaded"
    elif any("/wireguard.ko" in path.read_text() for path in lists if path.exists()):
        detail = "this kernel has it"
    else:
        return Check("kernel WireGuard", State.MISSING, "not in this kernel, and not needed")
    return Check(
        "kernel WireGuard",
        State.OK,
        f"{detail}; wg-quick takes it before wgmpd",
        "start gateways with wgmpd or wgmp supervise where they are to be wgmp's",
    )


def _offloads() -> Iterator[Check]:
    """Send super-packets in a process of its own, which alone enters other namespaces."""
    command = (sys.executable, "-m", "wgmp.superpackets")
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_OFFLOAD_LIMIT_S)
        findings = msgspec.json.decode(done.stdout or "[]", type=list[Finding])
        said = done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired, msgspec.DecodeError) as error:
        findings, said = [], str(error)
    for finding in findings:
        yield _check(f"offload {finding.name}", finding.works, finding.detail, finding.remedy)
    if not findings:
        yield _check("offloads", False, said or "could not be tested", "run as root")
