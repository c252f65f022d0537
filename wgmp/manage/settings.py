"""What an interface is to be beside its peers: addresses, MTU, routes, resolver, hooks."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from wgmp.config import QuickConfig
from wgmp.config_grammar import Address, DnsEntry
from wgmp.protocol.allowedips import Prefix
from wgmp.protocol.outcome import Endpoint


class Hooks(msgspec.Struct, frozen=True, kw_only=True):
    """Shell commands in the order they run; `%i` in them is the interface. For bash."""

    pre_up: tuple[str, ...] = ()
    post_up: tuple[str, ...] = ()
    pre_down: tuple[str, ...] = ()
    post_down: tuple[str, ...] = ()

    def named(self) -> list[str]:
        """Return the names, as in a wg-quick file, of the hooks there are."""
        names = {
            "PreUp": self.pre_up,
            "PostUp": self.post_up,
            "PreDown": self.pre_down,
            "PostDown": self.post_down,
        }
        return [name for name, commands in names.items() if commands]


class LinkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What `link.bring_up` makes of an interface.

    `mtu`: bytes; None goes by the routes to the `endpoints`, which matter for nothing else.
    `table`: "off" (no routes), "auto", or a routing table's number or name. `dns`: servers as
    addresses, search domains as text. `fwmark`: the mark of the device's datagrams, 0 for none
    (then a default route chooses one). `allowed_ips`: of all peers. `run_hooks`: without it the
    hooks are left alone.
    """

    addresses: tuple[Address, ...] = ()
    mtu: int | None = None
    table: str = "auto"
    dns: tuple[DnsEntry, ...] = ()
    fwmark: int = 0
    allowed_ips: tuple[Prefix, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    hooks: Hooks = Hooks()
    run_hooks: bool = False


def settings_of(
    config: QuickConfig, endpoints: Iterable[Endpoint] = (), run_hooks: bool = False
) -> LinkSettings:
    """Return the settings in a wg-quick file; `endpoints`: its peers', resolved."""
    interface = config.interface
    return LinkSettings(
        addresses=interface.addresses,
        mtu=interface.mtu,
        table=interface.table,
        dns=interface.dns,
        fwmark=interface.fwmark,
        allowed_ips=tuple(prefix for peer in config.peers for prefix in peer.allowed_ips),
        endpoints=tuple(endpoints),
        hooks=Hooks(
            pre_up=interface.pre_up,
            post_up=interface.post_up,
            pre_down=interface.pre_down,
            post_down=interface.post_down,
        ),
        run_hooks=run_hooks,
    )
