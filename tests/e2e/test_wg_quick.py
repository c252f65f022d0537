"""Debian's wg-quick brings a gateway up with wgmpd, and down again."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgmp.errors import CommandError
from wgmp.netns import wait_for

from .conftest import MakeTunnel
from .tunnel import MTU, WGMPD, Tunnel

pytestmark = pytest.mark.root


def write_configuration(ends: Tunnel, path: Path) -> None:
    """Write the left end as a wg-quick file; a second peer brings more routes."""
    left, right = ends.left, ends.right
    path.write_text(
        f"[Interface]\nPrivateKey = {left.private_key}\nListenPort = {left.port}\n"
        f"Address = {left.inner4}/24, {left.inner6}/64\nMTU = {MTU}\n"
        f"PostUp = echo up > {path}.up\n\n"
        f"[Peer]\nPublicKey = {right.public_key}\nEndpoint = {right.endpoint(4)}\n"
        f"AllowedIPs = {right.inner4}/32, {right.inner6}/128, 198.51.100.0/24\n"
        "PersistentKeepalive = 25\n"
    )
    path.chmod(0o600)


def test_wg_quick_brings_the_tunnel_up_and_down(tunnel: MakeTunnel, tmp_path: Path) -> None:
    ends = tunnel("wireguard-go", "wireguard-go")
    ends.left.process.terminate()
    ends.left.process.wait(5)
    space = ends.left.namespace
    interface = space.interface_name("wq")
    config = tmp_path / f"{interface}.conf"
    write_configuration(ends, config)
    try:
        space.run("ip", "link", "add", "kernelwg", "type", "wireguard")
    except CommandError:
        pass  # as it should be: with the kernel's own, wg-quick never asks for another
    else:
        pytest.skip("the kernel has WireGuard: wg-quick does not start wgmpd here")
    environment = {"WG_QUICK_USERSPACE_IMPLEMENTATION": WGMPD, "WGMP_TOPOLOGY": "pipeline"}

    up = space.run("wg-quick", "up", str(config), environment=environment, timeout_s=30)
    assert f"[#] {WGMPD} {interface}" in up.stderr
    assert Path(f"{config}.up").read_text() == "up\n"
    assert space.run("ping", "-c1", "-W5", ends.right.inner4).returncode == 0
    assert space.run("ping", "-c1", "-W5", ends.right.inner6).returncode == 0
    assert f"dev {interface}" in space.run("ip", "route", "get", "198.51.100.7").stdout
    assert f"mtu {MTU}" in space.run("ip", "link", "show", interface).stdout
    assert len(space.processes()) > 1, "the gateway runs as a daemon of several processes"
    stripped = space.run("wg-quick", "strip", str(config)).stdout
    space.run("wg", "syncconf", interface, "/dev/stdin", stdin=stripped)
    assert ends.right.ping(ends.left.inner4)

    space.run("wg-quick", "down", str(config), environment=environment, timeout_s=30)
    assert interface not in space.links()
    wait_for(lambda: not space.processes(), 8, "every process ends")
    assert not ends.left.socket.with_name(f"{interface}.sock").exists()
