"""The doctor, on the real host where it can be, and on texts and paths made up where it cannot.

Made up: hosts that lack a version, a capability, the TUN device, an instruction set, buffers or
a tool; kernels with WireGuard; a kernel that refuses an offload.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wgmp import doctor, shm, superpackets, tunpair
from wgmp.doctor import Check, State
from wgmp.fastpath.choice import native_is_missing
from wgmp.sandbox import Sandbox

STATUS = "Name:\tpython\nCapInh:\t0000000000000000\nCapEff:\t{:016x}\n"
CPUINFO = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nflags\t\t: fpu sse2 {}\n"
ALL_OFFLOADS = [
    "UDP_SEGMENT",
    "UDP_GRO",
    "TUN CSUM",
    "TUN TSO4",
    "TUN TSO6",
    "TUN USO4",
    "TUN USO6",
]


def run(*options: str, wrapper: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """Run `wgmp doctor`, through another command if asked."""
    command = [*wrapper, sys.executable, "-m", "wgmp", "doctor", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)


def links() -> str:
    """Return what `ip` lists: interfaces, and namespaces with a name."""
    commands = (["ip", "-brief", "link"], ["ip", "netns"])
    return "".join(subprocess.run(c, capture_output=True, text=True).stdout for c in commands)


@pytest.mark.root
def test_this_host_can_run_a_gateway_and_each_line_says_its_state() -> None:
    done = run()
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) > 10
    assert all(line.startswith(("ok ", "missing ")) for line in lines)
    for name in ("TUN device", "privileges", "UDP sockets", "namespaces", "wg", "wg-quick"):
        assert any(line.startswith(f"ok       {name}: ") for line in lines), done.stdout
    assert "run `wgmp doctor --offload`" in lines[-1]


@pytest.mark.root
def test_offloads_are_tested_by_sending_and_leave_nothing_behind() -> None:
    before = {line for line in links().splitlines() if "probe" in line}
    done = run("--offload")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ALL_OFFLOADS:
        assert f" offload {name}: " in done.stdout
    # Old kernels may lack offloads for UDP through the TUN; these they all have.
    for name in ("UDP_SEGMENT", "UDP_GRO", "TUN CSUM", "TUN TSO4", "TUN TSO6"):
        assert f"ok       offload {name}: " in done.stdout
    assert {line for line in links().splitlines() if "probe" in line} == before


@pytest.mark.root
def test_without_privileges_it_says_so_and_exits_1() -> None:
    done = run("--offload", wrapper=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert "missing  privileges: no CAP_NET_ADMIN -> run as root" in done.stdout
    assert "missing  offloads: cannot make a namespace: " in done.stdout
    assert done.stderr == ""


def test_a_gateway_can_run_unless_something_it_needs_is_missing() -> None:
    fine = Check("a", State.OK, "", needed=True)
    dispensable = Check("b", State.MISSING, "")
    needed = Check("c", State.MISSING, "", needed=True)
    assert doctor.can_run([fine, dispensable])
    assert not doctor.can_run([fine, needed])


def test_a_line_ends_with_what_to_do() -> None:
    check = Check("wg", State.MISSING, "it configures gateways", "apt-get install wireguard-tools")
    assert str(check) == ("missing  wg: it configures gateways -> apt-get install wireguard-tools")


@pytest.mark.parametrize(
    ("found", "state"), [((3, 10, 9), State.MISSING), ((3, 11, 0), State.OK), ((4, 0), State.OK)]
)
def test_old_python_is_refused(found: tuple[int, ...], state: State) -> None:
    assert doctor.check_python(found).state is state


@pytest.mark.parametrize(
    ("found", "state"),
    [
        ("", State.MISSING),
        ("46.0.9", State.MISSING),
        ("47.0.0", State.OK),
        ("100.1", State.OK),
        ("odd", State.MISSING),
    ],
)
def test_old_cryptography_is_refused(found: str, state: State) -> None:
    assert doctor.check_cryptography(found).state is state


@pytest.mark.parametrize(
    ("capabilities", "state"),
    [
        (0, State.MISSING),
        (1 << 12, State.OK),
        (~(1 << 12) & 0x1FF_FFFF_FFFF, State.MISSING),
        (0x1FF_FFFF_FFFF, State.OK),
    ],
)
def test_capability_is_read_from_the_status(capabilities: int, state: State) -> None:
    assert doctor.check_privileges(STATUS.format(capabilities)).state is state


def test_missing_tun_device_says_how_to_get_it(tmp_path: Path) -> None:
    check = doctor.check_tun(tmp_path / "tun")
    assert check.state is State.MISSING
    assert check.needed
    assert "modprobe tun" in check.remedy


def test_cpu_features_are_named() -> None:
    check = doctor.check_cpu(CPUINFO.format("avx2 avx512f"), 2)
    assert "Some CPU @ 3 GHz, 2 core(s), sse2 avx2 avx512f" in check.detail
    assert "twice as long" in doctor.check_cpu(CPUINFO.format(""), 2).detail


def test_another_cpu_is_not_told_what_x86_lacks() -> None:
    check = doctor.check_cpu("processor\t: 0\nFeatures\t: fp asimd evtstrm\n", 2)
    assert check.detail == f"{platform.machine()}, 2 core(s), asimd"


@pytest.mark.skipif(bool(native_is_missing()), reason="needs the native fast path")
def test_cpu_that_reorders_stores_is_fine_with_the_native_fast_path() -> None:
    program = """
