"""What happens in a network's gateway, passed on to whoever subscribed to the agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec

from wgmp import control
from wgmp.agent.api import AgentEvent, GatewayEvent
from wgmp.errors import UNDECODABLE
from wgmp.events import AnyEvent

log = logging.getLogger("wgmp")

_decode: Callable[[bytes], AnyEvent] = msgspec.json.Decoder(AnyEvent).decode
_SUBSCRIBE = msgspec.json.encode(control.Subscribe()) + b"\n"


async def follow(name: str, interface: str, tell: Callable[[AgentEvent], None]) -> None:
    """Pass on the events of the interface's gateway, until cancelled or it ends."""
    try:
        reader, writer = await asyncio.open_unix_connection(control.socket_path(interface))
    except OSError as error:
        log.warning("%s: its gateway's events are not heard: %s", name, error)
        return
    try:
        writer.write(_SUBSCRIBE)
        await reader.readline()  # that we are subscribed
        while line := await reader.readline():
            with contextlib.suppress(msgspec.ValidationError):  # of a newer gateway
                event = _decode(line)
                tell(GatewayEvent(time=event.time, source=event.source, network=name, detail=event))
    except (OSError, ValueError, *UNDECODABLE) as error:
        log.warning("%s: its gateway's events are heard no more: %s", name, error)
    finally:
        writer.close()
