"""Floods of handshake messages: who still gets in, what is counted, and what traffic notices."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from e2e import tunnel

from wgmp.netns import Namespaces, wait_for

from .flood import FLOODER, SOURCES, Flood, Knocking
from .rawpeer import RESPONSE, kind_of
from .site import Site

pytestmark = [pytest.mark.root, pytest.mark.alone]


def test_a_new_peer_gets_in_within_5_s(site: Site, tmp_path: Path) -> None:
    flood = Flood(
        site, tmp_path, "--mac1=valid", f"--sources={SOURCES}", "--rate=20000", "--seconds=20"
    )
    time.sleep(1.0)
    known = site.peer()
    knocking = Knocking(known)
    start, cookie, session = time.monotonic(), b"", None
    while session is None and time.monotonic() - start < 5:
        answered = knocking.knock(cookie, 0.3)
        if answered is None:
            continue
        initiation, answer = answered
        if kind_of(answer) == RESPONSE:
            session = known.raw.finish(initiation, answer)
        else:
            cookie = known.raw.open_cookie(answer, initiation.datagram)
    assert session is not None, "no way in"
    known.wire.send(session.seal())
    assert any(known.answered(session) for _ in range(3))
    print(f"in after {time.monotonic() - start:.2f} s")
    flood.end()


@pytest.mark.parametrize("sources", [1, SOURCES])
def test_every_message_with_a_bad_mac1_is_counted(site: Site, tmp_path: Path, sources: int) -> None:
    before = site.drops()
    flood = Flood(
        site, tmp_path, "--mac1=bad", f"--sources={sources}", "--rate=3000", "--seconds=2"
    )
    sent = flood.sent()

    def counted() -> int:
        now = site.drops()
        return sum(now.get(r, 0) - before.get(r, 0) for r in ("bad_mac1", "ring_full"))

    wait_for(lambda: counted() == sent, 5, f"{counted()} of {sent} are counted")


@pytest.mark.parametrize("topology", ["compact", "pipeline"])
def test_a_transfer_ends_intact_under_20_000_bad_mac1_a_second(
    namespaces: Namespaces, tmp_path: Path, topology: str
) -> None:
    ends = tunnel.build(namespaces, tmp_path, "wgmpd", "wgmpd", topology=topology)
    assert ends.left.ping(ends.right.inner4)
    flooded = ends.right
    target = (flooded.outer4, str(flooded.port), flooded.public_key)
    log = tmp_path / "flood"
    options = ("--mac1=bad", "--rate=20000", "--seconds=3")
    flow = tunnel.transfer(ends.left, flooded, "--seconds", "3")
    process = ends.left.namespace.start(sys.executable, str(FLOODER), *target, *options, log=log)
    received = flow.finish(60)
    assert process.wait(30) == 0
    sent = json.loads(log.read_text())["sent"]
    print(f"{8 * received.bytes / received.seconds / 1e9:.2f} Gbit/s under {sent} initiations")
    # What the kernel's socket buffer could not hold was never ours to count.
    assert 0.5 * sent < flooded.drops()["bad_mac1"] <= sent
    assert ends.left.ping(flooded.inner4)
