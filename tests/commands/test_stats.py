"""`wgmp stats`: what is counted between two looks, and what the kernel knows of processes."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import msgspec
import pytest

from wgmp.cli import main
from wgmp.counters import Counter
from wgmp.observe.names import Names
from wgmp.observe.processes import Meter
from wgmp.observe.snapshot import ProcessFigures, Snapshot

from .conftest import Served

_decode = msgspec.json.Decoder(Snapshot).decode


def test_a_process_has_what_the_kernel_says_of_it_and_one_that_is_gone_zeros(
    gateway: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.pid = os.getpid()
    gateway.run("tun_writer", 2**22 + 1)  # more than the kernel ever gives
    assert main(["stats", "wg0", "--json"]) == 0
    told = _decode(capsys.readouterr().out)
    processes = {process.name: process for process in told.processes}
    me, gone, replaced = (processes[name] for name in ("supervisor", "tun_writer", "tun_reader"))
    assert me.rss_bytes > me.pss_bytes > 1 << 20
    assert me.threads == len(os.listdir("/proc/self/task")) > 1
    lines = Path("/proc/self/status").read_text().splitlines()
    status = dict(line.split(":\t") for line in lines if ":\t" in line)
    total = int(status["voluntary_ctxt_switches"]) + int(status["nonvoluntary_ctxt_switches"])
    assert 0.5 * total < me.context_switches <= total
    assert (gone.pid, replaced.pid) == (2**22 + 1, 0)
    for process in (gone, replaced):
        assert process.rss_bytes == process.threads == process.context_switches == 0


def test_cpu_use_is_that_since_the_last_look() -> None:
    meter, figures = Meter(memory=False), ProcessFigures("me", [], os.getpid(), 0)
    meter.measure([figures])
    assert figures.cpu_percent == 0.0, "there is nothing to compare with yet"
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    meter.measure([figures])
    assert figures.cpu_percent > 0


class Traffic(Names):
    """Lets 10 records of 250 packets come to worker1 whenever the gateway is looked at.

    At the `last` look the gateway fails.
    """

    def __init__(self, gateway: Served, last: int = 0) -> None:
        super().__init__([])
        self._block = gateway.counters["worker1"].inward
        self._left = last

    def current(self) -> dict[str, str]:
        """Be looked at."""
        self._left -= 1
        if self._left == 0:
            raise ValueError("the end")
        self._block.add(Counter.RECORDS_IN, 10)
        self._block.add(Counter.PACKETS_IN, 250)
        return {}


def test_rates_are_of_what_came_between_two_looks(
    gateway: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.counters["worker1"].inward.store(Counter.RECORDS_IN, 1_000_000)  # long ago
    gateway.names = Traffic(gateway)
    assert main(["stats", "--json"]) == 0
    rates = {rate.stage: rate for rate in _decode(capsys.readouterr().out).rates}
    assert 0 < rates["worker1 in"].records <= 20, "10 in half a second or somewhat more"
    assert rates["worker1 in"].packets_per_record == 25.0
    assert rates["worker1 out"].records == rates["worker0 in"].records == 0
    assert main(["stats", "wg0"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("wg0: wgmp ")
    assert any(re.match(r"worker1 in .* 25\.0$", line) for line in shown.splitlines())


def test_watching_goes_on_until_the_gateway_does_not(
    gateway: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.pid = os.getpid()
    gateway.names = Traffic(gateway, last=4)
    assert main(["stats", "--json", "--watch"]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("wgmp: internal error: ValueError")
    first, second = map(_decode, told.out.splitlines())
    for look in (first, second):
        rates = {rate.stage: rate for rate in look.rates}
        assert rates["worker1 in"].packets_per_record == 25.0
        assert 0 < rates["worker1 in"].records * (second.taken_at - first.taken_at) < 25
        assert look.processes[0].rss_bytes > 0
        assert look.processes[0].pss_bytes == 0, "too dear to find out every second"


def test_a_watch_that_nobody_reads_is_in_text_without_a_terminal_s_codes(
    gateway: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.names = Traffic(gateway, last=3)
    assert main(["stats", "--watch"]) == 1
    assert "\033" not in capsys.readouterr().out
