"""However a gateway ends, it leaves nothing; however it starts, it is ready when it says so."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for

from .conftest import MakeTunnel
from .tunnel import WGMP, WGMPD, Gateway, Tunnel, exists

pytestmark = pytest.mark.root

END_LIMIT_S = 8.0


def delete_link(gateway: Gateway) -> None:
    """End a gateway as `wg-quick down` does."""
    gateway.namespace.run("ip", "link", "delete", gateway.interface)


def delete_socket(gateway: Gateway) -> None:
    """End a gateway as wireguard-go's manual says."""
    gateway.socket.unlink()


def signal_with(number: signal.Signals) -> Callable[[Gateway], None]:
    """Return what ends a gateway by a signal to its supervisor."""
    return lambda gateway: gateway.process.send_signal(number)


def working(tunnel: MakeTunnel, topology: str = "pipeline") -> Tunnel:
    """Return a tunnel that has carried a packet."""
    ends = tunnel("wgmpd", "wireguard-go", topology=topology)
    assert ends.left.ping(ends.right.inner4)
    return ends


@pytest.mark.parametrize("topology", ["pipeline", "compact"])
@pytest.mark.parametrize(
    "stop",
    [
        pytest.param(signal_with(signal.SIGINT), id="SIGINT"),
        pytest.param(signal_with(signal.SIGTERM), id="SIGTERM"),
        pytest.param(delete_link, id="link-deleted"),
        pytest.param(delete_socket, id="socket-deleted"),
    ],
)
def test_an_ordered_stop_removes_everything(
    tunnel: MakeTunnel, stop: Callable[[Gateway], None], topology: str
) -> None:
    gateway = working(tunnel, topology).left
    roles = list(gateway.role_pids().values())
    stop(gateway)
    code = gateway.process.wait(END_LIMIT_S)
    assert code == 0, gateway.log.read_text()
    assert not [pid for pid in roles if exists(pid)]
    assert gateway.namespace.processes() == []
    assert gateway.interface not in gateway.namespace.links()
    assert not gateway.socket.exists()
    assert not (Path("/run/wgmp") / gateway.socket.name).exists()


def test_a_killed_supervisor_leaves_no_process_and_no_interface(tunnel: MakeTunnel) -> None:
    gateway = working(tunnel).left
    gateway.process.kill()
    gateway.process.wait(END_LIMIT_S)
    wait_for(lambda: not gateway.namespace.processes(), END_LIMIT_S, "the roles end")
    assert gateway.interface not in gateway.namespace.links()


def test_a_killed_gateway_can_be_started_again_over_its_stale_sockets(tunnel: MakeTunnel) -> None:
    ends = working(tunnel)
    ends.left.process.kill()
    wait_for(lambda: not ends.left.namespace.processes(), END_LIMIT_S, "the roles end")
    ends.left.socket.unlink(missing_ok=True)
    ends.left.start()
    ends.left.configure()
    ends.left.add_peer(ends.right, ends.right.endpoint(4))
    assert ends.left.ping(ends.right.inner4)


def test_detached_start_returns_when_wg_can_be_used(namespaces: Namespaces) -> None:
    space = namespaces.add("daemon")
    interface = space.interface_name("wg")
    done = space.run(WGMPD, interface, timeout_s=20)
    assert done.stdout == ""
    assert f"interface: {interface}" in space.run("wg", "show", interface).stdout
    (supervisor, *_) = sorted(space.processes())
    subprocess.run(["kill", str(supervisor)], check=True)
    wait_for(lambda: not space.processes(), END_LIMIT_S, "the daemon ends")
    assert not (UAPI_DIRECTORY / f"{interface}.sock").exists()


def test_supervise_with_a_configuration_sets_address_mtu_and_link(
    namespaces: Namespaces, tmp_path: Path, tunnel: MakeTunnel
) -> None:
    ends = tunnel("wireguard-go", "wireguard-go")
    right = ends.right
    ends.left.process.terminate()
    ends.left.process.wait(END_LIMIT_S)
    space = ends.left.namespace
    interface = space.interface_name("wg")
    config = tmp_path / "gateway.conf"
    config.write_text(
        f"[Interface]\nPrivateKey = {ends.left.private_key}\nListenPort = {ends.left.port}\n"
        f"Address = {ends.left.inner4}/24, {ends.left.inner6}/64\nMTU = 1380\n\n"
        f"[Peer]\nPublicKey = {right.public_key}\nEndpoint = {right.endpoint(4)}\n"
        f"AllowedIPs = {right.inner4}/32, {right.inner6}/128\nPersistentKeepalive = 25\n"
    )
    config.chmod(0o600)
    space.start(WGMP, "supervise", interface, "--config", str(config), log=tmp_path / "log")
    wait_for((UAPI_DIRECTORY / f"{interface}.sock").exists, 10, "the gateway starts")
    wait_for(lambda: _pings(space, right.inner4), 10, (tmp_path / "log").read_text())
    assert _pings(space, right.inner6)
    shown = space.run("ip", "address", "show", "dev", interface).stdout
    assert "mtu 1380" in shown
    assert "every 25 seconds" in space.run("wg", "show", interface).stdout


def _pings(space: Namespace, address: str) -> bool:
    return space.run("ping", "-c1", "-W1", address, check=False).returncode == 0
