"""Files that are written whole or not at all."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmp.files import write_whole

ROOM_BYTES = 100


@pytest.fixture
def little_room() -> Iterator[None]:
    """Let this process write no more than a few bytes into any file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, kept)


def test_what_finds_no_room_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, little_room: None
) -> None:
    path = tmp_path / "state"
    write_whole(path, b"old")
    with pytest.raises(OSError, match="File too large"):
        write_whole(path, bytes(ROOM_BYTES + 1))
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
