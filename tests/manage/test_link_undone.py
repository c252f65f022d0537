"""Links of real interfaces: what a link was it is again, whatever happened in between."""

from __future__ import annotations

import asyncio
import json
import shutil
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

import pytest

from wgmp.addresses import parse_prefix
from wgmp.config import Hooks
from wgmp.errors import CommandError, ControlError
from wgmp.manage import link
from wgmp.manage.journal import Journal
from wgmp.manage.runner import Commands
from wgmp.manage.settings import LinkSettings
from wgmp.netns import Namespaces

pytestmark = pytest.mark.root

MARK = "net.ipv4.conf.all.src_valid_mark"


class Host:
    """A namespace with two interfaces that are down, and a place for their journals."""

    def __init__(self, world: Namespaces, directory: Path) -> None:
        self.space = world.add("host")
        self.space.run("ip", "link", "add", "one", "mtu", "1400", "type", "veth", "peer", "two")
        self.run = Commands("ip", "netns", "exec", self.space.name)
        self.directory = directory
        self.told = directory / "told"

    def journal(self, interface: str) -> Journal:
        """Return the journal as whoever comes next reads it."""
        return Journal(self.directory / f"{interface}.undo")

    def before(self, interface: str, settings: LinkSettings) -> None:
        asyncio.run(link.before(interface, settings, self.run, self.journal(interface)))

    def bring_up(self, interface: str, settings: LinkSettings) -> None:
        async def set_mark(mark: int) -> None:
            """There is no device to give the mark to."""

        journal = self.journal(interface)
        asyncio.run(link.bring_up(interface, settings, self.run, journal, set_mark))

    def take_down(self, interface: str, link_stays: bool = False) -> None:
        asyncio.run(link.take_down(interface, self.run, self.journal(interface), link_stays))

    def shown(self, interface: str) -> tuple[int, bool, list[str]]:
        """Return an interface's MTU, whether it is up, and its addresses."""
        printed = self.space.run("ip", "-j", "address", "show", "dev", interface).stdout
        (state,) = json.loads(printed)
        addresses: list[dict[str, Any]] = state["addr_info"]
        ours = [f"{a['local']}/{a['prefixlen']}" for a in addresses if a["scope"] == "global"]
        return state["mtu"], "UP" in state["flags"], ours

    def hook(self, name: str) -> str:
        return f"echo {name} %i >> {self.told}"


@pytest.fixture
def host(namespaces: Namespaces, tmp_path: Path) -> Host:
    return Host(namespaces, tmp_path)


SETTINGS = LinkSettings(mtu=1300, addresses=(ip_interface("10.1.0.1/24"),))


@pytest.mark.parametrize("was_up", [False, True])
def test_a_link_is_given_back_its_mtu_and_its_state(host: Host, was_up: bool) -> None:
    host.space.run("ip", "link", "set", "one", "up" if was_up else "down")
    before = host.shown("one")
    assert before == (1400, was_up, [])
    host.bring_up("one", SETTINGS)
    assert host.shown("one") == (1300, True, ["10.1.0.1/24"])
    host.take_down("one")
    assert host.shown("one") == before
    assert list(host.directory.iterdir()) == []


def test_post_down_hooks_wait_for_the_links_end_and_come_in_their_order(host: Host) -> None:
    every = {
        name: (host.hook(f"{name} 1"), host.hook(f"{name} 2"))
        for name in ("pre_up", "post_up", "pre_down", "post_down")
    }
    settings = LinkSettings(mtu=1300, hooks=Hooks(**every), run_hooks=True)
    host.before("one", settings)
    host.bring_up("one", settings)
    host.take_down("one", link_stays=True)
    told = ["pre_up 1", "pre_up 2", "post_up 1", "post_up 2", "pre_down 1", "pre_down 2"]
    assert host.told.read_text().splitlines() == [f"{line} one" for line in told]
    assert host.journal("one").steps, "two are left"
    host.space.run("ip", "link", "delete", "one")
    host.take_down("one")
    told += ["post_down 1", "post_down 2"]
    assert host.told.read_text().splitlines() == [f"{line} one" for line in told]
    assert not host.journal("one").steps


