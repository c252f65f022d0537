"""The service of Windows: every step is taken, in its order, and none that is not needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wgmp.errors import CommandError, ConfigError
from wgmp.manage import windows
from wgmp.manage.manager import NetworkManager
from wgmp.manage.runner import Done
from wgmp.manage.windows import WindowsBackend

from .replay import Replay
from .test_manager import PRIVATE, PROGRAMS, QUERY, RUNNING, SERVICE, STOPPED, A, Syncing, together

STARTING = RUNNING.replace("4  RUNNING", "2  START_PENDING")
NONE, STOPS, STARTS, RUNS = (
    Done(QUERY, 1060, "[SC] EnumQueryServicesStatus:OpenService FAILED 1060:"),
    *(Done(QUERY, stdout=printed) for printed in (STOPPED, STARTING, RUNNING)),
)
REMOVE = Done(("wireguard.exe", "/uninstalltunnelservice", "wgmp0"))
SYNC = Done(("wg.exe", "syncconf", "wgmp0"))


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for changes of a service without waiting between the looks."""
    monkeypatch.setattr(windows, "_POLL_S", 0)


def install(directory: Path) -> Done:
    """Return the command that installs the service."""
    return Done(("wireguard.exe", "/installtunnelservice", str(directory / "wgmp0.conf")))


def manage(directory: Path, *record: Done, **settings: Any) -> tuple[NetworkManager, Replay]:
    """Return a manager on a Windows where this will happen."""
    run = Syncing(record, PROGRAMS)
    backend = WindowsBackend(run, directory)
    manager = NetworkManager(
        backend,
        private_key=PRIVATE,
        run=run,
        system="win32",
        addresses=["10.66.0.1/16"],
        **settings,
    )
    return manager, run


def test_a_service_is_waited_for_changed_and_removed(tmp_path: Path) -> None:
    start = (NONE, install(tmp_path), STOPS, STARTS, RUNS)
    steps = (*start, SYNC, SYNC, RUNS, REMOVE)
    manager, run = manage(tmp_path, *steps)
    together(
        manager.initialize,
        lambda: manager.add_peer(A, allowed_ips=["10.66.0.2/32"]),
        lambda: manager.remove_peer(A),
    )
    assert isinstance(run, Syncing)
    assert run.synced == f"[Interface]\nPrivateKey = {PRIVATE}\nListenPort = 51820\n"
    assert "[Peer]" not in (tmp_path / "wgmp0.conf").read_text()
    together(manager.cleanup)
    assert run.ran == [step.command for step in steps]
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_somebody_else_removed_is_only_forgotten(tmp_path: Path) -> None:
    manager, run = manage(tmp_path, NONE, install(tmp_path), RUNS, NONE)
    together(manager.initialize, manager.cleanup)
    assert REMOVE.command not in run.ran
    assert list(tmp_path.iterdir()) == []


def test_a_service_that_runs_is_adopted_as_it_is(tmp_path: Path) -> None:
    shown = Done(("wg.exe", "showconf", "wgmp0"), stdout=f"[Interface]\nPrivateKey = {PRIVATE}\n")
    manager, run = manage(tmp_path, RUNS, RUNS, shown, if_exists="adopt")
    together(manager.initialize)
    assert run.ran == [QUERY, QUERY, shown.command]


def test_one_that_never_runs_is_removed_and_it_is_said_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "_SERVICE_LIMIT_S", -1.0)
    steps = (NONE, install(tmp_path), STOPS, STOPS, REMOVE)
    manager, run = manage(tmp_path, *steps)
    with pytest.raises(CommandError, match=r"WireGuardTunnel\$wgmp0 is STOPPED after .*/dumplog"):
        together(manager.initialize)
    assert run.ran == [step.command for step in steps]
    assert list(tmp_path.iterdir()) == []


def test_a_state_that_cannot_be_asked_or_is_not_running_is_an_error(tmp_path: Path) -> None:
    refused = Done(QUERY, 5, "[SC] OpenService FAILED 5:\r\n\r\nAccess is denied.")
    dump = Done(("wg.exe", "show", "wgmp0", "dump"), stdout=f"x\t{A}\t7\toff\n")
    for record, detail in (
        ((refused,), "Access is denied"),
        ((Done(QUERY, stdout="?"),), "`sc query"),
        ((STOPS, STOPS, dump), f"the service {SERVICE} is STOPPED: `sc start {SERVICE}`"),
    ):
        manager, _ = manage(tmp_path, *record)
        (status,) = together(manager.get_interface_status)
        assert getattr(status, "state", None) == "error"
        assert getattr(status, "backend", None) == "windows"
        assert detail in getattr(status, "detail", "")


def test_files_are_in_programdata_unless_said_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROGRAMDATA", str(tmp_path))
    steps = (NONE, install(tmp_path / "wgmp"), RUNS)
    run = Replay(steps, PROGRAMS)
    together(NetworkManager(WindowsBackend(run), run=run).initialize)
    assert run.ran == [step.command for step in steps]
    (tmp_path / "wgmp" / "wgmp0.conf").unlink()
    (tmp_path / "wgmp").rmdir()
    (tmp_path / "wgmp").touch()
    run = Replay([NONE], PROGRAMS)
    with pytest.raises(ConfigError, match=r"wgmp0\.conf: cannot be written: "):
        together(NetworkManager(WindowsBackend(run), run=run).initialize)
