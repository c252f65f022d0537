"""The network manager with back ends that cannot run here, by recorded commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from wgmp import keys
from wgmp.errors import CommandError, ConfigError, ControlError, UnsupportedPlatformError
from wgmp.manage.journal import Journal
from wgmp.manage.linux import KernelBackend
from wgmp.manage.manager import IfExists, NetworkManager
from wgmp.manage.runner import Done
from wgmp.manage.windows import WindowsBackend

from .replay import Replay

PRIVATE = keys.to_base64(keys.clamp(bytes([7]) * 32))
PUBLIC = keys.to_base64(keys.public_key_of(keys.from_base64(PRIVATE)))
A, B = (keys.to_base64(bytes([n]) * 32) for n in (1, 2))
DUMP = (
    f"{PRIVATE}\t{PUBLIC}\t51820\toff\n"
    f"{A}\t(none)\t192.0.2.7:9\t10.66.0.2/32,fd00::2/128\t1700000000\t10\t20\t25\n"
    f"{B}\t(none)\t(none)\t(none)\t0\t0\t0\toff\n"
)


def together(*steps: Callable[[], Awaitable[object]]) -> list[object]:
    async def run() -> list[object]:
        return [await step() for step in steps]

    return asyncio.run(run())


# The kernel's WireGuard

SHOW = ("ip", "link", "show", "dev", "wgmp0")
ADD = ("ip", "link", "add", "dev", "wgmp0", "type", "wireguard")
ADDRESS = ("10.66.0.1/16", "dev", "wgmp0")
LINK = '[{"flags":["NOARP"],"mtu":1420}]'
UP = '[{"flags":["UP"],"mtu":1420}]'


def kernel(record: list[Done], directory: Path, **settings: str) -> tuple[NetworkManager, Replay]:
    run = Replay(record, {"ip", "wg", "ping"})
    backend = KernelBackend(run, lambda interface: Journal(directory / f"{interface}.undo"))
    manager = NetworkManager(backend, private_key=PRIVATE, run=run, system="linux", **settings)
    return manager, run


CREATED = [
    Done(SHOW, 1),
    Done(ADD),
    Done(("wg", "set", "wgmp0", "listen-port", "51820", "private-key", "/dev/stdin")),
    Done(("ip", "-j", "link", "show", "dev", "wgmp0"), stdout=LINK),
    Done(("ip", "-4", "address", "add", *ADDRESS)),
    Done(("ip", "-j", "route", "show", "default"), stdout="[]"),
    Done(("ip", "link", "set", "mtu", "1420", "up", "dev", "wgmp0")),
]
DELETED = [
    Done(SHOW),
    Done(("ip", "-4", "address", "delete", *ADDRESS)),
    Done(("ip", "link", "set", "mtu", "1420", "down", "dev", "wgmp0")),
    Done(SHOW),
    Done(("ip", "link", "delete", "dev", "wgmp0")),
]


def test_the_kernels_wireguard_is_made_set_up_and_removed(tmp_path: Path) -> None:
    peer = ("wg", "set", "wgmp0", "peer", A)
    routes = ("ip", "-j", "-4", "route", "show", "dev", "wgmp0")
    record = [
        *CREATED,
        Done((*peer, "persistent-keepalive", "25", "allowed-ips", "10.66.0.2/32")),
        Done(routes, stdout='[{"dst":"10.66.0.0/16"}]'),
        Done(("ip", "-j", "-6", "route", "show", "dev", "wgmp0"), stdout="[]"),
        Done(SHOW),
        Done(("ip", "-j", "link", "show", "dev", "wgmp0"), stdout=UP),
        Done(("wg", "show", "wgmp0", "dump"), stdout=DUMP),
        Done(("ping", "-c", "1", "-W", "1", "10.66.0.2"), stdout="time=3.5 ms"),
        Done((*peer, "remove")),
        Done(("ip", "-4", "-force", "-batch", "-"), 1),
        *DELETED,
    ]
    manager, run = kernel(record, tmp_path)
    *_, status, milliseconds, _, _ = together(
        manager.initialize,
        manager.initialize,
        lambda: manager.add_peer(A, allowed_ips=["10.66.0.2/32"]),
        manager.get_interface_status,
        lambda: manager.measure_latency(A),
        lambda: manager.remove_peer(A),
        manager.cleanup,
    )
    assert run.given[run.ran.index(CREATED[2].command)] == PRIVATE, "no key on a command line"
    assert milliseconds == 3.5
    assert getattr(status, "state", None) == "active"
    assert list(tmp_path.iterdir()) == []


def test_a_kernel_without_wireguard_is_said_plainly(tmp_path: Path) -> None:
    record = [Done(SHOW, 1), Done(ADD, 2, "", "Error: Unknown device type.")]
    manager, _ = kernel(record, tmp_path)
    with pytest.raises(UnsupportedPlatformError, match="this kernel has no WireGuard: load it"):
        together(manager.initialize)


def test_an_interface_half_made_is_removed_again(tmp_path: Path) -> None:
    no_address = Done(CREATED[4].command, 2, "", "Error: no room")
    record = [*CREATED[:4], no_address, Done(SHOW), Done(DELETED[1].command, 2), *DELETED[2:]]
    record.append(Done(SHOW))
    manager, run = kernel(record, tmp_path)
    with pytest.raises(CommandError, match="no room"):
        together(manager.initialize)
    assert run.ran[-1] == ("ip", "link", "delete", "dev", "wgmp0")
    assert list(tmp_path.iterdir()) == []


def test_an_interface_that_is_there_is_left_replaced_or_adopted(tmp_path: Path) -> None:
    manager, run = kernel([Done(SHOW)], tmp_path)
    with pytest.raises(ControlError, match="interface wgmp0 exists: adopt or replace it"):
        together(manager.initialize)
    assert run.ran == [SHOW]

    gone = [Done(SHOW), Done(SHOW), Done(("ip", "link", "delete", "dev", "wgmp0"))]
    manager, run = kernel([*gone, *CREATED[1:]], tmp_path, if_exists="replace")
    together(manager.initialize)
    assert run.ran[:3] == [done.command for done in gone]

    other = keys.to_base64(keys.clamp(bytes([9]) * 32))
    conf = f"[Interface]\nListenPort = 7\nPrivateKey = {other}\n\n[Peer]\nPublicKey = {A}\n"
    record = [
        Done(SHOW),
        Done(("wg", "showconf", "wgmp0"), stdout=conf),
        Done(("ip", "address", "replace", *ADDRESS)),
        Done(("ip", "link", "set", "up", "dev", "wgmp0")),
        Done(("wg", "set", "wgmp0", "peer", A, "remove")),
    ]
    manager, run = kernel(record, tmp_path, if_exists="adopt")
    together(manager.initialize, lambda: manager.remove_peer(A))
    assert manager.public_key == keys.to_base64(keys.public_key_of(keys.from_base64(other)))


def test_states_are_not_created_error_and_active(tmp_path: Path) -> None:
    device = ("ip", "-j", "link", "show", "dev", "wgmp0")
    dump = ("wg", "show", "wgmp0", "dump")
    for record, state, detail in (
        ([Done(SHOW, 1)], "not_created", ""),
        ([Done(SHOW), Done(device, stdout=LINK), Done(dump, stdout=DUMP)], "error", "is down"),
        ([Done(SHOW), Done(device, stdout=UP), Done(dump, 1)], "error", "wg show wgmp0 dump"),
        ([Done(SHOW), Done(device, stdout=UP), Done(dump, stdout="?")], "error", "never did"),
        ([Done(SHOW), Done(device, stdout=UP), Done(dump, stdout=DUMP)], "active", ""),
    ):
        manager, _ = kernel(record, tmp_path)
        (status,) = together(manager.get_interface_status)
        assert getattr(status, "state", None) == state
        assert detail in getattr(status, "detail", "?")
    assert getattr(status, "public_key", "") == PUBLIC
    first, second = getattr(status, "peers", ())
    assert (first.allowed_ips, first.keepalive_s) == (("10.66.0.2/32", "fd00::2/128"), 25)
    assert (second.endpoint, second.allowed_ips, second.handshake_at) == ("", (), 0)


def test_mistakes_are_told_before_anything_is_run(tmp_path: Path) -> None:
    manager, run = kernel([], tmp_path)
    with pytest.raises(ConfigError, match="PublicKey: this is no key"):
        together(lambda: manager.add_peer("abc", allowed_ips=[]))
    with pytest.raises(ConfigError, match="AllowedIPs: ten is not an IP address"):
        together(lambda: manager.add_peer(A, allowed_ips=["ten"]))
    with pytest.raises(ControlError, match=r"call initialize\(\) first"):
        together(lambda: manager.add_peer(A, allowed_ips=[]))
    with pytest.raises(ConfigError, match="if_exists: 'maybe' is not possible: adopt, replace"):
        NetworkManager(KernelBackend(run), if_exists="maybe")
    with pytest.raises(ConfigError, match=r"Address: 10\.66\.0\.1/40 is not possible"):
        NetworkManager(KernelBackend(run), addresses=["10.66.0.1/40"])
    together(manager.cleanup)
    assert run.ran == []


# Windows' service

SERVICE = "WireGuardTunnel$wgmp0"
QUERY = ("sc", "query", SERVICE)
RUNNING = (
    "SERVICE_NAME: x\r\n        TYPE  : 10  WIN32_OWN_PROCESS\r\n        STATE  : 4  RUNNING\r\n"
)
STOPPED = RUNNING.replace("4  RUNNING", "1  STOPPED")
NO_SERVICE = "[SC] EnumQueryServicesStatus:OpenService FAILED 1060:"
PROGRAMS = {"sc", "ping", "wireguard.exe", "wg.exe"}


class Syncing(Replay):
    """Keeps the file that `wg.exe syncconf` was given; its name is a new one each time."""

    synced = ""

    async def run(
        self, *command: str, stdin: str = "", check: bool = True, limit_s: float = 10
    ) -> Done:
        if command[:2] == ("wg.exe", "syncconf"):
            self.synced = Path(command[3]).read_text()
            command = command[:3]
        return await super().run(*command, stdin=stdin, check=check, limit_s=limit_s)


def test_windows_installs_a_service_changes_its_peers_and_uninstalls_it(tmp_path: Path) -> None:
    conf = tmp_path / "wgmp0.conf"
    sync = Done(("wg.exe", "syncconf", "wgmp0"))
    record = [
        Done(QUERY, 1060, NO_SERVICE),
        Done(("wireguard.exe", "/installtunnelservice", str(conf))),
        *[Done(QUERY, stdout=RUNNING)] * 2,
        sync,
        Done(("wg.exe", "show", "wgmp0", "dump"), stdout=DUMP),
        Done(QUERY, stdout=RUNNING),
        Done(("ping", "-n", "1", "-w", "1000", "10.66.0.2"), stdout="time<1ms"),
        Done(("wireguard.exe", "/uninstalltunnelservice", "wgmp0")),
    ]
    # status: exists, trouble; cleanup: exists
    record += [Done(QUERY, stdout=RUNNING)]
    run = Syncing(record, PROGRAMS)
    backend = WindowsBackend(run, tmp_path)
    manager = NetworkManager(backend, private_key=PRIVATE, run=run, system="win32")
    together(manager.initialize)
    assert conf.read_text() == (
        f"[Interface]\nPrivateKey = {PRIVATE}\nListenPort = 51820\nAddress = 10.66.0.1/16\n"
    )
    together(lambda: manager.add_peer(A, allowed_ips=["10.66.0.2/32"], endpoint="a.example:7"))
    peer = (
        f"[Peer]\nPublicKey = {A}\nEndpoint = a.example:7\nAllowedIPs = 10.66.0.2/32\n"
        "PersistentKeepalive = 25\n"
    )
    assert conf.read_text().endswith(peer)
    assert run.synced.endswith(peer)
    assert "Address" not in run.synced
    status, milliseconds, _ = together(
        manager.get_interface_status, lambda: manager.measure_latency(A), manager.cleanup
    )
    assert (getattr(status, "state", None), milliseconds) == ("active", 1.0)
    assert list(tmp_path.iterdir()) == []


def test_windows_reuses_a_service_that_is_there(tmp_path: Path) -> None:
    shown = f"[Interface]\nListenPort = 7\nPrivateKey = {PRIVATE}\n\n[Peer]\nPublicKey = {A}\n"
    record = [
        *[Done(QUERY, stdout=STOPPED)] * 2,
        Done(("sc", "start", SERVICE)),
        Done(QUERY, stdout=RUNNING),
        Done((r"C:\Program Files\WireGuard\wg.exe", "showconf", "wgmp0"), stdout=shown),
    ]
    run = Replay(record, {"sc", r"C:\Program Files\WireGuard\wg.exe"})
    manager = NetworkManager(WindowsBackend(run, tmp_path), if_exists=IfExists.ADOPT, run=run)
    together(manager.initialize)
    assert manager.public_key == PUBLIC
    text = (tmp_path / "wgmp0.conf").read_text()
    assert "ListenPort = 7" in text
    assert "Address = 10.66.0.1/16" in text
    assert f"PublicKey = {A}" in text


def test_a_service_that_does_not_come_up_is_removed_again(tmp_path: Path) -> None:
    install = ("wireguard.exe", "/installtunnelservice", str(tmp_path / "wgmp0.conf"))
    record = [Done(QUERY, 1060), Done(install, 1, "", "access denied"), Done(QUERY, 1060)]
    run = Replay(record, PROGRAMS)
    manager = NetworkManager(WindowsBackend(run, tmp_path), run=run)
    with pytest.raises(CommandError, match="access denied"):
        together(manager.initialize)
    assert list(tmp_path.iterdir()) == []
