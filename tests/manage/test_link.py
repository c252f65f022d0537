"""Resolver and firewall where the programs to set them are not at hand: by recorded commands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from wgmp.addresses import parse_endpoint, parse_prefix
from wgmp.errors import CommandError
from wgmp.manage import link
from wgmp.manage.journal import Journal, Undo
from wgmp.manage.runner import Done
from wgmp.manage.settings import LinkSettings

from .replay import Replay

LINK = '[{"ifname":"wg0","flags":["POINTOPOINT","NOARP"],"mtu":1420}]'
RULES = '[{"priority":0,"table":"local"},{"priority":32766,"table":"main"}]'
SHOW = ("ip", "link", "show", "dev", "wg0")
START = [
    Done(("ip", "-j", "link", "show", "dev", "wg0"), stdout=LINK),
    Done(("ip", "link", "set", "mtu", "1400", "up", "dev", "wg0")),
]
BACK = [Done(SHOW), Done(("ip", "link", "set", "mtu", "1420", "down", "dev", "wg0"))]


def up_and_down(
    settings: LinkSettings, record: list[Done], directory: Path, programs: Iterable[str] = ()
) -> Replay:
    """Bring wg0 up and take it down, answering from the record; see that all is undone."""
    run = Replay([*START, *record, *BACK], {"ip", *programs})
    journal = Journal(directory / "wg0.undo")

    async def both() -> None:
        await link.bring_up("wg0", settings, run, journal)
        await link.take_down("wg0", run, journal)

    asyncio.run(both())
    assert not journal.path.exists()
    return run


def test_systemd_resolved_is_told_when_there_is_no_resolvconf(tmp_path: Path) -> None:
    settings = LinkSettings(mtu=1400, dns=(ip_address("9.9.9.9"), "example.org"))
    commands = [
        ("resolvectl", "dns", "wg0", "9.9.9.9"),
        ("resolvectl", "domain", "wg0", "~.", "example.org"),
        ("resolvectl", "revert", "wg0"),
    ]
    run = up_and_down(settings, [Done(command) for command in commands], tmp_path, ["resolvectl"])
    assert [command for command in run.ran if command[0] == "resolvectl"] == commands


def test_without_a_resolver_to_tell_there_is_a_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    up_and_down(LinkSettings(mtu=1400, dns=(ip_address("9.9.9.9"),)), [], tmp_path)
    assert "neither resolvconf nor resolvectl" in caplog.text
    caplog.clear()
    up_and_down(LinkSettings(mtu=1400, dns=("example.org",)), [], tmp_path)
    assert caplog.text == "", "search domains alone change nothing"


DEFAULT6 = LinkSettings(
    mtu=1400,
    fwmark=77,
    addresses=(ip_interface("fd00::1/64"),),
    allowed_ips=(parse_prefix("::/0"),),
)
SELECTORS = (
    ("not", "fwmark", "77", "table", "77", "priority", "32765"),
    ("table", "main", "suppress_prefixlength", "0", "priority", "32764"),
)


def default_route(addresses: str) -> list[Done]:
    later = RULES.replace('{"priority":32766', '{"priority":32765,"table":"77"},{"priority":32766')
    address = ("fd00::1/64", "dev", "wg0")
    batch = ("ip", "-6", "-batch", "-"), ("ip", "-6", "-force", "-batch", "-")
    commands = [
        ("ip", "-6", "address", "add", *address),
        ("ip", "-6", "address", "delete", *address),
        *batch,
        *(("ip", "-6", "rule", verb, *rule) for verb in ("add", "delete") for rule in SELECTORS),
    ]
    return [
        *(Done(command) for command in commands),
        Done(("ip", "-j", "-6", "rule", "show"), stdout=RULES),
        Done(("ip", "-j", "-6", "rule", "show"), stdout=later),
        Done(("ip", "-j", "-6", "address", "show", "dev", "wg0"), stdout=addresses),
    ]


def test_iptables_serves_where_there_is_no_nft(tmp_path: Path) -> None:
    record = default_route('[{},{"addr_info":[{"local":"fd00::1"},{"local":"fe80::7"}]}]')
    record += [Done(("ip6tables-restore", "-n"))] * 2
    run = up_and_down(DEFAULT6, record, tmp_path, ["ip6tables-restore"])
    insert, delete = (
        given
        for command, given in zip(run.ran, run.given, strict=True)
        if command[0] == "ip6tables-restore"
    )
    comment = '-m comment --comment "wgmp: wg0"'
    assert insert.splitlines() == [
        "*raw",
        f"-I PREROUTING ! -i wg0 -d fd00::1 -m addrtype ! --src-type LOCAL -j DROP {comment}",
        f"-I PREROUTING ! -i wg0 -d fe80::7 -m addrtype ! --src-type LOCAL -j DROP {comment}",
        "COMMIT",
        "*mangle",
        f"-I POSTROUTING -p udp -m mark --mark 77 -j CONNMARK --save-mark {comment}",
        f"-I PREROUTING -p udp -j CONNMARK --restore-mark {comment}",
        "COMMIT",
    ]
    assert delete == insert.replace("-I ", "-D ")


def test_a_default_route_without_any_firewall_is_refused_and_undone(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="needs a firewall rule: install nftables"):
        up_and_down(DEFAULT6, default_route("[]"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_mtu_falls_back_to_the_default_route_and_to_ethernet(tmp_path: Path) -> None:
    endpoint = parse_endpoint("192.0.2.1:1")
    unreachable = Done(("ip", "-j", "route", "get", "192.0.2.1"), 2, "", "unreachable")
    device = '[{"dst":"default","dev":"eth0"}]'
    eth0 = '[{"flags":["UP"],"mtu":9000}]'
    for routes, mtu in (
        ([Done(("ip", "-j", "route", "show", "default"), stdout="[]")], 1420),
        (
            [
                Done(("ip", "-j", "route", "show", "default"), stdout=device),
                Done(("ip", "-j", "link", "show", "dev", "eth0"), stdout=eth0),
            ],
            8920,
        ),
    ):
        up = Done(("ip", "link", "set", "mtu", str(mtu), "up", "dev", "wg0"))
        up_and_down(LinkSettings(endpoints=(endpoint,)), [unreachable, *routes, up], tmp_path)


def test_a_disk_that_takes_no_more_keeps_nothing_from_being_undone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    steps = [("ip", "address", "delete", each, "dev", "wg0") for each in ("one", "two", "three")]
    run = Replay([Done(SHOW), *map(Done, steps)])
    journal = Journal(tmp_path / "run" / "wg0.undo")
    for step in steps:
        journal.add(Undo(command=step, of_link=True))
    journal.path.parent.rename(tmp_path / "gone")
    journal.path.parent.touch()  # where no directory can be made now
    asyncio.run(link.take_down("wg0", run, journal))
    assert run.ran[1:] == steps[::-1]
    assert "cannot write" in caplog.text


def test_what_cannot_be_undone_is_said_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "wgmp")
    address = ("fd00::1/64", "dev", "wg0")
    record = [
        Done(("ip", "-6", "address", "add", *address)),
        Done(("ip", "-6", "address", "delete", *address), 2, "", "busy"),
    ]
    settings = LinkSettings(mtu=1400, addresses=(ip_interface("fd00::1/64"),))
    up_and_down(settings, record, tmp_path)
    assert "not undone: `ip -6 address delete fd00::1/64 dev wg0` failed (2): busy" in caplog.text
