"""A gateway as a service: what it tells its manager (systemd.py), and a reload of its file.

    up       -> the TUN, the UDP sockets and the UAPI socket are in systemd's keeping; READY
    SIGHUP   -> RELOADING, the file is read and made true (reload.py), READY
    all well -> WATCHDOG, at half the time that systemd waits for it: every role's loop turned
    the end  -> STOPPING

A supervisor that is killed loses its roles and sessions, and nothing that systemd keeps: the next
one takes it over (inheritance.py) and shakes hands anew.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from wgmp import config as quick
from wgmp import inheritance
from wgmp.counters import Counter
from wgmp.errors import ControlError, WgmpError
from wgmp.fabric import Fabric
from wgmp.lookup import Answers, look_up
from wgmp.reload import synchronize
from wgmp.supervisor import Supervisor
from wgmp.system import boottime
from wgmp.systemd import Manager

log = logging.getLogger("wgmp")

# An idle loop turns once a second; a busy machine is late.
_FRESH_S = 5.0


class Service:
    """One gateway under `manager`; `config`: the file that a reload reads, None for none."""

    def __init__(self, manager: Manager, supervisor: Supervisor, config: Path | None) -> None:
        self._manager = manager
        self._supervisor = supervisor
        self._config = config
        self._watchdog: asyncio.Task[None] | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._wanted = False

    def start(self) -> None:
        """Hear SIGHUP from now on, in the running event loop."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)

    def up(self) -> None:
        """Tell that traffic can flow, and go on telling that all is well."""
        descriptors = self._supervisor.descriptors()
        for kept in (inheritance.TUN, inheritance.UAPI):  # UDP changes: the supervisor sees to it
            self._manager.keep(kept, [each for name, each in descriptors if name == kept])
        self._manager.ready(self._status())
        if self._manager.watchdog_s is not None:
            interval_s = self._manager.watchdog_s / 2
            self._watchdog = asyncio.create_task(self._tell_alive(interval_s))

    def down(self) -> None:
        """The gateway has stopped, maybe without having been up."""
        for task in (self._watchdog, self._reloading):
            if task is not None:
                task.cancel()
        self._manager.forget(inheritance.UAPI)  # its path went, and it is of no use without

    def reload(self) -> None:
        """Make the device what the file says by now. A wrong file changes nothing, and is logged.

        So it is while the gateway is handed over: the change would stay behind.
        Endpoints that are names are asked for meanwhile; nothing waits for that.
        """
        if self._config is None:
            log.warning("nothing to reload: the gateway was started without --config")
            return
        self._manager.reloading()
        self._wanted = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.create_task(self._read_again(self._config))

    async def _read_again(self, file: Path) -> None:
        """Read the file, and once more if that was wanted meanwhile, and make it true."""
        said = ""
        while self._wanted:
            self._wanted = False
            try:
                config = quick.load_again(file)
                answers = await look_up(quick.endpoints(config))
                if not self._wanted:
                    self._make_true(config, answers)
                    log.info("%s was reloaded", file)
                    said = self._status()
            except WgmpError as error:
                log.error("not reloaded: %s", error)
                said = f"not reloaded: {error}"
        self._manager.ready(said)

    def _make_true(self, config: quick.QuickConfig, answers: Answers) -> None:
        supervisor = self._supervisor
        if supervisor.holding:
            raise ControlError("the gateway is being handed over: reload it once more")
        if supervisor.stopping.is_set():
            raise ControlError("the gateway is being stopped")
        try:
            for line in synchronize(config, supervisor.device, answers.first):
                log.warning("%s", line)
        finally:
            supervisor.publish()

    def _status(self) -> str:
        supervisor = self._supervisor
        peers = len(supervisor.device.peers)
        return (
            f"{supervisor.interface}: {supervisor.topology}, {peers} peer(s), "
            f"UDP port {supervisor.device.listen_port}"
        )

    async def _tell_alive(self, interval_s: float) -> None:
        while True:
            await asyncio.sleep(interval_s)
            late = stale_roles(self._supervisor.fabric, max(_FRESH_S, interval_s))
            if late:
                log.warning("no heartbeat from %s: systemd is not told", ", ".join(late))
            else:
                self._manager.alive()


def stale_roles(fabric: Fabric, limit_s: float) -> list[str]:
    """Return the roles whose loop has not turned for `limit_s` seconds.

    Counters of a role that is no more, for there are fewer workers now, stay and stand still.
    """
    now = boottime()
    return [
        row.name
        for row in fabric.topology.roles
        if now - fabric.counters[row.name].value(Counter.HEARTBEAT) / 1e9 > limit_s
    ]
