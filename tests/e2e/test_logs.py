"""Logs of a real gateway: levels change while it runs, and no key ever gets into them."""

from __future__ import annotations

import base64
import json
import os
import signal
from pathlib import Path

import pytest

from wgmp.netns import wait_for

from .conftest import MakeTunnel
from .tunnel import WGMP, Gateway, key

pytestmark = pytest.mark.root

LIMIT_S = 10.0


def lines(gateway: Gateway) -> list[dict[str, str]]:
    """Return the log's lines."""
    return [json.loads(line) for line in gateway.log.read_text().splitlines()]


def hold_no_key(text: str, *keys: str) -> bool:
    """Tell whether none of the base64 keys is in a text, in any usual way to write it."""
    raw = [base64.b64decode(each) for each in keys]
    secrets = [*keys, *(each.hex() for each in raw), *(repr(each)[2:-1] for each in raw)]
    return not any(secret in text or secret.rstrip("=") in text for secret in secrets)


def test_levels_change_at_run_time_and_nothing_that_is_told_has_a_key(
    tunnel: MakeTunnel, tmp_path: Path
) -> None:
    settings = {"LOG_LEVEL": "verbose", "WGMP_LOG_FORMAT": "json"}
    ends = tunnel("wgmpd", "wireguard-go", environment=settings)
    left, right = ends.left, ends.right
    told = tmp_path / "events"
    left.namespace.start(WGMP, "events", left.interface, "--json", log=told)
    psk = key("genpsk")
    for gateway, peer in ((left, right), (right, left)):
        gateway.set("peer", peer.public_key, "preshared-key", "/dev/stdin", stdin=psk)
    assert left.ping(right.inner4)
    os.kill(left.role_pids()["worker0"], signal.SIGKILL)
    wait_for(lambda: "SIGKILL" in left.log.read_text(), LIMIT_S, "the death is logged")
    assert left.ping(right.inner4)
    completed = [line for line in lines(left) if line.get("event") == "handshake_completed"]
    assert completed[0]["peer"] == right.public_key
    assert completed[0]["source"].startswith("worker")
    left.namespace.run(WGMP, "log-level", left.interface, "silent")
    before = len(lines(left))
    os.kill(left.role_pids()["tun_writer"], signal.SIGKILL)
    wait_for(lambda: '"tun_writer"' in told.read_text(), LIMIT_S, "the death is an event")
    assert len(lines(left)) == before
    refused = left.namespace.run(WGMP, "log-level", left.interface, "loud", check=False)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    statistics = json.dumps(left.stats())
    for text in (left.log.read_text(), told.read_text(), statistics):
        assert text
        assert hold_no_key(text, left.private_key, right.private_key, psk)
