"""`wgmp reload` where the file switches something on, off, or to what cannot be."""

from __future__ import annotations

import shutil

import pytest

from .site import Site

pytestmark = pytest.mark.root

OFF = "enable_wireguard = false"


def reload(site: Site, *tables: str) -> str:
    """Write the settings and have them read; return what is said."""
    site.file.write_text("\n".join(tables))
    done = site.wgmp("reload", check=False)
    return done.stdout + done.stderr


def test_a_network_that_becomes_enabled_is_connected_and_only_then(site: Site) -> None:
    site.start(site.head(), site.home(OFF))
    assert reload(site, site.head(), site.home(OFF, "mtu = 1300")) == "changed: home\n"
    assert site.states() == {"home": "stopped"}
    assert reload(site, site.head(), site.home("mtu = 1300")) == "changed: home\n"
    assert site.states() == {"home": "running"}
    # Whoever has disconnected it meant that: a reload of what is the same changes nothing.
    site.wgmp("disconnect", "home")
    assert reload(site, site.head(), site.home("mtu = 1300")) == "unchanged: home\n"
    assert site.states() == {"home": "stopped"}


def test_one_that_comes_enabled_is_connected_and_a_failed_one_tried_again(site: Site) -> None:
    broken = '[network.home]\nprivate_key_path = "/nonexistent/key"\n'
    site.start(site.head(), broken)
    site.wait_for_state("failed")
    spare = f'[network.spare]\ninterface = "{site.space.interface_name("wg")}"\n'
    done = reload(site, site.head(), site.home(), spare)
    assert done == "added: spare\nchanged: home\n"
    assert site.states() == {"home": "running", "spare": "running"}
    assert reload(site, site.head(), spare) == "removed: home\nunchanged: spare\n"
    assert site.interface not in site.space.links()


def test_the_status_has_the_key_that_a_reload_has_taken(site: Site) -> None:
    site.start(site.head(), site.home())
    site.wait_for_state("running")
    before = site.public_key()
    assert f"public key: {before}" in site.wgmp("status", "home").stdout
    (site.keys / "home" / "private.key").unlink()
    assert site.wgmp("reload").stdout == "unchanged: home\n"
    assert site.public_key() != before
    assert f"public key: {site.public_key()}" in site.wgmp("status", "home").stdout


@pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft")
def test_a_default_route_that_cannot_be_leaves_no_mark_and_no_rule(site: Site) -> None:
    head = site.head(run_hooks="true")
    site.start(head, site.home())
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    before = site.traces()
    whole = site.home("post_up = ['exit 3']", peer_lines=('allowed_ips = ["0.0.0.0/0"]',))
    assert "exit 3" in reload(site, head, whole)
    assert site.space.run("wg", "show", site.interface, "fwmark").stdout == "off\n"
    assert site.traces() == before
    assert reload(site, head, site.home()) == "unchanged: home\n"
    assert site.pings(site.peer.inner)
