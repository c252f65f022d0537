"""`wgmp add-peer` on a running gateway: what it prints is all that the new peer needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgmp import config
from wgmp.keys import to_base64
from wgmp.netns import wait_for

from .conftest import MakeTunnel
from .tunnel import WGMP

pytestmark = pytest.mark.root

LIMIT_S = 15.0


def test_a_new_peer_comes_up_with_what_was_printed_and_stays_in_the_file(
    tunnel: MakeTunnel, tmp_path: Path
) -> None:
    ends = tunnel("wgmpd", "wireguard-go")
    left, right = ends.left, ends.right
    file = tmp_path / "gateway.conf"
    file.write_text(
        f"[Interface]\nPrivateKey = {left.private_key}\nListenPort = {left.port}\n\n"
        f"[Peer]\nPublicKey = {right.public_key}\nAllowedIPs = {right.inner4}/32\n"
    )
    options = ("--endpoint", left.outer4, "--routes", "10.77.0.0/24", "--config", str(file))
    done = left.namespace.run(WGMP, "add-peer", left.interface, *options)
    client = config.parse(done.stdout, "client")
    (added,) = set(left.peers()) - {right.public_key}
    assert added in done.stderr
    assert to_base64(config.load(file).peers[1].public_key) == added
    assert str(client.interface.addresses[0].ip) == "10.77.0.3"
    assert str(client.interface.addresses[1].ip) == "fd77::3"
    private = tmp_path / "client.conf"
    private.write_text(done.stdout)
    private.chmod(0o600)
    name = right.namespace.interface_name("new")
    command = (WGMP, "supervise", name, "--config", str(private), "--foreground")
    right.namespace.start(*command, log=tmp_path / "client.log")

    def pings() -> bool:
        run = right.namespace.run("ping", "-c1", "-W1", "-I", name, left.inner4, check=False)
        return run.returncode == 0

    wait_for(pings, LIMIT_S, "the new peer reaches the gateway")
    wait_for(lambda: left.peers()[added].handshake, LIMIT_S, "the gateway knows of it")