import os
os.sched_getaffinity = lambda _: range(4)
from wgmp import shm
shm.STORES_ARE_ORDERED = False
from wgmp import doctor
print(*(check for check in doctor.examine(False) if check.name == "CPU"))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True)
    assert done.stdout.startswith("ok       CPU: "), done.stdout


def test_cpu_that_reorders_stores_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    monkeypatch.setattr(shm, "STORES_ARE_ORDERED", False)
    monkeypatch.setattr(shm, "_fences", [])  # without the native fast path
    check = doctor.check_cpu("", 4)
    assert check.state is State.MISSING
    assert "riscv64" in check.remedy
    assert doctor.check_cpu("", 2).state is State.OK  # one process will do


def test_small_socket_buffers_are_told_but_do_not_stop_a_gateway() -> None:
    small = doctor.judge_buffers("IPv4", 212_992, 7 << 20)
    assert doctor.can_run([small])
    assert "net.core.rmem_max" in small.remedy
    assert doctor.judge_buffers("IPv4", 7 << 20, 7 << 20).remedy == ""

    assert "net.core.wmem_max" in doctor.judge_buffers("IPv4", 7 << 20, 212_992).remedy
    assert "7168 KiB in and 208 KiB out" in doctor.judge_buffers("IPv4", 7 << 20, 212_992).detail


@pytest.mark.parametrize(
    ("limits", "state", "detail", "remedy"),
    [
        (
            Sandbox(True, "nobody", 65534, 65534, True, 4),
            State.OK,
            "user nobody, no capabilities, seccomp, landlock 4",
            "",
        ),
        (
            Sandbox(True, "", seccomp=True, landlock=1),
            State.MISSING,
            "the supervisor's user, no capabilities, seccomp, landlock 1; without another user",
            "run as root",
        ),
        (
            Sandbox(True, "nobody", 65534, 65534),
            State.MISSING,
            "user nobody, no capabilities; without seccomp, landlock",
            "a newer kernel has it",
        ),
    ],
)
def test_what_a_sandbox_lacks_is_told_and_stops_no_gateway(
    limits: Sandbox, state: State, detail: str, remedy: str
) -> None:
    check = doctor.check_sandbox(limits)
    assert (check.state, check.detail, check.remedy) == (state, detail, remedy)
    assert doctor.can_run([check])


