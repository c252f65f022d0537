"""Pings as each system spells them, and what their output means."""

from __future__ import annotations

import asyncio

import pytest

from wgmp.errors import CommandError, ConfigError
from wgmp.manage import latency
from wgmp.manage.runner import Commands, Done

from .replay import Replay

LINUX = "64 bytes from 10.66.0.2: icmp_seq=1 ttl=64 time=0.045 ms\nrtt min/avg/max/mdev = 0.030/..."
MACOS = "64 bytes from 10.66.0.2: icmp_seq=0 ttl=64 time=12.345 ms\n"
WINDOWS = "Reply from 10.66.0.2: bytes=32 time=14ms TTL=64\r\n Minimum = 14ms, Maximum = 14ms\r\n"
FAST = "Reply from 10.66.0.2: bytes=32 time<1ms TTL=64\r\n"
GERMAN = "Antwort von 10.66.0.2: Bytes=32 Zeit=7ms TTL=64\r\n"
UNREACHABLE = "Reply from 10.66.0.1: Destination host unreachable.\r\n"


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        (LINUX, 0.045),
        (MACOS, 12.345),
        (WINDOWS, 14.0),
        (FAST, 1.0),
        (GERMAN, 7.0),
        (UNREACHABLE, None),
        ("rtt min/avg/max/mdev = 0.030/0.030/0.030/0.000 ms", None),
        ("", None),
    ],
)
def test_the_time_is_read_from_any_systems_words(printed: str, expected: float | None) -> None:
    assert latency.parse(printed) == expected


@pytest.mark.parametrize(
    ("system", "address", "words"),
    [
        ("linux", "10.66.0.2", "ping -c 1 -W 1 10.66.0.2"),
        ("linux", "fd00::2", "ping -c 1 -W 1 fd00::2"),
        ("darwin", "10.66.0.2", "ping -c 1 -W 1000 10.66.0.2"),
        ("darwin", "fd00::2", "ping6 -c 1 fd00::2"),
        ("win32", "10.66.0.2", "ping -n 1 -w 1000 10.66.0.2"),
    ],
)
def test_each_systems_ping_is_asked_in_its_own_words(system: str, address: str, words: str) -> None:
    command = tuple(words.split())
    run = Replay([Done(command, stdout=WINDOWS)])
    assert asyncio.run(latency.measure(address, run, system)) == 14.0
    assert run.ran == [command]


def test_no_answer_is_none_and_no_ping_is_an_error() -> None:
    words = ("ping", "-c", "1", "-W", "1", "10.66.0.2")
    unanswered = Replay([Done(words, 1, "1 packets transmitted, 0 received")])
    assert asyncio.run(latency.measure("10.66.0.2", unanswered, "linux")) is None
    with pytest.raises(CommandError, match="there is no `ping` command: install iputils-ping"):
        asyncio.run(latency.measure("10.66.0.2", Replay([]), "linux"))
    with pytest.raises(ConfigError, match="'-f' is no address: write for example"):
        asyncio.run(latency.measure("-f", Replay([]), "linux"))


@pytest.mark.skipif(not Commands().has("ping"), reason="needs ping")
def test_this_host_answers_itself() -> None:
    milliseconds = asyncio.run(latency.measure("127.0.0.1", Commands()))
    assert milliseconds is None or milliseconds >= 0  # None where ping may not be used
