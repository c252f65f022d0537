"""What an interface is to be beside its peers: addresses, MTU, routes, resolver, hooks."""

from __future__ import annotations

import msgspec

from wgmp.config import Hooks, QuickConfig
from wgmp.config_grammar import Address, DnsEntry
from wgmp.protocol.allowedips import Prefix
from wgmp.protocol.outcome import Endpoint


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


def settings_of(config: QuickConfig, run_hooks: bool = False) -> LinkSettings:
    """Return the settings in a wg-quick file, without endpoints: those must be resolved first."""
    interface = config.interface
    return LinkSettings(
        addresses=interface.addresses,
        mtu=interface.mtu,
        table=interface.table,
        dns=interface.dns,
        fwmark=interface.fwmark,
        allowed_ips=tuple(prefix for peer in config.peers for prefix in peer.allowed_ips),
        hooks=interface.hooks,
        run_hooks=run_hooks,
    )
