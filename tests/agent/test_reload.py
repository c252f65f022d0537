"""`wgmp reload`: what changed in the file changes, and what did not goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest

from tests.e2e.tunnel import WGMP
from tests.e2e.wire import udp_socket
from wgmp.agent.leftovers import started_at
from wgmp.netns import wait_for

from .site import PORT, Site

pytestmark = pytest.mark.root

STRANGER = (
    '[[network.home.peers]]\npublic_key = "' + "A" * 43 + '="\nallowed_ips = ["10.88.0.0/16"]\n'
)


def handshakes(site: Site) -> str:
    """Return when the gateway's handshakes were."""
    return site.space.run("wg", "show", site.interface, "latest-handshakes").stdout


def routes(site: Site) -> str:
    """Return the interface's routes."""
    return site.space.run("ip", "route", "show", "dev", site.interface).stdout


def test_a_reload_leaves_running_sessions_alone(site: Site) -> None:
    site.start(site.head(), site.home())
    site.peer.accept(site.public_key(), "10.77.0.1/32", "10.79.0.1/32")
    site.wait_for_state("running")
    assert site.pings("10.77.0.2")
    session = handshakes(site)
    gateway = site.wgmp("status", "home").stdout
    assert "peer peer" in gateway
    assert site.wgmp("reload").stdout == "unchanged: home\n"

    # another peer with a route, another address and MTU, another network
    home = site.home("mtu = 1300").replace('["10.77.0.1/24"]', '["10.77.0.1/24", "10.79.0.1/24"]')
    spare = "[network.spare]\nenable_wireguard = false\n"
    site.file.write_text(site.head() + home + STRANGER + spare)
    assert site.wgmp("reload").stdout == "added: spare\nchanged: home\n"
    assert "10.88.0.0/16" in routes(site)
    shown = site.space.run("ip", "address", "show", "dev", site.interface).stdout
    assert "10.79.0.1/24" in shown
    assert "mtu 1300" in shown
    assert site.states() == {"home": "running", "spare": "stopped"}
    assert site.pings("10.77.0.2")
    assert handshakes(site).startswith(session), "there was no new handshake"

    # and all of it taken back, by the signal
    site.file.write_text(site.head() + site.home("mtu = 1300"))
    assert site.process is not None
    site.process.send_signal(signal.SIGHUP)
    wait_for(lambda: "10.88.0.0/16" not in routes(site), 10, "the route goes")
    wait_for(lambda: site.states() == {"home": "running"}, 10, "the network is forgotten")
    assert "10.79.0.1" not in site.space.run("ip", "address", "show", "dev", site.interface).stdout
    assert site.pings("10.77.0.2")
    assert handshakes(site) == session


def test_a_peer_that_roamed_stays_where_it_is_through_a_reload(site: Site) -> None:
    site.start(site.head(), site.home())
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    assert site.pings("10.77.0.2")
    site.far.run("wg", "set", site.peer.interface, "listen-port", "40404")
    site.far.run("ping", "-c1", "-W5", "10.77.0.1")
    assert ":40404" in site.wgmp("status", "home").stdout
    site.file.write_text(site.head() + site.home() + STRANGER)
    assert site.wgmp("reload", "home").stdout == "changed: home\n"
    assert ":40404" in site.wgmp("status", "home").stdout


def test_a_new_key_in_its_file_is_taken_by_a_reload(site: Site) -> None:
    site.start(site.head(), site.home())
    before = site.public_key()
    site.wait_for_state("running")
    site.psk_file.write_text(site.peer.psk + "\n")
    (site.keys / "home" / "private.key").unlink()
    site.wgmp("reload")
    assert site.public_key() != before
    shown = site.space.run("wg", "show", site.interface, "public-key").stdout.strip()
    assert shown == site.public_key()
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    assert site.pings("10.77.0.2")


def test_a_wrong_file_changes_nothing_and_is_told(site: Site) -> None:
    site.start(site.head(), site.home())
    site.wait_for_state("running")
    site.file.write_text(site.head() + site.home("tabel = 5"))
    refused = site.wgmp("reload", check=False)
    assert refused.returncode == 1
    assert f"{site.file}:9: network.home.tabel: is not known: did you mean table?" in refused.stderr
    site.file.write_text("# about to be written\n")
    empty = site.wgmp("reload", check=False)
    assert (empty.returncode, "is empty" in empty.stderr) == (1, True)
    site.file.unlink()
    os.mkfifo(site.file)
    pipe = site.wgmp("reload", check=False)
    assert (pipe.returncode, "is a pipe: put a file" in pipe.stderr) == (1, True)
    site.file.unlink()
    assert site.states() == {"home": "running"}
    site.file.write_text(site.head() + site.home("tabel = 5"))
    check = site.wgmp("agent", "check", "--config", str(site.file), check=False)
    assert check.returncode == 2
    assert site.states() == {"home": "running"}
    unknown = site.wgmp("connect", "hom", check=False)
    assert unknown.stderr == "wgmp: there is no network hom; there are: home\n"


