"""The filter of system calls, run as the kernel runs it, for both CPUs: what gets through."""

from __future__ import annotations

import errno
import mmap
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmp import seccomp

MACHINES = ["x86_64", "aarch64"]
# linux/audit.h
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003, "arm": 0x40000028}
PID = 4711

# linux/seccomp.h
ALLOWED, REFUSED, KILLED = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x80000000


def verdict(machine: str, number: int, *arguments: int, architecture: str = "") -> int:
    """Return what the filter for a machine answers to a call (linux/filter.h, struct seccomp_data).

    Loads are of 32 bits, so it is the low halves of arguments that are looked at.
    """
    lines = list(struct.iter_unpack("=HBBI", seccomp.program(machine, PID)))
    filled = [*arguments, *(0 for _ in range(6 - len(arguments)))]
    called = struct.pack("=IIQ6Q", number, ARCHITECTURES[architecture or machine], 0, *filled)
    at, word = 0, 0
    for _ in lines:  # jumps lead forwards only
        code, if_so, if_not, value = lines[at]
        at += 1
        match code:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                (word,) = struct.unpack_from("=I", called, value)
            case 0x15:  # BPF_JMP | BPF_JEQ
                at += if_so if word == value else if_not
            case 0x25:  # BPF_JMP | BPF_JGT
                at += if_so if word > value else if_not
            case 0x45:  # BPF_JMP | BPF_JSET
                at += if_so if word & value else if_not
            case 0x06:  # BPF_RET
                return value
            case _:
                raise AssertionError(f"no instruction of a filter: {code:#x}")
    raise AssertionError("the filter has no end")


def plain(machine: str) -> set[int]:
    """Return the numbers of the calls that are allowed whatever their arguments."""
    column = MACHINES.index(machine)
    return {pair[column] for pair in seccomp.NUMBERS.values() if pair[column] is not None}  # type: ignore[misc]


def conditional(machine: str, name: str) -> int:
    """Return the number of a call that is allowed sometimes."""
    return seccomp.CONDITIONAL[name][MACHINES.index(machine)]


@pytest.mark.parametrize("machine", MACHINES)
def test_every_call_of_the_table_is_allowed_and_no_other(machine: str) -> None:
    sometimes = {conditional(machine, name) for name in seccomp.CONDITIONAL}
    for number in set(range(600)) - sometimes:
        expected = ALLOWED if number in plain(machine) else REFUSED
        assert verdict(machine, number) == expected, number


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", ["mmap", "mprotect"])
def test_memory_that_can_be_executed_is_not_to_be_had(machine: str, name: str) -> None:
    number = conditional(machine, name)
    for protection in range(8):
        expected = REFUSED if protection & mmap.PROT_EXEC else ALLOWED
        assert verdict(machine, number, 0, 4096, protection, 1) == expected, protection


@pytest.mark.parametrize("machine", MACHINES)
def test_of_ioctls_only_two_questions_are_allowed(machine: str) -> None:
    # linux/sockios.h, linux/if_tun.h: SIOCGIFMTU, TUNGETIFF; then SIOCSIFMTU, TUNSETIFF
    asked = {0x8921: ALLOWED, 0x800454D2: ALLOWED, 0x8922: REFUSED, 0x400454CA: REFUSED}
    for request, expected in asked.items():
        assert verdict(machine, conditional(machine, "ioctl"), 5, request) == expected, hex(request)


@pytest.mark.parametrize("machine", MACHINES)
def test_a_role_can_signal_itself_and_nobody_else(machine: str) -> None:
    number = conditional(machine, "tgkill")
    assert verdict(machine, number, PID, PID, 6) == ALLOWED
    assert verdict(machine, number, PID + 1, PID, 6) == REFUSED
    assert verdict(machine, number, 1, 1, 9) == REFUSED


@pytest.mark.parametrize(
    ("machine", "other"), [("x86_64", "i386"), ("aarch64", "arm"), ("x86_64", "aarch64")]
)
def test_another_cpus_way_of_calling_ends_the_process(machine: str, other: str) -> None:
    for number in plain(machine):
        assert verdict(machine, number, architecture=other) == KILLED


@given(st.integers(0x4000_0000, 0xFFFF_FFFF))
def test_the_x32_way_of_calling_ends_the_process(number: int) -> None:
    assert verdict("x86_64", number) == KILLED


@given(st.sampled_from(MACHINES), st.integers(600, 0x3FFF_FFFF), st.integers(0, (1 << 64) - 1))
def test_calls_that_there_are_not_yet_are_refused(machine: str, number: int, first: int) -> None:
    assert verdict(machine, number, first) == REFUSED


def test_a_machine_without_a_table_has_no_filter() -> None:
    with pytest.raises(ValueError, match="riscv64"):
        seccomp.program("riscv64", PID)
