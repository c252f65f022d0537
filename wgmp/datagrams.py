"""Datagrams over the UDP sockets (udp.py): received with their source, sent to an endpoint.

A *train* is many datagrams of one length, the last maybe shorter, that cross between kernel and
program in one system call: UDP_SEGMENT cuts one on the way out, UDP_GRO delivers one.

With each datagram the kernel tells which local address it came to, and answers leave from that
address, so that a host with many addresses answers from the one it was asked at. It also tells
the traffic class, of which ECN is the tunnel's business (RFC 6040). That is so on Linux; elsewhere
(not `system.FULL`) the kernel chooses the address, and datagrams bear no class.
"""

from __future__ import annotations

import errno
import socket
import struct
import sys

from wgmp import system
from wgmp.offload import SOL_UDP, UDP_GRO, UDP_SEGMENT, TrainRefusedError
from wgmp.protocol import ecn
from wgmp.protocol.outcome import Endpoint
from wgmp.udp import IP_PKTINFO, IPV6_PKTINFO, IPV6_TCLASS

_PKTINFO = ((socket.IPPROTO_IP, IP_PKTINFO), (socket.IPPROTO_IPV6, IPV6_PKTINFO))
_TRAFFIC_CLASS = ((socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, IPV6_TCLASS))

_ANCILLARY_BYTES = 128
_MSG_TRUNC = int(socket.MSG_TRUNC)  # the enum's `&` is a Python function
# struct in_pktinfo of linux/in.h, struct in6_pktinfo of linux/ipv6.h
_IN_PKTINFO = struct.Struct("=i4s4s")  # interface (0: any), address to answer from, destination
_IN6_PKTINFO = struct.Struct("=16sI")

_CACHE_ENTRIES = 4096

_Address = tuple[str, int] | tuple[str, int, int, int]
_Ancillary = tuple[tuple[int, int, bytes], ...]
_Route = tuple[socket.socket, _Address, list[tuple[int, int, bytes]]]


class Source:
    """Where a datagram, or a train of them, came from.

    `congestion`: the ECN field; `segment`: the length of each datagram of a train but the last,
    which may be shorter; 0 when there is just one.
    """

    __slots__ = ("_address", "_endpoint", "_info", "congestion", "segment")

    def __init__(self, address: _Address, info: bytes, congestion: int, segment: int) -> None:
        self._address = address
        self._info = info
        self._endpoint: Endpoint | None = None
        self.congestion = congestion
        self.segment = segment

    @property
    def endpoint(self) -> Endpoint:
        """The sender, and the local address it sent to. Worked out when first asked for.

        A flood from forged addresses is dropped before anybody asks.
        """
        if self._endpoint is None:
            self._endpoint = _endpoint(self._address, self._info)
        return self._endpoint


class Receiver:
    """Receives datagrams with their sources: one system call for each, or for a train."""

    __slots__ = ("_read", "_sources")

    def __init__(self) -> None:
        self._sources: dict[tuple[_Address, _Ancillary], Source] = {}
        self._read: dict[_Ancillary, tuple[bytes, int, int]] = {}

    def receive(
        self, sock: socket.socket, buffers: list[memoryview]
    ) -> tuple[int, Source | None] | None:
        """Receive one datagram or train into `buffers`, filled one after the other.

        Returns its length and where it came from (None: it was longer than the buffers), or
        None when there is none. ICMP errors that an earlier datagram met are passed over.
        """
        while True:
            try:
                length, ancillary, flags, address = sock.recvmsg_into(buffers, _ANCILLARY_BYTES)
                break
            except BlockingIOError:
                return None
            except ConnectionError:
                continue
        if flags & _MSG_TRUNC:
            return length, None
        key = (address, tuple(ancillary))
        source = self._sources.get(key)
        if source is None:
            if len(self._sources) >= _CACHE_ENTRIES:
                self._sources.clear()
            source = self._sources[key] = self._source(*key)
        return length, source

    def _source(self, address: _Address, ancillary: _Ancillary) -> Source:
        read = self._read.get(ancillary)
        if read is None:
            if len(self._read) >= _CACHE_ENTRIES:
                self._read.clear()
            read = self._read[ancillary] = _read(ancillary)
        return Source(address, *read)


def _read(ancillary: _Ancillary) -> tuple[bytes, int, int]:
    """Return the packet information, the ECN field and the segment size."""
    info, congestion, segment = b"", ecn.NOT_ECT, 0
    for level, kind, content in ancillary:
        if (level, kind) in _PKTINFO:
            info = content
        elif (level, kind) in _TRAFFIC_CLASS:
            # One byte from IPv4, an int from IPv6.
            congestion = int.from_bytes(content, sys.byteorder) & ecn.MASK
        elif (level, kind) == (SOL_UDP, UDP_GRO):
            segment = int.from_bytes(content, sys.byteorder)
    return info, congestion, segment


