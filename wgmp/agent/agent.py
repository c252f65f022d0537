"""The agent: all networks of a settings file, and what the control API does with them.

1. Bind the control socket: there is one agent for each.
2. Clear what an agent that was killed left behind (leftovers.py).
3. Serve the socket, and start every network with `enable_wireguard`, all at once.
4. Until SIGINT, SIGTERM or `wgmp agent stop`; SIGHUP is `wgmp reload`.
5. Stop all networks, all at once.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Iterable
from pathlib import Path
from typing import Any, assert_never

import msgspec

from wgmp import control
from wgmp.addresses import format_endpoint
from wgmp.agent import api, settings_file, uapi_client
from wgmp.agent.leftovers import Ledger
from wgmp.agent.lifecycle import State
from wgmp.agent.network import Network
from wgmp.agent.server import ApiServer, RefusedError
from wgmp.agent.settings import NetworkSettings, Settings
from wgmp.errors import WgmpError
from wgmp.manage.runner import Runner
from wgmp.systemd import NOBODY, Manager

log = logging.getLogger("wgmp")


class Agent:
    """Runs the networks of `settings`, which were read from `file`, until told to stop.

    `manager`: the service manager, which is told when the control socket is served. Raises
    SocketError when another agent has the control socket.
    """

    def __init__(
        self, file: Path, settings: Settings, runner: Runner, manager: Manager = NOBODY
    ) -> None:
        self._file = file
        self._settings = settings
        self._run = runner
        self._manager = manager
        self._networks: dict[str, Network] = {}
        self._stopping = asyncio.Event()
        self._link_turn = asyncio.Lock()
        self._reload_turn = asyncio.Lock()
        socket = Path(settings.agent.control_socket)
        self._server = ApiServer(socket, self._answer)
        self._ledger = Ledger(socket.with_name("networks.json"))
        self._reloading: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Run until told to stop; everything is undone on every way out."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload_by_signal)
        try:
            async with self._reload_turn:  # SIGHUP may come already
                await self._ledger.clear(self._run)
                for name, settings in self._settings.networks.items():
                    self._add(name, settings)
            await self._server.start()
            log.info("the agent runs %d networks of %s", len(self._networks), self._file)
            self._manager.ready(f"{len(self._networks)} networks")
            enabled = [each for each in self._networks.values() if each.settings.enable_wireguard]
            starts = asyncio.create_task(_all(each.connect() for each in enabled))
            await self._stopping.wait()
            self._manager.stopping()
            await self._close_all()
            await starts
            async with self._reload_turn:
                await self._close_all()  # what a reload has added meanwhile
        finally:
            self._server.stop()
            log.info("the agent is down")

    def stop(self) -> None:
        """Begin the end."""
        self._stopping.set()

    async def _close_all(self) -> None:
        await _all(network.close() for network in self._networks.values())

    def _add(self, name: str, settings: NetworkSettings) -> Network:
        agent = self._settings.agent
        network = Network(
            name, settings, agent, self._run, self._ledger, self._link_turn, self._server.publish
        )
        self._networks[name] = network
        return network

    # --- what is asked ---

    async def _answer(self, request: api.Request) -> Any:
        if self._stopping.is_set():
            raise _refused("failed", "the agent is being stopped")
        match request:
            case api.Connect(network=name):
                network = self._named(name)
                await network.connect()
                return _summary(network)
            case api.Disconnect(network=name):
                network = self._named(name)
                await network.disconnect()
                return _summary(network)
            case api.Status(network=name):
                return await _status(self._named(name))
            case api.Stats(network=name):
                interface = self._running(name).settings.interface
                return await asyncio.to_thread(control.ask_stats, interface)
            case api.AddPeer(network=name, peer=table):
                return await self._add_peer(self._running(name), table)
            case api.RemovePeer(network=name, peer=peer):
                return await self._remove_peer(self._running(name), peer)
            case api.Reload(network=only):
                return await self.reload(only)
            case api.List() | api.Subscribe():
                return api.Listing(networks=[_summary(each) for each in self._networks.values()])
            case api.Stop():
                asyncio.get_running_loop().call_soon(self.stop)
                return {}
            case _:
                assert_never(request)

    def _named(self, name: str) -> Network:
        network = self._networks.get(name)
        if network is None:
            known = ", ".join(self._networks) or "none"
            raise _refused("no_such_network", f"there is no network {name}; there are: {known}")
        return network

    def _running(self, name: str) -> Network:
        network = self._named(name)
        if network.state is not State.RUNNING:
            raise _refused("not_running", f"{name} is {network.state}: connect it first")
        return network

    async def _add_peer(self, network: Network, table: dict[str, Any]) -> api.Summary:
        try:
            peer = settings_file.peer_from(table)
        except settings_file.Misplaced as error:
            raise _refused("malformed", f"peer: {error}") from None

        def revise(settings: NetworkSettings) -> NetworkSettings:
            others = [each for each in settings.peers if each.public_key != peer.public_key]
            if peer.name and any(peer.name == other.name for other in others):
                raise _refused("failed", f"another peer of {network.name} is called {peer.name}")
            return msgspec.structs.replace(settings, peers=(*others, peer))

        await network.change(revise)
        return _summary(network)

    async def _remove_peer(self, network: Network, name_or_key: str) -> api.Summary:
        def revise(settings: NetworkSettings) -> NetworkSettings:
            peer = settings.peer(name_or_key)
            if peer is None:
                raise _refused("failed", f"{network.name} has no peer {name_or_key}")
            others = tuple(other for other in settings.peers if other is not peer)
            return msgspec.structs.replace(settings, peers=others)

        await network.change(revise)
        return _summary(network)

    # --- reload ---

    def _reload_by_signal(self) -> None:
        async def work() -> None:
            try:
                if not self._stopping.is_set():
                    await self.reload(None)
            except WgmpError as error:
                log.error("not reloaded: %s", error)

        self._reloading = asyncio.create_task(work())

    async def reload(self, only: str | None) -> api.Reloaded:
        """Make all networks, or only one, what the file says now; running sessions go on.

        A network that fails holds up no other. Raises ConfigError when the file is wrong:
        then nothing changes.
        """
        async with self._reload_turn:
            new = settings_file.load_again(self._file)
            if new.agent != self._settings.agent:
                log.warning("the [agent] settings take effect when the agent is started again")
            if only is not None and only not in new.networks:
                self._named(only)
            names = set(new.networks) | set(self._networks) if only is None else {only}
            done = api.Reloaded()
            for name in [name for name in self._networks if name in names]:
                if name not in new.networks:
                    await self._networks.pop(name).close()
                    done.removed.append(name)
            wanted = {name: new.networks[name] for name in new.networks if name in names}
            stopped = await self._make_way(wanted)
            await _all(
                self._reload_one(name, wanted[name], name in stopped, done) for name in wanted
            )
            log.info("reloaded: %s", msgspec.json.encode(done).decode())
            return done

    async def _make_way(self, wanted: dict[str, NetworkSettings]) -> set[str]:
        """Let all let go of what they do not keep; return those to be started again."""
        here = [name for name in wanted if name in self._networks]
        ports = {settings.listen_port for settings in wanted.values()} - {0}
        made = await asyncio.gather(
            *(self._networks[name].make_way(wanted[name], ports) for name in here)
        )
        return {name for name, moves in zip(here, made, strict=True) if moves}

    async def _reload_one(
        self, name: str, settings: NetworkSettings, stopped: bool, done: api.Reloaded
    ) -> None:
        network = self._networks.get(name)
        try:
            if network is None:
                done.added.append(name)
                network = self._add(name, settings)
                if settings.enable_wireguard:
                    await network.connect()
                return
            was_enabled = network.settings.enable_wireguard
            same = network.settings == settings
            (done.unchanged if same else done.changed).append(name)
            await network.change(lambda _: settings)
            newly = settings.enable_wireguard and not was_enabled
            failed = settings.enable_wireguard and network.state is State.FAILED
            if was_enabled and not settings.enable_wireguard:
                await network.disconnect()
            elif newly or failed or stopped:
                await network.connect()
        except WgmpError as error:
            done.failed[name] = str(error)


async def _all(works: Iterable[Awaitable[None]]) -> None:
    """Do all at once; those that fail have told and stay with their failure."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, WgmpError):
            log.error("this should not happen", exc_info=outcome)


