"""A client of the control API, typed and asynchronous.

```python
async with await Client.open() as agent:
    await agent.connect("home")
    print((await agent.status("home")).peers)
```
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import msgspec

from wgmp.agent import api
from wgmp.agent.settings import DEFAULT_SOCKET
from wgmp.asking import asking
from wgmp.errors import UNDECODABLE, ControlError
from wgmp.observe.snapshot import Snapshot

_Result = TypeVar("_Result")

_ANSWER_BYTES_MAX = 64 << 20  # the status of some ten thousand peers
_EVENTS_MAX = 1000


_decode_event: Callable[[bytes], api.AgentEvent] = msgspec.json.Decoder(api.AgentEvent).decode


class RefusedError(ControlError):
    """The agent refused. `code`: see api.Refusal."""

    def __init__(self, refusal: api.Refusal) -> None:
        super().__init__(refusal.message)
        self.code = refusal.code


class Client:
    """A connection to the agent; any number of tasks may ask on it at a time.

    Everything raises ControlError when the agent is gone, and RefusedError when it refuses.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._numbers = itertools.count(1)
        self._asked: dict[int | str, asyncio.Future[msgspec.Raw]] = {}
        self._events: asyncio.Queue[api.AgentEvent | None] = asyncio.Queue(_EVENTS_MAX)
        self._end: ControlError | None = None
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def open(cls, path: Path = DEFAULT_SOCKET) -> Client:
        """Connect to the agent's socket."""
        with asking(path, "agent", str(path), "wgmp agent --config FILE"):
            reader, writer = await asyncio.open_unix_connection(path, limit=_ANSWER_BYTES_MAX)
        return cls(reader, writer)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Hang up."""
        self._listener.cancel()
        self._writer.close()

    async def connect(self, network: str) -> api.Summary:
        """Start a network; return when it carries traffic."""
        return await self._ask(api.Connect(id=self._id(), network=network), api.Summary)

    async def disconnect(self, network: str) -> api.Summary:
        """Stop a network; return when all is undone."""
        return await self._ask(api.Disconnect(id=self._id(), network=network), api.Summary)

    async def status(self, network: str) -> api.NetworkStatus:
        """Return what there is to know of a network."""
        return await self._ask(api.Status(id=self._id(), network=network), api.NetworkStatus)

    async def stats(self, network: str) -> Snapshot:
        """Return the figures of a network's gateway."""
        return await self._ask(api.Stats(id=self._id(), network=network), Snapshot)

    async def add_peer(self, network: str, peer: dict[str, Any]) -> api.Summary:
        """Add or change a peer until the next reload; fields as in a settings file."""
        request = api.AddPeer(id=self._id(), network=network, peer=peer)
        return await self._ask(request, api.Summary)

    async def remove_peer(self, network: str, peer: str) -> api.Summary:
        """Remove a peer, by its name or public key, until the next reload."""
        request = api.RemovePeer(id=self._id(), network=network, peer=peer)
        return await self._ask(request, api.Summary)

    async def list(self) -> api.Listing:
        """Return all networks in short."""
        return await self._ask(api.List(id=self._id()), api.Listing)

    async def reload(self, network: str | None = None) -> api.Reloaded:
        """Have the settings file read again, for all networks or one."""
        return await self._ask(api.Reload(id=self._id(), network=network), api.Reloaded)

    async def stop_agent(self) -> None:
        """Stop the agent; return when it has hung up, with all its networks down."""
        await self._ask(api.Stop(id=self._id()), dict[str, Any])
        await self._listener

    async def subscribe(self) -> AsyncIterator[api.AgentEvent]:
        """Yield what happens to all networks and in their gateways, until the agent ends."""
        await self._ask(api.Subscribe(id=self._id()), api.Listing)
        while (event := await self._events.get()) is not None:
            yield event

    def _id(self) -> int:
        return next(self._numbers)

    async def _ask(self, request: api.Request, kind: type[_Result]) -> _Result:
        if self._end is not None:
            raise self._end
        answer: asyncio.Future[msgspec.Raw] = asyncio.get_running_loop().create_future()
        self._asked[request.id] = answer
        try:
            self._writer.write(msgspec.json.encode(request) + b"\n")
            await self._writer.drain()
            return msgspec.json.decode(await answer, type=kind)
        except OSError as error:
            raise ControlError(f"the agent hung up: {error}") from error
        except UNDECODABLE as error:
            raise ControlError(f"the agent's answer is not understood: {error}") from error
        finally:
            del self._asked[request.id]

    async def _listen(self) -> None:
        """Hand answers to who asked, and events to who subscribed, to the end."""
        end = ControlError("the agent hung up")
        try:
            while line := await self._reader.readline():
                if msgspec.json.decode(line, type=_Kind).event:
                    with contextlib.suppress(msgspec.ValidationError):  # of a newer agent
                        await self._events.put(_decode_event(line))
                else:
                    refusal = self._hand_over(msgspec.json.decode(line, type=api.Answer))
                    end = RefusedError(refusal) if refusal is not None else end
        except (OSError, ValueError, *UNDECODABLE) as error:
            end = ControlError(f"the agent's connection broke: {error}")
        finally:
            self._end = end
            for asked in self._asked.values():
                if not asked.done():
                    asked.set_exception(end)
            if not self._events.full():
                self._events.put_nowait(None)

    def _hand_over(self, answer: api.Answer) -> api.Refusal | None:
        """Give an answer to who asked; return the refusal that was for nobody's question."""
        asked = self._asked.get(answer.id) if answer.id is not None else None
        if asked is None or asked.done():
            return answer.error
        if answer.error is not None:
            asked.set_exception(RefusedError(answer.error))
        else:
            asked.set_result(answer.result)
        return None


class _Kind(msgspec.Struct):
    """Tells events from answers."""

    event: str = ""
