"""`wgmp reload` where networks change places: interfaces, ports, prefixes, default routes."""

from __future__ import annotations

import shutil

import pytest

from .site import PORT, Site

pytestmark = pytest.mark.root

OTHER_PORT = 40404


class Two:
    """The networks home and spare: as they are at first, and what a reload makes of them."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.other = site.space.interface_name("wg")

    def home(self, interface: str, port: int, *lines: str) -> str:
        """Return home on an interface and a port."""
        text = self.site.home(*lines).replace(self.site.interface, interface)
        return text.replace(f"listen_port = {PORT}", f"listen_port = {port}")

    def spare(self, interface: str, port: int, *lines: str, allowed: str = "10.88.0.0/16") -> str:
        """Return spare on an interface and a port."""
        network = (
            "[network.spare]",
            f'interface = "{interface}"',
            f"listen_port = {port}",
            *lines,
            "[[network.spare.peers]]",
            f'public_key = "{"A" * 43}="',
            f'allowed_ips = ["{allowed}"]',
        )
        return "\n".join(network) + "\n"

    def reload(self, *tables: str) -> str:
        """Write the networks and have them read; return what is said."""
        self.site.file.write_text("\n".join((self.site.head(), *tables)))
        done = self.site.wgmp("reload", check=False)
        return done.stdout + done.stderr

    def port(self, interface: str) -> int:
        """Return the port that an interface's gateway has."""
        return int(self.site.space.run("wg", "show", interface, "listen-port").stdout)


@pytest.fixture
def two(site: Site) -> Two:
    """Two networks that run, and a peer that answers on home."""
    made = Two(site)
    site.start(site.head(), made.home(site.interface, PORT), made.spare(made.other, OTHER_PORT))
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    site.wait_for_state("running", "spare")
    assert site.pings(site.peer.inner)
    return made


def test_networks_that_swap_their_interfaces_run_after_one_reload(two: Two) -> None:
    site = two.site
    swapped = two.home(two.other, PORT), two.spare(site.interface, OTHER_PORT)
    assert two.reload(*swapped) == "changed: home, spare\n"
    assert site.states() == {"home": "running", "spare": "running"}
    assert (two.port(two.other), two.port(site.interface)) == (PORT, OTHER_PORT)
    assert site.pings(site.peer.inner)
    # One of them is free by now.
    third = two.home(two.other, PORT), two.spare(site.space.interface_name("wg"), OTHER_PORT)
    assert two.reload(*third) == "changed: spare\nunchanged: home\n"
    back = two.home(site.interface, OTHER_PORT), two.spare(two.other, PORT)
    assert two.reload(*back) == "changed: home, spare\n"
    assert (two.port(site.interface), two.port(two.other)) == (OTHER_PORT, PORT)


def test_networks_that_swap_their_ports_do_and_their_sessions_go_on(two: Two) -> None:
    site = two.site
    before = site.space.run("wg", "show", site.interface, "latest-handshakes").stdout
    swapped = two.home(site.interface, OTHER_PORT), two.spare(two.other, PORT)
    assert two.reload(*swapped) == "changed: home, spare\n"
    assert (two.port(site.interface), two.port(two.other)) == (OTHER_PORT, PORT)
    assert site.pings(site.peer.inner)
    assert site.space.run("wg", "show", site.interface, "latest-handshakes").stdout == before


def test_the_port_of_a_network_that_goes_or_is_disabled_is_another_s_at_once(two: Two) -> None:
    site = two.site
    off = two.spare(two.other, OTHER_PORT, "enable_wireguard = false")
    assert two.reload(two.home(site.interface, OTHER_PORT), off) == "changed: home, spare\n"
    assert site.states() == {"home": "running", "spare": "stopped"}
    assert two.port(site.interface) == OTHER_PORT


def test_those_that_make_way_in_vain_have_their_ports_again(two: Two) -> None:
    site = two.site
    lost = two.home(site.interface, OTHER_PORT).replace(str(site.psk_file), "/nowhere/psk")
    said = two.reload(lost, two.spare(two.other, PORT, 'private_key_path = "/nowhere/key"'))
    assert "/nowhere/psk: cannot be read" in said
    assert "/nowhere/key: cannot be read" in said
    assert (two.port(site.interface), two.port(two.other)) == (PORT, OTHER_PORT)
    assert site.pings(site.peer.inner)


def test_a_prefix_goes_from_one_network_to_another(two: Two) -> None:
    site = two.site
    moved = two.spare(two.other, OTHER_PORT, allowed="10.89.0.0/16")
    more = two.home(site.interface, PORT).replace(
        f'["{site.peer.inner}/32"]', f'["{site.peer.inner}/32", "10.88.0.0/16"]'
    )
    for _ in range(3):
        assert two.reload(more, moved) == "changed: home, spare\n"
        routes = site.space.run("ip", "route").stdout
        assert f"10.88.0.0/16 dev {site.interface}" in routes
        assert f"10.89.0.0/16 dev {two.other}" in routes
        first = two.home(site.interface, PORT), two.spare(two.other, OTHER_PORT)
        assert two.reload(*first) == "changed: home, spare\n"
        assert f"10.88.0.0/16 dev {two.other}" in site.space.run("ip", "route").stdout


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_a_default_route_goes_from_one_network_to_another(two: Two) -> None:
    site = two.site
    rules = site.space.run("ip", "rule").stdout
    whole = two.home(site.interface, PORT).replace(f"{site.peer.inner}/32", "0.0.0.0/0")
    rest = two.spare(two.other, OTHER_PORT)
    assert two.reload(whole, rest) == "changed: home\nunchanged: spare\n"
    assert site.pings(site.peer.inner)
    without = two.home(site.interface, PORT), two.spare(two.other, OTHER_PORT, allowed="0.0.0.0/0")
    assert two.reload(*without) == "changed: home, spare\n"
    assert site.space.run("ip", "rule").stdout.count("fwmark") == 1
    assert site.pings(site.peer.inner)
    assert two.reload(whole, rest) == "changed: home, spare\n"
    assert two.reload(two.home(site.interface, PORT), rest) == "changed: home\nunchanged: spare\n"
    assert site.space.run("ip", "rule").stdout == rules
