"""The filter of system calls, and what is decided about it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from wgmp import sandbox, seccomp
from wgmp.errors import ConfigError

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


@pytest.mark.parametrize("column", [0, 1], ids=list(HEADERS))
def test_the_numbers_are_those_of_the_kernels_headers(column: int) -> None:
    header = list(HEADERS.values())[column]
    if not header.exists():
        pytest.skip(f"needs {header} (linux-libc-dev)")
    text = header.read_text()
    found = {
        name.removeprefix("3264_"): int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)", text)
    }
    for name, numbers in (seccomp.NUMBERS | seccomp.CONDITIONAL).items():
        if numbers[column] is not None:
            assert found[name] == numbers[column], name


@pytest.mark.parametrize("machine", list(HEADERS))
def test_no_jump_of_the_filter_leads_outside_and_its_last_word_is_no(machine: str) -> None:
    program = seccomp.program(machine, 1)
    lines = [program[at : at + 8] for at in range(0, len(program), 8)]
    assert len(lines) < 4096  # BPF_MAXINSNS
    for number, line in enumerate(lines):
        if line[0] & 7 == 5:  # a jump
            assert number + 1 + max(line[2], line[3]) < len(lines)
    assert lines[-1][0] == 6


def test_a_user_that_does_not_exist_is_named() -> None:
    with pytest.raises(ConfigError, match="no user 'no-such-user'"):
        sandbox.decide(True, "no-such-user")


def test_a_call_that_is_not_in_the_table_fails_without_ending_the_process() -> None:
    if not seccomp.supported():
        pytest.skip("needs seccomp on x86-64 or aarch64")
    child = os.fork()
    if not child:
        try:
            limits = sandbox.Sandbox(True, "", os.getuid(), os.getgid(), True, 0)
            sandbox.enter(limits)
            os.urandom(8)
            os.getppid()
        except OSError:
            os._exit(1)
        try:
            os.pipe()
        except PermissionError:
            os._exit(7)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
