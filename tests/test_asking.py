"""What clients say when a gateway or the agent cannot be asked."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

import msgspec
import pytest

from wgmp.asking import asking, asking_gateway
from wgmp.errors import ControlError

PATH = Path("/run/wgmp/wg0.sock")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(errno.EACCES, ""), "/run/wgmp/wg0.sock is not yours to use: run as root"),
        (FileNotFoundError(), "no gateway runs on wg0: start one with `wgmp supervise wg0`"),
        (ConnectionRefusedError(), "no gateway runs on wg0: start one with `wgmp supervise wg0`"),
        (TimeoutError(), "the gateway on wg0 does not answer: timed out"),
        (ConnectionResetError("reset"), "the gateway on wg0 does not answer: reset"),
        (msgspec.DecodeError("no JSON"), "the gateway on wg0 does not answer: no JSON"),
    ],
)
def test_what_goes_wrong_is_said_in_words(error: Exception, said: str) -> None:
    with pytest.raises(ControlError) as raised, asking_gateway(PATH, "wg0"):
        raise error
    assert str(raised.value) == said


def test_a_socket_that_nobody_serves_any_more_is_like_none(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    with (
        pytest.raises(ControlError, match="no agent runs on here: start one with `it`"),
        asking(path, "agent", "here", "it"),
        socket.socket(socket.AF_UNIX) as client,
    ):
        client.connect(str(path))


def test_refusals_pass_as_they_are() -> None:
    refusal = ControlError("no")
    with pytest.raises(ControlError) as raised, asking_gateway(PATH, "wg0"):
        raise refusal
    assert raised.value is refusal
