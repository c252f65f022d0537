"""What the operating system says of a gateway's processes, by psutil."""

from __future__ import annotations

from collections.abc import Iterable

import psutil

from wgmp.observe.snapshot import ProcessFigures


class Meter:
    """Measures processes again and again; CPU use is that since the last time.

    `memory`: also the share of shared pages (PSS), for which the kernel walks the whole memory
    of each process, milliseconds in which it cannot map anything.
    """

    def __init__(self, memory: bool) -> None:
        self._memory = memory
        self._known: dict[int, psutil.Process] = {}

    def measure(self, processes: Iterable[ProcessFigures]) -> None:
        """Fill in what psutil knows. A process that ends meanwhile keeps its zeros."""
        known, self._known = self._known, {}
        for figures in processes:
            try:
                process = known.get(figures.pid) or psutil.Process(figures.pid)
                self._known[figures.pid] = process
                self._fill(figures, process)
            except (psutil.Error, ValueError):
                continue

    def _fill(self, figures: ProcessFigures, process: psutil.Process) -> None:
        with process.oneshot():
            figures.cpu_percent = process.cpu_percent()
            switches = process.num_ctx_switches()
            figures.context_switches = switches.voluntary + switches.involuntary
            figures.threads = process.num_threads()
            figures.rss_bytes = process.memory_info().rss
            if self._memory:
                # Other users' processes show it to CAP_SYS_PTRACE alone.
                full = process.memory_full_info()
                figures.pss_bytes = getattr(full, "pss", full.uss)  # Linux alone knows shares
