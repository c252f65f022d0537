"""A gateway under systemd: it tells how it is, and its interface outlives its supervisor.

systemd itself cannot run here as process 1; tests/e2e/systemd.py plays its part.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

import wgmp
from wgmp.netns import Namespace, wait_for

from .systemd import Service
from .tunnel import WGMP, key

pytestmark = pytest.mark.root

SHARE = Path(wgmp.__file__).parent / "share"


def test_a_killed_supervisors_interface_stays_and_its_successor_takes_it_over(
    service: Service,
) -> None:
    space, name = service.space, service.interface
    service.start()
    assert service.pings()
    space.run("ip", "route", "add", "198.51.100.0/24", "dev", name)
    space.run("wg", "set", name, "fwmark", "77")  # as a default route has it
    port = service.show("listen-port")
    before = _index(space, name)
    service.systemd.listen()
    assert sorted(kept for kept, _ in service.systemd.kept) == ["tun", "uapi", "udp", "udp"]

    service.systemd.kill()
    wait_for(lambda: not space.processes(), 5, "no role outlives its supervisor")
    assert _index(space, name) == before

    service.start()
    assert _index(space, name) == before
    assert (service.show("listen-port"), service.show("fwmark")) == (port, "0x4d")
    assert f"{service.peer.inner4.rpartition('.')[0]}.1/24" in _addresses(space, name)
    assert "198.51.100.0/24" in space.run("ip", "route", "show", "dev", name).stdout
    assert service.show("peers") == service.peer.public_key
    assert service.pings()


def test_an_interface_stays_with_all_its_queues_and_is_made_anew_for_another_number(
    service: Service,
) -> None:
    space, name, systemd = service.space, service.interface, service.systemd
    service.start(WGMP_TUN_QUEUES="2")
    before, port = _index(space, name), service.show("listen-port")
    systemd.listen()
    assert [kept for kept, _ in systemd.kept].count("tun") == 3
    systemd.kill()
    wait_for(lambda: not space.processes(), 5, "no role outlives its supervisor")
    service.start(WGMP_TUN_QUEUES="2")
    assert service.pings()
    assert (_index(space, name), service.show("listen-port")) == (before, port)
    for queues, descriptors in (("3", 4), ("1", 1)):
        systemd.kill()
        wait_for(lambda: not space.processes(), 5, "no role outlives its supervisor")
        service.start(WGMP_TUN_QUEUES=queues, WGMP_TOPOLOGY="auto")
        assert service.pings()
        assert (_index(space, name) != before, service.show("listen-port")) == (True, port)
        systemd.listen()
        assert [kept for kept, _ in systemd.kept].count("tun") == descriptors


def test_a_reload_touches_no_session_of_an_unchanged_peer(service: Service) -> None:
    pid = service.start()
    assert service.pings()
    handshake, port = service.show("latest-handshakes"), service.show("listen-port")
    new = key("pubkey", key("genkey"))
    service.write(service.text + f"\n[Peer]\nPublicKey = {new}\nAllowedIPs = 10.77.0.9/32\n")
    heard = len(service.systemd.messages)
    os.kill(pid, signal.SIGHUP)
    begun = service.systemd.wait_for("RELOADING=1", after=heard)
    (at,) = (line for line in begun if line.startswith("MONOTONIC_USEC="))
    assert 0 <= time.monotonic() - int(at.partition("=")[2]) / 1e6 < 60
    service.systemd.wait_for("READY=1", after=heard)
    assert set(service.show("peers").split()) == {service.peer.public_key, new}
    assert handshake in service.show("latest-handshakes")
    assert service.show("listen-port") == port
    assert service.pings()


@pytest.mark.parametrize(
    ("text", "said"),
    [("[Interface]\nNonsense = 1\n", "Nonsense"), ("\n# soon\n", "is empty")],
    ids=["nonsense", "about to be written"],
)
def test_a_wrong_file_changes_nothing_and_the_status_says_so(
    service: Service, text: str, said: str
) -> None:
    pid = service.start()
    service.write(text)
    heard = len(service.systemd.messages)
    os.kill(pid, signal.SIGHUP)
    message = service.systemd.wait_for("READY=1", after=heard)
    assert any("not reloaded" in line and said in line for line in message)
    assert service.pings()


@pytest.mark.parametrize("kind", ["pipe", "directory"])
def test_a_file_that_has_become_something_else_holds_up_neither_a_reload_nor_the_end(
    service: Service, kind: str
) -> None:
    service.write(service.text.replace("[Interface]\n", "[Interface]\nSaveConfig = true\n"))
    pid = service.start()
    service.file.unlink()
    if kind == "pipe":
        os.mkfifo(service.file)
    else:
        service.file.mkdir()
    heard = len(service.systemd.messages)
    os.kill(pid, signal.SIGHUP)
    message = service.systemd.wait_for("READY=1", after=heard)
    assert f"STATUS=not reloaded: {service.file}: is a {kind}: put a file in its place" in str(
        message
    )
    assert service.pings()
    service.space.run(WGMP, "stats", service.interface)
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not service.space.processes(), 8, "it ends")
    said = f"SaveConfig: {service.file}: is a {kind}: put a file in its place, or name another"
    assert f"{said}: not saved" in service.systemd.log.read_text()


def test_the_watchdog_is_fed_and_the_end_is_told(service: Service) -> None:
    pid = service.start(WATCHDOG_USEC="400000")
    for _ in range(2):
        service.systemd.wait_for("WATCHDOG=1", 2, after=len(service.systemd.messages))
    os.kill(pid, signal.SIGTERM)
    service.systemd.wait_for("STOPPING=1")
    wait_for(lambda: not service.space.processes(), 8, "it ends")
    service.systemd.listen()
    assert [name for name, _ in service.systemd.kept if name == "uapi"] == []


def test_systemd_hears_who_the_service_is_after_an_upgrade(service: Service) -> None:
    space, systemd = service.space, service.systemd
    # Ten messages fit into the socket that nobody reads while the upgrade goes on.
    service.start(WATCHDOG_USEC="2000000")
    assert service.pings()
    handshake = service.show("latest-handshakes")
    heard = len(systemd.messages)
    space.run(WGMP, "upgrade", service.interface)
    (line,) = systemd.wait_for_line("MAINPID=", after=heard)
    systemd.wait_for("READY=1", after=systemd.messages.index([line]))
    systemd.wait_for("WATCHDOG=1", after=len(systemd.messages))
    assert service.pings()
    assert service.show("latest-handshakes") == handshake
    os.kill(int(line.removeprefix("MAINPID=")), signal.SIGTERM)
    wait_for(lambda: not space.processes(), 8, "the successor ends")
    systemd.listen()
    assert ["STOPPING=1"] in systemd.messages
    assert service.interface not in _addresses_of_all(space)


def _addresses_of_all(space: Namespace) -> str:
    return space.run("ip", "-4", "address", "show").stdout


def _index(space: Namespace, interface: str) -> str:
    return space.run("ip", "-o", "link", "show", "dev", interface).stdout.partition(":")[0]


def _addresses(space: Namespace, interface: str) -> str:
    return space.run("ip", "address", "show", "dev", interface).stdout


# Units, and the exposure that systemd may find: an agent runs `ip`, `nft` and hooks.
UNITS = {"wgmp@.service": 30, "wgmp-agent.service": 47}


@pytest.fixture(params=UNITS)
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Give a shipped unit with this checkout's program in it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    text = (SHARE / request.param).read_text().replace("/usr/local/bin/wgmp", WGMP)
    path = tmp_path / request.param
    path.write_text(text)
    return path


def test_systemd_finds_nothing_wrong_with_the_unit(unit: Path) -> None:
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "wgmp" in line]
    assert complaints == []


def test_systemd_finds_the_unit_well_confined(unit: Path) -> None:
    threshold = f"--threshold={UNITS[unit.name]}"
    command = ["systemd-analyze", "security", "--offline=yes", threshold, str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
