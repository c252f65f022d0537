"""Asking a gateway: whatever it answers, and if it does not, is told in one line."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from wgmp import control
from wgmp.errors import ConfigError, ControlError
from wgmp.logs import LogLevel
from wgmp.taphost import Capture

Answering = Callable[[bytes], None]


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let gateways have their sockets in a directory of the test's."""
    monkeypatch.setattr(control, "DIRECTORY", tmp_path)
    return tmp_path


@pytest.fixture
def answering(directory: Path) -> Iterator[Answering]:
    """Make wg0 a gateway that reads a request, says so and hangs up."""
    threads: list[threading.Thread] = []
    listener = socket.socket(socket.AF_UNIX)

    def answer(text: bytes) -> None:
        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(text)

        listener.bind(str(directory / "wg0.sock"))
        listener.listen()
        threads.append(threading.Thread(target=serve))
        threads[0].start()

    yield answer
    listener.close()
    for thread in threads:
        thread.join(10)


ASKING: list[Callable[[], Any]] = [
    lambda: control.ask_stats("wg0"),
    lambda: control.set_workers("wg0", 2),
    lambda: control.set_log_level("wg0", LogLevel.INFO),
    lambda: control.upgrade("wg0", ["wgmp"]),
    lambda: list(control.follow_events("wg0")),
    lambda: control.begin_capture("wg0", Capture()),
]


@pytest.mark.parametrize("ask", ASKING)
@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "the gateway on wg0 does not answer: it hung up"),
        (b'{"error": "not', "the gateway on wg0 does not answer: "),
        (b'{"error":"not today"}\n', "^not today$"),
    ],
)
def test_what_was_not_done_is_never_taken_for_done(
    answering: Answering, ask: Callable[[], Any], answer: bytes, told: str
) -> None:
    answering(answer)
    with pytest.raises(ControlError, match=told):
        ask()


@pytest.mark.parametrize(
    "answer",
    [
        b"\xff\n",
        b'{"pid": 1, "version": "\xff"}\n',
        b"{}\n",
        b'{"pid": "one"}\n',
        b"[" * 5000 + b"\n",
    ],
)
def test_what_is_no_answer_is_told(answering: Answering, answer: bytes) -> None:
    answering(answer)
    with pytest.raises(ControlError, match="the gateway on wg0 does not answer: "):
        control.upgrade("wg0", ["wgmp"])


def test_a_gateway_that_is_not_there_and_one_that_has_died_are_told_alike(
    directory: Path,
) -> None:
    with pytest.raises(ControlError, match=r"^no gateway runs on wg0: start one with `wgmp super"):
        control.ask_stats("wg0")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(directory / "wg0.sock"))
    with pytest.raises(ControlError, match=r"^no gateway runs on wg0"):
        control.ask_stats("wg0")


def test_the_only_gateway_need_not_be_named(directory: Path) -> None:
    assert control.choose_interface("wg7") == "wg7"
    with pytest.raises(ControlError, match=r"^no gateway runs: start one"):
        control.choose_interface(None)
    with contextlib.ExitStack() as running:

        def run(interface: str) -> socket.socket:
            listener = running.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(directory / f"{interface}.sock"))
            listener.listen(1)
            return listener

        run("wg1")
        assert control.choose_interface(None) == "wg1"
        run("wg2").close()  # as one that was killed leaves it
        assert control.choose_interface(None) == "wg1"
        run("wg0")
        with pytest.raises(ConfigError, match=r"^several gateways run: name one of wg0, wg1$"):
            control.choose_interface(None)


def test_a_gateway_that_is_busy_is_one_that_runs(directory: Path) -> None:
    with contextlib.ExitStack() as crowd:
        listener = crowd.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(directory / "wg0.sock"))
        listener.listen(0)
        for _ in range(2):
            client = crowd.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            client.connect_ex(str(directory / "wg0.sock"))
        assert control.choose_interface(None) == "wg0"
