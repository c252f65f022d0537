"""What a gateway opens before it begins, or takes over from another (inheritance.py)."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import socket
from dataclasses import dataclass

from wgmp import config as quick
from wgmp import control, sandbox, system, tun, uapi_server
from wgmp.control_server import ControlServer
from wgmp.errors import ConfigError, RingError
from wgmp.fastpath.choice import load
from wgmp.inheritance import Inheritance
from wgmp.observe.metrics_server import MetricsServer, bind
from wgmp.observe.names import Names
from wgmp.options import Options
from wgmp.succession import Predecessor
from wgmp.supervisor import Supervisor
from wgmp.systemd import Manager
from wgmp.topology import Topology, choose

log = logging.getLogger("wgmp")


@dataclass(frozen=True, slots=True)
class Start:
    """What a gateway is started with. `config`: None for none, or if the estate has it all."""

    interface: str
    options: Options
    config: quick.QuickConfig | None
    inherited: Inheritance
    manager: Manager
    predecessor: Predecessor | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A gateway with all that it needs, and the servers of its sockets."""

    supervisor: Supervisor
    uapi: socket.socket
    control: ControlServer
    metrics: MetricsServer | None

    async def answer(self) -> None:
        """Begin to answer `wgmp`, and whoever reads metrics."""
        await self.control.start()
        if self.metrics is not None:
            await self.metrics.start()

    def close(self) -> None:
        """Stop answering, and leave no path behind."""
        self.control.stop()
        if self.metrics is not None:
            self.metrics.stop()
        _remove(self.uapi)


def open_gateway(start: Start) -> Opened:
    """Open what is not inherited. Raises WgmpError, and leaves no path of its own behind then.

    The process is to end then, and its descriptors with it. A predecessor goes on with its paths.
    """
    interface, options, inherited = start.interface, start.options, start.inherited
    topology = _topology(options)
    limits = sandbox.decide(options.sandbox, options.user)
    descriptors = _tun_descriptors(start)
    for descriptor in descriptors:
        os.set_blocking(descriptor, False)
    uapi = inherited.uapi or _uapi_listener(options.uapi_fd, interface)
    try:
        supervisor = Supervisor(
            interface,
            descriptors,
            uapi,
            topology,
            offloads_wanted=options.offload,
            silent=not options.foreground,
            limits=limits,
            shared_sessions=options.shared_sessions,
            inherited=inherited,
            manager=start.manager,
            fastpath=load(options.fastpath, options.aead),
        )
        metrics = _metrics(start, supervisor)
        listener = inherited.control or uapi_server.bind_socket(control.socket_path(interface))
    except BaseException as error:
        if start.predecessor is None:
            _remove(uapi)
        if not isinstance(error, OSError):
            raise
        raise RingError(
            f"there are not enough memory or descriptors for the gateway's rings: {error.strerror}"
        ) from error
    if options.config is not None:
        supervisor.names = Names([options.config])
    return Opened(supervisor, uapi, ControlServer(listener, supervisor), metrics)


def _topology(options: Options) -> Topology:
    """Return the topology that the options ask for; raises ConfigError for what cannot be here."""
    topology = choose(options.topology, options.workers, system.cores(), options.tun_queues)
    if not system.FULL and len(topology.processes) > 1:
        raise ConfigError(
            "only on Linux can a gateway have more than one process: leave topology, workers and "
            "queues out, or write compact, 1 and 1"
        )
    return topology


def _tun_descriptors(start: Start) -> list[int]:
    given = start.options.tun_fd
    if given is not None:
        return [given]
    return start.inherited.tun or tun.open_tun(start.interface, start.options.tun_queues)


def _metrics(start: Start, supervisor: Supervisor) -> MetricsServer | None:
    """Listen where the options say; raises SocketError."""
    address = start.options.metrics
    if address is None:
        return None
    if not ipaddress.ip_address(address[0]).is_loopback:
        log.warning("metrics on %s tell everyone there the peers' keys and endpoints", address[0])
    return MetricsServer(start.inherited.metrics or bind(*address), supervisor)


def _uapi_listener(descriptor: int | None, interface: str) -> socket.socket:
    """Return the socket given; raises ConfigError when it is none that `wg` can reach."""
    if descriptor is None:
        return uapi_server.bind_socket(uapi_server.socket_path(interface))
    try:
        listener = socket.socket(fileno=descriptor)
        listens = listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ConfigError(f"WG_UAPI_FD: {descriptor} is no socket: {error.strerror}") from error
    has_path = listener.family == socket.AF_UNIX and isinstance(listener.getsockname(), str)
    if not listens or not has_path:
        raise ConfigError(f"WG_UAPI_FD: {descriptor} is no listening Unix socket with a path")
    return listener


def _remove(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        path = listener.getsockname()
        listener.close()
        os.unlink(path)
