"""The undo list of an interface, kept in a file so that a crash loses nothing.

What cannot be seen from the interface itself (rules, firewall tables, the resolver, hooks) stays
behind when a gateway is killed. So each step is written here, with the command that undoes it,
before it is taken; undoing goes through the list backwards. A step that was written but never
taken is one whose undoing fails, which does no harm: every command names exactly what it removes.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from wgmp import system
from wgmp.errors import UNDECODABLE, PrivilegeError
from wgmp.files import write_whole

DIRECTORY = system.RUN_DIRECTORY

log = logging.getLogger("wgmp")


class Undo(msgspec.Struct, frozen=True, kw_only=True):
    """How one step is undone: by `command`, with `stdin` as its input.

    `of_link`: nothing is to be done once the interface is gone, for it took the thing along.
    `after_link`: it is only done when the interface is gone. `shared`: a setting that several
    interfaces need; only the last of them that goes sets it back. `limit_s`: seconds it may take.
    """

    command: tuple[str, ...]
    stdin: str = ""
    of_link: bool = False
    after_link: bool = False
    shared: str = ""
    limit_s: float = 10.0


class _File(msgspec.Struct):
    """What is in the file. `namespace`: the network namespace the steps were taken in."""

    namespace: int
    steps: list[Undo] = []


class Journal:
    """The undo list in the file `path`. Raises PrivilegeError where that is another user's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = _read(path) or _File(_namespace())

    @classmethod
    def of(cls, interface: str) -> Journal:
        """Return the journal of an interface, with what a killed gateway left in it."""
        return cls(DIRECTORY / f"{interface}.undo")

    @property
    def steps(self) -> tuple[Undo, ...]:
        """What is to be undone, oldest first."""
        return tuple(self._file.steps)

    def add(self, step: Undo) -> None:
        """Write down how the step that is taken next will be undone. Raises PrivilegeError."""
        self._file.steps.append(step)
        self._write()

    def drop_last(self) -> None:
        """Forget the newest step; with the last one the file goes too.

        Never raises: what stays in the file is undone in vain once more, which does no harm.
        """
        del self._file.steps[-1]
        try:
            if self._file.steps:
                self._write()
            else:
                self.path.unlink(missing_ok=True)
        except (OSError, PrivilegeError) as error:
            log.warning("%s", error)

    def of_others(self, shared: str) -> Undo | None:
        """Return the step by which another interface of this namespace shares a setting."""
        paths = {*self.path.parent.glob("*.undo"), *DIRECTORY.glob("*.undo")}
        for path in sorted(paths):
            other = _read(path) if path != self.path else None
            if other is not None and other.namespace == self._file.namespace:
                for step in other.steps:
                    if step.shared == shared:
                        return step
        return None

    def _write(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, msgspec.json.encode(self._file))
        except OSError as error:
            text = f"cannot write {self.path}: {error.strerror}"
            raise PrivilegeError(text, error.errno or 0) from error


def _read(path: Path) -> _File | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_File)
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise PrivilegeError(
            f"{path} is not yours to read: run as root", error.errno or 0
        ) from error
    except UNDECODABLE as error:
        log.warning("%s is damaged, and what it should undo stays: %s", path, error)
        return None


def _namespace() -> int:
    """Return the inode of this process's network namespace, 0 where there is no such thing."""
    try:
        return os.stat("/proc/self/ns/net").st_ino
    except OSError:
        return 0
