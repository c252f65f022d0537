"""What the kernel says about links and routes, over a NETLINK_ROUTE socket.

The supervisor learns here that its interface went up or down, changed its MTU or was deleted,
and that routes or the rules between routing tables changed (rtnetlink(7), linux/rtnetlink.h).
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass

# linux/socket.h, linux/netlink.h
_SOL_NETLINK = 270
_NETLINK_NO_ENOBUFS = 5

# linux/rtnetlink.h: groups, and types of messages
_RTMGRP_LINK = 0x1
_RTMGRP_IPV4_ROUTE = 0x40
_RTMGRP_IPV4_RULE = 0x80
_RTMGRP_IPV6_ROUTE = 0x400
_RTMGRP_IPV6_RULE = 0x40000  # group 19, RTNLGRP_IPV6_RULE

_RTM_NEWLINK = 16
_RTM_DELLINK = 17
_RTM_NEWROUTE = 24
_RTM_DELROUTE = 25
_RTM_NEWRULE = 32
_RTM_DELRULE = 33

# linux/if_link.h, linux/netlink.h, linux/if.h
_IFLA_MTU = 4
_IFLA_GSO_MAX_SIZE = 41
_IFLA_GSO_IPV4_MAX_SIZE = 63
_NLM_F_REQUEST = 1
_NLM_F_ACK = 4
_IFF_UP = 0x1

# linux/netlink.h, linux/rtnetlink.h
_NLMSGHDR = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_IFINFOMSG = struct.Struct("=BxHiII")  # family, type, index, flags, change
_RTATTR = struct.Struct("=HH")  # length, type
_MAX_MESSAGE_BYTES = 1 << 16
_ANSWER_LIMIT_S = 5.0


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """A link exists: its `index`, whether it is `up`, its `mtu` in bytes (0: not said)."""

    index: int
    up: bool
    mtu: int


@dataclass(frozen=True, slots=True)
class LinkDeleted:
    """The link with this `index` is gone."""

    index: int


@dataclass(frozen=True, slots=True)
class RoutesChanged:
    """A route or a rule was added, changed or removed."""


Event = LinkChanged | LinkDeleted | RoutesChanged

_GROUPS = (
    _RTMGRP_LINK | _RTMGRP_IPV4_ROUTE | _RTMGRP_IPV4_RULE | _RTMGRP_IPV6_ROUTE | _RTMGRP_IPV6_RULE
)
_ROUTING = frozenset({_RTM_NEWROUTE, _RTM_DELROUTE, _RTM_NEWRULE, _RTM_DELRULE})


def open_monitor() -> socket.socket:
    """Return a non-blocking socket that becomes readable with every event. Raises OSError.

    When more happens than it can hold the rest is lost without a word. The kernel would say so by
    an error, but libuv stops watching a socket that has one.
    """
    monitor = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    )
    monitor.setsockopt(_SOL_NETLINK, _NETLINK_NO_ENOBUFS, 1)
    monitor.bind((0, _GROUPS))
    return monitor


def read_events(monitor: socket.socket) -> Iterator[Event]:
    """Yield the events that wait; never blocks. Raises OSError when the socket is of no use."""
    while True:
        try:
            message = monitor.recv(_MAX_MESSAGE_BYTES)
        except BlockingIOError:
            return
        yield from parse(message)


def parse(message: bytes) -> Iterator[Event]:
    """Yield the events in one datagram from the kernel; never raises."""
    at = 0
    while at + _NLMSGHDR.size <= len(message):
        length, kind, _, _, _ = _NLMSGHDR.unpack_from(message, at)
        if length < _NLMSGHDR.size:
            return
        body = message[at + _NLMSGHDR.size : at + length]
        if kind in _ROUTING:
            yield RoutesChanged()
        elif kind in (_RTM_NEWLINK, _RTM_DELLINK) and len(body) >= _IFINFOMSG.size:
            family, _, index, flags, _ = _IFINFOMSG.unpack_from(body)
            if kind == _RTM_NEWLINK:
                yield LinkChanged(index, bool(flags & _IFF_UP), _mtu(body[_IFINFOMSG.size :]))
            elif family == socket.AF_UNSPEC:  # bridges and IPv6 send DELLINK for less
                yield LinkDeleted(index)
        at += -(-length // 4) * 4


def _mtu(attributes: bytes) -> int:
    at = 0
    while at + _RTATTR.size <= len(attributes):
        length, kind = _RTATTR.unpack_from(attributes, at)
        if length < _RTATTR.size:
            return 0
        if kind == _IFLA_MTU and length == _RTATTR.size + 4:
            return int.from_bytes(attributes[at + 4 : at + 8], sys.byteorder)
        at += -(-length // 4) * 4
    return 0


def set_gso_max_size(index: int, size: int) -> None:
    """Let super-packets of the link be at most `size` bytes. Raises OSError.

    IPv4 has a limit of its own since kernel 6.3; older ones pass the attribute over.
    """
    info = _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0)
    attributes = b"".join(
        _RTATTR.pack(_RTATTR.size + 4, kind) + size.to_bytes(4, sys.byteorder)
        for kind in (_IFLA_GSO_MAX_SIZE, _IFLA_GSO_IPV4_MAX_SIZE)
    )
    _request(_RTM_NEWLINK, info + attributes)


def delete_link(index: int) -> None:
    """Delete a link, whoever holds it. Raises OSError."""
    _request(_RTM_DELLINK, _IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, 0, 0))


def _request(kind: int, body: bytes) -> None:
    """Ask the kernel for something, and wait until it is done. Raises OSError."""
    header = _NLMSGHDR.pack(_NLMSGHDR.size + len(body), kind, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as kernel:
        kernel.settimeout(_ANSWER_LIMIT_S)
        kernel.sendto(header + body, (0, 0))
        answer = kernel.recv(_MAX_MESSAGE_BYTES)
    code = -int.from_bytes(answer[16:20], sys.byteorder, signed=True)
    if code:
        raise OSError(code, os.strerror(code))
