"""The cross-platform configuration protocol: what `wg` says to a device, and the answers.

The grammar alone, without sockets (uapi_server.py has those):

    get=1\\n \\n                         -> key=value lines, errno=0, empty line
    set=1\\n device lines, peer lines \\n -> errno=0 or errno=-N, empty line

A set is a list of lines. The device's come first; each `public_key` opens a peer, to which the
lines up to the next one belong. The first line that fails ends the operation, and the lines
before it stand. Source: https://www.wireguard.com/xplatform/ and wireguard-go device/uapi.go,
whose answers these are, with two differences: when a port or a mark cannot be had the errno is
the kernel's own and the old one stays, and a full peer table is ENOSPC. The number is negative
because `wg` negates it (wireguard-tools src/ipc-uapi.h).

Errors and logs give the line's number and the reason, never its text: that may hold a key.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from wgmp.addresses import format_endpoint, format_prefix, parse_endpoint, parse_prefix
from wgmp.device import Device, DeviceFullError, PeerEntry
from wgmp.errors import WgmpError
from wgmp.keys import KeyFormatError, from_hex, to_hex
from wgmp.peertable import PeerFigures
from wgmp.protocol.allowedips import Prefix

# A line longer than Go's bufio.MaxScanTokenSize is EIO in wireguard-go.
LINE_BYTES_MAX = 64 * 1024

_NANOSECONDS = 1_000_000_000

_Setter = TypeVar("_Setter")

_log = logging.getLogger(__name__)

StatusSource = Callable[[int], PeerFigures]
"""Answers a peer id with what has become of the peer: `PeerTable.figures`."""


class UapiError(WgmpError):
    """A line that cannot be taken. `errno`: positive; the answer carries it negated."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message, code)


def reply(code: int) -> bytes:
    """Return the end of an answer; `code`: 0, or a positive errno."""
    return b"errno=%d\n\n" % -code


def answer_set(device: Device, body: bytes) -> bytes:
    """Apply the lines of a set operation and return the answer. Never raises.

    `body`: all that is between `set=1` and the empty line.
    """
    try:
        apply_set(device, body.split(b"\n"))
    except UapiError as error:
        _log.error("UAPI: set: %s", error)
        return reply(error.errno)
    return reply(0)


def answer_get(device: Device, status: StatusSource) -> bytes:
    """Return the answer to a get operation: device lines, peer lines, errno=0."""
    return "".join(_describe(device, status)).encode("ascii") + reply(0)


def apply_set(device: Device, lines: Iterable[bytes]) -> None:
    """Apply the lines of a set operation, in order.

    Raises UapiError at the first that fails; the lines before it have taken effect.
    """
    stanza: _Stanza | None = None
    number = 0
    try:
        for number, line in enumerate(lines, 1):  # noqa: B007 (the except clause reads it)
            if stanza is not None and line not in _LINES_THAT_MAKE_NO_PEER:
                stanza.settle()
            if not line:
                continue
            key, value = _cut(line)
            if key == b"public_key":
                stanza = _Stanza(device, _key(value))
            elif stanza is None:
                _setter(_DEVICE_KEYS, key)(device, value)
            else:
                _setter(_PEER_KEYS, key)(stanza, value)
        if stanza is not None:
            stanza.settle()
    except (UapiError, DeviceFullError) as error:
        raise UapiError(error.errno, f"line {number}: {error}") from None
    except OSError as error:
        code = error.errno or errno.EIO
        raise UapiError(code, f"line {number}: {os.strerror(code)}") from None


class _Stanza:
    """The peer that the lines are about: found, to be made by the next line, or ignored."""

    __slots__ = ("created", "device", "entry", "missing")

    def __init__(self, device: Device, public_key: bytes) -> None:
        self.device = device
        self.entry = device.peers.get(public_key)
        self.missing: bytes | None = public_key if self.entry is None else None
        self.created = False

    def settle(self) -> None:
        """Make the peer if it is missing; leave it None when it is ourselves."""
        if self.missing is not None:
            self.entry = self.device.add_peer(self.missing)
            self.created = self.entry is not None
            self.missing = None

    def forget(self) -> None:
        """Remove the peer; the stanza's other lines are checked and ignored."""
        if self.entry is not None:
            self.device.remove_peer(self.entry)
        self.entry = self.missing = None


# A peer that is only named to be removed, or if it exists, is not made first.
_LINES_THAT_MAKE_NO_PEER = frozenset((b"remove=true", b"update_only=true"))


def _cut(line: bytes) -> tuple[bytes, bytes]:
    if len(line) >= LINE_BYTES_MAX:
        raise UapiError(errno.EIO, f"longer than {LINE_BYTES_MAX} bytes")
    key, equals, value = line.partition(b"=")
    if not equals:
        raise UapiError(errno.EPROTO, "not key=value")
    return key, value


def _setter(setters: Mapping[bytes, _Setter], key: bytes) -> _Setter:
    setter = setters.get(key)
    if setter is None:
        raise _invalid("no such key")
    return setter


def _invalid(message: str) -> UapiError:
    return UapiError(errno.EINVAL, message)


# Values


