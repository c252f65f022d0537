"""The UDP sockets: opening both families on one port, receiving, sending.

Both sockets belong to the supervisor; readers and writers borrow them. With each datagram the
kernel tells which local address it came to (IP_PKTINFO, IPV6_PKTINFO), and answers leave from
that address, so that a host with many addresses answers from the one it was asked at. It also
tells the traffic class, of which ECN is the tunnel's business (RFC 6040).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys

from wgmp.errors import SocketError
from wgmp.protocol import ecn
from wgmp.protocol.outcome import Endpoint

# linux/in.h, linux/in6.h, asm-generic/socket.h: not in Python's socket module.
_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IP_RECVTOS = 13
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_DONT = 0
_PKTINFO = ((socket.IPPROTO_IP, _IP_PKTINFO), (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO))
_TRAFFIC_CLASS = ((socket.IPPROTO_IP, socket.IP_TOS), (socket.IPPROTO_IPV6, socket.IPV6_TCLASS))
_SO_RCVBUFFORCE = 33
_SO_SNDBUFFORCE = 32
_SO_MARK = 36

# wireguard-go gained a quarter of its throughput with buffers of this size.
_SOCKET_BUFFER_BYTES = 7 << 20

_ANCILLARY_BYTES = 128
_MSG_TRUNC = int(socket.MSG_TRUNC)  # the enum's `&` is a Python function
_IN_PKTINFO = struct.Struct("=i4s4s")  # interface (0: any), address to answer from, destination
_IN6_PKTINFO = struct.Struct("=16sI")

# A second bind can meet a port that is free for one family only; another is picked then.
_PORT_ATTEMPTS = 100

# Bytes that a datagram may have at most (IPv4: 65,535 less IP and UDP headers).
MAX_DATAGRAM_BYTES = 65_507

_CACHE_ENTRIES = 4096

_Address = tuple[str, int] | tuple[str, int, int, int]
_Ancillary = tuple[tuple[int, int, bytes], ...]


def open_sockets(port: int, mark: int) -> tuple[int, list[socket.socket]]:
    """Bind IPv4 and IPv6 to one port (0: the kernel picks) and return it with the sockets.

    `mark`: fwmark of outgoing datagrams, 0 for none. A host without IPv6 gets IPv4 alone.
    Raises OSError, EADDRINUSE above all.
    """
    for _ in range(_PORT_ATTEMPTS):
        first = _open(socket.AF_INET, port, mark)
        bound: int = first.getsockname()[1]
        try:
            return bound, [first, _open(socket.AF_INET6, bound, mark)]
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                return bound, [first]
            first.close()
            if error.errno != errno.EADDRINUSE or port:
                raise
    raise OSError(errno.EADDRINUSE, "no port is free for both IPv4 and IPv6")


def _open(family: socket.AddressFamily, port: int, mark: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)
        _size_buffers(sock)
        if mark:
            set_mark(sock, mark)
        sock.bind(("", port))
    except BaseException:
        sock.close()
        raise
    return sock


def _size_buffers(sock: socket.socket) -> None:
    for forced, plain in (
        (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (_SO_SNDBUFFORCE, socket.SO_SNDBUF),
    ):
        try:
            sock.setsockopt(socket.SOL_SOCKET, forced, _SOCKET_BUFFER_BYTES)
        except PermissionError:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, plain, _SOCKET_BUFFER_BYTES)


def set_mark(sock: socket.socket, mark: int) -> None:
    """Set the fwmark of a socket's outgoing datagrams. Raises OSError without CAP_NET_ADMIN."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)


class Receiver:
    """Receives datagrams with their endpoints. `receive` is called once per datagram."""

    __slots__ = ("_endpoints",)

    def __init__(self) -> None:
        self._endpoints: dict[tuple[_Address, _Ancillary], tuple[Endpoint, int]] = {}

    def receive(
        self, sock: socket.socket, buffer: memoryview
    ) -> tuple[int, Endpoint | None, int] | None:
        """Receive one datagram into `buffer`.

        Returns its length, where it came from (no endpoint: it was longer than the buffer) and
        its ECN field, or None when there is none. ICMP errors that an earlier datagram met are
        passed over.
        """
        while True:
            try:
                length, ancillary, flags, address = sock.recvmsg_into([buffer], _ANCILLARY_BYTES)
                break
            except BlockingIOError:
                return None
            except ConnectionError:
                continue
        if flags & _MSG_TRUNC:
            return length, None, ecn.NOT_ECT
        key = (address, tuple(ancillary))
        known = self._endpoints.get(key)
        if known is None:
            if len(self._endpoints) >= _CACHE_ENTRIES:
                self._endpoints.clear()
            known = self._endpoints[key] = _read(*key)
        return length, *known


