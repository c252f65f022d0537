"""The traffic that proves itself: both ends see the same stream, or somebody says so."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from wgmp.errors import CommandError
from wgmp.netns import Namespace, Namespaces, wait_for
from wgmp.traffic import Report, Transfer

LIMIT_S = 20.0


def run(direction: str, address: str, port: int, *options: str) -> subprocess.Popen[str]:
    """Start one end."""
    command = [sys.executable, "-m", "wgmp.traffic", direction, address, str(port), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def reports(process: subprocess.Popen[str]) -> list[Report]:
    """Wait for the end of one end; return all that it reported."""
    out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, err) == (0, "")
    return [msgspec.json.decode(line, type=Report) for line in out.splitlines()]


def free_port(address: str) -> int:
    """Return a TCP port that nobody listens on."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def ends() -> Iterator[list[subprocess.Popen[str]]]:
    """Give a list for processes, which are ended after the test."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("limit", ["bytes", "seconds", "interrupt"])
def test_both_ends_agree_on_the_stream_however_it_ends(
    ends: list[subprocess.Popen[str]], address: str, limit: str
) -> None:
    port = free_port(address)
    receiver = run("receive", address, port, "--every", "0")
    ends.append(receiver)
    assert receiver.stdout is not None
    listens = msgspec.json.decode(receiver.stdout.readline(), type=Report)
    assert (listens.bytes, listens.sha256) == (0, "")
    options = {"bytes": ("--bytes", "1000001"), "seconds": ("--seconds", "0.3")}.get(limit, ())
    sender = run("send", address, port, *options)
    ends.append(sender)
    if limit == "interrupt":
        receiver.stdout.readline()  # it flows
        sender.send_signal(signal.SIGINT)
    sent, received = reports(sender), reports(receiver)
    assert received[-1].bytes == sent[-1].bytes > 0
    assert received[-1].sha256 == sent[-1].sha256 != ""
    assert all(not report.sha256 for report in received[:-1])
    assert len(received) > 1 or limit == "interrupt", "without a pause between them there are many"
    assert [each.bytes for each in received] == sorted(each.bytes for each in received)
    assert [each.at for each in received] == sorted(each.at for each in received)
    if limit == "bytes":
        assert sent[-1].bytes == 1_000_001
    if limit == "seconds":
        assert sent[-1].seconds >= 0.3


def test_an_end_that_cannot_work_says_why_in_one_line() -> None:
    port = free_port("127.0.0.1")
    alone = run("send", "127.0.0.1", port)
    assert alone.communicate(timeout=LIMIT_S) == (
        "",
        "wgmp.traffic send: [Errno 111] Connection refused\n",
    )
    assert alone.returncode == 1
    with socket.create_server(("127.0.0.1", port)):
        second = run("receive", "127.0.0.1", port)
        out, err = second.communicate(timeout=LIMIT_S)
    assert (out, second.returncode) == ("", 1)
    assert err.startswith("wgmp.traffic receive: [Errno 98] Address already in use")


@pytest.fixture
def space(namespaces: Namespaces) -> Namespace:
    """Give a namespace whose loopback both ends of a transfer use."""
    return namespaces.add("traffic")


@pytest.mark.root
def test_a_transfer_is_finished_when_all_has_arrived_and_each_step_was_told(
    space: Namespace, tmp_path: Path
) -> None:
    transfer = Transfer(space, space, "127.0.0.1", 5201, tmp_path, every_s=0.01)
    wait_for(lambda: transfer.received().bytes > 1_000_000, LIMIT_S, "it flows")
    assert transfer.running()
    done = transfer.conclude(LIMIT_S)
    assert not transfer.running()
    assert done.bytes == transfer.sent().bytes == transfer.received().bytes
    arrivals = transfer.arrivals()
    assert arrivals[0].bytes == 0
    assert arrivals[-1] == done
    assert len(arrivals) > 2


@pytest.mark.root
def test_what_arrives_otherwise_than_it_was_sent_is_no_success(
    space: Namespace, tmp_path: Path
) -> None:
    transfer = Transfer(space, space, "127.0.0.1", 5201, tmp_path, "--bytes", "1000")
    transfer.finish(LIMIT_S)
    (log,) = tmp_path.glob("receive-*")
    last = log.read_text().splitlines()[-1]
    for wrong in (last.replace('"sha256":"', '"sha256":"0'), last.replace("1000", "999")):
        log.write_text(f"{wrong}\n")
        with pytest.raises(CommandError, match="was sent, but"):
            transfer.finish(LIMIT_S)


@pytest.mark.root
def test_an_end_that_dies_is_told_and_one_that_takes_too_long_too(
    space: Namespace, tmp_path: Path
) -> None:
    endless = Transfer(space, space, "127.0.0.1", 5201, tmp_path)
    with pytest.raises(CommandError, match=r"in vain: the transfer ends, at Report\("):
        endless.finish(0.2)
    endless.stop()
    with pytest.raises(CommandError, match="an end of the transfer failed"):
        endless.running()
    started = time.monotonic()
    with pytest.raises(CommandError, match=r"an end of the transfer failed: .*Cannot assign"):
        Transfer(space, space, "192.0.2.9", 5202, tmp_path)
    assert time.monotonic() - started < LIMIT_S, "nobody waits for one that has failed"
