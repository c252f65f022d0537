"""Files: an operator's read without waiting for anybody, others written whole or not at all."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

from wgmp.errors import ConfigError

EMPTY = "is empty, and so nothing changes: write what there is to be, or stop it"


# 10,000 peers with 30,000 allowed IPs are about 4 MB.
_BYTES_MAX = 32 << 20


def read_text(path: Path, piped: bool = False) -> str:
    """Return the text of an operator's file, as `read_bytes` does.

    Raises ConfigError also when it is not UTF-8, or begins with a byte order mark.
    """
    data = read_bytes(path, piped)
    if data.startswith(codecs.BOM_UTF8):
        raise ConfigError("begins with a byte order mark: save it as UTF-8 without", str(path))
    try:
        return data.decode()
    except UnicodeDecodeError:
        # Its own error holds the file's bytes, keys and all.
        raise ConfigError("is not UTF-8 text", str(path)) from None


def read_bytes(path: Path, piped: bool = False) -> bytes:
    """Return what is in an operator's file, of at most 32 MiB.

    `piped`: it may be a pipe, which is read once, and waited for: not in an event loop. Raises
    ConfigError when it cannot be read.
    """
    try:
        with open(open_file(path, piped), "rb") as file:
            data = file.read(_BYTES_MAX + 1)
            is_pipe = stat.S_ISFIFO(os.fstat(file.fileno()).st_mode)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > _BYTES_MAX:
        raise ConfigError("is longer than 32 MiB: is it the right file?", str(path))
    if is_pipe and not data:
        raise ConfigError("is a pipe that nobody has written to: name a file", str(path))
    return data


def open_file(path: Path, piped: bool = False) -> int:
    """Return a descriptor of an operator's file, which may have become anything since.

    Never waits. Raises ConfigError for what is no file, and no pipe that is `piped`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        raise _unreadable(path, error) from error
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode) or (piped and stat.S_ISFIFO(mode)):
        os.set_blocking(descriptor, True)
        return descriptor
    os.close(descriptor)
    kinds = (stat.S_ISDIR, "directory"), (stat.S_ISFIFO, "pipe"), (stat.S_ISCHR, "device")
    kind = next((name for test, name in kinds if test(mode)), "thing of another kind")
    raise ConfigError(f"is a {kind}: put a file in its place, or name another", str(path))


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"cannot be read: {error.strerror}", str(path), errno=error.errno or 0)


def write_whole(path: Path, data: bytes, like: os.stat_result | None = None) -> None:
    """Write a file that only its owner may read (0600). Raises OSError.

    `like`: the owner and mode it gets instead, before there is anything in it. It is written
    under another name first: whoever reads it finds the old or the new, also after a crash of the
    machine, and where there is no room for the new.
    """
    new = path.with_name(f".{path.name}-new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(descriptor, "wb") as file:
            if like is not None:
                os.fchown(descriptor, like.st_uid, like.st_gid)
                os.fchmod(descriptor, like.st_mode & 0o7777)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
