"""Connecting and disconnecting over and over leaves nothing behind."""

from __future__ import annotations

import pytest

from . import cycles
from .site import Site

pytestmark = pytest.mark.root


def test_five_cycles_leave_nothing_behind(site: Site) -> None:
    cycles.start(site)
    assert cycles.run(site, 5) == []
    after = site.traces()
    assert [rule for rule in after["rules"] if "fwmark" in rule], "it is up, and would show"
    site.wgmp("disconnect", "home")
    stopped = site.traces()
    assert site.interface not in str(stopped["routes"] + stopped["routes6"] + stopped["links"])
    assert not [rule for rule in stopped["rules"] if "fwmark" in rule]
    assert stopped["firewall"] == []
    assert stopped["files"] == ["control.sock"]
    assert stopped["processes"] == 1
