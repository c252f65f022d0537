"""The path of a gateway's UAPI socket, deleted by whoever wants the gateway to stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmp.socketpath import SocketPath


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a socket is to be."""
    return tmp_path / "wg0.sock"


@pytest.fixture
def listener(path: Path) -> Iterator[socket.socket]:
    """Give a test a listening socket there."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))
        made.listen()
        yield made


async def deleted(watched: SocketPath) -> None:
    """Wait until the watch has seen that the path is deleted."""
    async with asyncio.timeout(10):
        await watched.watch(asyncio.Event())


def test_a_path_that_was_deleted_before_the_watch_began_is_deleted(
    path: Path, listener: socket.socket
) -> None:
    watched = SocketPath(listener)
    path.unlink()
    asyncio.run(deleted(watched))
    watched.remove()


def test_a_path_that_is_another_sockets_by_now_is_left_to_it(
    path: Path, listener: socket.socket
) -> None:
    async def scene() -> None:
        watched = SocketPath(listener)
        watching = asyncio.create_task(deleted(watched))
        await asyncio.sleep(0)
        path.rename(path.with_name("former"))
        with socket.socket(socket.AF_UNIX) as another:
            another.bind(str(path))
            await watching
            watched.remove()
            assert path.is_socket()

    asyncio.run(scene())


def test_who_is_told_to_stop_takes_its_path_along(path: Path, listener: socket.socket) -> None:
    async def scene() -> None:
        watched = SocketPath(listener)
        stopping = asyncio.Event()
        watching = asyncio.create_task(watched.watch(stopping))
        await asyncio.sleep(0)
        stopping.set()
        await watching
        watched.remove()

    asyncio.run(scene())
    assert not path.exists()
