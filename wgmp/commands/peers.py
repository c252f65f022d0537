"""`wgmp add-peer` and `wgmp qr`: from nothing to a telephone that is connected."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wgmp.config_grammar import KEEPALIVE_MAX
from wgmp.errors import ConfigError, WgmpError
from wgmp.files import read_text

if TYPE_CHECKING:
    from wgmp.newpeer import Client, NewPeer, Server

_EPILOG = """\
wgmp add-peer wg0 --config /etc/wireguard/wg0.conf --endpoint vpn.example.org --name phone

The peer's configuration goes to standard output, on a terminal with its QR code.
Without --config a running gateway forgets the peer when it ends.
"""


def add_to(commands: Any) -> None:
    """Add the subcommands to the parser's `commands` (what `add_subparsers` returned)."""
    peer = commands.add_parser(
        "add-peer",
        help="make a new peer: keys, address, both configurations, QR code",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    peer.add_argument(
        "interface", metavar="IFACE", nargs="?", help="a running gateway to add it to"
    )
    peer.add_argument("--config", metavar="FILE", help="the gateway's configuration, to add it to")
    peer.add_argument("--name", metavar="NAME", default="", help="whose it is, for `wgmp status`")
    peer.add_argument(
        "--endpoint", metavar="HOST[:PORT]", help="where the peer reaches the gateway"
    )
    peer.add_argument(
        "--routes", metavar="PREFIX,...", help="what the peer sends through the tunnel: all"
    )
    peer.add_argument("--dns", metavar="ADDRESS,...", default="", help="the peer's resolvers")
    peer.add_argument("--keepalive", metavar="S", type=int, default=25, help="25; 0 is off")
    peer.add_argument("--public-key", metavar="KEY", default="", help="the peer's, if it has one")
    peer.add_argument("--no-psk", action="store_true", help="without a preshared key")
    peer.add_argument("--no-qr", action="store_true", help="without a QR code")
    peer.set_defaults(command=_add_peer)

    qr = commands.add_parser("qr", help="a peer's configuration as a QR code")
    qr.add_argument("file", metavar="FILE", help="the configuration; - reads standard input")
    qr.add_argument("-o", dest="image", metavar="FILE", help="write an .svg or .png file instead")
    qr.set_defaults(command=_qr)


def _add_peer(parsed: argparse.Namespace) -> int:
    from wgmp import config, control, newpeer  # psutil takes a while to import
    from wgmp.keys import KeyFormatError, from_base64

    path = None if parsed.config is None else Path(parsed.config)
    interface = parsed.interface
    if interface is None and path is None:
        interface = control.choose_interface(None)
    if parsed.public_key:
        try:
            from_base64(parsed.public_key)
        except KeyFormatError:
            raise ConfigError(
                "--public-key: this is no key: write what `wgmp pubkey` prints"
            ) from None
    if "\n" in parsed.name:
        raise ConfigError("--name: write one line")
    with newpeer.one_at_a_time(path):
        server = _server(interface, path)
        client = _client(server, parsed)
        peer = newpeer.make(server, parsed.name, parsed.public_key, not parsed.no_psk)
        text = newpeer.client_config(server, peer, client)
        config.parse(text, "the peer's configuration")
        _add(interface, path, peer)
    where = " and ".join(str(place) for place in (interface, path) if place)
    print(
        f"{peer.public_key} has {', '.join(map(str, peer.addresses))} on {where}", file=sys.stderr
    )
    sys.stdout.write(text)
    if sys.stdout.isatty() and not parsed.no_qr and peer.private_key:
        _show(text)
    return 0


def _server(interface: str | None, path: Path | None) -> Server:
    from wgmp import newpeer

    if interface is None:
        assert path is not None
        return newpeer.of_file(path)
    live = newpeer.of_gateway(interface)
    return live if path is None else newpeer.merged(live, newpeer.of_file(path))


def _client(server: Server, parsed: argparse.Namespace) -> Client:
    from wgmp import localaddress
    from wgmp.newpeer import Client

    if not 0 <= parsed.keepalive <= KEEPALIVE_MAX:
        raise ConfigError(f"--keepalive: write 0 to {KEEPALIVE_MAX} seconds")
    endpoint: str = parsed.endpoint or localaddress.public()
    if not endpoint:
        raise ConfigError("this host has no address to guess: write --endpoint HOST[:PORT]")
    if parsed.endpoint is None:
        print(f"--endpoint not given: guessing {endpoint}", file=sys.stderr)
    has_port = ":" in endpoint.rpartition("]")[2] if "[" in endpoint else endpoint.count(":") == 1
    if not has_port:
        if not server.listen_port:
            raise ConfigError(
                f"{server.name} has no ListenPort, so peers cannot find it: write one there, "
                "or --endpoint HOST:PORT"
            )
        host = f"[{endpoint}]" if endpoint.count(":") > 1 and "[" not in endpoint else endpoint
        endpoint = f"{host}:{server.listen_port}"
    given = {"routes": parsed.routes} if parsed.routes else {}
    return Client(endpoint=endpoint, dns=parsed.dns, keepalive=parsed.keepalive, **given)


def _add(interface: str | None, path: Path | None, peer: NewPeer) -> None:
    """Add the peer to both places, or to none."""
    from wgmp import newpeer

    if interface is not None:
        newpeer.add_to_gateway(interface, peer)
    if path is None:
        return
    try:
        newpeer.add_to_file(path, peer)
    except WgmpError:
        if interface is not None:
            newpeer.remove_from_gateway(interface, peer)
        raise


def _qr(parsed: argparse.Namespace) -> int:
    from wgmp import config

    text = _read(parsed.file)
    config.parse(text, parsed.file)
    if parsed.image is None:
        _show(text)
    else:
        _draw(text, parsed.image)
    return 0


def _read(file: str) -> str:
    """Return what a file or standard input ("-") holds. Read once: it may be a pipe."""
    try:
        if file != "-":
            return read_text(Path(file), piped=True)
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise ConfigError("is not UTF-8 text", file) from None


def _make(text: str) -> Any:
    import segno  # takes a while to import

    # Comments are for people who read the file.
    lines = (line.partition("#")[0].strip() for line in text.split("\n"))
    try:
        return segno.make("\n".join(line for line in lines if line), error="l", micro=False)
    except segno.DataOverflowError:
        raise ConfigError("this is too long for a QR code: 2953 bytes are the most") from None


def _show(text: str) -> None:
    """Print the QR code with half blocks."""
    _make(text).terminal(out=sys.stdout, compact=True)


def _draw(text: str, image: str) -> None:
    """Write the QR code to a file that only its owner may read."""
    kind = Path(image).suffix.removeprefix(".").lower()
    if kind not in ("svg", "png"):
        raise ConfigError(f"{image}: write a name that ends in .svg or .png")
    try:
        descriptor = os.open(image, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "wb") as file:
            _make(text).save(file, kind=kind, scale=8)
    except OSError as error:
        raise ConfigError(f"{image} cannot be written: {error.strerror}") from error
