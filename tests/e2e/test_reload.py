"""A reload waits for the resolver, and nobody waits for the reload."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable

import pytest

from wgmp.netns import Namespace, wait_for

from .nameserver import NameServer
from .systemd import Service
from .tunnel import WGMP, key

pytestmark = pytest.mark.root

LIMIT_S = 10


def peer_called(name: str, key: str) -> str:
    """Return a section of a peer whose endpoint is a name."""
    return f"\n[Peer]\nPublicKey = {key}\nEndpoint = {name}:51820\nAllowedIPs = 10.77.0.9/32\n"


@pytest.fixture
def asking(service: Service, name_server: Callable[[Namespace], NameServer]) -> NameServer:
    """A name server that the service is to ask."""
    return name_server(service.space)


def reload(service: Service, pid: int, text: str) -> int:
    """Have a file read; return how many messages systemd had before."""
    service.write(text)
    service.systemd.listen()
    heard = len(service.systemd.messages)
    os.kill(pid, signal.SIGHUP)
    return heard


def says_ready(service: Service, after: int) -> bool:
    """Whether systemd was told since that the reload is over."""
    service.systemd.listen()
    return any("READY=1" in message for message in service.systemd.messages[after:])


def roles(service: Service) -> dict[str, int]:
    """Return the process ids of the gateway's roles by their names."""
    stats = service.space.run(WGMP, "stats", service.interface, "--json").stdout
    return {row["name"]: row["pid"] for row in json.loads(stats)["processes"]}


def test_while_the_resolver_is_silent_all_goes_on_and_then_the_file_is_true(
    service: Service, asking: NameServer
) -> None:
    pid = service.start(WATCHDOG_USEC="400000", WGMP_TOPOLOGY="compact")
    assert service.pings()
    new = key("pubkey", key("genkey"))
    heard = reload(service, pid, service.text + peer_called("vpn.example.org", new))
    asking.wait_until_asked()
    assert service.show("peers") == service.peer.public_key
    service.systemd.wait_for("WATCHDOG=1", after=len(service.systemd.messages))
    before = roles(service)
    os.kill(before["gateway"], signal.SIGKILL)
    wait_for(lambda: roles(service)["gateway"] not in (0, before["gateway"]), LIMIT_S, "it is back")
    assert service.pings()
    assert not says_ready(service, heard)
    asking.answer()
    service.systemd.wait_for("READY=1", after=heard)
    assert set(service.show("peers").split()) == {service.peer.public_key, new}
    said = "endpoint vpn.example.org:51820: Name or service not known: the peer has none until"
    assert said in service.systemd.log.read_text()


def test_what_is_reloaded_once_more_meanwhile_is_what_the_file_says_in_the_end(
    service: Service, asking: NameServer
) -> None:
    pid = service.start()
    first, second = (key("pubkey", key("genkey")) for _ in range(2))
    heard = reload(service, pid, service.text + peer_called("one.example.org", first))
    asking.wait_until_asked()
    reload(service, pid, service.text + peer_called("two.example.org", second))
    asking.answer()
    both = {service.peer.public_key, second}
    wait_for(lambda: set(service.show("peers").split()) == both, LIMIT_S, "the second is true")
    service.systemd.wait_for("READY=1", after=heard)
    assert service.pings()


def test_a_stop_does_not_wait_for_the_resolver(service: Service, asking: NameServer) -> None:
    pid = service.start()
    new = key("pubkey", key("genkey"))
    heard = reload(service, pid, service.text + peer_called("vpn.example.org", new))
    asking.wait_until_asked()
    os.kill(pid, signal.SIGTERM)
    service.systemd.wait_for("STOPPING=1", after=heard)
    wait_for(lambda: len(service.space.processes()) == 1, LIMIT_S, "only the name server is left")
