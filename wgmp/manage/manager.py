"""The network manager: one WireGuard interface, whatever system makes it.

```python
manager = NetworkManager()              # or NetworkManager("kernel")
await manager.initialize()
await manager.add_peer("PUBLIC_KEY=", allowed_ips=["10.66.0.2/32"])
print(await manager.measure_latency("10.66.0.2"))
await manager.cleanup()
```
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Literal

from msgspec import structs

from wgmp import keys
from wgmp.addresses import format_address
from wgmp.config import InterfaceConfig, PeerConfig, QuickConfig
from wgmp.config_grammar import INTERFACE_KEYS, PEER_KEYS
from wgmp.errors import CommandError, ConfigError, ControlError
from wgmp.manage import latency
from wgmp.manage.backend import (
    Backend,
    InterfaceStatus,
    read_dump,
    with_peer,
    without_peer,
)
from wgmp.manage.linux import KernelBackend, WgmpBackend
from wgmp.manage.macos import MacosBackend
from wgmp.manage.runner import Commands, Runner
from wgmp.manage.windows import WindowsBackend
from wgmp.options import check_interface_name
from wgmp.platforms import choose_backend

DEFAULT_INTERFACE = "wgmp0"
DEFAULT_ADDRESS = "10.66.0.1/16"
DEFAULT_PORT = 51820
DEFAULT_KEEPALIVE_S = 25


class IfExists(StrEnum):
    """What to do when the interface is there already.

    ADOPT: take it over, with its key and peers. REPLACE: delete it first. FAIL: leave it.
    """

    ADOPT = "adopt"
    REPLACE = "replace"
    FAIL = "fail"


class NetworkManager:
    """An interface of `backend`, with its peers.

    `backend`: "wgmp", "kernel" or "windows", "" for the system's default. Texts are as in a
    wg-quick file; a key that is not given is made. `run`: runs `ping`; `system`: `sys.platform`
    there. Raises ConfigError for what is no address, key or name, and UnsupportedPlatformError
    for a back end that the system has not.
    """

    def __init__(
        self,
        backend: Backend | str = "",
        interface: str = DEFAULT_INTERFACE,
        *,
        addresses: Sequence[str] = (DEFAULT_ADDRESS,),
        listen_port: int = DEFAULT_PORT,
        private_key: str = "",
        mtu: int | None = None,
        if_exists: IfExists | str = IfExists.FAIL,
        run: Runner | None = None,
        system: str = sys.platform,
    ) -> None:
        self.interface = check_interface_name(interface)
        self._backend = _backend(backend, system) if isinstance(backend, str) else backend
        self._if_exists = _if_exists(if_exists)
        self._run = run or Commands()
        self._system = system
        self._changing = asyncio.Lock()
        self._created = False
        settings = InterfaceConfig(
            private_key=_read("PrivateKey", private_key) or keys.generate_private_key(),
            listen_port=_read("ListenPort", str(listen_port)),
            addresses=_read("Address", ", ".join(addresses)) or (),
            mtu=None if mtu is None else _read("MTU", str(mtu)),
        )
        self._config = QuickConfig(f"{interface}.conf", settings, ())

    @property
    def public_key(self) -> str:
        """The interface's public key, for its peers."""
        return keys.to_base64(keys.public_key_of(self._config.interface.private_key))

    async def initialize(self) -> None:
        """Make the interface and bring it up; a second time nothing happens.

        Raises ControlError when it exists and must not be touched, CommandError,
        UnsupportedPlatformError.
        """
        async with self._changing:
            if self._created:
                return
            if await self._backend.exists(self.interface):
                if self._if_exists is IfExists.FAIL:
                    raise ControlError(
                        f"interface {self.interface} exists: adopt or replace it, or choose "
                        "another name"
                    )
                if self._if_exists is IfExists.ADOPT:
                    self._config = await self._backend.adopt(self.interface, self._config)
                    self._created = True
                    return
                await self._backend.delete(self.interface)
            await self._backend.create(self.interface, self._config)
            self._created = True

    async def add_peer(
        self,
        public_key: str,
        *,
        allowed_ips: Sequence[str],
        endpoint: str = "",
        preshared_key: str = "",
        keepalive_s: int = DEFAULT_KEEPALIVE_S,
    ) -> None:
        """Add a peer, or change the one of this key. `keepalive_s`: 0 is off.

        Allowed IPs get routes, but 0.0.0.0/0 and ::/0: a default route is left to wg-quick.
        Raises ConfigError for what is no key, prefix or endpoint; CommandError; ControlError
        before `initialize`.
        """
        peer = PeerConfig(
            public_key=_peer_key(public_key),
            preshared_key=_read("PresharedKey", preshared_key),
            endpoint=_read("Endpoint", endpoint) or "",
            allowed_ips=_read("AllowedIPs", ", ".join(allowed_ips)) or (),
            keepalive=_read("PersistentKeepalive", str(keepalive_s)),
        )
        async with self._changing:
            self._refuse_before_initialize()
            await self._backend.set_peer(self.interface, self._config, peer)
            self._config = with_peer(self._config, peer)

    async def remove_peer(self, public_key: str) -> None:
        """Remove a peer. Raises ControlError when there is none of this key, CommandError."""
        async with self._changing:
            self._refuse_before_initialize()
            peer = self._peer(public_key)
            if peer is None:
                raise ControlError(f"{self.interface} has no peer {public_key}")
            await self._backend.remove_peer(self.interface, self._config, peer)
            self._config = without_peer(self._config, peer.public_key)

    async def measure_latency(self, target: str) -> float | None:
        """Return the milliseconds a ping through the tunnel takes, None when none comes back.

        `target`: an address, or a peer's public key, whose first single address is asked.
        Raises ConfigError for what is neither, CommandError when there is no `ping`.
        """
        peer = self._peer(target) if len(target) == keys.BASE64_CHARACTERS else None
        if peer is not None:
            single = (a for a, length in peer.allowed_ips if length == 8 * len(a))
            address = next(single, None)
            if address is None:
                raise ConfigError(f"{target} has no allowed IP of one address: name an address")
            target = format_address(address)
        return await latency.measure(target, self._run, self._system)

    async def get_interface_status(self) -> InterfaceStatus:
        """Return how the interface is; what goes wrong on the way is its state "error"."""
        detail = ""
        try:
            if not await self._backend.exists(self.interface):
                return self._status_without_device("not_created")
            detail = await self._backend.trouble(self.interface)
            status = read_dump(
                self.interface, self._backend.name, await self._backend.dump(self.interface)
            )
        except CommandError as error:
            return self._status_without_device("error", str(error))
        return structs.replace(status, state="error", detail=detail) if detail else status

    async def cleanup(self) -> None:
        """Remove the interface, made or adopted, and all that was made for it.

        Without `initialize` nothing happens. Raises CommandError.
        """
        async with self._changing:
            if self._created:
                await self._backend.delete(self.interface)
            self._created = False

    def _refuse_before_initialize(self) -> None:
        if not self._created:
            raise ControlError(f"{self.interface} is not there yet: call initialize() first")

    def _peer(self, public_key: str) -> PeerConfig | None:
        key = _peer_key(public_key)
        return next((peer for peer in self._config.peers if peer.public_key == key), None)

    def _status_without_device(
        self, state: Literal["not_created", "error"], detail: str = ""
    ) -> InterfaceStatus:
        return InterfaceStatus(
            state=state, interface=self.interface, backend=self._backend.name, detail=detail
        )


def _backend(name: str, system: str) -> Backend:
    match choose_backend(name, system):
        case "windows":
            return WindowsBackend()
        case "kernel":
            return KernelBackend()
        case _ if system == "darwin":
            return MacosBackend()
        case _:
            return WgmpBackend()


def _if_exists(value: str) -> IfExists:
    try:
        return IfExists(value)
    except ValueError:
        raise ConfigError(f"if_exists: {value!r} is not possible: {', '.join(IfExists)}") from None


def _peer_key(text: str) -> bytes:
    key: bytes | None = _read("PublicKey", text)
    if key is None:
        raise ConfigError("PublicKey: write the 44 characters `wg pubkey` prints")
    return key


def _read(spelling: str, text: str) -> Any:
    """Return the value that a line of a wg-quick file would have, None for an empty text."""
    key = (INTERFACE_KEYS | PEER_KEYS)[spelling.lower()]
    try:
        return key.read(text.strip()) if text.strip() else None
    except ValueError as error:
        raise ConfigError(f"{spelling}: {error}") from None