def _refused(code: api.Code, message: str) -> RefusedError:
    return RefusedError(api.Refusal(code=code, message=message))


def _summary(network: Network) -> api.Summary:
    return api.Summary(
        name=network.name,
        interface=network.settings.interface,
        state=network.state,
        reason=network.reason,
        changed_at=network.changed_at,
        enabled=network.settings.enable_wireguard,
    )


async def _status(network: Network) -> api.NetworkStatus:
    settings, gateway = network.settings, network.gateway
    device = uapi_client.DeviceView()
    if gateway is not None:
        device = await uapi_client.get(settings.interface)
    names = {str(peer.public_key): peer.name for peer in settings.peers}
    now = time.time()
    return api.NetworkStatus(
        summary=_summary(network),
        public_key=network.public_key,
        listen_port=device.listen_port,
        gateway_pid=0 if gateway is None else gateway.pid,
        addresses=list(map(str, settings.addresses)),
        peers=[
            api.PeerStatus(
                name=names.get(key, ""),
                public_key=key,
                endpoint="" if peer.endpoint is None else format_endpoint(peer.endpoint),
                allowed_ips=peer.allowed_ips,
                handshake_age_s=now - peer.handshake_at if peer.handshake_at else None,
                rx_bytes=peer.rx_bytes,
                tx_bytes=peer.tx_bytes,
            )
            for key, peer in device.peers.items()
        ],
    )
