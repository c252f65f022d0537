"""The UDP sockets: both families on one port.

They belong to the supervisor; readers and writers borrow them (`datagrams.py`). On Linux the kernel
tells with each datagram which local address it came to (IP_PKTINFO, IPV6_PKTINFO) and its traffic
class. Elsewhere nothing goes beside a datagram, and there are no marks.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import socket
import struct

from wgmp import system
from wgmp.errors import SocketError
from wgmp.offload import SOL_UDP, UDP_GRO, enable_gro

# linux/in.h, linux/in6.h, asm-generic/socket.h: not in Python's socket module.
IP_PKTINFO = 8
IPV6_PKTINFO = 50
IPV6_TCLASS = 67
_IP_MTU_DISCOVER = 10
_IP_RECVTOS = 13
_IPV6_MTU_DISCOVER = 23
_IPV6_RECVPKTINFO = 49
_IPV6_RECVTCLASS = 66
_PMTUDISC_DONT = 0
_SO_RCVBUFFORCE = 33
_SO_SNDBUFFORCE = 32
_SO_MARK = 36
_MARK = struct.Struct("=I")

# wireguard-go gained a quarter of its throughput with buffers of this size.
_SOCKET_BUFFER_BYTES = (7 << 20, 3 << 20, 1 << 20)

# A second bind can meet a port that is free for one family only; another is picked then.
_PORT_ATTEMPTS = 100


def open_sockets(port: int, mark: int, gro: bool = False) -> tuple[int, list[socket.socket]]:
    """Bind IPv4 and IPv6 to one port (0: the kernel picks) and return it with the sockets.

    `mark`: fwmark of outgoing datagrams, 0 for none. `gro`: receive trains. A host without
    IPv6 gets IPv4 alone.
    Raises OSError, EADDRINUSE above all.
    """
    for _ in range(_PORT_ATTEMPTS):
        first = _open(socket.AF_INET, port, mark, gro)
        bound: int = first.getsockname()[1]
        try:
            return bound, [first, _open(socket.AF_INET6, bound, mark, gro)]
        except OSError as error:
            if error.errno in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                return bound, [first]
            first.close()
            if error.errno != errno.EADDRINUSE or port:
                raise
    raise OSError(errno.EADDRINUSE, "no port is free for both IPv4 and IPv6")


def adopt_sockets(sockets: list[socket.socket], gro: bool) -> tuple[int, list[socket.socket]]:
    """Return what `open_sockets` would, of sockets that it opened in an earlier life.

    Their mark is the one they had. Raises OSError.
    """
    for sock in sockets:
        with contextlib.suppress(OSError):  # a kernel without
            sock.setsockopt(SOL_UDP, UDP_GRO, gro)
    return sockets[0].getsockname()[1], sockets


def _open(family: socket.AddressFamily, port: int, mark: int, gro: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if system.FULL:
            _ask_for_details(sock)
        _size_buffers(sock)
        if gro:
            enable_gro(sock)
        if mark:
            set_mark(sock, mark)
        sock.bind(("", port))
    except BaseException:
        sock.close()
        raise
    return sock


def _ask_for_details(sock: socket.socket) -> None:
    """Let the kernel tell what stands beside a datagram, and fragment what is too long."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_RECVTOS, 1)
        sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DONT)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVTCLASS, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DONT)


def _size_buffers(sock: socket.socket) -> None:
    """Make them as large as wanted, or as the system lets."""
    for forced, plain in (
        (_SO_RCVBUFFORCE, socket.SO_RCVBUF),
        (_SO_SNDBUFFORCE, socket.SO_SNDBUF),
    ):
        options = (forced, plain) if system.FULL else (plain,)
        for option, size in itertools.product(options, _SOCKET_BUFFER_BYTES):
            try:
                sock.setsockopt(socket.SOL_SOCKET, option, size)
                break
            except OSError:  # no privilege; or, where that is an error, more than the limit
                continue


def set_mark(sock: socket.socket, mark: int) -> None:
    """Set the fwmark of a socket's outgoing datagrams.

    Raises OSError without CAP_NET_ADMIN, and where there are no marks.
    """
    if not system.FULL:
        if mark:
            raise OSError(errno.EOPNOTSUPP, "this system has no marks")
        return
    # Packed, for Python's integers here are signed.
    sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, _MARK.pack(mark))


def mark_of(sock: socket.socket) -> int:
    """Return the fwmark of a socket's outgoing datagrams, 0 for none."""
    if not system.FULL:
        return 0
    mark: int = _MARK.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_MARK, _MARK.size))[0]
    return mark


def explain(error: OSError, port: int) -> SocketError:
    """Return the error to show an operator for a failed `open_sockets`."""
    if error.errno == errno.EADDRINUSE:
        text = f"UDP port {port} is taken: stop what listens there or choose another ListenPort"
    else:
        text = f"cannot open UDP port {port}: {error.strerror}"
    return SocketError(text, error.errno or 0)
