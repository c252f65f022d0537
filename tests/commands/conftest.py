"""The `gateway` fixture: a gateway that stands still and answers on its control socket as wg0."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from observe.standing import Standing

from wgmp import control
from wgmp.control_server import ControlServer
from wgmp.uapi_server import bind_socket


class Served(Standing):
    """Answers in a thread of its own; what happens in there is done by `do`."""

    def start(self, path: Path) -> None:
        """Begin to answer at `path`."""
        self._loop = asyncio.new_event_loop()
        self._server = ControlServer(bind_socket(path), self.supervisor)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result(10)

    def do(self, act: Callable[[], object]) -> None:
        """Let something happen in the gateway."""

        async def happen() -> None:
            act()

        asyncio.run_coroutine_threadsafe(happen(), self._loop).result(10)

    def end(self) -> None:
        """Answer no more, and hang up on everybody."""

        async def hang_up() -> None:
            self._server.stop()
            self.events.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        if self._loop.is_running():
            self._loop.set_exception_handler(lambda loop, context: None)  # of what is cancelled
            asyncio.run_coroutine_threadsafe(hang_up(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A pipeline of two workers, the only gateway there is."""
    directory = tmp_path / "run"
    directory.mkdir()
    monkeypatch.setattr(control, "DIRECTORY", directory)
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    level = logging.getLogger().level
    made = Served()
    made.start(directory / "wg0.sock")
    yield made
    made.end()
    made.close()
    logging.getLogger().setLevel(level)
    for number, handler in kept.items():
        signal.signal(number, handler)
