"""The cross-platform configuration protocol: what `wg` says to a device, and the answers.

The grammar alone, without sockets (uapi_server.py has those) and without what the keys mean
(uapi_keys.py):

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
from collections.abc import Callable, Iterable, Iterator

from wgmp.addresses import format_endpoint, format_prefix
from wgmp.device import Device, DeviceFullError
from wgmp.keys import to_hex
from wgmp.peerentry import PeerEntry
from wgmp.peertable import RowFigures
from wgmp.uapi_keys import Stanza, UapiError, key_of, take_device_line, take_peer_line

# A line longer than Go's bufio.MaxScanTokenSize is EIO in wireguard-go.
LINE_BYTES_MAX = 64 * 1024

_NANOSECONDS = 1_000_000_000

_log = logging.getLogger(__name__)

StatusSource = Callable[[int], RowFigures]
"""Answers a peer id with what has become of the peer: `PeerTable.figures`."""


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
    stanza: Stanza | None = None
    number = 0
    try:
        for number, line in enumerate(lines, 1):  # noqa: B007 (the except clause reads it)
            if stanza is not None and line not in _LINES_THAT_MAKE_NO_PEER:
                stanza.settle()
            if not line:
                continue
            key, value = _cut(line)
            if key == b"public_key":
                stanza = Stanza(device, key_of(value))
            elif stanza is None:
                take_device_line(device, key, value)
            else:
                take_peer_line(stanza, key, value)
        if stanza is not None:
            stanza.settle()
    except (UapiError, DeviceFullError) as error:
        raise UapiError(error.errno, f"line {number}: {error}") from None
    except OSError as error:
        code = error.errno or errno.EIO
        raise UapiError(code, f"line {number}: {os.strerror(code)}") from None


# A peer that is only named to be removed, or if it exists, is not made first.
_LINES_THAT_MAKE_NO_PEER = frozenset((b"remove=true", b"update_only=true"))


def _cut(line: bytes) -> tuple[bytes, bytes]:
    if len(line) >= LINE_BYTES_MAX:
        raise UapiError(errno.EIO, f"longer than {LINE_BYTES_MAX} bytes")
    key, equals, value = line.partition(b"=")
    if not equals:
        raise UapiError(errno.EPROTO, "not key=value")
    return key, value


def _describe(device: Device, status: StatusSource) -> Iterator[str]:
    if device.private_key:
        yield f"private_key={to_hex(device.private_key)}\n"
    if device.listen_port:
        yield f"listen_port={device.listen_port}\n"
    if device.fwmark:
        yield f"fwmark={device.fwmark}\n"
    for entry in device.peers.values():
        yield from _describe_peer(entry, status(entry.peer))


def _describe_peer(entry: PeerEntry, figures: RowFigures) -> Iterator[str]:
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
