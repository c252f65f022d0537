"""The command line of tools/bench: what to run, one run at a time, and where the results go."""

from __future__ import annotations

import argparse
import fcntl
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from wgmp.errors import CommandError, ConfigError, PrivilegeError, WgmpError

from . import machine, report, suite
from .cases import GROUPS, UDP_SIZES, cases
from .figures import Section
from .programs import parse_program

LOCK = Path("/tmp/wgmp-bench.lock")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "BENCHMARKS.md"

_LOCK_LIMIT_S = 3600.0
_LOCK_POLL_S = 0.5
_NEEDED = {"ip": "iproute2", "wg": "wireguard-tools", "iperf3": "iperf3", "ping": "iputils-ping"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run tools/bench; return its exit code, 1 when a measurement failed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        options = _parse(arguments)
        alone = options.pipeline or options.functions
        tunnels = [] if alone else _tunnels(options)
        with _only_one():
            run = _run(options, tunnels)
        print(report.terminal(run))
        if options.json is not None:
            options.json.write_text(report.to_json(run))
        if options.save:
            PAGE.write_text(report.page(run))
            _tell(f"wrote {PAGE}")
        return int(any(section.failures for section in run.sections))
    except (WgmpError, OSError) as error:
        print(f"tools/bench: {error}", file=sys.stderr)
        return error.exit_code if isinstance(error, WgmpError) else 1
    except KeyboardInterrupt:
        return 130


class _Options(argparse.Namespace):
    """What the command line says; see `_parser` for each."""

    a: str
    b: str
    a_env: list[str]
    b_env: list[str]
    against: list[str]
    only: list[str]
    udp_sizes: list[int]
    repeat: int
    seconds: int
    pipeline: bool
    functions: bool
    json: Path | None
    save: bool


def _parse(arguments: Sequence[str] | None) -> _Options:
    options = _parser().parse_args(arguments, namespace=_Options())
    if options.save and (options.pipeline or options.functions or set(options.only) < set(GROUPS)):
        raise ConfigError("--save writes the whole page: leave --only, --pipeline, --functions out")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tools/bench",
        description="Measure gateways against each other. A PROGRAM is a command, with what is "
        'added to its environment before it: "WGMP_TOPOLOGY=compact wgmpd"; it is started as '
        "PROGRAM -f INTERFACE.",
    )
    for end in ("a", "b"):
        parser.add_argument(
            f"--{end}", default="wgmpd", metavar="PROGRAM", help=f"end {end} (wgmpd)"
        )
        parser.add_argument(
            f"--{end}-env",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help=f"added to the environment of {end}; may be given more than once",
        )
    parser.add_argument(
        "--against",
        action="append",
        default=[],
        metavar="PROGRAM[ + PROGRAM]",
        help="another pair for the same run, to compare with; may be given more than once",
    )
    parser.add_argument(
        "--only",
        type=_groups,
        default=list(GROUPS),
        metavar=",".join(GROUPS),
        help="measure only these",
    )
    parser.add_argument(
        "--udp-sizes",
        type=_sizes,
        default=list(UDP_SIZES),
        metavar="BYTES,...",
        help=f"payloads of the UDP measurements ({','.join(map(str, UDP_SIZES))})",
    )
    parser.add_argument(
        "--repeat", type=_positive, default=3, metavar="N", help="measure everything N times (3)"
    )
    parser.add_argument(
        "--seconds", type=_positive, default=5, metavar="N", help="of each measurement (5)"
    )
    parser.add_argument("--pipeline", action="store_true", help="instead: workers on records alone")
    parser.add_argument("--functions", action="store_true", help="instead: the fast path alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample to FILE")
    parser.add_argument(
        "--save", action="store_true", help="measure everything and write docs/BENCHMARKS.md"
    )
    return parser


def _groups(text: str) -> list[str]:
    groups = text.split(",")
    for group in groups:
        if group not in GROUPS:
            raise argparse.ArgumentTypeError(f"{group!r} is none of {', '.join(GROUPS)}")
    return groups


def _sizes(text: str) -> list[int]:
    return [_positive(size) for size in text.split(",")]


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= 65_507):
        raise argparse.ArgumentTypeError(f"{text!r} is no positive number")
    return int(text)


def _run(options: _Options, tunnels: list[suite.Ends]) -> report.Run:
    programs = {program.label: program for ends in tunnels for program in ends}
    command = f"tools/bench {shlex.join(sys.argv[1:])}".strip()
    date = datetime.now(UTC).isoformat(timespec="seconds")
    start, stolen, load = time.monotonic(), machine.stolen_seconds(), os.getloadavg()[0]
    sections = []
    if tunnels:
        sections.append(_tunnel_section(options, tunnels))
    # Only these two need the fast path itself.
    if options.pipeline or options.save:
        from . import pipeline

        sections.append(pipeline.run(options.repeat, options.seconds, _tell))
    if options.functions or options.save:
        from . import functions

        sections.append(functions.run(options.repeat, _tell))
    elapsed = time.monotonic() - start
    stolen = (machine.stolen_seconds() - stolen) / elapsed / (os.cpu_count() or 1)
    noise = {
        "load average before it": f"{load:.2f}",
        "CPU time taken by the hypervisor": f"{100 * stolen:.1f} %",
        "repeats": f"{options.repeat}, of {options.seconds} s each, {elapsed / 60:.0f} min in all",
    }
    return report.Run(date, command, machine.describe(programs.values()), noise, sections)


def _tunnels(options: _Options) -> list[suite.Ends]:
    """Return the pairs to measure, after seeing that everything is there for it."""
    if os.geteuid() != 0:
        raise PrivilegeError("makes network namespaces and TUN devices: run it as root")
    for name, package in _NEEDED.items():
        if shutil.which(name) is None:
            raise CommandError(f"{name} is not installed: apt-get install {package}")
    ends: list[suite.Ends] = [
        (parse_program(options.a, options.a_env), parse_program(options.b, options.b_env))
    ]
    for text in options.against:
        a, _, b = text.partition(" + ")
        ends.append((parse_program(a), parse_program(b or a)))
    labels = suite.labels(ends)
    if len(set(labels)) < len(labels):
        raise ConfigError(f"the pairs are the same: {', '.join(labels)}")
    return ends


def _tunnel_section(options: _Options, tunnels: list[suite.Ends]) -> Section:
    mixed = any(a.label != b.label for a, b in tunnels)
    chosen = list(cases(options.only, options.udp_sizes, mixed))
    return suite.run(suite.Plan(tunnels, chosen, options.repeat, options.seconds), _tell)


@contextmanager
def _only_one() -> Iterator[None]:
    """Hold the lock that keeps two runs from disturbing each other; wait for it for an hour."""
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        deadline = time.monotonic() + _LOCK_LIMIT_S
        told = False
        while not _locked(descriptor):
            if not told:
                _tell("another run is going on: waiting for it")
                told = True
            if time.monotonic() > deadline:
                raise CommandError(f"another run held {LOCK} for {_LOCK_LIMIT_S:.0f} s")
            time.sleep(_LOCK_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _tell(line: str) -> None:
    print(f"== {line}", file=sys.stderr, flush=True)