def test_hooks_are_run_only_where_that_is_allowed(host: Host) -> None:
    settings = LinkSettings(mtu=1300, hooks=Hooks(pre_up=("exit 1",), post_up=("exit 1",)))
    host.before("one", settings)
    host.bring_up("one", settings)
    host.take_down("one")
    assert list(host.directory.iterdir()) == []


@pytest.mark.parametrize("hook", ["false; true", "false | true", "exit 3", "no-such-program-here"])
def test_a_hook_fails_with_any_of_its_commands_and_all_is_undone(host: Host, hook: str) -> None:
    before = host.shown("one")
    hooks = Hooks(post_up=(host.hook("post_up"), hook), post_down=(host.hook("post_down"),))
    settings = LinkSettings(mtu=1300, addresses=SETTINGS.addresses, hooks=hooks, run_hooks=True)
    host.before("one", settings)
    with pytest.raises(CommandError, match="`bash -e -o pipefail -c "):
        host.bring_up("one", settings)
    assert host.shown("one") == before
    host.space.run("ip", "link", "delete", "one")
    host.take_down("one")
    assert host.told.read_text().splitlines() == ["post_up one", "post_down one"]

    settings = LinkSettings(hooks=Hooks(pre_up=(hook,), post_down=hooks.post_down), run_hooks=True)
    with pytest.raises(CommandError, match="`bash -e -o pipefail -c "):
        host.before("one", settings)
    assert host.told.read_text().splitlines()[2:] == ["post_down one"]
    assert not host.journal("one").steps


def test_what_a_killed_gateway_left_is_undone_unless_its_interface_lives(host: Host) -> None:
    hooks = Hooks(pre_down=(host.hook("pre_down"),), post_down=(host.hook("post_down"),))
    settings = LinkSettings(mtu=1300, addresses=SETTINGS.addresses, hooks=hooks, run_hooks=True)
    host.before("one", settings)
    host.bring_up("one", settings)
    left = host.journal("one").steps
    with pytest.raises(
        ControlError, match="one is there: end its gateway first, with `ip link del"
    ):
        asyncio.run(link.undo_leftovers("one", host.run, host.journal("one")))
    assert host.journal("one").steps == left
    host.space.run("ip", "link", "delete", "one")
    asyncio.run(link.undo_leftovers("one", host.run, host.journal("one")))
    assert host.told.read_text().splitlines() == ["pre_down one", "post_down one"]
    assert not host.journal("one").steps
    asyncio.run(link.undo_leftovers("one", host.run, host.journal("one")))  # nothing is left


def test_the_next_start_undoes_what_a_killed_one_left(
    host: Host, caplog: pytest.LogCaptureFixture
) -> None:
    settings = LinkSettings(
        mtu=1300, hooks=Hooks(post_down=(host.hook("post_down"),)), run_hooks=True
    )
    host.before("one", settings)
    host.before("one", settings)  # its interface is there: the gateway may live
    assert not host.told.exists()
    host.space.run("ip", "link", "delete", "one")
    host.before("one", settings)
    assert "one: undoing what was left behind when it was killed" in caplog.text
    assert host.told.read_text().splitlines() == ["post_down one"] * 2


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
@pytest.mark.skipif(shutil.which("sysctl") is None, reason="needs sysctl")
def test_a_setting_of_two_links_is_set_back_by_the_last(host: Host) -> None:
    def value() -> str:
        return host.space.run("sysctl", "-n", MARK).stdout.strip()

    host.space.run("sysctl", "-q", f"{MARK}=0")
    everything = (parse_prefix("0.0.0.0/0"),)
    for mark, interface in ((51, "one"), (52, "two")):
        settings = LinkSettings(mtu=1300, fwmark=mark, allowed_ips=everything)
        host.bring_up(interface, settings)
        assert value() == "1"
    rules = host.space.run("ip", "rule").stdout
    assert ("0x33" in rules, "0x34" in rules) == (True, True)
    host.take_down("one")
    assert value() == "1", "the other needs it"
    rules = host.space.run("ip", "rule").stdout
    assert ("0x33" in rules, "0x34" in rules) == (False, True)
    tables = host.space.run("nft", "list", "tables").stdout
    assert ("wgmp-one" in tables, "wgmp-two" in tables) == (False, True)
    host.take_down("two")
    assert value() == "0"
    assert host.space.run("nft", "list", "tables").stdout == ""
    assert list(host.directory.iterdir()) == []
