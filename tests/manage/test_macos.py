"""Links and the back end of macOS, by recorded commands: none of them can run here."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import msgspec
import pytest

from wgmp import keys
from wgmp.addresses import parse_prefix
from wgmp.errors import CommandError, ControlError
from wgmp.manage import ifconfig
from wgmp.manage.macos import MacosBackend
from wgmp.manage.manager import NetworkManager
from wgmp.manage.runner import LIMIT_S, Done
from wgmp.manage.settings import LinkSettings

from .replay import Replay

PRIVATE = keys.to_base64(keys.clamp(bytes([7]) * 32))
PUBLIC = keys.to_base64(keys.public_key_of(keys.from_base64(PRIVATE)))
PEER = keys.to_base64(bytes([1]) * 32)
DUMP = f"{PRIVATE}\t{PUBLIC}\t51820\toff\n"
FLAGS = "utun7: flags=8051<UP,POINTOPOINT,RUNNING,MULTICAST> mtu 1420\n"

SETTINGS = LinkSettings(
    addresses=(ip_interface("10.0.0.1/24"), ip_interface("fd00::1/64")),
    mtu=1380,
    allowed_ips=tuple(map(parse_prefix, ("10.0.0.0/24", "10.0.0.2/32", "fd00::/64"))),
)
ADD = ("route", "-q", "-n", "add")
UP = [
    ("ifconfig", "utun7", "inet", "10.0.0.1/24", "10.0.0.1", "alias"),
    ("ifconfig", "utun7", "inet6", "fd00::1/64", "alias"),
    ("ifconfig", "utun7", "mtu", "1380"),
    ("ifconfig", "utun7", "up"),
    (*ADD, "-inet6", "fd00::/64", "-interface", "utun7"),
    (*ADD, "-inet", "10.0.0.2/32", "-interface", "utun7"),
    (*ADD, "-inet", "10.0.0.0/24", "-interface", "utun7"),
]


def test_a_link_is_brought_up_by_ifconfig_and_route() -> None:
    run = Replay([Done(command) for command in UP])
    asyncio.run(ifconfig.bring_up("utun7", SETTINGS, run))
    assert set(run.ran) == set(UP)
    assert run.ran[:4] == UP[:4]
    assert run.ran.index(UP[5]) < run.ran.index(UP[6]), "longest first"


def test_a_route_that_is_there_already_is_left_and_another_failure_told() -> None:
    said = "route: writing to routing socket: File exists\n"
    there = Done(UP[4], 1, "", said)
    others = [Done(command) for command in UP if command != UP[4]]
    asyncio.run(ifconfig.bring_up("utun7", SETTINGS, Replay([there, *others])))
    bad = Done(UP[4], 64, "", "route: bad address: fd00::/64\n")
    with pytest.raises(CommandError, match="bad address"):
        asyncio.run(ifconfig.bring_up("utun7", SETTINGS, Replay([bad, *others])))


def test_routes_change_with_the_allowed_ips() -> None:
    wanted = msgspec.structs.replace(
        SETTINGS, allowed_ips=tuple(map(parse_prefix, ("10.0.0.0/24", "10.9.0.0/16", "fd00::/64")))
    )
    gone = ("route", "-q", "-n", "delete", "-inet", "10.0.0.2/32", "-interface", "utun7")
    new = (*ADD, "-inet", "10.9.0.0/16", "-interface", "utun7")
    run = Replay([Done(gone, 1, "", "not in table"), Done(new)])
    asyncio.run(ifconfig.change_routes("utun7", SETTINGS, wanted, run))
    assert run.ran == [gone, new]


@pytest.mark.parametrize(
    ("table", "allowed", "message"),
    [
        ("auto", "0.0.0.0/0", "on macOS a default route is left to wg-quick"),
        ("auto", "::/0", "on macOS a default route is left to wg-quick"),
        ("123", "10.0.0.0/24", "Table: there is one routing table on macOS"),
    ],
)
def test_what_is_left_to_wg_quick_is_refused(table: str, allowed: str, message: str) -> None:
    settings = LinkSettings(table=table, allowed_ips=(parse_prefix(allowed),))
    with pytest.raises(CommandError, match=message):
        asyncio.run(ifconfig.bring_up("utun7", settings, Replay([])))


def test_without_a_table_there_are_no_routes() -> None:
    settings = LinkSettings(table="off", allowed_ips=(parse_prefix("0.0.0.0/0"),))
    run = Replay([Done(UP[3])])
    asyncio.run(ifconfig.bring_up("utun7", settings, run))
    asyncio.run(ifconfig.change_routes("utun7", SETTINGS, settings, run))
    assert run.ran == [UP[3]]


def test_a_resolver_that_stays_is_told(caplog: pytest.LogCaptureFixture) -> None:
    ifconfig.check(LinkSettings(dns=("example.org",)))
    assert "DNS: on macOS the resolver stays as it is" in caplog.text


# The back end


class Mac(Replay):
    """Plays a gateway that starts and ends: its files come and go."""

    def __init__(self, record: list[Done], directory: Path) -> None:
        super().__init__(record)
        self.directory = directory

    async def run(
        self, *command: str, stdin: str = "", check: bool = True, limit_s: float = LIMIT_S
    ) -> Done:
        if command[0] == "env":
            Path(command[1].partition("=")[2]).write_text("utun7\n")
            (self.directory / "utun7.sock").touch()
        done = await super().run(*command, stdin=stdin, check=False, limit_s=limit_s)
        if check and done.code:
            raise done.failure()
        return done


def started(directory: Path) -> list[Done]:
    name = f"WG_TUN_NAME_FILE={directory}/wgmp0.name"
    return [
        Done(("env", name, sys.executable, "-m", "wgmp", "supervise", "utun")),
        Done(("wg", "set", "utun7", "listen-port", "51820", "private-key", "/dev/stdin")),
        Done(("ifconfig", "utun7", "inet", "10.66.0.1/16", "10.66.0.1", "alias")),
        Done(UP[3]),
    ]


GONE = Done(("ifconfig", "utun7"), 1, "", "ifconfig: interface utun7 does not exist\n")


def together(*steps: Callable[[], Awaitable[Any]]) -> list[Any]:
    async def run() -> list[Any]:
        return [await step() for step in steps]

    return asyncio.run(run())


def manager(record: list[Done], directory: Path, **settings: str) -> tuple[NetworkManager, Mac]:
    run = Mac(record, directory)
    backend = MacosBackend(run, directory)
    made = NetworkManager(backend, private_key=PRIVATE, run=run, system="darwin", **settings)
    return made, run


def test_a_gateway_is_started_on_a_utun_set_up_and_ended(tmp_path: Path) -> None:
    peer = ("wg", "set", "utun7", "peer", PEER)
    route = ("-inet", "10.66.0.2/32", "-interface", "utun7")
    record = [
        *started(tmp_path),
        Done((*peer, "persistent-keepalive", "25", "allowed-ips", "10.66.0.2/32")),
        Done((*ADD, *route)),
        Done(("ifconfig", "utun7"), stdout=FLAGS),
        Done(("wg", "show", "utun7", "dump"), stdout=DUMP),
        Done(("ping", "-c", "1", "-W", "1000", "10.66.0.2"), stdout="time=3.5 ms"),
        Done((*peer, "remove")),
        Done(("route", "-q", "-n", "delete", *route)),
        GONE,
    ]
    made, run = manager(record, tmp_path)
    _, _, status, milliseconds, _, _ = together(
        made.initialize,
        lambda: made.add_peer(PEER, allowed_ips=["10.66.0.2/32"]),
        made.get_interface_status,
        lambda: made.measure_latency(PEER),
        lambda: made.remove_peer(PEER),
        made.cleanup,
    )
    assert run.ran == [done.command for done in record]
    assert run.given[1] == PRIVATE, "no key on a command line"
    assert (status.state, status.interface, status.listen_port) == ("active", "wgmp0", 51820)
    assert milliseconds == 3.5
    assert list(tmp_path.iterdir()) == []


def test_what_is_half_made_is_removed_again(tmp_path: Path) -> None:
    *before, address, _ = started(tmp_path)
    failed = Done(address.command, 1, "", "ifconfig: no room")
    made, _ = manager([*before, failed, GONE], tmp_path)
    with pytest.raises(CommandError, match="no room"):
        together(made.initialize)
    assert list(tmp_path.iterdir()) == []


def test_an_interface_that_is_there_is_left_or_adopted(tmp_path: Path) -> None:
    (tmp_path / "wgmp0.name").write_text("utun7\n")
    (tmp_path / "utun7.sock").touch()
    made, run = manager([], tmp_path)
    with pytest.raises(ControlError, match="interface wgmp0 exists: adopt or replace it"):
        together(made.initialize)
    conf = f"[Interface]\nListenPort = 7\nPrivateKey = {PRIVATE}\n"
    record = [Done(("wg", "showconf", "utun7"), stdout=conf), *started(tmp_path)[2:]]
    made, run = manager(record, tmp_path, if_exists="adopt")
    together(made.initialize)
    assert run.ran == [done.command for done in record]


def test_a_gateway_that_is_gone_is_not_there_and_one_that_is_down_says_so(tmp_path: Path) -> None:
    made, _ = manager([], tmp_path)
    assert together(made.get_interface_status)[0].state == "not_created"
    (tmp_path / "wgmp0.name").write_text("utun7\n")
    assert together(made.get_interface_status)[0].state == "not_created"
    (tmp_path / "utun7.sock").touch()
    down = Done(("ifconfig", "utun7"), stdout=FLAGS.replace("UP,", ""))
    made, _ = manager([down, Done(("wg", "show", "utun7", "dump"), stdout=DUMP)], tmp_path)
    (status,) = together(made.get_interface_status)
    assert (status.state, status.detail) == ("error", "wgmp0 is down: `ifconfig utun7 up`")
