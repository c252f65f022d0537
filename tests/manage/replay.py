"""Runners for platforms that are not at hand: commands recorded where they are, answered here.

`Recorder` passes commands on to another runner and keeps what came back; `Replay` answers from
such a record.
"""

from __future__ import annotations

from collections.abc import Iterable

from wgmp.errors import CommandError
from wgmp.manage.runner import LIMIT_S, Done, Runner, missing


class Recorder:
    """Passes commands on to `inner` and keeps what they came to, in `record`."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner
        self.record: list[Done] = []

    async def run(
        self, *command: str, stdin: str = "", check: bool = True, limit_s: float = LIMIT_S
    ) -> Done:
        """See `Runner.run`."""
        done = await self._inner.run(*command, stdin=stdin, check=False, limit_s=limit_s)
        self.record.append(done)
        if check and done.code:
            raise done.failure()
        return done

    def has(self, program: str) -> bool:
        """See `Runner.has`."""
        return self._inner.has(program)


class Replay:
    """Answers each command with the first of `record` that is left for it.

    A command that is not in the record is a CommandError. `ran` holds the commands in order,
    `given` what each had as standard input. `programs`: what is installed, None for whatever
    the record names.
    """

    def __init__(self, record: Iterable[Done], programs: Iterable[str] | None = None) -> None:
        self._left = list(record)
        named = {done.command[0] for done in self._left}
        self._programs = named if programs is None else set(programs)
        self.ran: list[tuple[str, ...]] = []
        self.given: list[str] = []

    async def run(
        self, *command: str, stdin: str = "", check: bool = True, limit_s: float = LIMIT_S
    ) -> Done:
        """See `Runner.run`; `limit_s` does not matter here."""
        self.ran.append(command)
        self.given.append(stdin)
        if command[0] not in self._programs:
            raise missing(command[0])
        done = next((done for done in self._left if done.command == command), None)
        if done is None:
            raise CommandError(f"`{' '.join(command)}` is not in the record")
        self._left.remove(done)
        if check and done.code:
            raise done.failure()
        return done

    def has(self, program: str) -> bool:
        """See `Runner.has`."""
        return program in self._programs
