"""Options from the command line and the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgmp.errors import ConfigError
from wgmp.fastpath.choice import Aead, Choice
from wgmp.logs import LogFormat
from wgmp.options import LogLevel, Options, Shape, check_interface_name, read_options


def test_without_anything_said_the_defaults_hold() -> None:
    unset = {"WGMP_WORKERS": "", "WG_TUN_FD": "", "LOG_LEVEL": "", "WG_PROCESS_FOREGROUND": ""}
    assert read_options("wg0", {}) == read_options("wg0", unset) == Options(interface="wg0")


def test_the_environment_is_read() -> None:
    environment = {
        "WGMP_WORKERS": "64",
        "WGMP_TOPOLOGY": "compact",
        "WGMP_TUN_QUEUES": "1",
        "WGMP_CONFIG": "/etc/wireguard/wg0.conf",
        "WG_TUN_FD": "3",
        "WG_UAPI_FD": "4",
        "WG_PROCESS_FOREGROUND": "1",
        "LOG_LEVEL": "debug",
    }
    assert read_options("wg0", environment) == Options(
        interface="wg0",
        config=Path("/etc/wireguard/wg0.conf"),
        workers=64,
        topology=Shape.COMPACT,
        foreground=True,
        log_level=LogLevel.VERBOSE,
        tun_fd=3,
        uapi_fd=4,
    )


def test_the_command_line_goes_before_the_environment() -> None:
    environment = {"WGMP_WORKERS": "7", "WGMP_TOPOLOGY": "compact", "WGMP_CONFIG": "other"}
    options = read_options(
        "wg0", environment, config="mine", workers="auto", topology="pipeline", foreground=True
    )
    assert (options.workers, options.topology) == (None, Shape.PIPELINE)
    assert (options.config, options.foreground) == (Path("mine"), True)


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("WGMP_WORKERS", "0", "write auto, or 1 to 64"),
        ("WGMP_WORKERS", "65", "write auto, or 1 to 64"),
        ("WGMP_WORKERS", "-1", "write auto, or 1 to 64"),
        ("WGMP_WORKERS", "²", "write auto, or 1 to 64"),
        ("WGMP_TOPOLOGY", "Compact", "write auto, pipeline, compact"),
        ("WGMP_TUN_QUEUES", "0", "write 1 to 16"),
        ("WGMP_TUN_QUEUES", "-1", "write 1 to 16"),
        ("WGMP_TUN_QUEUES", "1000", "write 1 to 16"),
        ("WGMP_TUN_QUEUES", "x", "write 1 to 16"),
        ("WGMP_OFFLOAD", "on", "write auto or off"),
        ("WGMP_SANDBOX", "no", "write auto or off"),
        ("WGMP_FASTPATH", "rust", "write auto, native, reference"),
        ("WGMP_AEAD", "auto", "write ring, ipsec-mb"),
        ("WGMP_SESSIONS", "none", "write shared or private"),
        ("WGMP_METRICS", "9586", "for example 127.0.0.1:9586"),
        ("WGMP_METRICS", "localhost:9586", "for example 127.0.0.1:9586"),
        ("WGMP_METRICS", "127.0.0.1:0", "for example 127.0.0.1:9586"),
        ("WG_PROCESS_FOREGROUND", "yes", "write 1 or 0"),
        ("WG_TUN_FD", "-1", "write its number"),
        ("WG_UAPI_FD", "three", "write its number"),
        ("LOG_LEVEL", "quiet", "write verbose, debug, info, error or silent"),
        ("WGMP_LOG_FORMAT", "xml", "write text or json"),
    ],
)
def test_bad_values_are_told_with_the_variable(variable: str, value: str, remedy: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_options("wg0", {variable: value})
    assert str(caught.value).startswith(f"{variable}: {value!r} ")
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "option", "text", "field", "value"),
    [
        ("WGMP_CONFIG", "config", "a.conf", "config", Path("a.conf")),
        ("WGMP_WORKERS", "workers", "5", "workers", 5),
        ("WGMP_TOPOLOGY", "topology", "pipeline", "topology", Shape.PIPELINE),
        ("WGMP_TUN_QUEUES", "tun_queues", "16", "tun_queues", 16),
        ("WGMP_OFFLOAD", "offload", "off", "offload", False),
        ("WGMP_OFFLOAD", "offload", "auto", "offload", True),
        ("WGMP_FASTPATH", "fastpath", "native", "fastpath", Choice.NATIVE),
        ("WGMP_AEAD", "aead", "ipsec-mb", "aead", Aead.IPSEC_MB),
        ("WGMP_SANDBOX", "sandbox", "off", "sandbox", False),
        ("WGMP_USER", "user", "daemon", "user", "daemon"),
        ("WGMP_SESSIONS", "sessions", "private", "shared_sessions", False),
        ("WGMP_SESSIONS", "sessions", "shared", "shared_sessions", True),
        ("WGMP_METRICS", "metrics", "[::1]:9586", "metrics", ("::1", 9586)),
        ("WGMP_LOG_FORMAT", "log_format", "json", "log_format", LogFormat.JSON),
    ],
)
def test_each_setting_comes_from_its_variable_or_its_option(
    variable: str, option: str, text: str, field: str, value: object
) -> None:
    by_variable = read_options("wg0", {variable: text})
    by_option = read_options("wg0", {variable: "nonsense"}, **{option: text})  # type: ignore[arg-type]
    assert getattr(by_variable, field) == value
    assert by_variable == by_option


def test_a_bad_option_is_told_as_the_option_and_not_the_variable() -> None:
    with pytest.raises(ConfigError, match=r"^--workers: 'many'"):
        read_options("wg0", {"WGMP_WORKERS": "2"}, workers="many")


def test_several_queues_are_for_readers_in_processes_of_their_own() -> None:
    options = read_options("wg0", {"WGMP_TUN_QUEUES": "1"}, tun_queues="16")
    assert (options.tun_queues, options.topology) == (16, Shape.AUTO)
    with pytest.raises(ConfigError, match="write the topology pipeline"):
        read_options("wg0", {"WGMP_TOPOLOGY": "compact"}, tun_queues="2")
    with pytest.raises(ConfigError, match="WG_TUN_FD is one queue"):
        read_options("wg0", {"WG_TUN_FD": "3"}, tun_queues="2")


@pytest.mark.parametrize("name", ["a", "wg0", "wg-0.1_x=+", "é" * 7, "x" * 15, "..."])
def test_names_linux_takes_are_taken(name: str) -> None:
    assert check_interface_name(name) == name


@pytest.mark.parametrize(
    "name",
    ["", "x" * 16, "é" * 8, ".", "..", "a/b", "a b", "a\tb", "a\n", "a:b", "wg%d", "a\0", "\xa0"],
)
def test_names_linux_refuses_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^interface name .* write one"):
        read_options(name, {})
