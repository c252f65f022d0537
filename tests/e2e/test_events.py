"""`wgmp events` tells what happens, to everybody who listens."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from wgmp.netns import wait_for

from .conftest import MakeTunnel
from .tunnel import WGMP, key

pytestmark = pytest.mark.root

LIMIT_S = 10.0


def events(log: Path) -> list[dict[str, Any]]:
    """Return the events printed so far."""
    lines = log.read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def test_events_of_handshakes_deaths_and_changes_reach_a_listener(
    tunnel: MakeTunnel, tmp_path: Path
) -> None:
    ends = tunnel("wgmpd", "wireguard-go")
    left, right = ends.left, ends.right
    log, deaf_log = tmp_path / "events", tmp_path / "deaf"
    listener = left.namespace.start(WGMP, "events", left.interface, "--json", log=log)
    deaf = left.namespace.start(WGMP, "events", left.interface, log=deaf_log)

    def told(kind: str, **fields: Any) -> dict[str, Any]:
        def find() -> dict[str, Any] | None:
            for event in events(log):
                if event["event"] == kind and fields.items() <= event.items():
                    return event
            return None

        return wait_for(find, LIMIT_S, f"{kind} {fields} is told")

    def change() -> bool:
        left.set("peer", key("pubkey", key("genkey")), "allowed-ips", "10.9.9.9/32")
        return bool(log.read_text() and deaf_log.read_text())

    wait_for(change, LIMIT_S, "both listen")
    deaf.send_signal(signal.SIGSTOP)
    told("configuration_changed", peers_set=1, allowed_ips=1)
    assert left.ping(right.inner4)
    completed = told("handshake_completed", peer=right.public_key, initiator=True)
    assert completed["endpoint"] == right.endpoint(4)
    assert completed["source"].startswith("worker")
    os.kill(left.role_pids()["tun_writer"], signal.SIGKILL)
    assert "SIGKILL" in told("role_restarted", process="tun_writer", source="supervisor")["how"]
    left.process.terminate()
    assert left.process.wait(LIMIT_S) == 0, "a listener that is deaf holds nobody up"
    assert listener.wait(LIMIT_S) == 0
    deaf.send_signal(signal.SIGCONT)
    assert deaf.wait(LIMIT_S) == 0
