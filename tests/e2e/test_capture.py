"""`wgmp capture`: what it writes is what tshark reads, and decrypts with the key log."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from wgmp.netns import wait_for

from .conftest import MakeTunnel
from .tunnel import WGMP, Gateway, Tunnel, key

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("tshark") is None, reason="needs tshark"),
]

LIMIT_S = 15.0


def tshark(file: Path, *options: str) -> list[list[str]]:
    """Return what tshark prints of a file, in lines of tab-separated fields."""
    command = ["tshark", "-r", str(file), "-n", "-T", "fields", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return [line.split("\t") for line in done.stdout.splitlines()]


def captured(
    gateway: Gateway, file: Path, traffic: Callable[[], object], *options: str
) -> subprocess.Popen[bytes]:
    """Capture while there is traffic, and end as Ctrl-C does."""
    log = file.with_suffix(".log")
    command = (WGMP, "capture", gateway.interface, "-w", str(file), *options)
    process = gateway.namespace.start(*command, log=log)
    wait_for(lambda: file.exists() and file.stat().st_size, LIMIT_S, "the capture begins")
    traffic()
    process.send_signal(signal.SIGINT)
    assert process.wait(LIMIT_S) == 0, log.read_text()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "packets" in log.read_text()
    return process


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_both_sides_of_a_tunnel_are_in_one_file_that_the_key_log_decrypts(
    tunnel: MakeTunnel, tmp_path: Path, topology: str
) -> None:
    ends = tunnel("wgmpd", "wireguard-go", psk=True, topology=topology)
    left, right = ends.left, ends.right
    file, keys = tmp_path / "both.pcapng", tmp_path / "keys"
    # The very last packet may come too late for the capture's end.
    pings = [right.inner4, right.inner4]
    captured(left, file, lambda: list(map(left.ping, pings)), "--keys", str(keys))
    assert keys.stat().st_mode & 0o777 == 0o600
    fields = ("-e", "frame.interface_name", "-e", "_ws.col.Protocol", "-e", "frame.comment")
    lines = tshark(file, *fields)
    kinds = {(interface.split()[1], protocol) for interface, protocol, _ in lines}
    assert {("inner", "ICMP"), ("outer", "WireGuard")} <= kinds
    assert all(f"peer {right.public_key}" in comment for *_, comment in lines)
    assert {comment.split(";")[0] for *_, comment in lines} <= {"worker0", "worker1", "admission"}
    (first, *_) = tshark(file, "-Y", "wg", "-e", "ip.src", "-e", "ip.dst", "-e", "wg.type")
    assert first == [left.outer4, right.outer4, "1"]
    decrypting = ("-o", f"wg.keylog_file:{keys}", "-o", "wg.dissect_packet:TRUE")
    shown = tshark(file, *decrypting, "-Y", "wg && icmp", "-e", "icmp.type")
    assert shown[:3] == [["8"], ["0"], ["8"]]
    assert tshark(file, "-Y", "wg && icmp", "-e", "icmp.type") == []


def test_what_passed_just_before_the_gateway_s_end_is_captured(
    tunnel: MakeTunnel, tmp_path: Path
) -> None:
    ends = tunnel("wgmpd", "wireguard-go", topology="compact")
    left, right = ends.left, ends.right
    file = tmp_path / "end.pcapng"
    assert left.ping(right.inner4)
    command = (WGMP, "capture", left.interface, "--inner", "-w", str(file))
    capture = left.namespace.start(*command, log=tmp_path / "log")
    wait_for(lambda: file.exists() and file.stat().st_size, LIMIT_S, "the capture begins")
    capture.send_signal(signal.SIGSTOP)  # so that it comes late, as on a busy machine
    assert left.ping(right.inner4)
    left.process.terminate()
    left.process.wait(LIMIT_S)
    capture.send_signal(signal.SIGCONT)
    assert capture.wait(LIMIT_S) == 0
    assert tshark(file, "-Y", "icmp", "-e", "icmp.type")[:2] == [["8"], ["0"]]


def test_dropped_packets_are_captured_with_their_reason(tunnel: MakeTunnel, tmp_path: Path) -> None:
    ends = tunnel("wgmpd", "wireguard-go")
    left, right = ends.left, ends.right
    file = tmp_path / "drops.pcapng"
    assert left.ping(right.inner4)

    def traffic() -> None:
        left.namespace.run("ping", "-c1", "-W1", "10.77.0.99", check=False)
        junk = "echo -n junkjunkjunkjunkjunkjunkjunkjunk"
        outer = f"/dev/udp/{left.outer4}/{left.port}"
        right.namespace.run("bash", "-c", f"{junk} > {outer}")
        # An initiation of nobody known: its mac1 is right, for `wg` makes one, its key is not.
        stranger = key("genkey")
        right.set("private-key", "/dev/stdin", stdin=stranger)
        right.set("peer", left.public_key, "endpoint", left.endpoint(4))
        right.ping(left.inner4, wait_s=1)

    captured(left, file, traffic)
    comments = {comment for (comment,) in tshark(file, "-e", "frame.comment")}
    assert "tun_reader; dropped: no_route" in comments
    assert "udp_reader; dropped: bad_type" in comments
    assert "admission; dropped: unknown_peer" in comments


def test_super_packets_are_captured_as_the_packets_they_stand_for(
    tunnel: MakeTunnel, tmp_path: Path
) -> None:
    ends = tunnel("wgmpd", "wgmpd", topology="compact")
    left, right = ends.left, ends.right
    file = tmp_path / "inner.pcapng"
    assert left.ping(right.inner4)
    captured(left, file, lambda: send_a_megabyte(ends), "--inner", "--count", "1500")
    checked = ("-o", "tcp.check_checksum:TRUE", "-Y", f"tcp && ip.src=={left.inner4}")
    lines = tshark(file, *checked, "-e", "frame.len", "-e", "tcp.checksum.status")
    assert sum(int(length) for length, _ in lines) > 1_000_000
    assert {status for _, status in lines} == {"1"}, "all checksums are good"
    assert max(int(length) for length, _ in lines) <= 1420


def send_a_megabyte(ends: Tunnel) -> None:
    """Send a megabyte over TCP through the tunnel."""
    script = (
        "import socket,sys;s=socket.create_server((sys.argv[1],5999));print(flush=True);"
        "c=s.accept()[0];n=0\nwhile b:=c.recv(65536):n+=len(b)\nprint(n)"
    )
    log = ends.right.log.with_name("receiver")
    receiver = ends.right.namespace.start(sys.executable, "-c", script, ends.right.inner4, log=log)
    wait_for(lambda: log.exists() and log.read_text(), LIMIT_S, "the receiver listens")
    sender = f"head -c 1000000 /dev/zero > /dev/tcp/{ends.right.inner4}/5999"
    ends.left.namespace.run("bash", "-c", sender)
    assert receiver.wait(LIMIT_S) == 0
    assert log.read_text().split() == ["1000000"]


def test_a_peer_that_is_not_there_and_a_second_capture_are_refused(
    tunnel: MakeTunnel, tmp_path: Path
) -> None:
    left = tunnel("wgmpd", "wireguard-go").left

    def refusal(*options: str) -> str:
        command = (WGMP, "capture", left.interface, "-w", str(tmp_path / "other"), *options)
        done = left.namespace.run(*command, check=False)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        return done.stderr

    kept = tmp_path / "other"
    kept.write_text("an older capture")
    assert "peer: write the 44 characters of a public key" in refusal("--peer", "laptop")
    assert "no peer has the key" in refusal("--peer", key("pubkey", key("genkey")))
    captured(left, tmp_path / "first", lambda: refusal())
    assert kept.read_text() == "an older capture"
    captured(left, tmp_path / "again", lambda: None)
