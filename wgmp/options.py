"""Options of `wgmp supervise` and `wgmpd`: from the command line, else from the environment.

| environment | option | values |
|---|---|---|
| WGMP_WORKERS | --workers | auto, 1..64 |
| WGMP_TOPOLOGY | --topology | auto, pipeline, compact |
| WGMP_TUN_QUEUES | --tun-queues | 1..16 |
| WGMP_CONFIG | --config | a file |
| WGMP_OFFLOAD | --offload | auto, off |
| WGMP_FASTPATH | --fastpath | auto, native, reference |
| WGMP_AEAD | --aead | ring, ipsec-mb |
| | --run-hooks | |
| WGMP_SANDBOX | --no-sandbox | auto, off |
| WGMP_USER | --user | a user's name |
| WGMP_SESSIONS | --sessions | shared, private |
| WGMP_METRICS | --metrics | an address and port, such as 127.0.0.1:9586 |
| WG_PROCESS_FOREGROUND | --foreground | 1, 0 |
| WGMP_LOG_FORMAT | --log-format | text, json |
| LOG_LEVEL | | verbose or debug, info, error, silent |
| WG_TUN_FD, WG_UAPI_FD | | a descriptor the process was started with |
| WG_TUN_NAME_FILE | | macOS: where to write the name that the system gave the interface `utun` |

The WG_ ones and LOG_LEVEL mean what they mean to wireguard-go (main.go). An empty variable is
an unset one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import msgspec

from wgmp.addresses import parse_address, split_host_port
from wgmp.errors import ConfigError
from wgmp.fastpath.choice import Aead, Choice
from wgmp.logs import LogFormat, LogLevel
from wgmp.topology import MAX_QUEUES, MAX_WORKERS, Shape

INTERFACE_NAME_BYTES = 15  # IFNAMSIZ - 1, linux/if.h

# What the kernel refuses in a name (net/core/dev.c, dev_valid_name): "/", ":" and isspace() of
# its Latin-1 table; and "%", by which it would make up a name of its own.
_NOT_IN_NAMES = frozenset(b"/:%\0" + b" \t\n\v\f\r\xa0")

_Enum = TypeVar("_Enum", bound=StrEnum)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to run. `workers`: None leaves it to the number of cores.

    `tun_queues`: each has a process that reads it. `run_hooks`: run the shell commands in the
    configuration. `offload`: use those the kernel has. `sandbox`: let roles give up what they do
    not need; `user`: whose they become then, "" for the default (sandbox.py). `shared_sessions`:
    they outlive a worker. `metrics`: where to serve them, None for nowhere.
    `tun_fd`, `uapi_fd`: descriptors to use instead of opening, None to open.
    """

    interface: str
    config: Path | None = None
    workers: int | None = None
    topology: Shape = Shape.AUTO
    tun_queues: int = 1
    offload: bool = True
    fastpath: Choice = Choice.AUTO
    aead: Aead = Aead.RING
    sandbox: bool = True
    user: str = ""
    shared_sessions: bool = True
    run_hooks: bool = False
    metrics: tuple[str, int] | None = None
    foreground: bool = False
    log_level: LogLevel = LogLevel.ERROR
    log_format: LogFormat = LogFormat.TEXT
    tun_fd: int | None = None
    uapi_fd: int | None = None


def read_options(
    interface: str,
    environment: Mapping[str, str],
    *,
    config: str | None = None,
    workers: str | None = None,
    topology: str | None = None,
    tun_queues: str | None = None,
    offload: str | None = None,
    fastpath: str | None = None,
    aead: str | None = None,
    log_format: str | None = None,
    sandbox: str | None = None,
    user: str | None = None,
    sessions: str | None = None,
    run_hooks: bool = False,
    metrics: str | None = None,
    foreground: bool = False,
) -> Options:
    """Return the options: what the command line gave (not None), else the environment.

    Raises ConfigError that names the option or the variable and what it may be.
    """

    def choose(given: str | None, option: str, variable: str) -> tuple[str, str]:
        return (option, given) if given is not None else (variable, environment.get(variable, ""))

    _, file = choose(config, "--config", "WGMP_CONFIG")
    options = Options(
        interface=check_interface_name(interface),
        config=Path(file) if file else None,
        workers=_workers(*choose(workers, "--workers", "WGMP_WORKERS")),
        topology=_one_of(Shape.AUTO, *choose(topology, "--topology", "WGMP_TOPOLOGY")),
        tun_queues=_tun_queues(*choose(tun_queues, "--tun-queues", "WGMP_TUN_QUEUES")),
        offload=_switch(*choose(offload, "--offload", "WGMP_OFFLOAD")),
        fastpath=_one_of(Choice.AUTO, *choose(fastpath, "--fastpath", "WGMP_FASTPATH")),
        aead=_one_of(Aead.RING, *choose(aead, "--aead", "WGMP_AEAD")),
        sandbox=_switch(*choose(sandbox, "--sandbox", "WGMP_SANDBOX")),
        user=choose(user, "--user", "WGMP_USER")[1],
        shared_sessions=_sessions(*choose(sessions, "--sessions", "WGMP_SESSIONS")),
        run_hooks=run_hooks,
        metrics=_address(*choose(metrics, "--metrics", "WGMP_METRICS")),
        foreground=_flag("WG_PROCESS_FOREGROUND", environment) or foreground,
        log_level=log_level("LOG_LEVEL", environment.get("LOG_LEVEL", "")),
        log_format=log_format_of(*choose(log_format, "--log-format", "WGMP_LOG_FORMAT")),
        tun_fd=_descriptor("WG_TUN_FD", environment),
        uapi_fd=_descriptor("WG_UAPI_FD", environment),
    )
    if options.tun_queues > 1:
        _check_queues(options)
    return options


