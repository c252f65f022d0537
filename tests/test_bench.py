"""The benchmark's arithmetic and reports; and short runs of it all, which measure nothing much."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tools.benchmarks import command, cost, report, traffic
from tools.benchmarks.cases import cases
from tools.benchmarks.figures import Section, Spread, percentile, ratio, spread
from tools.benchmarks.pipeline import worker_counts
from tools.benchmarks.programs import parse_program
from tools.benchmarks.report import Run
from tools.benchmarks.tunnels import bare_pair, tunnel_pair
from wgmp.errors import CommandError, ConfigError
from wgmp.netns import Namespaces

BENCH = Path(__file__).resolve().parent.parent / "tools" / "bench"
needs_iperf3 = pytest.mark.skipif(
    shutil.which("iperf3") is None, reason="needs iperf3 (apt-get install iperf3)"
)
TINY = ("--repeat", "1", "--seconds", "1")


def section() -> Section:
    """Return a table of two repeats; the second failed for one column."""
    made = Section("Title", "A note.", ["new", "old"], [("new", "old")])
    for repeat, column, value in ((0, "new", 4.0), (1, "new", 9.0), (0, "old", 2.0)):
        made.add(repeat, column, "TCP: throughput", "Gbit/s", value)
    return made


def run_of(made: Section) -> Run:
    return Run("2024-01-01", "tools/bench", {"CPU": "fast"}, {"load": "0.1"}, [made])


def test_median_and_spread_leave_out_what_failed() -> None:
    assert spread([3.0, None, 1.0, 2.0]) == Spread(2.0, 1.0, 3.0)
    assert spread([None]) is None


def test_ratio_is_taken_within_each_repeat() -> None:
    made = Section("", "", ["a", "b"], [("a", "b")])
    for repeat, (a, b) in enumerate([(1.0, 2.0), (8.0, 4.0), (30.0, 10.0)]):
        made.add(repeat, "a", "x", "u", a)
        made.add(repeat, "b", "x", "u", b)
    assert ratio(made.lines[0], "a", "b") == Spread(2.0, 0.5, 3.0)


def test_repeat_that_failed_keeps_the_others_aligned() -> None:
    made = Section("", "", ["a", "b"], [("a", "b")])
    made.add(0, "a", "x", "u", 10.0)
    made.add(1, "a", "x", "u", 6.0)
    made.add(1, "b", "x", "u", 2.0)
    assert made.lines[0].samples == {"a": [10.0, 6.0], "b": [None, 2.0]}
    assert ratio(made.lines[0], "a", "b") == Spread(3.0, 3.0, 3.0)
    assert ratio(made.lines[0], "a", "nothing") is None


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (0.5, 1)])
def test_percentile_is_one_of_the_values(percent: float, value: int) -> None:
    assert percentile(list(range(100, 0, -1)), percent) == value


def test_table_shows_medians_spreads_and_ratios() -> None:
    head, _, line = report.table(section()).splitlines()
    assert [cell.strip() for cell in head.split("|")] == ["", "", "unit", "new", "old", "1 / 2", ""]
    assert "| 6.5 (4..9) |" in line
    assert line.endswith("|   2 |     2 |")


def test_json_holds_every_sample() -> None:
    line = json.loads(report.to_json(run_of(section())))["sections"][0]["lines"][0]
    assert line["samples"] == {"new": [4.0, 9.0], "old": [2.0]}
    assert line["summary"]["new"] == {"median": 6.5, "low": 4.0, "high": 9.0}
    assert line["ratios"]["new / old"]["median"] == 2.0


def test_page_says_when_where_and_what_failed() -> None:
    made = section()
    made.failures.append("2: TCP: old: iperf3 said no")
    page = report.page(run_of(made))
    for part in ("2024-01-01", "| CPU | fast |", "- load: 0.1", "## Title", "A note.", "said no"):
        assert part in page


def test_program_is_read_as_a_shell_would() -> None:
    program = parse_program("A=1 B='x y' wgmpd --verbose", ["C=3"])
    assert program.environment == {"A": "1", "B": "x y", "C": "3"}
    assert program.command[0].endswith("/bin/wgmpd")
    assert program.command[1:] == ("--verbose",)
    assert "wgmpd" in program.label
    assert "C=3" in program.label


def test_program_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ConfigError, match="names no program"):
        parse_program("A=1")
    with pytest.raises(ConfigError, match="NAME=value"):
        parse_program("wgmpd", ["A"])
    with pytest.raises(CommandError, match="no-such-gateway is not installed"):
        parse_program("no-such-gateway")


def test_udp_report_counts_what_arrived_against_what_was_sent() -> None:
    delivered = traffic._read(
        {
            "start": {"test_start": {"blksize": 1200}},
            "end": {
                "sum_sent": {"packets": 1000, "bytes": 1_200_000, "seconds": 1.0},
                "sum_received": {"packets": 990, "lost_packets": 90, "seconds": 2.0, "bytes": 7},
            },
        }
    )
    assert delivered == traffic.Delivered(900 * 1200, 2.0, 1000, 900)


def test_cases_go_by_group_and_by_whether_ends_differ() -> None:
    assert [case.name for case in cases(["ping"], [], False)] == [
        "ping, idle",
        "ping, under TCP load",
    ]
    assert len(list(cases(["tcp"], [], False))) == 6
    assert len(list(cases(["udp"], [64, 512], False))) == 2
    assert len(list(cases(["udp"], [64, 512], True))) == 4


def test_workers_double_up_to_the_cores() -> None:
    assert [list(worker_counts(cores)) for cores in (1, 2, 6, 8)] == [
        [1],
        [1, 2],
        [1, 2, 4, 6],
        [1, 2, 4, 8],
    ]


def test_cpu_seconds_are_those_of_the_process_and_its_children(tmp_path: Path) -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    hold = "print(flush=True)\ninput()\n"
    code = f"import os\nos.fork()\n{burn}{hold}"
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert process.stdout.readline()
        pids = cost.process_tree(process.pid)
        assert len(pids) == 2
        assert 0.55 < cost.cpu_seconds(pids) < 2
        assert cost.cpu_seconds([2**22 + 1]) == 0
        used = cost.memory(pids)
        assert 1 << 20 < used.pss < 1 << 27
        # Other processes run this interpreter too: this one.
        assert used.pss < used.alone < 1 << 27
        process.communicate(b"\n")


def test_memory_counts_what_a_gateway_shares_among_its_processes_once(tmp_path: Path) -> None:
    size = 32 << 20
    code = (
        "import mmap, os\n"
        f"shared = mmap.mmap(-1, {size})\n"
        f"shared.write(b'x' * {size})\n"
        "os.fork()\nshared[0::4096]\nprint(flush=True)\ninput()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline()
        assert process.stdout.readline()
        used = cost.memory(cost.process_tree(process.pid))
        assert size < used.alone < 2 * size
        process.communicate(b"\n")


def bench(
    lock: Path, *options: str, wait: bool = True
) -> subprocess.Popen[str] | subprocess.CompletedProcess[str]:
    """Run tools/bench with a lock of its own: a real run may be going on."""
    code = (
        "import sys; from pathlib import Path; from tools.benchmarks import command; "
        f"command.LOCK = Path({str(lock)!r}); sys.exit(command.main({list(options)!r}))"
    )
    line, where = [sys.executable, "-c", code], BENCH.parent.parent
    if wait:
        return subprocess.run(line, cwd=where, capture_output=True, text=True, timeout=120)
    return subprocess.Popen(
        line, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finished(lock: Path, *options: str) -> tuple[int, str, str]:
    """Run it to its end; return its exit code and what it printed."""
    done = bench(lock, *options)
    assert isinstance(done, subprocess.CompletedProcess)
    return done.returncode, done.stdout, done.stderr


def started(lock: Path, *options: str) -> subprocess.Popen[str]:
    """Start it."""
    process = bench(lock, *options, wait=False)
    assert isinstance(process, subprocess.Popen)
    return process


def namespaces_of(pid: int) -> list[str]:
    listed = subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if line.startswith(f"wgmp-{pid}-")]


def read_until(process: subprocess.Popen[str], wanted: str) -> None:
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        if wanted in line:
            return
        said.append(line)
    raise AssertionError(f"it did not say {wanted!r} but {''.join(said)}")


@needs_iperf3
@pytest.mark.root
def test_short_run_measures_both_pairs_and_the_bare_veth(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    options = ("--a", "wgmpd", "--b", "wireguard-go", "--against", "wireguard-go", *TINY)
    code, printed, said = finished(
        tmp_path / "lock", *options, "--only", "ping", "--json", str(file)
    )
    assert code == 0, printed + said
    document: dict[str, Any] = json.loads(file.read_text())
    (table,) = document["sections"]
    assert table["columns"] == ["wgmpd + wireguard-go", "wireguard-go", "bare veth"]
    assert len(table["lines"]) == 2 * 2
    for line in table["lines"]:
        assert set(line["summary"]) == set(table["columns"]), line
    assert document["machine"]["wireguard-go"]


@needs_iperf3
@pytest.mark.root
def test_tcp_and_its_cost_are_measured_both_ways(tmp_path: Path) -> None:
    wireguard_go = parse_program("wireguard-go")
    with Namespaces() as world:
        tunnel = tunnel_pair(world, tmp_path, wireguard_go, wireguard_go, 2)
        bare = bare_pair(world, tmp_path, 3)
        found = [case.measure(tunnel, 1) for case in cases(["tcp"], [], False)]
        limit = next(cases(["tcp"], [], False)).measure(bare, 1)
    for figures in found:
        assert [figure.what for figure in figures] == [
            "throughput",
            "CPU of a",
            "CPU of b",
            "CPU of the machine",
        ]
        assert min(figure.value for figure in figures) > 0
    assert [figure.what for figure in limit] == ["throughput", "CPU of the machine"]


@needs_iperf3
@pytest.mark.root
def test_udp_memory_and_many_peers_are_measured(tmp_path: Path) -> None:
    options = ("--a", "wireguard-go", "--b", "wireguard-go", "--udp-sizes", "1200", *TINY)
    code, printed, said = finished(tmp_path / "lock", *options, "--only", "udp,memory,peers")
    assert code == 0, printed + said
    assert "a with 8 peers b: CPU of a at that " in printed
    assert "UDP, 1200 bytes, a > b: delivered " in printed
    assert "PSS of b if alone" in printed


@needs_iperf3
@pytest.mark.root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    options = ("--a", "wireguard-go", "--b", "wireguard-go", "--seconds", "60")
    process = started(tmp_path / "lock", *options)
    with process:
        read_until(process, "pairs are up")
        assert namespaces_of(process.pid)
        process.send_signal(number)
        assert process.wait(60) == 130
    assert namespaces_of(process.pid) == []


@needs_iperf3
@pytest.mark.root
def test_gateway_that_does_not_start_is_told_with_its_last_words(tmp_path: Path) -> None:
    code, _, said = finished(tmp_path / "lock", "--a", "sh -c 'echo alas; exit 3'", *TINY)
    assert code == 1
    assert "ended with exit code 3: alas" in said


def test_pipeline_runs_on_real_workers(tmp_path: Path) -> None:
    code, printed, said = finished(tmp_path / "lock", "--pipeline", *TINY)
    assert code == 0, printed + said
    assert "| out: seal | GB/s |" in printed
    assert "| in: open  | GB/s |" in printed


def test_functions_are_timed_beside_the_bare_aead(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    code, printed, said = finished(
        tmp_path / "lock", "--functions", "--repeat", "1", "--json", str(file)
    )
    assert code == 0, printed + said
    (table,) = json.loads(file.read_text())["sections"]
    assert {line["what"].rpartition(", ")[2] for line in table["lines"]} == {
        "64 bytes",
        "512 bytes",
        "1420 bytes",
    }
    for line in table["lines"]:
        assert min(sample for samples in line["samples"].values() for sample in samples) > 0


def test_second_run_waits_for_the_first(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        process = started(lock, "--pipeline", *TINY)
        read_until(process, "another run is going on")
        time.sleep(0.2)
        assert process.poll() is None
    with process:
        read_until(process, "1 worker")
        process.send_signal(signal.SIGINT)
        process.wait(60)


@needs_iperf3
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--save", "--only", "tcp"), "--save writes the whole page"),
        (("--against", "no-such-gateway"), "no-such-gateway is not installed"),
        (("--against", "wgmpd"), "the pairs are the same: wgmpd, wgmpd"),
    ],
)
@pytest.mark.root
def test_mistakes_are_one_line(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert command.main(options) != 0
    finally:
        signal.signal(signal.SIGTERM, before)
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.root
def test_missing_tool_is_one_line_with_its_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ip", "wg", "ping"):
        (tmp_path / name).symlink_to("/bin/true")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command.main(TINY) == 1
    assert capsys.readouterr().err == (
        "tools/bench: iperf3 is not installed: apt-get install iperf3\n"
    )


def test_script_says_how_it_is_used() -> None:
    done = subprocess.run([str(BENCH), "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert os.access(BENCH, os.X_OK)
    for option in ("--a-env", "--against", "--only", "--pipeline", "--functions", "--save"):
        assert option in done.stdout
