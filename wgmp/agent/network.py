"""One network: its state, and the steps by which it starts, stops and changes.

| step of the start | undone by |
|---|---|
| secret keys read, or made | (they stay; in memory they are wiped at once) |
| pre_up hooks | post_down hooks |
| a gateway process, written down (leftovers.py) | its end, and with it the interface |
| the gateway configured over UAPI | |
| addresses, MTU, routes, DNS, post_up hooks (manage/link.py) | its journal |
| its endpoints kept, its end watched | |

Undoing goes through the steps backwards, on a stop as on a start that failed; what was written down
is struck out when nothing is left. Whatever goes wrong with a network stays with it: it is the
network's state, with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Set
from contextlib import AsyncExitStack
from typing import Any

from wgmp import keys
from wgmp.agent import (
    device_lines,
    gateway_events,
    keeper,
    keyfiles,
    links,
    ports,
    resolve,
    uapi_client,
)
from wgmp.agent.api import AgentEvent, NetworkChanged
from wgmp.agent.gateway_process import GatewayProcess
from wgmp.agent.leftovers import Ledger
from wgmp.agent.lifecycle import Event, State, after
from wgmp.agent.links import NetworkLink
from wgmp.agent.settings import AgentSettings, NetworkSettings
from wgmp.errors import ControlError, WgmpError
from wgmp.manage.runner import Runner
from wgmp.protocol.outcome import Endpoint

log = logging.getLogger("wgmp")

# A gateway that ended on its own account is started again after 1, 2, 4 ... s.
_FIRST_RETRY_S = 1.0
_LONGEST_RETRY_S = 60.0
_STABLE_S = 60.0


class Network:
    """A network of the agent's. `tell`: hears of each change of `state`, and of its gateway.

    `reason`: why it failed, "" otherwise. `changed_at`: of the state, seconds since 1970.
    `link_turn`: held while links are changed, one network at a time, for they share the rules.
    """

    def __init__(
        self,
        name: str,
        settings: NetworkSettings,
        agent: AgentSettings,
        run: Runner,
        ledger: Ledger,
        link_turn: asyncio.Lock,
        tell: Callable[[AgentEvent], None],
    ) -> None:
        self.name = name
        self.settings = settings
        self.state = State.STOPPED
        self.reason = ""
        self.changed_at = time.time()
        self.public_key = ""
        self.gateway: GatewayProcess | None = None
        self._agent = agent
        self._run = run
        self._ledger = ledger
        self._link_turn = link_turn
        self._tell = tell
        self._turn = asyncio.Lock()
        self._closed = False
        self._start: asyncio.Task[None] | None = None
        self._link: NetworkLink | None = None
        self._undo = AsyncExitStack()
        self._retry: asyncio.Task[None] | None = None
        self._retry_delay_s = _FIRST_RETRY_S
        self._tasks: set[asyncio.Task[None]] = set()

    # --- what people and programs ask for ---

    async def connect(self) -> None:
        """Start it unless it runs; return when it carries traffic. Raises WgmpError if it fails."""
        async with self._turn:
            if self._closed:
                raise ControlError(f"{self.name} is being removed")
            if not self._take(Event.CONNECT):
                return
            self._start = asyncio.create_task(self._bring_up())
            failure: WgmpError | None = None
            try:
                await self._start
            except asyncio.CancelledError:
                if self.state is State.STARTING:
                    self._take(Event.FAILURE, "interrupted")
                    raise
            except WgmpError as error:
                failure = error
            except Exception as error:
                log.exception("%s: this should not happen", self.name)
                failure = ControlError(f"internal error: {error!r}")
            if self.state is State.STOPPING:  # and disconnect(), which did that, goes on from here
                raise ControlError(f"{self.name} was disconnected while it started")
            if failure is not None:
                self._take(Event.FAILURE, str(failure))
                raise failure
            self._take(Event.UP)

    async def disconnect(self) -> None:
        """Stop it unless it is stopped, also while it starts; return when all is undone."""
        if self.state is State.STARTING and self._start is not None:
            self._take(Event.DISCONNECT)
            self._start.cancel()
        async with self._turn:
            self._forget_retry()
            await self._stop()

    async def close(self) -> None:
        """Disconnect it for good: whoever wants to connect it comes too late."""
        self._closed = True
        await self.disconnect()

    async def make_way(self, wanted: NetworkSettings, coveted: Set[int]) -> bool:
        """Let go of what `wanted` does not keep, for others may want it in the same reload.

        That is the interface: return whether it stopped, and is to start on another one. And the
        port, if it is one of `coveted`: until the change it has any other.
        """
        async with self._turn:
            now = self.settings
            if self.state is not State.RUNNING:
                return False
            moves = wanted.interface != now.interface
            if moves or (now.enable_wireguard and not wanted.enable_wireguard):
                await self._stop()
            elif now.listen_port in coveted - {wanted.listen_port}:
                with contextlib.suppress(WgmpError):  # the change will fail, and say why
                    await ports.let_go(now)
            return moves

    async def change(self, revise: Callable[[NetworkSettings], NetworkSettings]) -> None:
        """Make a running network what its revised settings say, as `wg syncconf` does.

        `revise` is given the settings as they are when it is this change's turn. Sessions with
        peers that stay as they are go on. Raises WgmpError, and then the old settings stay in
        force as far as they still are. A network that does not run takes the new ones when it
        starts. Key files are read again. For another interface it has made way before.
        """
        async with self._turn:
            before = self.settings
            self.settings = revise(before)
            if self.state is not State.RUNNING:
                return
            try:
                await self._sync(before)
            except WgmpError:
                self.settings = before
                await ports.take_back(self.name, before)
                raise

    # --- the steps ---

    async def _bring_up(self) -> None:
        settings, interface = self.settings, self.settings.interface
        async with AsyncExitStack() as undo:
            link = NetworkLink(interface, self._run, self._link_turn, self._set_mark)
            with keyfiles.secrets_of(self.name, settings, self._agent) as secrets:
                endpoints = await resolve.first_endpoints(settings.peers)
                wanted = links.settings_of(settings, self._agent, endpoints.values())
                await link.before(wanted)
                undo.callback(self._ledger.remove, self.name)  # the last: until then work is left
                undo.push_async_callback(link.take_down)
                gateway = await GatewayProcess.start(self.name, interface, settings.metrics)
                undo.push_async_callback(gateway.stop)
                self._ledger.add(self.name, interface, gateway.pid)
                self.public_key = keys.to_base64(secrets.private.public())
                lines = device_lines.lines(settings, secrets, endpoints)
                await ports.tell(settings, lines)
            undo.push_async_callback(link.take_down, link_stays=True)
            await link.bring_up(wanted)
            patience_s = self._agent.endpoint_patience_secs
            keeping = keeper.keep(self.name, lambda: self.settings, patience_s)
            undo.callback(self._spawn(keeping).cancel)
            following = gateway_events.follow(self.name, interface, self._tell)
            undo.callback(self._spawn(following).cancel)
            undo.callback(self._spawn(self._watch(gateway)).cancel)
            self.gateway, self._link = gateway, link
            self._undo = undo.pop_all()
        self._warn_of_names(settings, endpoints)

    async def _sync(self, before: NetworkSettings) -> None:
        assert self._link is not None
        settings = self.settings
        known = {peer.public_key: peer.endpoints for peer in before.peers}
        moved = [peer for peer in settings.peers if peer.endpoints != known.get(peer.public_key)]
        with keyfiles.secrets_of(self.name, settings, self._agent) as secrets:
            endpoints = await resolve.first_endpoints(moved)
            now = await uapi_client.get(settings.interface)
            self.public_key = keys.to_base64(secrets.private.public())
            lines = device_lines.lines(settings, secrets, endpoints, before, now)
            await ports.tell(settings, lines)
        there = {key: peer.endpoint for key, peer in now.peers.items()} | endpoints
        found = (there.get(peer.public_key) for peer in settings.peers)
        wanted = links.settings_of(settings, self._agent, filter(None, found))
        await self._link.change(wanted)

    async def _stop(self) -> None:
        self._take(Event.DISCONNECT)
        if self.state is State.STOPPING:
            await self._undo_all()
            self._take(Event.DOWN)

    async def _undo_all(self) -> None:
        self.gateway = None
        try:
            await self._undo.aclose()
        except Exception:
            log.exception("%s: not all is undone", self.name)

    async def _set_mark(self, mark: int) -> None:
        await uapi_client.change(self.settings.interface, bytearray(b"fwmark=%d\n" % mark))

    def _warn_of_names(self, settings: NetworkSettings, found: dict[str, Endpoint]) -> None:
        for peer in settings.peers:
            if peer.endpoints and peer.public_key not in found:
                who, where = peer.name or peer.public_key, ", ".join(peer.endpoints)
                log.warning(
                    "%s: %s does not resolve now; %s is asked for again", self.name, where, who
                )

    # --- the end of a gateway that nobody stopped ---

    async def _watch(self, gateway: GatewayProcess) -> None:
        how = await gateway.wait()
        self._spawn(self._bury(gateway, how))

    async def _bury(self, gateway: GatewayProcess, how: str) -> None:
        async with self._turn:
            if self.gateway is not gateway or self.state is not State.RUNNING:
                return
            if time.time() - self.changed_at > _STABLE_S:
                self._retry_delay_s = _FIRST_RETRY_S
            self._take(Event.FAILURE, how or "its interface or UAPI socket was deleted")
            await self._undo_all()
            if how:
                self._retry = self._spawn(self._connect_again())

    async def _connect_again(self) -> None:
        while self.state is State.FAILED:
            delay_s = self._retry_delay_s
            self._retry_delay_s = min(2 * delay_s, _LONGEST_RETRY_S)
            log.info("%s is started again in %s s", self.name, f"{delay_s:g}")
            await asyncio.sleep(delay_s)
            with contextlib.suppress(WgmpError):
                await self.connect()

    def _forget_retry(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None

    # --- state ---

    def _take(self, event: Event, reason: str = "") -> bool:
        """Enter the state that follows on the event; return whether there is one."""
        follows = after(self.state, event)
        if follows is None:
            return False
        self.state, self.reason, self.changed_at = follows, reason, time.time()
        if reason:
            log.error("%s failed: %s", self.name, reason)
        else:
            log.info("%s is %s", self.name, follows)
        self._tell(
            NetworkChanged(
                time=self.changed_at,
                source="agent",
                network=self.name,
                interface=self.settings.interface,
                state=follows,
                reason=reason,
            )
        )
        return True

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
