"""From a command line to a running gateway: open, detach, supervise, report.

Detached, the command returns once the gateway is up and the UAPI socket can be used, or with
the reason why it cannot come up; the gateway goes on as a daemon. `wg-quick` relies on it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import msgspec
import uvloop

from wgmp import config as quick
from wgmp import inheritance, memory, platforms, sandbox, system, uapi_server
from wgmp.departure import Departure
from wgmp.errors import WgmpError, unexpected
from wgmp.estate import restore
from wgmp.lookup import look_up
from wgmp.manage import ifconfig, link, saving
from wgmp.manage.journal import Journal
from wgmp.manage.runner import Commands
from wgmp.manage.settings import LinkSettings, settings_of
from wgmp.opening import Start, open_gateway
from wgmp.options import Options
from wgmp.reload import synchronize
from wgmp.service import Service
from wgmp.succession import Predecessor, find_predecessor, guarding
from wgmp.supervisor import Supervisor
from wgmp.systemd import Manager, take_descriptors
from wgmp.tundevice import name_of, with_interface

log = logging.getLogger("wgmp")

_READY = b"ready"
_Value = TypeVar("_Value")


def start(options: Options) -> int:
    """Start the gateway as `options` say; return the exit code of the command.

    Raises WgmpError for whatever the operator must put right.
    """
    predecessor = find_predecessor(os.environ)
    if predecessor is not None:
        return _run(predecessor.estate.options, None, lambda: None, predecessor)
    config = None if options.config is None else quick.load(options.config)
    if options.run_hooks:
        platforms.require_linux("--run-hooks")
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
    code, waiting = 1, True
    try:
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)

        def ready() -> None:
            nonlocal waiting
            waiting = False
            os.write(writer, _READY)
            os.close(writer)
            # From now on nobody reads what is printed.
            for descriptor in (1, 2):
                os.dup2(null, descriptor)

        code = _run(options, config, ready)
    except Exception as error:
        if isinstance(error, WgmpError):
            said, code = str(error), error.exit_code
        else:
            log.debug("this should not happen", exc_info=error)
            said = f"{unexpected(error)}; with --foreground it shows how it came to that"
        if waiting:  # else the descriptor is closed, and its number may be another's
            os.write(writer, said.encode())
    finally:
        os._exit(code)


def _run(
    options: Options,
    config: quick.QuickConfig | None,
    ready: Callable[[], None],
    predecessor: Predecessor | None = None,
) -> int:
    memory.keep_out_of_dumps()
    signal.signal(signal.SIGTERM, _told_to_stop)  # until the supervisor hears it
    signal.signal(signal.SIGHUP, lambda *_: log.warning("not reloaded: the gateway is not up yet"))
    options = with_interface(options, os.environ)
    given = options.tun_fd
    interface = options.interface if given is None else name_of(given)
    if predecessor is None:
        inherited = inheritance.sort(take_descriptors(os.environ), interface)
        inheritance.renew_tun(inherited, interface, options.tun_queues)
    else:
        inherited = inheritance.sort(predecessor.descriptors)
        inherited.roles = predecessor.estate.roles
        inherited.link = predecessor.estate.link
    start = Start(interface, options, config, inherited, Manager(os.environ), predecessor)
    run, journal = Commands(), Journal.of(interface)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if options.config is None:
            # Whoever started the gateway sees to the link, and may have a journal of this name.
            _serve(runner, start, lambda supervisor: _only(ready))
        elif config is not None and not system.FULL:
            plain = settings_of(config)
            ifconfig.check(plain)
            _serve(
                runner,
                start,
                lambda supervisor: _saved(
                    supervisor, options.config, _plain_link_up(interface, plain, run, ready)
                ),
            )
        else:
            if inherited.uapi is None and options.uapi_fd is None:
                uapi_server.refuse_another(interface)  # the journal is that one's
            # Nobody took it down: its supervisor was killed, or hands it over.
            is_up = bool(inherited.tun and journal.steps)
            settings = None
            if config is not None and not is_up:
                settings = settings_of(config, options.run_hooks)
            try:
                if settings is not None:
                    runner.run(_stoppable(link.before(interface, settings, run, journal)))
                _serve(
                    runner,
                    start,
                    lambda supervisor: _saved(
                        supervisor,
                        options.config,
                        _link_up(supervisor, settings, run, journal, ready),
                    ),
                )
            finally:
                runner.run(link.take_down(interface, run, journal))
    log.info("%s is down", interface)
    return 0


def _told_to_stop(number: int, frame: FrameType | None) -> NoReturn:
    """Undo what has been done."""
    raise WgmpError("told to stop before it was up")


async def _stoppable(work: Coroutine[Any, Any, _Value]) -> _Value:
    """Return what comes of `work`; SIGTERM ends it, be it that a hook runs or a name is asked for.

    What a signal's own handler raises would be lost in an event loop that waits.
    """
    loop, told = asyncio.get_running_loop(), False
    task = asyncio.ensure_future(work)

    def stop() -> None:
        nonlocal told
        told = task.cancel()

    loop.add_signal_handler(signal.SIGTERM, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if told:
            _told_to_stop(signal.SIGTERM, None)
        raise
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, _told_to_stop)


def _serve(
    runner: asyncio.Runner,
    start: Start,
    up: Callable[[Supervisor], contextlib.AbstractAsyncContextManager[None]],
) -> None:
    """Open the interface and run the gateway on it to its end; `up` as in `Supervisor.run`."""
    options, predecessor = start.options, start.predecessor
    with guarding(predecessor):
        opened = open_gateway(start)
    supervisor = opened.supervisor
    departure = Departure(opened, options, start.manager)
    opened.control.upgrade = departure.upgrade
    service = Service(start.manager, supervisor, options.config)

    @contextlib.asynccontextmanager
    async def served() -> AsyncIterator[None]:
        if predecessor is not None:
            await opened.answer()
        async with up(supervisor):
            service.up()
            yield
            await departure.settled()  # till then it may be a successor's to undo

    async def main() -> None:
        try:
            if predecessor is not None:
                with guarding(predecessor):
                    restore(predecessor.estate, supervisor.device)
            elif start.config is not None:
                endpoints = await _stoppable(look_up(quick.endpoints(start.config)))
                lines = synchronize(start.config, supervisor.device, endpoints.first)
                for line in lines + quick.notices(start.config, options.run_hooks):
                    log.warning("%s", line)
            supervisor.publish()
            service.start()
            if predecessor is None:
                await opened.answer()
            if supervisor.sandbox.on and not options.run_hooks:  # hooks may need anything
                sandbox.narrow_supervisor()
            await supervisor.run(served(), predecessor)
        finally:
            service.down()
            opened.close()

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
async def _plain_link_up(
    interface: str, settings: LinkSettings, run: Commands, ready: Callable[[], None]
) -> AsyncIterator[None]:
    """Bring the link up where all that is done to it goes with the interface."""
    await ifconfig.bring_up(interface, settings, run)
    ready()
    yield


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