def test_a_change_that_fails_leaves_the_network_as_it_was_and_is_made_good_later(
    site: Site,
) -> None:
    site.start(site.head(), site.home())
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    assert site.pings("10.77.0.2")
    session = handshakes(site)

    def reload(text: str) -> str:
        site.file.write_text(site.head() + text)
        done = site.wgmp("reload", check=False)
        return done.stdout + done.stderr

    moved = site.home().replace(f"listen_port = {PORT}", "listen_port = 40405")
    with udp_socket(site.space, "0.0.0.0", 40405):
        told = reload(moved + STRANGER)
        assert "UDP port 40405: Address already in use: choose another listen_port" in told
    lost = site.home().replace(str(site.psk_file), f"{site.psk_file}.lost")
    assert f"{site.psk_file}.lost: cannot be read: No such file or directory" in reload(lost)
    # A network that cannot be added holds up no other.
    broken = '[network.broken]\nprivate_key_path = "/nowhere"\n'
    told = reload(site.home() + broken)
    assert "/nowhere: cannot be read" in told
    assert site.states() == {"home": "running", "broken": "failed"}
    assert site.pings("10.77.0.2")
    assert handshakes(site) == session
    assert site.space.run("wg", "show", site.interface, "listen-port").stdout.strip() == str(PORT)
    # The gateway takes this one, and then the link does not.
    site.space.run("sysctl", "-qw", f"net.ipv6.conf.{site.interface}.disable_ipv6=1")
    half = moved.replace('["10.77.0.1/24"]', '["10.77.0.1/24", "fd77::1/64"]')
    assert "`ip address replace fd77::1/64" in reload(half)
    reload(site.home())
    assert site.space.run("wg", "show", site.interface, "listen-port").stdout.strip() == str(PORT)
    assert site.pings("10.77.0.2")
    # Nobody has the port any more.
    assert "changed: home" in reload(moved + STRANGER)
    shown = site.space.run("wg", "show", site.interface, "listen-port").stdout
    assert shown.strip() == "40405"
    assert "10.88.0.0/16" in routes(site)
    off = moved.replace("listen_port", "enable_wireguard = false\nlisten_port")
    assert "changed: home" in reload(off)
    assert site.states() == {"home": "stopped"}


def test_a_network_moves_to_another_interface_and_its_default_route_with_it(site: Site) -> None:
    whole = site.home(peer_lines=('allowed_ips = ["0.0.0.0/0"]',))
    site.start(site.head(), site.home())
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    site.file.write_text(site.head() + whole)
    assert site.wgmp("reload").stdout == "changed: home\n"
    assert "fwmark" in site.space.run("ip", "rule").stdout
    assert site.pings("10.77.0.2")
    other = site.space.interface_name("wg")
    site.file.write_text(site.head() + whole.replace(site.interface, other))
    assert site.wgmp("reload").stdout == "changed: home\n"
    assert (site.interface in site.space.links(), other in site.space.links()) == (False, True)
    assert site.space.run("ip", "rule").stdout.count("fwmark") == 1
    assert site.pings("10.77.0.2")


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_an_address_that_comes_to_a_default_route_is_protected_as_the_first(site: Site) -> None:
    whole = site.home(peer_lines=('allowed_ips = ["0.0.0.0/0"]',))
    site.start(site.head(), whole)
    site.wait_for_state("running")
    assert "ip daddr 10.77.0.1 fib" in site.space.run("nft", "list", "ruleset").stdout
    more = whole.replace('["10.77.0.1/24"]', '["10.77.0.1/24", "10.79.0.1/24"]')
    site.file.write_text(site.head() + more)
    assert site.wgmp("reload").stdout == "changed: home\n"
    assert "ip daddr 10.79.0.1 fib" in site.space.run("nft", "list", "ruleset").stdout


