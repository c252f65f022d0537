"""Host names to endpoints, asked for in a process of its own.

A resolver may take its time. A thread that waits for it in the C library cannot be ended, and a
process that forks roles has but one (ADR 4).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait

import msgspec

from wgmp.addresses import format_endpoint, parse_endpoint, resolve_endpoints
from wgmp.errors import CommandError
from wgmp.manage.runner import Commands
from wgmp.protocol.outcome import Endpoint

# Two name servers that are dead, each asked for 5 s, and one that answers (resolv.conf(5)).
_LIMIT_S = 12.0
_START_LIMIT_S = 30.0
_MOST_AT_ONCE = 64


class Answer(msgspec.Struct, frozen=True):
    """What there is under a name: endpoints as text, or why there is none."""

    endpoints: tuple[str, ...] = ()
    error: str = ""


class Answers:
    """The endpoints of all texts that were looked up."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self._answers = answers

    def all(self, text: str) -> list[Endpoint]:
        """Return all endpoints of a text that was looked up, in the resolver's order, or none."""
        return [parse_endpoint(each) for each in self._answers[text].endpoints]

    def first(self, text: str) -> Endpoint:
        """Return the first one. Raises ValueError, which says why there is none."""
        endpoints = self.all(text)
        if not endpoints:
            raise ValueError(self._answers[text].error)
        return endpoints[0]


async def look_up(texts: Iterable[str]) -> Answers:
    """Return the endpoints of `host:port` and the like, asking for all names at once.

    A name that does not resolve, or not within some seconds, has none.
    """
    answers, names = {}, []
    for text in dict.fromkeys(map(str, texts)):
        try:
            answers[text] = Answer((format_endpoint(parse_endpoint(text)),))
        except ValueError:
            names.append(text)
    if names:
        command = (sys.executable, "-P", "-m", "wgmp.lookup")
        stdin = msgspec.json.encode(names).decode()
        limit_s = _LIMIT_S + _START_LIMIT_S
        try:
            done = await Commands().run(*command, stdin=stdin, limit_s=limit_s)
            answers |= msgspec.json.decode(done.stdout, type=dict[str, Answer])
        except CommandError as error:
            answers |= dict.fromkeys(names, Answer(error=str(error)))
    return Answers(answers)


def _ask(text: str) -> Answer:
    try:
        return Answer(tuple(map(format_endpoint, resolve_endpoints(text))))
    except OSError as error:
        return Answer(error=error.strerror or str(error))
    except ValueError as error:
        return Answer(error=str(error))


def _main() -> None:
    """Read names, write their answers, and wait for no resolver any longer."""
    names = msgspec.json.decode(sys.stdin.buffer.read(), type=list[str])
    pool = ThreadPoolExecutor(_MOST_AT_ONCE)
    asked = {name: pool.submit(_ask, name) for name in names}
    wait(asked.values(), _LIMIT_S)
    late = Answer(error=f"no answer within {_LIMIT_S:.0f} s")
    answers = {name: each.result() if each.done() else late for name, each in asked.items()}
    sys.stdout.buffer.write(msgspec.json.encode(answers))
    sys.stdout.buffer.flush()
    os._exit(0)


if __name__ == "__main__":
    _main()
