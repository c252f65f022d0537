"""Every case on every pair, in turn, repeated: A B A B, so that drift hits all alike."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from wgmp.errors import CommandError
from wgmp.netns import Namespaces

from .cases import Case
from .figures import Section
from .programs import Program
from .tunnels import Pair, bare_pair, pair_label, tunnel_pair

Ends = tuple[Program, Program]
Tell = Callable[[str], None]

_FIRST_NETWORK = 2

NOTE = """\
Ends a and b are gateways in two network namespaces joined by a veth pair, on one machine, which
also runs iperf3 at both ends. TCP and UDP as fast as they go (iperf3); ping 100 times a second.

CPU of a and of b: user and system time of all processes of that gateway per GB (1e9 bytes) of
payload that arrived. It includes what the kernel does in the gateway's system calls, and the
softirq work it does while one of them is on the CPU; it does not include kernel threads (ksoftirqd)
and iperf3. CPU of the machine: all busy time of all cores, per GB, iperf3 and the rest of the
system included.

PSS: shared pages count in shares, so of two gateways of one program each looks smaller than it is.
"If alone": with every file that it maps counted in full.

UDP is sent faster than any gateway can take it: what is not delivered was dropped before or in one,
so loss says how far the sender was ahead. Delivered is the figure to look at.

The peers are gateways b, each in a namespace of its own, all on this same machine."""


@dataclass(frozen=True)
class Plan:
    """What to measure: the first of `tunnels` is compared with the others and the bare veth."""

    tunnels: list[Ends]
    cases: list[Case]
    repeats: int
    seconds: float


def run(plan: Plan, tell: Tell) -> Section:
    """Measure; return the table. `tell` is given a line per measurement.

    What fails is left out and named in the section's failures. Raises CommandError when a
    tunnel cannot be made at all. Namespaces and processes are gone afterwards.
    """
    with tempfile.TemporaryDirectory(prefix="wgmp-bench-") as directory, Namespaces() as world:
        pairs = _pairs(world, Path(directory), plan.tunnels)
        tell(f"{len(pairs)} pairs are up: {', '.join(pair.label for pair in pairs)}")
        first, *others = [pair.label for pair in pairs]
        section = Section(
            "Through a tunnel", NOTE, [first, *others], [(first, other) for other in others]
        )
        for repeat in range(plan.repeats):
            for case in plan.cases:
                for pair in pairs:
                    _measure(section, repeat, case, pair, plan.seconds, tell)
    return section


def _pairs(world: Namespaces, directory: Path, tunnels: Iterable[Ends]) -> list[Pair]:
    pairs = [
        tunnel_pair(world, directory, a, b, network)
        for network, (a, b) in enumerate(tunnels, _FIRST_NETWORK)
    ]
    return [*pairs, bare_pair(world, directory, _FIRST_NETWORK + len(pairs))]


def labels(tunnels: Iterable[Ends]) -> list[str]:
    """Return the names of the tunnels as the table has them."""
    return [pair_label(a, b) for a, b in tunnels]


def _measure(
    section: Section, repeat: int, case: Case, pair: Pair, seconds: float, tell: Tell
) -> None:
    where = f"{repeat + 1}: {case.name}: {pair.label}"
    try:
        figures = case.measure(pair, seconds)
    except CommandError as error:
        section.failures.append(f"{where}: {error}")
        tell(f"{where}: FAILED: {error}")
        return
    for what, unit, value in figures:
        section.add(repeat, pair.label, f"{case.name}: {what}", unit, value)
    if figures:
        tell(f"{where}: {figures[0].value:.3g} {figures[0].unit}")
