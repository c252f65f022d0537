"""How a service speaks to systemd: sd_notify(3), sd_watchdog_enabled(3), sd_listen_fds(3).

Messages are datagrams of NAME=value lines to the socket NOTIFY_SOCKET. Descriptors that go with
FDSTORE=1 are kept by systemd, and come back as LISTEN_FDS when the service is started again: an
interface and its ports outlive the process that made them. Without systemd nothing is said.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Mapping, MutableMapping, Sequence

log = logging.getLogger("wgmp")

_FIRST_DESCRIPTOR = 3  # SD_LISTEN_FDS_START


class Manager:
    """The service manager that `environment` names, if any."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("NOTIFY_SOCKET", "")
        # "@" stands for the NUL of an abstract address.
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog_s = _watchdog_s(environment)

    def ready(self, status: str) -> None:
        """Say that the service is up, or has been reloaded; `status`: one line for people."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Say that a reload has begun; `ready` ends it."""
        microseconds = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._tell("RELOADING=1", f"MONOTONIC_USEC={microseconds}")

    def stopping(self) -> None:
        """Say that the service takes itself down."""
        self._tell("STOPPING=1")

    def alive(self) -> None:
        """Say that all is well, for another `watchdog_s`."""
        self._tell("WATCHDOG=1")

    def succeeded_by(self, pid: int) -> None:
        """Say that process `pid` is the service from now on."""
        self._tell(f"MAINPID={pid}")

    def keep(self, name: str, descriptors: Sequence[int]) -> None:
        """Let systemd keep these descriptors, and forget those it kept by that name before.

        It does not look whether they still work (FDPOLL=0): an ICMP error on a UDP socket would
        make it drop the socket.
        """
        self.forget(name)
        self._tell("FDSTORE=1", f"FDNAME={name}", "FDPOLL=0", descriptors=descriptors)

    def forget(self, name: str) -> None:
        """Let systemd close what it keeps by that name."""
        self._tell("FDSTOREREMOVE=1", f"FDNAME={name}")

    def _tell(self, *lines: str, descriptors: Sequence[int] = ()) -> None:
        if not self._address:
            return
        message = "\n".join(lines).encode()
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect(self._address)
                socket.send_fds(sock, [message], list(descriptors))
        except OSError as error:
            log.warning("systemd does not hear %s: %s", lines[0], error.strerror)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return within how many seconds `alive` is expected, None when it is not."""
    for_us = environment.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    microseconds = environment.get("WATCHDOG_USEC", "")
    within_s = int(microseconds) / 1e6 if for_us and microseconds.isdigit() else 0.0
    return within_s or None


def take_descriptors(environment: MutableMapping[str, str]) -> list[tuple[str, int]]:
    """Return the descriptors that systemd passed to this process, each with its name.

    The variables are removed: what this process starts is not meant.
    """
    pid = environment.pop("LISTEN_PID", "")
    count = environment.pop("LISTEN_FDS", "")
    names = environment.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    descriptors = range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    names += ["unknown"] * (len(descriptors) - len(names))
    return list(zip(names, descriptors, strict=False))


NOBODY = Manager({})
