"""Files: an operator's text read, and what is written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from wgmp.errors import ConfigError

EMPTY = "is empty, and so nothing changes: write what there is to be, or stop it"


def read_text(path: Path) -> str:
    """Return the text of an operator's file, read once: it may be a pipe.

    Raises ConfigError when it cannot be read or is not UTF-8.
    """
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot be read: {error.strerror}", str(path), errno=error.errno or 0
        ) from error
    except UnicodeDecodeError:
        # Its own error holds the file's bytes, keys and all.
        raise ConfigError("is not UTF-8 text", str(path)) from None


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
