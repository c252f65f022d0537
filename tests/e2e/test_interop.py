"""Debian's wireguard-go and wgmpd talk to each other, whoever begins."""

from __future__ import annotations

import pytest

from .conftest import MakeTunnel

pytestmark = pytest.mark.root


@pytest.mark.parametrize("psk", [False, True], ids=["plain", "psk"])
@pytest.mark.parametrize("family", [4, 6], ids=["outer4", "outer6"])
@pytest.mark.parametrize(
    ("left", "right"),
    [("wgmpd", "wireguard-go"), ("wireguard-go", "wgmpd")],
    ids=["initiator", "responder"],
)
def test_pings_of_both_families_pass_in_both_directions(
    tunnel: MakeTunnel, left: str, right: str, family: int, psk: bool
) -> None:
    ends = tunnel(left, right, family=family, psk=psk, topology="compact" if psk else "pipeline")
    assert ends.left.ping(ends.right.inner4), "the first packet begins the handshake"
    assert ends.right.ping_all(ends.left.inner4, count=20, size=1300)
    assert ends.left.ping_all(ends.right.inner6, count=20, size=1300)
    assert ends.right.ping_all(ends.left.inner6, count=20, size=0)