def _check_queues(options: Options) -> None:
    if options.topology is Shape.COMPACT:
        raise ConfigError(
            "several TUN queues are read by a process each: write the topology pipeline, or 1 queue"
        )
    if options.tun_fd is not None:
        raise ConfigError("WG_TUN_FD is one queue: start without it, or without --tun-queues")


def check_interface_name(name: str) -> str:
    """Return the name if Linux can give it to an interface; raise ConfigError if not."""
    raw = os.fsencode(name)
    if not 1 <= len(raw) <= INTERFACE_NAME_BYTES:
        raise ConfigError(
            f"interface name {name!r} has {len(raw)} bytes: write one of 1 to "
            f"{INTERFACE_NAME_BYTES}"
        )
    if name in (".", "..") or not _NOT_IN_NAMES.isdisjoint(raw):
        raise ConfigError(
            f"interface name {name!r} is not possible: write one without blanks, "
            "'/', ':' and '%', for example wg0"
        )
    return name


def _workers(name: str, text: str) -> int | None:
    if text in ("", "auto"):
        return None
    if _is_number(text, MAX_WORKERS):
        return int(text)
    raise ConfigError(f"{name}: {text!r} is not possible: write auto, or 1 to {MAX_WORKERS}")


def _tun_queues(name: str, text: str) -> int:
    if text and not _is_number(text, MAX_QUEUES):
        raise ConfigError(f"{name}: {text!r} is not possible: write 1 to {MAX_QUEUES}")
    return int(text or "1")


def _is_number(text: str, most: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= most


def _address(name: str, text: str) -> tuple[str, int] | None:
    if not text:
        return None
    try:
        host, port = split_host_port(text)
        parse_address(host)
    except ValueError as error:
        raise ConfigError(
            f"{name}: {text!r} {error}: write an address and a port, for example 127.0.0.1:9586"
        ) from None
    return host, port


def _one_of(default: _Enum, name: str, text: str) -> _Enum:
    kind = type(default)
    try:
        return kind(text) if text else default
    except ValueError:
        raise ConfigError(f"{name}: {text!r} is not possible: write {', '.join(kind)}") from None


def _switch(name: str, text: str) -> bool:
    if text not in ("", "auto", "off"):
        raise ConfigError(f"{name}: {text!r} is not possible: write auto or off")
    return text != "off"


def log_level(name: str, text: str) -> LogLevel:
    """Return the level that `text` says; raise ConfigError that names `name` if it says none."""
    try:
        return LogLevel("verbose" if text == "debug" else text or "error")
    except ValueError:
        raise ConfigError(
            f"{name}: {text!r} is not possible: write verbose, debug, info, error or silent"
        ) from None


def log_format_of(name: str, text: str) -> LogFormat:
    """Return the format that `text` says; raise ConfigError that names `name` if it says none."""
    try:
        return LogFormat(text or "text")
    except ValueError:
        raise ConfigError(f"{name}: {text!r} is not possible: write text or json") from None


def _sessions(name: str, text: str) -> bool:
    if text not in ("", "shared", "private"):
        raise ConfigError(f"{name}: {text!r} is not possible: write shared or private")
    return text != "private"


def _flag(name: str, environment: Mapping[str, str]) -> bool:
    text = environment.get(name, "")
    if text not in ("", "0", "1"):
        raise ConfigError(f"{name}: {text!r} is not possible: write 1 or 0")
    return text == "1"


def _descriptor(name: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(name, "")
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    raise ConfigError(f"{name}: {text!r} is no descriptor: write its number, for example 3")
