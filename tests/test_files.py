"""Files: read whatever they have become, and written whole or not at all."""

from __future__ import annotations

import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from wgmp.agent import keyfiles
from wgmp.config import load_again
from wgmp.errors import ConfigError
from wgmp.files import read_text, write_whole
from wgmp.observe.names import Names

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


def make_directory(path: Path) -> None:
    path.mkdir()


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def make_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def make_huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 100 << 30)


NO_FILES = pytest.mark.parametrize(
    ("make", "said"),
    [
        (make_directory, "is a directory: put a file in its place"),
        (make_pipe, "is a pipe: put a file in its place"),
        (make_device, "is a device: put a file in its place"),
        (make_socket, "cannot be read: No such device or address"),
        (make_huge, "is longer than 32 MiB"),
    ],
)


@pytest.fixture
def patience() -> Iterator[None]:
    """Fail a test that waits for a file."""

    def fail(number: int, frame: object) -> None:
        pytest.fail("this waits for a file")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(20)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@NO_FILES
def test_what_is_no_file_any_more_is_said_at_once(
    tmp_path: Path, patience: None, make: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "wg0.conf"
    make(path)
    with pytest.raises(ConfigError, match=said):
        load_again(path)
    assert Names([path]).current() == {}


def test_what_an_editor_puts_before_the_text_is_said(tmp_path: Path) -> None:
    path = tmp_path / "wg0.conf"
    path.write_bytes(b"\xef\xbb\xbf[Interface]\n")
    with pytest.raises(ConfigError, match="begins with a byte order mark"):
        load_again(path)


@NO_FILES
def test_a_key_file_that_is_none_is_no_key(
    tmp_path: Path, patience: None, make: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "private.key"
    make(path)
    with pytest.raises(ConfigError, match=f"{said}|this is no key"):
        keyfiles.read(path)


def test_a_pipe_is_read_to_its_end_where_that_may_take_a_while(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(ConfigError, match="a pipe that nobody has written to"):
        read_text(path, piped=True)
    reading = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # so that there may be a writer
    with path.open("w") as pipe:
        os.write(pipe.fileno(), b"one ")
        later = threading.Timer(0.1, lambda: (pipe.write("two"), pipe.close()))
        later.start()
        assert read_text(path, piped=True) == "one two"
    os.close(reading)