def test_a_reload_while_leftovers_are_cleared_waits_for_its_turn(site: Site) -> None:
    stubborn = "trap 'sleep 1; exit' TERM; echo ready; while :; do sleep 0.1; done"
    log = site.directory / "stubborn.log"
    left = site.space.start("bash", "-c", stubborn, log=log)
    wait_for(log.read_text, 10, "the leftover ignores SIGTERM")
    entry = {"interface": "wgleft", "pid": left.pid, "started": started_at(left.pid)}
    site.socket.parent.mkdir()
    site.socket.with_name("networks.json").write_text(json.dumps({"old": entry}))
    site.file.write_text(site.head() + site.home())
    site.process = site.space.start(WGMP, "agent", "--config", str(site.file), log=site.log)
    wait_for(lambda: "old: clearing" in site.log.read_text(), 10, "the agent clears")
    site.process.send_signal(signal.SIGHUP)
    site.wait_until_it_serves()
    site.wait_for_state("running")
    wait_for(lambda: "reloaded: " in site.log.read_text(), 10, "the reload is done")
    assert site.states() == {"home": "running"}
    assert site.log.read_text().count("home is starting") == 1


def test_a_gateway_that_is_killed_is_started_again(site: Site) -> None:
    site.start(site.head(), site.home())
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    (line,) = (
        line for line in site.wgmp("status", "home").stdout.splitlines() if "gateway" in line
    )
    pid = line.split()[2].rstrip(",")
    site.space.run("kill", "-KILL", pid)
    # For a second: whoever asks may come too late.
    failed = "home failed: the gateway was killed by SIGKILL"
    wait_for(lambda: failed in site.log.read_text(), 10, "the agent notices")
    site.wait_for_state("running")
    assert site.pings("10.77.0.2")
    # one that somebody else stopped in order is not: that was meant
    site.space.run("ip", "link", "delete", site.interface)
    site.wait_for_state("failed")
    assert "its interface or UAPI socket was deleted" in site.wgmp("networks").stdout
    assert "running" in site.wgmp("connect", "home").stdout


def test_a_link_made_anew_has_what_the_file_says_and_nothing_else(site: Site) -> None:
    site.start(site.head(), site.home())
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")

    def reload(text: str) -> str:
        site.file.write_text(site.head() + text)
        done = site.wgmp("reload", check=False)
        return done.stdout + done.stderr

    def addresses() -> str:
        shown = site.space.run("ip", "-br", "-4", "address", "show", "dev", site.interface).stdout
        return " ".join(shown.split()[2:])

    def more(*extra: str, lines: tuple[str, ...] = ()) -> str:
        listed = ", ".join(f'"{each}"' for each in ("10.77.0.1/24", *extra))
        return site.home(*lines).replace('"10.77.0.1/24"', listed)

    # Addresses that came while it was up stay with the link, and go with it.
    assert reload(more("10.79.0.1/24")) == "changed: home\n"
    off = ('table = "off"',)
    assert reload(more("10.79.0.1/24", lines=off)) == "changed: home\n"
    assert addresses() == "10.77.0.1/24 10.79.0.1/24"
    assert reload(more("10.80.0.1/24")) == "changed: home\n"
    assert addresses() == "10.77.0.1/24 10.80.0.1/24"
    assert site.pings("10.77.0.2")

    # What fails half-way is made good by the next change.
    site.space.run("sysctl", "-qw", f"net.ipv6.conf.{site.interface}.disable_ipv6=1")
    assert "`ip address replace fd77::1/64" in reload(more("10.81.0.1/24", "fd77::1/64"))
    assert "10.81.0.1/24" in addresses()
    assert reload(more("10.80.0.1/24")) == "unchanged: home\n"
    assert addresses() == "10.77.0.1/24 10.80.0.1/24"
    # A link that cannot be made anew is what it was.
    failing = more("fd77::1/64", lines=off)
    assert "`ip -6 address add fd77::1/64" in reload(failing)
    assert addresses() == "10.77.0.1/24 10.80.0.1/24"
    assert site.pings("10.77.0.2")


def test_the_mtu_is_that_of_the_way_to_the_peers_again_when_the_file_has_none(site: Site) -> None:
    def mtu() -> str:
        return site.space.run("cat", f"/sys/class/net/{site.interface}/mtu").stdout.strip()

    def reload(*lines: str) -> str:
        site.file.write_text(site.head() + site.home(*lines))
        return site.wgmp("reload").stdout

    site.space.run("ip", "route", "add", site.link.right4, "dev", way(site), "mtu", "1400")
    site.start(site.head(), site.home())
    site.wait_for_state("running")
    assert mtu() == "1320"
    assert reload("mtu = 1300") == "changed: home\n"
    assert mtu() == "1300"
    assert reload() == "changed: home\n"
    assert mtu() == "1320"
    assert reload('table = "off"') == "changed: home\n"
    assert mtu() == "1320", "also of a link that is made anew"


def way(site: Site) -> str:
    """Return the interface on which the peer is reached."""
    return site.space.run("ip", "route", "get", site.link.right4).stdout.split()[2]
