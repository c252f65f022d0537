"""An upgrade and a capture that begin at the same time: neither breaks the other."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from wgmp import control
from wgmp.control import Request, SetWorkers, Upgraded
from wgmp.errors import ControlError
from wgmp.netns import wait_for
from wgmp.taphost import Capture
from wgmp.tapreader import TapReader

from .conftest import MakeTunnel
from .tunnel import WGMP, Gateway

pytestmark = pytest.mark.root

STRUCK = str(Path(__file__).with_name("struck_successor.py"))
LIMIT_S = 20.0


@contextmanager
def upgrade_that_waits(gateway: Gateway, moment: str) -> Iterator[Future[Upgraded]]:
    """Begin an upgrade that waits at a moment until the block is over; give its outcome."""
    meeting = gateway.log.parent / moment
    program = [sys.executable, STRUCK, moment, str(meeting)]
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(control.upgrade, gateway.interface, program)
        try:
            wait_for(lambda: Path(f"{meeting}.here").exists(), LIMIT_S, "the program starts")
            yield outcome
        finally:
            Path(f"{meeting}.go").touch()


def test_a_capture_that_begins_while_the_new_program_starts_is_not_cut_off(
    tunnel: MakeTunnel,
) -> None:
    ends = tunnel("wgmpd", "wireguard-go")
    left, right = ends.left, ends.right
    before = left.role_pids()
    with upgrade_that_waits(left, "started") as outcome:
        client, started, descriptors = control.begin_capture(left.interface, Capture())
    with client:
        with pytest.raises(ControlError, match="a capture is running: end it, then upgrade"):
            outcome.result(LIMIT_S)
        reader = TapReader(started, descriptors)
        assert left.ping(right.inner4)
        wait_for(reader.poll, LIMIT_S, "packets are captured")
    assert left.role_pids() == before, "nobody was replaced"
    wait_for(lambda: "has taken over" in _upgraded(left), LIMIT_S, "an upgrade is possible again")
    assert left.ping(right.inner4)


@pytest.mark.parametrize(
    ("request_", "refusal"),
    [
        (Capture(), "the gateway is being handed over: try again in a moment"),
        (SetWorkers(4), "the processes are being changed already: wait a moment"),
    ],
)
def test_who_asks_for_something_when_it_is_too_late_is_told_so(
    tunnel: MakeTunnel, request_: Request, refusal: str
) -> None:
    left = tunnel("wgmpd", "wireguard-go").left
    with socket.socket(socket.AF_UNIX) as early:
        early.settimeout(LIMIT_S)
        early.connect(str(control.socket_path(left.interface)))
        left.stats()  # who connected before has been accepted, too
        with upgrade_that_waits(left, "held") as outcome:
            early.sendall(control.encode(request_) + b"\n")
            answer = early.makefile("rb").readline()
    assert refusal in answer.decode()
    assert outcome.result(LIMIT_S).pid > 0
    assert left.stats()["workers_count"] == 2


def _upgraded(gateway: Gateway) -> str:
    return gateway.namespace.run(WGMP, "upgrade", gateway.interface, check=False).stdout
