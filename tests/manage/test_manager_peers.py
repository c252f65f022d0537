"""Peers of a network manager: added, pinged and removed, or refused with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgmp.errors import ConfigError, ControlError
from wgmp.manage.manager import NetworkManager
from wgmp.manage.runner import Commands, Done

from .test_manager import CREATED, DELETED, A, B, kernel, together

PEER = ("wg", "set", "wgmp0", "peer", A)
ROUTES = [
    Done(("ip", "-j", f"-{version}", "route", "show", "dev", "wgmp0"), stdout="[]")
    for version in (4, 6)
]


def added(*options: str) -> list[Done]:
    """Return what adding the peer A takes, with routes of both families."""
    batches = [Done(("ip", f"-{version}", "-batch", "-")) for version in (4, 6)]
    return [Done((*PEER, *options)), *ROUTES, *batches]


def test_all_that_is_given_is_handed_to_wg_and_the_routes_are_set(tmp_path: Path) -> None:
    allowed = "10.9.0.0/16,10.66.0.2/32,fd00::2/128"
    options = ("endpoint", "vpn.example.org:7", "persistent-keepalive", "5", "allowed-ips", allowed)
    manager, run = kernel([*CREATED, *added(*options)], tmp_path)
    together(
        manager.initialize,
        lambda: manager.add_peer(
            A, allowed_ips=allowed.split(","), endpoint="vpn.example.org:7", keepalive_s=5
        ),
    )
    routes = [given for given in run.given if "route" in given]
    assert routes == [
        "route replace 10.66.0.2/32 dev wgmp0\nroute replace 10.9.0.0/16 dev wgmp0\n",
        "route replace fd00::2/128 dev wgmp0\n",
    ]


def test_a_ping_goes_to_a_peers_first_single_address(tmp_path: Path) -> None:
    ping = Done(("ping", "-c", "1", "-W", "1", "10.66.0.2"), stdout="time=3.5 ms")
    allowed = ("10.9.0.0/16", "10.66.0.2/32", "fd00::2/128")
    options = ("persistent-keepalive", "25", "allowed-ips", ",".join(allowed))
    manager, run = kernel([*CREATED, *added(*options), ping], tmp_path)
    _, _, milliseconds = together(
        manager.initialize,
        lambda: manager.add_peer(A, allowed_ips=allowed),
        lambda: manager.measure_latency(A),
    )
    assert milliseconds == 3.5
    with pytest.raises(ConfigError, match="is no address: write for example"):
        together(lambda: manager.measure_latency(B))  # the key of nobody here
    assert run.ran[-1] == ping.command


def test_a_peer_without_a_single_address_cannot_be_pinged_by_its_key(tmp_path: Path) -> None:
    options = ("persistent-keepalive", "25", "allowed-ips", "10.9.0.0/16")
    record = [*CREATED, Done((*PEER, *options)), *ROUTES, Done(("ip", "-4", "-batch", "-"))]
    manager, _ = kernel(record, tmp_path)
    together(manager.initialize, lambda: manager.add_peer(A, allowed_ips=["10.9.0.0/16"]))
    with pytest.raises(ConfigError, match="has no allowed IP of one address: name an address"):
        together(lambda: manager.measure_latency(A))


def test_peers_that_are_not_there_cannot_be_removed(tmp_path: Path) -> None:
    options = ("persistent-keepalive", "25", "allowed-ips", "")
    record = [*CREATED, Done((*PEER, *options)), Done((*PEER, "remove"))]
    manager, run = kernel(record, tmp_path)
    with pytest.raises(ControlError, match=r"wgmp0 is not there yet: call initialize\(\) first"):
        together(lambda: manager.remove_peer(A))
    together(manager.initialize, lambda: manager.add_peer(A, allowed_ips=[]))
    with pytest.raises(ControlError, match=f"wgmp0 has no peer {B}"):
        together(lambda: manager.remove_peer(B))
    with pytest.raises(ConfigError, match="PublicKey: write the 44 characters `wg pubkey` prints"):
        together(lambda: manager.remove_peer(" "))
    together(lambda: manager.remove_peer(A))
    with pytest.raises(ControlError, match=f"wgmp0 has no peer {A}"):
        together(lambda: manager.remove_peer(A))
    assert run.ran.count((*PEER, "remove")) == 1


def test_a_second_cleanup_does_nothing_and_then_it_can_be_made_again(tmp_path: Path) -> None:
    manager, run = kernel([*CREATED, *DELETED, *CREATED], tmp_path)
    together(manager.initialize, manager.cleanup, manager.cleanup)
    assert run.ran == [done.command for done in (*CREATED, *DELETED)]
    with pytest.raises(ControlError, match="call initialize"):
        together(lambda: manager.add_peer(A, allowed_ips=[]))
    together(manager.initialize)
    assert run.ran[-1] == CREATED[-1].command


@pytest.mark.skipif(not Commands().has("ip"), reason="needs ip")
@pytest.mark.parametrize("backend", ["", "wgmp", "kernel"])
def test_a_manager_says_which_back_end_it_has(backend: str) -> None:
    (status,) = together(NetworkManager(backend, "no-such-iface").get_interface_status)
    assert getattr(status, "state", None) == "not_created"
    assert getattr(status, "backend", None) == (backend or "wgmp")
