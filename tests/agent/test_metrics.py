"""Each of the agent's gateways serves its metrics where its network's settings say."""

from __future__ import annotations

import pytest

from wgmp.netns import wait_for

from .site import Site

pytestmark = pytest.mark.root

SPARE = '[network.spare]\ninterface = "{}"\nenable_wireguard = true\n'


def metrics(site: Site, place: str) -> str:
    """Return what is served there, "" where nobody serves anything."""
    ask = f"import urllib.request as r; print(r.urlopen('http://{place}/metrics', None, 5).read())"
    return site.space.run("python3", "-c", ask, check=False).stdout


def test_the_agents_environment_turns_on_the_metrics_of_no_gateway(site: Site) -> None:
    spare = SPARE.format(site.space.interface_name("wg"))
    site.start(site.head(), site.home(), spare, WGMP_METRICS="127.0.0.1:9586")
    site.wait_for_state("running")
    site.wait_for_state("running", "spare")
    assert metrics(site, "127.0.0.1:9586") == ""
    assert "WGMP_METRICS is one gateway's, and not heeded: write metrics" in site.log.read_text()


def test_networks_have_metrics_at_addresses_of_their_own(site: Site) -> None:
    other = site.space.interface_name("wg")
    spare = SPARE.format(other) + 'metrics = "[::1]:9587"\n'
    site.start(site.head(), site.home('metrics = "127.0.0.1:9586"'), spare)
    site.wait_for_state("running")
    site.wait_for_state("running", "spare")
    assert site.interface in metrics(site, "127.0.0.1:9586")
    assert other in metrics(site, "[::1]:9587")
    # They move when the network is connected the next time.
    site.file.write_text(site.head() + site.home('metrics = "127.0.0.1:9588"'))
    assert site.wgmp("reload").stdout == "removed: spare\nchanged: home\n"
    assert metrics(site, "[::1]:9587") == ""
    assert site.interface in metrics(site, "127.0.0.1:9586")
    site.wgmp("disconnect", "home")
    site.wgmp("connect", "home")
    wait_for(lambda: site.interface in metrics(site, "127.0.0.1:9588"), 10, "they have moved")
    assert metrics(site, "127.0.0.1:9586") == ""