def _key(value: bytes) -> bytes:
    try:
        return from_hex(value)
    except KeyFormatError:
        raise _invalid("not a key of 64 hex digits") from None


def _number(value: bytes, largest: int) -> int:
    # bytes.isdigit knows ASCII digits only; 20 of them hold any u64.
    if not value.isdigit() or len(value) > 20 or int(value) > largest:
        raise _invalid(f"not a number of 0 to {largest}")
    return int(value)


def _require(value: bytes, only: bytes) -> None:
    if value != only:
        raise _invalid(f"only {only.decode()} is allowed here")


def _prefix(value: bytes) -> Prefix:
    if b"/" not in value:
        raise _invalid("no prefix length")
    try:
        return parse_prefix(value.decode("latin-1"))
    except ValueError as error:
        raise _invalid(f"the value {error}") from None


# Keys of the device


def _private_key(device: Device, value: bytes) -> None:
    device.set_private_key(_key(value))


def _listen_port(device: Device, value: bytes) -> None:
    device.set_listen_port(_number(value, 0xFFFF))


def _fwmark(device: Device, value: bytes) -> None:
    device.set_fwmark(_number(value, 0xFFFF_FFFF))


def _replace_peers(device: Device, value: bytes) -> None:
    _require(value, b"true")
    device.replace_peers()


# Keys of a peer; `stanza.entry` is None when the lines are to be checked only.


def _remove(stanza: _Stanza, value: bytes) -> None:
    _require(value, b"true")
    stanza.forget()


def _update_only(stanza: _Stanza, value: bytes) -> None:
    _require(value, b"true")
    if stanza.created or stanza.missing is not None:
        stanza.forget()


def _preshared_key(stanza: _Stanza, value: bytes) -> None:
    key = _key(value)
    if stanza.entry is not None:
        stanza.device.set_preshared_key(stanza.entry, key)


def _endpoint(stanza: _Stanza, value: bytes) -> None:
    try:
        endpoint = parse_endpoint(value.decode("latin-1"))
    except ValueError as error:
        raise _invalid(f"the value {error}") from None
    if stanza.entry is not None:
        stanza.device.set_endpoint(stanza.entry, endpoint)


def _keepalive(stanza: _Stanza, value: bytes) -> None:
    seconds = _number(value, 0xFFFF)
    if stanza.entry is not None:
        stanza.device.set_keepalive(stanza.entry, seconds)


def _replace_allowed_ips(stanza: _Stanza, value: bytes) -> None:
    _require(value, b"true")
    if stanza.entry is not None:
        stanza.device.replace_allowed_ips(stanza.entry)


def _allowed_ip(stanza: _Stanza, value: bytes) -> None:
    removal = value.startswith(b"-")
    prefix = _prefix(value[1:] if removal else value)
    if stanza.entry is None:
        return
    if removal:
        stanza.device.remove_allowed_ip(stanza.entry, prefix)
    else:
        stanza.device.add_allowed_ip(stanza.entry, prefix)


def _protocol_version(stanza: _Stanza, value: bytes) -> None:
    _require(value, b"1")


_DEVICE_KEYS: Mapping[bytes, Callable[[Device, bytes], None]] = {
    b"private_key": _private_key,
    b"listen_port": _listen_port,
    b"fwmark": _fwmark,
    b"replace_peers": _replace_peers,
}

_PEER_KEYS: Mapping[bytes, Callable[[_Stanza, bytes], None]] = {
    b"remove": _remove,
    b"update_only": _update_only,
    b"preshared_key": _preshared_key,
    b"endpoint": _endpoint,
    b"persistent_keepalive_interval": _keepalive,
    b"replace_allowed_ips": _replace_allowed_ips,
    b"allowed_ip": _allowed_ip,
    b"protocol_version": _protocol_version,
}


# Get


def _describe(device: Device, status: StatusSource) -> Iterator[str]:
    if device.private_key:
        yield f"private_key={to_hex(device.private_key)}\n"
    if device.listen_port:
        yield f"listen_port={device.listen_port}\n"
    if device.fwmark:
        yield f"fwmark={device.fwmark}\n"
    for entry in device.peers.values():
        yield from _describe_peer(entry, status(entry.peer))


def _describe_peer(entry: PeerEntry, figures: PeerFigures) -> Iterator[str]:
    endpoint = figures.endpoint or entry.endpoint
    seconds, nanoseconds = divmod(figures.last_handshake_ns, _NANOSECONDS)
    yield (
        f"public_key={to_hex(entry.public_key)}\n"
        f"preshared_key={to_hex(entry.preshared_key)}\n"
        "protocol_version=1\n"
    )
    if endpoint is not None:
        yield f"endpoint={format_endpoint(endpoint)}\n"
    yield (
        f"last_handshake_time_sec={seconds}\n"
        f"last_handshake_time_nsec={nanoseconds}\n"
        f"tx_bytes={figures.tx_bytes}\n"
        f"rx_bytes={figures.rx_bytes}\n"
        f"persistent_keepalive_interval={entry.keepalive}\n"
    )
    for prefix in entry.allowed_ips:
        yield f"allowed_ip={format_prefix(prefix)}\n"
