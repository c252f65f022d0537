"""What each key of a UAPI set operation does to the device (uapi.py has the grammar).

A value that is not possible is a UapiError, and so is a key that there is not.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import TypeVar

from wgmp.addresses import parse_endpoint, parse_prefix
from wgmp.device import Device
from wgmp.errors import WgmpError
from wgmp.keys import KeyFormatError, from_hex
from wgmp.protocol.allowedips import Prefix

_Setter = TypeVar("_Setter")


class UapiError(WgmpError):
    """A line that cannot be taken. `errno`: positive; the answer carries it negated."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message, code)


class Stanza:
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


def take_device_line(device: Device, key: bytes, value: bytes) -> None:
    """Take a line of the device. Raises UapiError, and OSError for a port or mark."""
    _setter(_DEVICE_KEYS, key)(device, value)


def take_peer_line(stanza: Stanza, key: bytes, value: bytes) -> None:
    """Take a line of the stanza's peer. Raises UapiError."""
    _setter(_PEER_KEYS, key)(stanza, value)


def _setter(setters: Mapping[bytes, _Setter], key: bytes) -> _Setter:
    setter = setters.get(key)
    if setter is None:
        raise _invalid("no such key")
    return setter


def _invalid(message: str) -> UapiError:
    return UapiError(errno.EINVAL, message)


# Values


def key_of(value: bytes) -> bytes:
    """Return the 32 bytes of a key in hex. Raises UapiError."""
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
    device.set_private_key(key_of(value))


def _listen_port(device: Device, value: bytes) -> None:
    device.set_listen_port(_number(value, 0xFFFF))


def _fwmark(device: Device, value: bytes) -> None:
    device.set_fwmark(_number(value, 0xFFFF_FFFF))


def _replace_peers(device: Device, value: bytes) -> None:
    _require(value, b"true")
    device.replace_peers()


# Keys of a peer; `stanza.entry` is None when the lines are to be checked only.


def _remove(stanza: Stanza, value: bytes) -> None:
    _require(value, b"true")
    stanza.forget()


def _update_only(stanza: Stanza, value: bytes) -> None:
    _require(value, b"true")
    if stanza.created or stanza.missing is not None:
        stanza.forget()


def _preshared_key(stanza: Stanza, value: bytes) -> None:
    key = key_of(value)
    if stanza.entry is not None:
        stanza.device.set_preshared_key(stanza.entry, key)


def _endpoint(stanza: Stanza, value: bytes) -> None:
    try:
        endpoint = parse_endpoint(value.decode("latin-1"))
    except ValueError as error:
        raise _invalid(f"the value {error}") from None
    if stanza.entry is not None:
        stanza.device.set_endpoint(stanza.entry, endpoint)


def _keepalive(stanza: Stanza, value: bytes) -> None:
    seconds = _number(value, 0xFFFF)
    if stanza.entry is not None:
        stanza.device.set_keepalive(stanza.entry, seconds)


def _replace_allowed_ips(stanza: Stanza, value: bytes) -> None:
    _require(value, b"true")
    if stanza.entry is not None:
        stanza.device.replace_allowed_ips(stanza.entry)


def _allowed_ip(stanza: Stanza, value: bytes) -> None:
    removal = value.startswith(b"-")
    prefix = _prefix(value[1:] if removal else value)
    if stanza.entry is None:
        return
    if removal:
        stanza.device.remove_allowed_ip(stanza.entry, prefix)
    else:
        stanza.device.add_allowed_ip(stanza.entry, prefix)


def _protocol_version(stanza: Stanza, value: bytes) -> None:
    _require(value, b"1")


_DEVICE_KEYS: Mapping[bytes, Callable[[Device, bytes], None]] = {
    b"private_key": _private_key,
    b"listen_port": _listen_port,
    b"fwmark": _fwmark,
    b"replace_peers": _replace_peers,
}

_PEER_KEYS: Mapping[bytes, Callable[[Stanza, bytes], None]] = {
    b"remove": _remove,
    b"update_only": _update_only,
    b"preshared_key": _preshared_key,
    b"endpoint": _endpoint,
    b"persistent_keepalive_interval": _keepalive,
    b"replace_allowed_ips": _replace_allowed_ips,
    b"allowed_ip": _allowed_ip,
    b"protocol_version": _protocol_version,
}
