"""`wgmp add-peer` on a running gateway: what it prints is all that the new peer needs."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgmp import config
from wgmp.keys import to_base64
from wgmp.netns import Namespaces, wait_for

from .conftest import MakeTunnel
from .tunnel import WGMP, key

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


def test_gateway_and_file_get_a_peer_together_or_not_at_all(
    tunnel: MakeTunnel, tmp_path: Path
) -> None:
    ends = tunnel("wgmpd", "wireguard-go")
    left, right = ends.left, ends.right
    file = tmp_path / "conf" / "gateway.conf"
    file.parent.mkdir()
    head = f"[Interface]\nPrivateKey = {left.private_key}\n"
    text = f"{head}[Peer]\nPublicKey = {key('pubkey', key('genkey'))}\nAllowedIPs = 10.77.0.3/32\n"
    file.write_text(text)
    before = set(left.peers())

    def add(*options: str, before: str = "") -> tuple[int, str, str]:
        command = (
            f"{before}exec {WGMP} add-peer {left.interface} --endpoint h:1 {' '.join(options)}"
        )
        done = left.namespace.run("sh", "-c", command, check=False)
        return done.returncode, done.stdout, done.stderr

    # It stays in this command's own mount namespace.
    lock = f"mount --bind {file.parent} {file.parent} && mount -o remount,bind,ro {file.parent} && "
    code, printed, said = add("--config", str(file), before=lock)
    assert (code, printed) == (2, "")
    assert f"{file}: cannot be written: Read-only file system" in said
    assert set(left.peers()) == before
    assert file.read_text() == text

    stranger = tmp_path / "stranger.conf"
    stranger.write_text(f"[Interface]\nPrivateKey = {right.private_key}\n")
    code, _, said = add("--config", str(stranger))
    assert code == 2
    expected = f"{stranger} is not the configuration of {left.interface}: its key differs"
    assert expected in said
    assert set(left.peers()) == before

    # The address is free that neither the gateway nor the file has given away.
    code, printed, said = add("--config", str(file))
    assert (code, "Address = 10.77.0.4/32, fd77::3/128" in printed) == (0, True), said
    (added,) = set(left.peers()) - before
    psk = config.parse(printed, "client").peers[0].preshared_key
    assert psk is not None
    shown = left.namespace.run("wg", "show", left.interface, "preshared-keys").stdout
    assert f"{added}\t{to_base64(psk)}" in shown
    code, printed, _ = add("--no-psk")
    assert (code, "PresharedKey" in printed) == (0, False)
    assert "10.77.0.3/32" in printed, "without the file nobody has it"


def test_a_gateway_without_a_key_has_no_peers_yet(namespaces: Namespaces, tmp_path: Path) -> None:
    space = namespaces.add("one")
    name = space.interface_name("wg")
    space.run(WGMP, "supervise", name)
    done = space.run(WGMP, "add-peer", name, "--endpoint", "h:1", check=False)
    assert done.returncode == 2
    assert f"{name} has no private key: `wg set {name} private-key FILE`" in done.stderr
    space.run("wg", "set", name, "private-key", "/dev/stdin", stdin=key("genkey"))
    done = space.run(WGMP, "add-peer", name, "--endpoint", "h:1", check=False)
    assert done.returncode == 2
    assert f"{name} has no address, so its peers have no subnet: write Address" in done.stderr
    assert space.run("wg", "show", name, "peers").stdout == ""
