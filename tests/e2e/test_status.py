"""`wgmp status` is `wg show`, byte by byte, and then knows the peers' names."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmp.netns import Namespaces

from . import tunnel as tunnels
from .test_command_line import WGMP
from .tunnel import Gateway, key

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a session, and peers with much or little to show."""
    with Namespaces() as world:
        ends = tunnels.build(world, tmp_path_factory.mktemp("status"), "wgmpd", "wgmpd", psk=True)
        left = ends.left
        assert left.ping(ends.right.inner4)
        left.set("fwmark", "0x2a")
        first, second, third = (key("pubkey", key("genkey")) for _ in range(3))
        left.set("peer", first, "persistent-keepalive", "90", "allowed-ips", "fd00::/64,::/0")
        left.set("peer", second, "endpoint", "[2001:db8::1]:9", "persistent-keepalive", "3661")
        left.set("peer", third, "allowed-ips", "10.3.0.0/16,10.4.0.0/16,fd04::1/128")
        yield left


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WG_HIDE_KEYS": "never"},
        {"WG_HIDE_KEYS": "always", "WG_COLOR_MODE": "always"},
        {"WG_COLOR_MODE": "never"},
    ],
    ids=str,
)
def test_status_is_what_wg_shows(gateway: Gateway, environment: dict[str, str]) -> None:
    run, interface = gateway.namespace.run, gateway.interface
    for _ in range(20):  # a second may pass between the two
        shown = run("wg", "show", interface, environment=environment).stdout
        status = run(WGMP, "status", interface, environment=environment).stdout
        if status == shown:
            return
    assert status == shown


def test_status_as_json_hides_keys_and_says_the_rest(gateway: Gateway) -> None:
    run = gateway.namespace.run
    (device,) = json.loads(run(WGMP, "status", gateway.interface, "--json").stdout)
    assert device["public_key"] == gateway.public_key
    assert device["private_key"] == "(hidden)"
    assert (device["listen_port"], device["fwmark"]) == (gateway.port, 42)
    shown = gateway.peers()
    assert {peer["public_key"] for peer in device["peers"]} == shown.keys()
    first = device["peers"][0]
    assert first["latest_handshake"] == shown[first["public_key"]].handshake > 0
    assert first["preshared_key"] == "(hidden)"


def test_status_tells_the_names_that_the_configuration_gives(gateway: Gateway) -> None:
    known = next(iter(gateway.peers()))
    file = Path("/etc/wireguard") / f"{gateway.interface}.conf"
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"[Peer]\n# friendly_name = the office\nPublicKey = {known}\n")
    try:
        text = gateway.namespace.run(WGMP, "status", gateway.interface).stdout
        assert f"peer: {known}\n  name: the office\n" in text
        assert text.count("  name: ") == 1
        (row,) = (p for p in gateway.stats()["peers"] if p["public_key"] == known)
        assert row["name"] == "the office"
    finally:
        file.unlink()


def test_an_interface_that_nobody_runs_is_one_line(gateway: Gateway) -> None:
    done = gateway.namespace.run(WGMP, "status", "nosuch0", check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "nosuch0" in done.stderr


def test_an_agent_that_was_killed_does_not_hide_interfaces(
    gateway: Gateway, tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "agent.sock"))
    run, environment = gateway.namespace.run, {"WGMP_AGENT_SOCKET": str(tmp_path / "agent.sock")}
    shown = run(WGMP, "status", gateway.interface, environment=environment).stdout
    assert gateway.public_key in shown
