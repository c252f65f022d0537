"""An upgrade during which somebody ends the gateway: all of it ends, and nothing stays behind."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from wgmp import control
from wgmp.errors import ControlError
from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for

from .tunnel import WGMP, is_listened_at, key

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(shutil.which("nft") is None, reason="needs nft"),
]

STRUCK = str(Path(__file__).with_name("struck_successor.py"))
END_LIMIT_S = 8.0


def around(space: Namespace) -> list[str]:
    """Return what a gateway with a default route changes around its interface."""
    shown = (("ip", "-4", "rule"), ("ip", "-6", "rule"), ("nft", "list", "ruleset"))
    return [space.run(*command).stdout for command in shown]


@pytest.mark.parametrize("whom", ["old", "new", "both"])
@pytest.mark.parametrize("moment", ["prepared", "left", "serving"])
def test_a_gateway_that_is_told_to_end_in_an_upgrade_ends_and_leaves_nothing(
    namespaces: Namespaces, tmp_path: Path, moment: str, whom: str
) -> None:
    space = namespaces.add("struck")
    name = space.interface_name("wg")
    path = tmp_path / "gateway.conf"
    path.write_text(
        f"[Interface]\nPrivateKey = {key('genkey')}\nAddress = 10.77.0.1/24\n"
        f"[Peer]\nPublicKey = {key('pubkey', key('genkey'))}\nAllowedIPs = 0.0.0.0/0, ::/0\n"
    )
    path.chmod(0o600)
    before = around(space)
    log = tmp_path / "log"
    command = (WGMP, "supervise", name, "--config", str(path), "--foreground")
    gateway = space.start(*command, log=log, environment={"WGMP_TOPOLOGY": "pipeline"})
    wait_for(lambda: around(space)[-1] != before[-1], 15, "the link is up")
    wait_for(lambda: is_listened_at(control.socket_path(name)), 15, "it answers")
    with suppress(ControlError):
        control.upgrade(name, [sys.executable, STRUCK, moment, whom])
    wait_for(lambda: not space.processes(), END_LIMIT_S, "all ends")
    assert gateway.wait(1) == 0, log.read_text()
    assert name not in space.links()
    assert around(space) == before
    assert not (UAPI_DIRECTORY / f"{name}.sock").exists()
    assert list(Path("/run/wgmp").glob(f"{name}.*")) == []
    assert "Traceback" not in log.read_text()