def _endpoint(address: _Address, info: bytes) -> Endpoint:
    if len(address) == 2:
        packed = socket.inet_pton(socket.AF_INET, address[0])
        ifindex, source, _ = _IN_PKTINFO.unpack(info) if info else (0, b"", b"")
        return Endpoint(packed, address[1], 0, source, ifindex)
    packed = socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])
    source, ifindex = _IN6_PKTINFO.unpack(info) if info else (b"", 0)
    return Endpoint(packed, address[1], address[3], source, ifindex)


class Sender:
    """Sends datagrams and trains to endpoints, over the socket of the endpoint's family.

    `segments`: whether trains go in one call (UDP_SEGMENT); off for good once the kernel says
    that it cannot (EIO: no checksums in the device).
    """

    __slots__ = ("_routes", "_single_only", "_sockets", "segments")

    def __init__(self, sockets: list[socket.socket], segments: bool) -> None:
        self.segments = segments
        self._sockets = {sock.family: sock for sock in sockets}
        self._routes: dict[tuple[Endpoint, int, int], _Route] = {}
        # Endpoints behind a path too narrow for a train: the kernel never fragments those.
        self._single_only: set[Endpoint] = set()

    def takes_trains(self, endpoint: Endpoint) -> bool:
        """Return whether `send` may be given trains for the endpoint."""
        return self.segments and endpoint not in self._single_only

    def forget_paths(self) -> None:
        """Routes changed: what was too narrow for a train may be wide enough now."""
        self._single_only.clear()

    def send(
        self, datagrams: memoryview, endpoint: Endpoint, traffic_class: int = 0, segment: int = 0
    ) -> int | None:
        """Send one datagram, or a train; return None, or the descriptor to wait for.

        `traffic_class`: DSCP and ECN of the IP header. `segment`: 0, or the length of each
        datagram of a train but the last: at most MAX_TRAIN_DATAGRAMS and MAX_TRAIN_BYTES.
        A local address that has gone is passed over and the kernel chooses one. Raises
        TrainRefusedError, and OSError for what the network refuses (no route, too long).
        """
        key = (endpoint, traffic_class, segment)
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= _CACHE_ENTRIES:
                self._routes.clear()
                self._single_only.clear()
            route = self._routes[key] = self._route(*key)
        sock, address, ancillary = route
        try:
            sock.sendmsg([datagrams], ancillary, 0, address)
        except BlockingIOError:
            return sock.fileno()
        except ConnectionError:
            # An ICMP error that an earlier datagram met; this one was not sent because of it.
            sock.sendmsg([datagrams], ancillary, 0, address)
        except OSError as error:
            if segment and error.errno in (errno.EIO, errno.EINVAL, errno.EMSGSIZE):
                if error.errno == errno.EIO:
                    self.segments = False
                else:
                    self._single_only.add(endpoint)
                raise TrainRefusedError(error.errno, error.strerror) from error
            if not endpoint.source:
                raise
            return self.send(datagrams, endpoint.without_source(), traffic_class, segment)
        return None

    def _route(self, endpoint: Endpoint, traffic_class: int, segment: int) -> _Route:
        family = socket.AF_INET if len(endpoint.address) == 4 else socket.AF_INET6
        sock = self._sockets.get(family)
        if sock is None:
            raise OSError(errno.EAFNOSUPPORT, "no socket of the endpoint's address family")
        host = socket.inet_ntop(family, endpoint.address)
        ancillary = []
        packed_class = struct.pack("=i", traffic_class)
        address: _Address
        if family == socket.AF_INET:
            address = (host, endpoint.port)
            if endpoint.source:
                # Naming the interface too would take the peer to be on its link, and lose the
                # datagram where routes to and from the peer differ.
                info = _IN_PKTINFO.pack(0, endpoint.source, bytes(4))
                ancillary.append((socket.IPPROTO_IP, IP_PKTINFO, info))
            if traffic_class:
                ancillary.append((socket.IPPROTO_IP, socket.IP_TOS, packed_class))
        else:
            address = (host, endpoint.port, 0, endpoint.scope_id)
            if endpoint.source:
                info = _IN6_PKTINFO.pack(endpoint.source, endpoint.source_ifindex)
                ancillary.append((socket.IPPROTO_IPV6, IPV6_PKTINFO, info))
            if traffic_class:
                ancillary.append((socket.IPPROTO_IPV6, IPV6_TCLASS, packed_class))
        if segment:
            ancillary.append((SOL_UDP, UDP_SEGMENT, struct.pack("=H", segment)))
        return sock, address, ancillary if system.FULL else []
