"""What a gateway costs: CPU seconds and memory of all its processes, read from /proc.

CPU time is utime + stime of every process and thread, as the kernel accounts it. Work that the
kernel does in a process's system calls is in it, and so is softirq work that runs while the
process is on the CPU (the way of a sent packet through a veth pair to the other end's socket),
unless the kernel accounts interrupts apart (CONFIG_IRQ_TIME_ACCOUNTING). What kernel threads do
(ksoftirqd, kworkers) is nobody's; it is in the machine's busy time alone.

Memory is PSS: a page that several processes map counts as a share in each. That is right within
one gateway, but flatters one that runs beside others of the same program, whose libraries they
share. So there is a second figure, as if it were alone: anonymous and shared memory as in PSS, and
of each file mapping the largest part that one of the gateway's processes has in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_KIB = 1024
# /proc/stat, proc(5): user, nice, system, (idle, iowait,) irq, softirq. Guests are in user.
_BUSY_FIELDS = (0, 1, 2, 5, 6)


def process_tree(pid: int) -> list[int]:
    """Return `pid` and all its descendants; raises psutil.NoSuchProcess."""
    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def cpu_seconds(pids: Iterable[int]) -> float:
    """Return the CPU time used by the processes so far; one that has ended counts nothing."""
    ticks = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The name before ")" may hold blanks; utime and stime are fields 14 and 15.
        fields = text.rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICKS_PER_SECOND


def machine_busy_seconds() -> float:
    """Return the time that all CPUs were busy so far."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[number]) for number in _BUSY_FIELDS) / _TICKS_PER_SECOND


@dataclass(frozen=True)
class Memory:
    """Memory of one gateway in bytes: `pss` as the kernel says, `alone` as explained above."""

    pss: int
    alone: int


def memory(pids: Iterable[int]) -> Memory:
    """Return what the processes of one gateway occupy; one that has ended counts nothing."""
    pss = own = 0
    files: dict[str, int] = {}
    for pid in pids:
        for mapping in _mappings(pid):
            pss += mapping.pss
            if mapping.file:
                files[mapping.file] = max(files.get(mapping.file, 0), mapping.resident)
                # Pages of a file that were written to are the process's own.
                own += mapping.anonymous
            else:
                own += mapping.pss
    return Memory(pss, own + sum(files.values()))


@dataclass(frozen=True)
class _Mapping:
    """One mapping's bytes. `file`: what it maps and from where on, "" for memory without one.

    `resident` is without `anonymous`.
    """

    file: str
    resident: int
    pss: int
    anonymous: int


def _mappings(pid: int) -> Iterator[_Mapping]:
    """Read /proc/PID/smaps, proc(5): a line with addresses, then lines "Name: N kB"."""
    try:
        lines = Path(f"/proc/{pid}/smaps").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return
    file = ""
    sizes: dict[str, int] = {}
    for line in lines:
        name, _, value = line.partition(":")
        if " " not in name:
            if value.endswith("kB"):
                sizes[name] = int(value[:-2]) * _KIB
            if name == "VmFlags":  # the last line of each
                anonymous = sizes["Anonymous"]
                yield _Mapping(file, sizes["Rss"] - anonymous, sizes["Pss"], anonymous)
            continue
        _, _, offset, _, inode, *path = line.split(maxsplit=5)
        # A memfd has an inode too, but its pages are nobody else's.
        is_file = inode != "0" and bool(path) and path[0].startswith("/")
        file = f"{path[0]}+{offset}" if is_file and not path[0].startswith("/memfd:") else ""
