"""Keys and peers of an interface, set by `wg`: the same for every kind of interface it knows."""

from __future__ import annotations

from msgspec import structs

from wgmp import config as quick
from wgmp import keys
from wgmp.addresses import format_prefix
from wgmp.config import PeerConfig, QuickConfig
from wgmp.manage.runner import Runner


async def set_device(interface: str, config: QuickConfig, run: Runner) -> None:
    """Set port and private key. Raises CommandError."""
    settings = config.interface
    command = ("wg", "set", interface, "listen-port", str(settings.listen_port))
    key = keys.to_base64(settings.private_key)
    await run.run(*command, "private-key", "/dev/stdin", stdin=key)


async def set_peer(interface: str, peer: PeerConfig, run: Runner) -> None:
    """Add a peer, or change the one of its key. Raises CommandError."""
    command = ["wg", "set", interface, "peer", keys.to_base64(peer.public_key)]
    stdin = ""
    if peer.preshared_key is not None:
        command += ["preshared-key", "/dev/stdin"]
        stdin = keys.to_base64(peer.preshared_key)
    if peer.endpoint:
        command += ["endpoint", peer.endpoint]
    if peer.keepalive is not None:
        command += ["persistent-keepalive", str(peer.keepalive)]
    command += ["allowed-ips", ",".join(map(format_prefix, peer.allowed_ips))]
    await run.run(*command, stdin=stdin)


async def remove_peer(interface: str, peer: PeerConfig, run: Runner) -> None:
    """Remove a peer. Raises CommandError."""
    await run.run("wg", "set", interface, "peer", keys.to_base64(peer.public_key), "remove")


async def adopt_device(interface: str, config: QuickConfig, run: Runner) -> QuickConfig:
    """Return `config` with the key, port, mark and peers that the interface has.

    One without a key gets the one of `config`. Raises CommandError.
    """
    shown = await run.run("wg", "showconf", interface)
    there = quick.parse(shown.stdout, f"wg showconf {interface}")
    now = adopted(config, there)
    if not there.interface.private_key:
        await set_device(interface, now, run)
    return now


def adopted(config: QuickConfig, there: QuickConfig) -> QuickConfig:
    """Return `config` with the key, port, mark and peers of what is `there`."""
    interface = structs.replace(
        config.interface,
        private_key=there.interface.private_key or config.interface.private_key,
        listen_port=there.interface.listen_port,
        fwmark=there.interface.fwmark,
    )
    return QuickConfig(config.file, interface, there.peers)


async def dump(interface: str, run: Runner) -> str:
    """Return what `wg show INTERFACE dump` prints. Raises CommandError."""
    return (await run.run("wg", "show", interface, "dump")).stdout
