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
import subprocess
import sys
from collections.abc import Callable

import uvloop

from wgmp import config as quick
from wgmp import control, memory, sandbox, tun, uapi_server
from wgmp.errors import CommandError, SocketError, WgmpError
from wgmp.options import Options
from wgmp.supervisor import Supervisor
from wgmp.topology import choose

log = logging.getLogger("wgmp")

_READY = b"ready"


def start(options: Options) -> int:
    """Start the gateway as `options` say; return the exit code of the command.

    Raises WgmpError for whatever the operator must put right.
    """
    config = None if options.config is None else quick.load(options.config)
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
    topology = choose(options.topology, options.workers, _cores())
    limits = sandbox.decide(options.sandbox, options.user)
    descriptor = tun.open_tun(options.interface) if options.tun_fd is None else options.tun_fd
    interface = tun.name_of(descriptor)
    os.set_blocking(descriptor, False)
    uapi = _uapi_listener(options.uapi_fd, interface)
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
        )
        listener = uapi_server.bind_socket(control.socket_path(interface))
    except OSError as error:
        _remove_uapi(uapi)
        raise SocketError(f"cannot open the UDP sockets: {error.strerror}") from error
    except BaseException:
        _remove_uapi(uapi)
        raise
    server = control.ControlServer(listener, supervisor)

    async def main() -> None:
        try:
            if config is not None:
                for line in quick.apply(config, supervisor.device) + quick.notices(config):
                    log.warning("%s", line)
                supervisor.publish()
                _configure_link(interface, config)
            await server.start()
            if limits.on:
                sandbox.narrow_supervisor()
            await supervisor.run(ready)
        finally:
            server.stop()
            _remove_uapi(uapi)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    log.info("%s is down", interface)
    return 0


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


def _configure_link(interface: str, config: quick.QuickConfig) -> None:
    """Set addresses and MTU, and bring the link up; raises CommandError."""
    settings = config.interface
    for address in settings.addresses:
        family = "-4" if isinstance(address, ipaddress.IPv4Interface) else "-6"
        _ip(family, "address", "add", str(address), "dev", interface)
    mtu = settings.mtu if settings.mtu is not None else tun.DEFAULT_MTU
    _ip("link", "set", "mtu", str(mtu), "up", "dev", interface)


def _ip(*arguments: str) -> None:
    command = ["ip", *arguments]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=10)
    except FileNotFoundError:
        raise CommandError("there is no `ip` command: install iproute2") from None
    except subprocess.SubprocessError as error:
        printed = (getattr(error, "stderr", "") or "").strip()
        raise CommandError(f"`{' '.join(command)}` failed: {printed or error}") from error
