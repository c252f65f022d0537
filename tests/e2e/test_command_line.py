"""The keys and the statistics that the command line gives are those that `wg` would give."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from .conftest import MakeTunnel
from .tunnel import WGMP, Gateway, key

pytestmark = pytest.mark.root


def wgmp(command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run `wgmp COMMAND`."""
    return subprocess.run([WGMP, command], input=stdin, capture_output=True, text=True)


@pytest.mark.parametrize("stdin", [key_text := "A" * 43 + "=", key_text + "\n", f"{key_text}x", ""])
def test_pubkey_prints_and_refuses_what_wg_pubkey_does(stdin: str) -> None:
    theirs = subprocess.run(["wg", "pubkey"], input=stdin, capture_output=True, text=True)
    ours = wgmp("pubkey", stdin)
    assert ours.stdout == theirs.stdout
    assert bool(ours.returncode) == bool(theirs.returncode)
    assert ours.stderr.removeprefix("wgmp: ") == theirs.stderr.removeprefix("wg: ")


@pytest.mark.parametrize("command", ["genkey", "genpsk"])
def test_generated_keys_differ_and_wg_takes_them(command: str) -> None:
    first, second = wgmp(command).stdout, wgmp(command).stdout
    assert first != second
    assert key("pubkey", first) == wgmp("pubkey", first).stdout.strip()


def test_statistics_tell_every_process_ring_worker_and_peer(tunnel: MakeTunnel) -> None:
    ends = tunnel("wgmpd", "wireguard-go")
    gateway: Gateway = ends.left
    assert gateway.ping(ends.right.inner4)
    assert gateway.ping_all(ends.right.inner4, count=10, size=100)
    stats = gateway.stats()
    assert set(gateway.role_pids().values()) == set(gateway.namespace.processes())
    for process in stats["processes"]:
        assert process["rss_bytes"] > process["pss_bytes"] > 0
        assert process["threads"] >= 1
        assert process["context_switches"] > 0
    rings = {ring["name"]: ring for ring in stats["rings"]}
    assert rings["udp_reader>worker0"]["published"] >= 11
    assert rings["udp_reader>worker0"]["depth"] == 0
    assert [worker["peers"] for worker in stats["workers"]] == [1, 0]
    assert stats["workers"][0]["sealed"] >= 11
    (peer,) = stats["peers"]
    shown = gateway.peers()[peer["public_key"]]
    assert (peer["rx_bytes"], peer["tx_bytes"]) == (shown.received, shown.sent)
    assert peer["endpoint"] == shown.endpoint
    assert 0 <= peer["handshake_age_s"] < 30


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A directory beside that of the control sockets, on the same file system."""
    with TemporaryDirectory(dir="/run", prefix="wgmp-test") as path:
        yield Path(path)


def test_statistics_are_readable_without_naming_the_only_interface(
    tunnel: MakeTunnel, elsewhere: Path
) -> None:
    gateway = tunnel("wgmpd", "wireguard-go").left
    named = gateway.namespace.run(WGMP, "stats", gateway.interface).stdout
    for word in (gateway.interface, "tun_reader", "worker1>udp_writer", "endpoint"):
        assert word in named
    # Others may run on this machine: not where this command looks.
    (elsewhere / f"{gateway.interface}.sock").hardlink_to(f"/run/wgmp/{gateway.interface}.sock")
    alone = ("unshare", "--mount", "sh", "-c", f'mount --bind {elsewhere} /run/wgmp; exec "$@"')
    stats = gateway.namespace.run(*alone, "sh", WGMP, "stats", "--json").stdout
    assert json.loads(stats)["interface"] == gateway.interface
