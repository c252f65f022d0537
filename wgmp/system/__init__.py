"""What a gateway has from its operating system where systems differ, chosen once, at import.

| | Linux (`linux.py`) | macOS, and any other POSIX system (`posix.py`) |
|---|---|---|
| `Poller` | epoll | poll |
| `open_bell`, `strike`, `silence` | an eventfd | a pipe |
| `open_memory`, what is done with it | memfd, madvise, mlock2 | anonymous, gone with the gateway |
| `memory_file` | memfd | a deleted temporary file |
| `line_pair` | SEQPACKET sockets | a stream with lengths in it |
| `Lifeline` | pidfd | a pipe that only the process holds open |
| `die_with` | the kernel kills it | it ends when its line to the supervisor does |
| `become` | setresuid | setuid |
| `boottime` | CLOCK_BOOTTIME | CLOCK_MONOTONIC_RAW |

On macOS CLOCK_MONOTONIC_RAW goes on while the machine sleeps (mach_continuous_time); its
CLOCK_UPTIME_RAW, which Python's `time.monotonic` reads there, does not, and its CLOCK_MONOTONIC
counts microseconds and follows corrections of the time of day.

`FULL`: this system runs every topology and fast path, keeps memory for another supervisor, and
tells and takes what goes beside a datagram. Elsewhere a gateway is one compact process on the
reference fast path. What stands in `posix.py` runs on Linux too, which is how it is tested.
"""

from __future__ import annotations

import sys

if sys.platform == "linux":
    from wgmp.system import linux as chosen
else:
    from wgmp.system import posix as chosen

FULL = chosen.FULL
RUN_DIRECTORY = chosen.RUN_DIRECTORY
Lifeline = chosen.Lifeline
Poller = chosen.Poller
become = chosen.become
boottime = chosen.boottime
close_others = chosen.close_others
cores = chosen.cores
die_with = chosen.die_with
discard = chosen.discard
keep_from_children = chosen.keep_from_children
keep_from_dumps = chosen.keep_from_dumps
line_pair = chosen.line_pair
lock = chosen.lock
memory_file = chosen.memory_file
open_bell = chosen.open_bell
open_memory = chosen.open_memory
set_name = chosen.set_name
silence = chosen.silence
strike = chosen.strike