def test_sockets_that_cannot_be_had_stop_a_gateway() -> None:
    code = (
        "import resource as r; from wgmp import doctor\n"
        "r.setrlimit(r.RLIMIT_NOFILE, (3, 3)); check = doctor.check_sockets()\n"
        "print(check, doctor.can_run([check]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stdout.startswith("missing  UDP sockets: Too many open files -> allow them")
    assert done.stdout.endswith(" False\n")


def test_sockets_of_both_families_are_closed_again() -> None:
    before = len(os.listdir("/proc/self/fd"))
    check = doctor.check_sockets()
    assert (check.state, check.needed) == (State.OK, True)
    assert check.detail.startswith("IPv4")
    assert len(os.listdir("/proc/self/fd")) == before


def test_missing_tool_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    check = doctor.check_tool("wg-quick")
    assert check.state is State.MISSING
    assert check.remedy == "apt-get install wireguard-tools"


@pytest.mark.parametrize(
    ("path", "content", "detail"),
    [
        ("sys/module/wireguard/version", "1.0.0", "loaded"),
        ("lib/modules/6.1/modules.builtin", "kernel/drivers/net/wireguard/wireguard.ko\n", "has"),
        ("lib/modules/6.1/modules.dep", "kernel/drivers/net/wireguard/wireguard.ko.xz:\n", "has"),
        ("lib/modules/6.1/modules.dep", "kernel/drivers/net/tun.ko:\n", "not needed"),
        ("lib/modules/5.4/modules.dep", "kernel/net/wireguard.ko:\n", "not needed"),
    ],
)
def test_kernel_wireguard_is_found(tmp_path: Path, path: str, content: str, detail: str) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(content)
    check = doctor.check_kernel_wireguard(tmp_path, "6.1")
    assert detail in check.detail
    assert not check.needed


@pytest.mark.root
@pytest.mark.parametrize(
    ("refused", "lost"),
    [
        (0x20, {"TUN USO4", "TUN USO6"}),
        (0x04, {"TUN TSO6", "TUN USO4", "TUN USO6"}),
        (0x01, {"TUN CSUM", "TUN TSO4", "TUN TSO6", "TUN USO4", "TUN USO6"}),
    ],
)
def test_offload_that_the_kernel_refuses_is_missing(refused: int, lost: set[str]) -> None:
    assert _probe_under(_refuse_offload(refused)) == lost


@pytest.mark.root
def test_offload_that_the_kernel_takes_but_does_not_do_is_missing() -> None:
    """The request is answered with success and not passed on."""
    lost = {"TUN CSUM", "TUN TSO4", "TUN TSO6", "TUN USO4", "TUN USO6"}
    assert _probe_under(_refuse_offload(0, silently=True)) == lost


def _refuse_offload(flags: int, silently: bool = False) -> Callable[..., object]:
    """Return an ioctl that refuses TUNSETOFFLOAD with any of these flags."""
    real = fcntl.ioctl

    def ioctl(descriptor: int, request: int, argument: int | bytes = 0) -> object:
        if request == 0x400454D0:  # TUNSETOFFLOAD, linux/if_tun.h
            assert isinstance(argument, int)
            if argument & flags:
                raise OSError(errno.EINVAL, "Invalid argument")
            if silently:
                return 0
        return real(descriptor, request, argument)

    return ioctl


def _probe_under(ioctl: Callable[..., object]) -> set[str]:
    """Return what is missing under a made-up ioctl. In a child: it changes its namespace."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            tunpair.fcntl.ioctl = ioctl  # type: ignore[attr-defined]
            names = [finding.name for finding in superpackets.probe() if not finding.works]
            os.write(writer, "\n".join(names).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        lost = pipe.read()
    os.waitpid(child, 0)
    return set(lost.split("\n")) - {""}


def test_the_fast_path_that_runs_is_named_with_the_reason_when_it_is_the_slow_one() -> None:
    assert "native" in doctor.check_fast_path("", compiled=False).detail
    reason = "No module named 'wgmp.fastpath.native._native'"
    slow = doctor.check_fast_path(reason, compiled=False)
    assert slow.state is State.OK
    assert "reference" in slow.detail
    assert "_native" in slow.detail
    assert "Rust" in slow.remedy


def test_the_aeads_there_are_are_named_with_the_reason_why_one_is_not() -> None:
    there = doctor.check_aead("")
    assert "--aead ipsec-mb" in there.remedy
    reason = "it is version 1.2.0, not 1.3 or a later 1"
    missing = doctor.check_aead(reason)
    assert (missing.state, missing.remedy) == (State.OK, "")
    assert missing.detail == f"ring; not ipsec-mb: {reason}"


def test_it_is_told_whether_the_roles_were_compiled() -> None:
    assert "interpreted" in doctor.check_fast_path("", compiled=False).detail
    assert "compiled" in doctor.check_fast_path("", compiled=True).detail
