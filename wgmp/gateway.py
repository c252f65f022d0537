"""From a command line to a running gateway: open, detach, supervise, report.

Detached, the command returns once the gateway is up and the UAPI socket can be used, or with
the reason why it cannot come up; the gateway goes on as a daemon. `wg-quick` relies on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import uvloop

from wgmp import config as quick
from wgmp import control, inheritance, memory, sandbox, tun, uapi_server
from wgmp.errors import SocketError, WgmpError
from wgmp.fastpath.choice import load
from wgmp.manage import link, saving
from wgmp.manage.journal import Journal
from wgmp.manage.runner import Commands
from wgmp.manage.settings import LinkSettings, settings_of
from wgmp.observe.metrics_server import MetricsServer, bind
from wgmp.observe.names import Names
from wgmp.options import Options
from wgmp.reload import synchronize
from wgmp.service import Service
from wgmp.supervisor import Supervisor
from wgmp.systemd import Manager, take_descriptors
from wgmp.topology import choose

log = logging.getLogger("wgmp")

_READY = b"ready"


def start(options: Options) -> int:
    """Start the gateway as `options` say; return the exit code of the command.

    Raises WgmpError for whatever the operator must put right.
    """
    config = None if options.config is None else quick.load(options.config)
    if options.config is not None:
        # A daemon changes its directory, and writes the file back.
        options = msgspec.structs.replace(options, config=options.config.absolute())
    if options.foreground:
        return _run(options, config, ready=lambda: None)
    return _detach(options, config)


def _detach(options: Options, config: quick.QuickConfig | None) -> int:
    """Run the gateway in a daemon; wait until it is ready or says why it cannot be."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os.close(writer)
        with open(reader, "rb") as pipe:
            message = pipe.read()
        if message == _READY:
            return 0
        raise WgmpError(message.decode() or "the gateway ended without saying why")
    os.close(reader)
    code = 1
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)

        def ready() -> None:
            os.write(writer, _READY)
            os.close(writer)
            # From now on nobody reads what is printed.
            for descriptor in (1, 2):
                os.dup2(null, descriptor)

        code = _run(options, config, ready)
    except WgmpError as error:
        code = error.exit_code
        with contextlib.suppress(OSError):
            os.write(writer, str(error).encode())
    finally:
        os._exit(code)


def _run(options: Options, config: quick.QuickConfig | None, ready: Callable[[], None]) -> int:
    memory.keep_out_of_dumps()
    given = options.tun_fd
    interface = options.interface if given is None else tun.name_of(given)
    inherited = inheritance.sort(take_descriptors(os.environ), interface)
    start = _Start(interface, options, config, inherited, Manager(os.environ))
    run, journal = Commands(), Journal.of(interface)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if config is None:
            # Whoever started the gateway sees to the link, and may have a journal of this name.
            _serve(runner, start, lambda supervisor: _only(ready))
        else:
            settings = settings_of(config, options.run_hooks)
            # Nobody took it down: its supervisor was killed.
            is_up = inherited.tun is not None and bool(journal.steps)
            try:
                if not is_up:
                    runner.run(link.before(interface, settings, run, journal))
                wanted = None if is_up else settings
                _serve(
                    runner,
                    start,
                    lambda supervisor: _saved(
                        supervisor,
                        options.config,
                        _link_up(supervisor, wanted, run, journal, ready),
                    ),
                )
            finally:
                runner.run(link.take_down(interface, run, journal))
    log.info("%s is down", interface)
    return 0


@dataclass(frozen=True, slots=True)
class _Start:
    """What a gateway is started with."""

    interface: str
    options: Options
    config: quick.QuickConfig | None
    inherited: inheritance.Inheritance
    manager: Manager