def _read(address: _Address, ancillary: _Ancillary) -> tuple[Endpoint, int]:
    info, congestion = b"", ecn.NOT_ECT
    for level, kind, content in ancillary:
        if (level, kind) in _PKTINFO:
            info = content
        elif (level, kind) in _TRAFFIC_CLASS:
            # One byte from IPv4, an int from IPv6.
            congestion = int.from_bytes(content, sys.byteorder) & ecn.MASK
    return _endpoint(address, info), congestion


def _endpoint(address: _Address, info: bytes) -> Endpoint:
    if len(address) == 2:
        packed = socket.inet_pton(socket.AF_INET, address[0])
        ifindex, source, _ = _IN_PKTINFO.unpack(info) if info else (0, b"", b"")
        return Endpoint(packed, address[1], 0, source, ifindex)
    packed = socket.inet_pton(socket.AF_INET6, address[0].partition("%")[0])
    source, ifindex = _IN6_PKTINFO.unpack(info) if info else (b"", 0)
    return Endpoint(packed, address[1], address[3], source, ifindex)


class Sender:
    """Sends datagrams to endpoints, over the socket of the endpoint's family."""

    __slots__ = ("_routes", "_sockets")

    def __init__(self, sockets: list[socket.socket]) -> None:
        self._sockets = {sock.family: sock for sock in sockets}
        self._routes: dict[
            tuple[Endpoint, int], tuple[socket.socket, _Address, list[tuple[int, int, bytes]]]
        ] = {}

    def send(self, datagram: memoryview, endpoint: Endpoint, traffic_class: int = 0) -> int | None:
        """Send one datagram; return None, or the descriptor to wait for when it must wait.

        `traffic_class`: DSCP and ECN of its IP header. A local address that has gone is passed
        over and the kernel chooses one. Raises OSError for what the network refuses (no route,
        no socket of the family, too long).
        """
        key = (endpoint, traffic_class)
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= _CACHE_ENTRIES:
                self._routes.clear()
            route = self._routes[key] = self._route(*key)
        sock, address, ancillary = route
        try:
            sock.sendmsg([datagram], ancillary, 0, address)
        except BlockingIOError:
            return sock.fileno()
        except ConnectionError:
            # An ICMP error that an earlier datagram met; this one was not sent because of it.
            sock.sendmsg([datagram], ancillary, 0, address)
        except OSError:
            if not endpoint.source:
                raise
            return self.send(datagram, endpoint.without_source(), traffic_class)
        return None

    def _route(
        self, endpoint: Endpoint, traffic_class: int
    ) -> tuple[socket.socket, _Address, list[tuple[int, int, bytes]]]:
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
                ancillary.append((socket.IPPROTO_IP, _IP_PKTINFO, info))
            if traffic_class:
                ancillary.append((socket.IPPROTO_IP, socket.IP_TOS, packed_class))
        else:
            address = (host, endpoint.port, 0, endpoint.scope_id)
            if endpoint.source:
                info = _IN6_PKTINFO.pack(endpoint.source, endpoint.source_ifindex)
                ancillary.append((socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, info))
            if traffic_class:
                ancillary.append((socket.IPPROTO_IPV6, socket.IPV6_TCLASS, packed_class))
        return sock, address, ancillary


def explain(error: OSError, port: int) -> SocketError:
    """Return the error to show an operator for a failed `open_sockets`."""
    if error.errno == errno.EADDRINUSE:
        text = f"UDP port {port} is taken: stop what listens there or choose another ListenPort"
    else:
        text = f"cannot open UDP port {port}: {error.strerror}"
    return SocketError(text, error.errno or 0)
