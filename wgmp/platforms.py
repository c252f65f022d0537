"""What wgmp can do on an operating system.

| | Linux | macOS | Windows |
|---|---|---|---|
| the gateway | yes | one compact process, reference fast path (ADR 20) | no |
| its links (`--config`) | yes | addresses and routes, no default route | no |
| the agent, doctor, demo | yes | no | no |
| back ends of the network manager | wgmp, kernel | wgmp | windows |
| keys, wg-quick files, settings, pings | yes | yes | yes |

A gateway needs fork, memory shared over it, and a TUN that is a descriptor. What else differs
between the systems that have those is in `wgmp.system` and `wgmp.tundevice`.
"""

from __future__ import annotations

import sys

import msgspec

from wgmp.errors import UnsupportedPlatformError


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """An operating system: its `name` for people, and the table's rows.

    `gateway`: whether it runs there; `instead`: what to use for what does not run, "" where all
    does. `backends`: the first is the default.
    """

    name: str
    gateway: bool = False
    instead: str = ""
    backends: tuple[str, ...] = ()


_PLATFORMS = {
    "linux": Platform(name="Linux", gateway=True, backends=("wgmp", "kernel")),
    "darwin": Platform(
        name="macOS", gateway=True, instead="use `wgmpd utun` with wg-quick", backends=("wgmp",)
    ),
    "win32": Platform(
        name="Windows",
        instead="use the official WireGuard, which wgmp.manage can manage",
        backends=("windows",),
    ),
}


def platform_of(system: str = sys.platform) -> Platform:
    """Return what there is to know of a system; `system`: as `sys.platform`."""
    known = _PLATFORMS.get(system)
    return known or Platform(name=system, instead="run it on Linux")


def require_gateway(system: str = sys.platform) -> None:
    """Raise UnsupportedPlatformError where the gateway does not run."""
    platform = platform_of(system)
    if not platform.gateway:
        raise UnsupportedPlatformError(
            f"the gateway does not run on {platform.name}: {platform.instead}"
        )


def require_linux(what: str, system: str = sys.platform) -> None:
    """Raise UnsupportedPlatformError but on Linux; `what` needs its programs and files."""
    platform = platform_of(system)
    if platform.instead:
        raise UnsupportedPlatformError(
            f"{what} is for Linux, and does not run on {platform.name}: {platform.instead}"
        )


def choose_backend(wanted: str = "", system: str = sys.platform) -> str:
    """Return the name of the back end to use: the one wanted, or the system's default.

    Raises UnsupportedPlatformError when the system has it not, or none at all.
    """
    platform = platform_of(system)
    if not platform.backends:
        raise UnsupportedPlatformError(
            f"there is no way to manage interfaces on {platform.name}: {platform.instead}"
        )
    if wanted and wanted not in platform.backends:
        raise UnsupportedPlatformError(
            f"there is no back end {wanted} on {platform.name}: "
            f"choose {' or '.join(platform.backends)}"
        )
    return wanted or platform.backends[0]