def _serve(
    runner: asyncio.Runner,
    start: _Start,
    up: Callable[[Supervisor], contextlib.AbstractAsyncContextManager[None]],
) -> None:
    """Open the interface and run the gateway on it to its end; `up` as in `Supervisor.run`."""
    interface, options, inherited = start.interface, start.options, start.inherited
    topology = choose(options.topology, options.workers, _cores())
    limits = sandbox.decide(options.sandbox, options.user)
    descriptor = _tun_descriptor(start)
    os.set_blocking(descriptor, False)
    uapi = inherited.uapi or _uapi_listener(options.uapi_fd, interface)
    try:
        supervisor = Supervisor(
            interface,
            descriptor,
            uapi,
            topology,
            offloads_wanted=options.offload,
            silent=not options.foreground,
            limits=limits,
            shared_sessions=options.shared_sessions,
            inherited=inherited.udp,
            manager=start.manager,
            fastpath=load(options.fastpath),
        )
        metrics = _metrics(options.metrics, supervisor)
        listener = uapi_server.bind_socket(control.socket_path(interface))
    except OSError as error:
        _remove_uapi(uapi)
        raise SocketError(f"cannot open the UDP sockets: {error.strerror}") from error
    except BaseException:
        _remove_uapi(uapi)
        raise
    if options.config is not None:
        supervisor.names = Names([options.config])
    server = control.ControlServer(listener, supervisor)
    service = Service(start.manager, supervisor, options.config)

    @contextlib.asynccontextmanager
    async def served() -> AsyncIterator[None]:
        async with up(supervisor):
            service.up()
            yield

    async def main() -> None:
        try:
            if start.config is not None:
                lines = synchronize(start.config, supervisor.device)
                for line in lines + quick.notices(start.config, options.run_hooks):
                    log.warning("%s", line)
                supervisor.publish()
            service.start()
            await server.start()
            if metrics is not None:
                await metrics.start()
            if limits.on and not options.run_hooks:  # hooks may need anything
                sandbox.narrow_supervisor()
            await supervisor.run(served())
        finally:
            service.down()
            server.stop()
            if metrics is not None:
                metrics.stop()
            _remove_uapi(uapi)

    runner.run(main())


@contextlib.asynccontextmanager
async def _only(ready: Callable[[], None]) -> AsyncIterator[None]:
    ready()
    yield


@contextlib.asynccontextmanager
async def _saved(
    supervisor: Supervisor,
    config: Path | None,
    link_up: contextlib.AbstractAsyncContextManager[None],
) -> AsyncIterator[None]:
    """Save what the gateway has become, if its file says so, before the link is taken down."""
    device = supervisor.device
    at_start = saving.endpoints_of(device)
    async with link_up:
        try:
            yield
        finally:
            if config is not None:
                saving.save_if_wanted(config, device, supervisor.fabric.peers.figures, at_start)


@contextlib.asynccontextmanager
async def _link_up(
    supervisor: Supervisor,
    settings: LinkSettings | None,
    run: Commands,
    journal: Journal,
    ready: Callable[[], None],
) -> AsyncIterator[None]:
    """Bring the link up as `settings` say (None: it is); take it down before the gateway stops."""
    device = supervisor.device

    async def set_mark(mark: int) -> None:
        device.set_fwmark(mark)
        supervisor.publish()

    if settings is not None:
        found = (peer.endpoint for peer in device.peers.values())
        endpoints = tuple(endpoint for endpoint in found if endpoint is not None)
        settings = msgspec.structs.replace(settings, endpoints=endpoints)
        await link.bring_up(supervisor.interface, settings, run, journal, set_mark)
    ready()
    try:
        yield
    finally:
        await link.take_down(supervisor.interface, run, journal, link_stays=True)


def _tun_descriptor(start: _Start) -> int:
    for given in (start.options.tun_fd, start.inherited.tun):
        if given is not None:
            return given
    return tun.open_tun(start.interface)


def _metrics(address: tuple[str, int] | None, supervisor: Supervisor) -> MetricsServer | None:
    """Listen where the options say; raises SocketError."""
    if address is None:
        return None
    if not ipaddress.ip_address(address[0]).is_loopback:
        log.warning("metrics on %s tell everyone there the peers' keys and endpoints", address[0])
    return MetricsServer(bind(*address), supervisor)


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _uapi_listener(descriptor: int | None, interface: str) -> socket.socket:
    if descriptor is None:
        return uapi_server.bind_socket(uapi_server.socket_path(interface))
    return socket.socket(fileno=descriptor)


def _remove_uapi(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        path = listener.getsockname()
        listener.close()
        os.unlink(path)
