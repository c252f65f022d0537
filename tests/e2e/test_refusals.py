"""What cannot start says why in one line, and leaves nothing behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for

from .tunnel import WGMP, WGMPD, is_listened_at

pytestmark = pytest.mark.root


@pytest.fixture
def space(namespaces: Namespaces) -> Namespace:
    """Give a namespace to start gateways in."""
    return namespaces.add("refusal")


def refusal(space: Namespace, *command: str) -> str:
    """Run a command that must fail, and say why in one line; return the line."""
    done = space.run(*command, check=False, timeout_s=30)
    assert done.returncode != 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert not space.processes()
    return line


@pytest.mark.parametrize("mode", [("-f",), ()], ids=["foreground", "detached"])
def test_a_taken_interface_is_refused(space: Namespace, mode: tuple[str, ...]) -> None:
    name = space.interface_name("du")
    space.run("ip", "link", "add", name, "type", "veth")
    line = refusal(space, WGMPD, *mode, name)
    assert name in line
    assert not (UAPI_DIRECTORY / f"{name}.sock").exists()
    assert name in space.links()


@pytest.mark.parametrize("queues", ["0", "-1", "1000", "x"])
def test_a_number_of_queues_that_cannot_be_is_refused(space: Namespace, queues: str) -> None:
    name = space.interface_name("wg")
    line = refusal(space, WGMP, "supervise", name, f"--tun-queues={queues}", "--foreground")
    assert line == f"wgmp: --tun-queues: '{queues}' is not possible: write 1 to 16"


def test_a_second_gateway_of_the_same_name_is_refused(space: Namespace, tmp_path: Path) -> None:
    name = space.interface_name("wg")
    first = space.start(WGMPD, "-f", name, log=tmp_path / "log")
    path = UAPI_DIRECTORY / f"{name}.sock"
    wait_for(lambda: is_listened_at(path), 10, "the first one starts")
    done = space.run(WGMPD, "-f", name, check=False)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert name in line
    assert first.poll() is None
    assert name in space.run("wg", "show", name).stdout, "the first one still serves"


@pytest.mark.parametrize("mode", [("--foreground",), ()], ids=["foreground", "detached"])
def test_a_taken_port_is_refused(space: Namespace, tmp_path: Path, mode: tuple[str, ...]) -> None:
    _take_port(space, 51820, tmp_path)
    name = space.interface_name("wg")
    config = tmp_path / "gateway.conf"
    config.write_text(f"[Interface]\nPrivateKey = {'A' * 42}E=\nListenPort = 51820\n")
    config.chmod(0o600)
    done = space.run(
        WGMP, "supervise", name, "--config", str(config), *mode, check=False, timeout_s=30
    )
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert "51820" in line
    assert name not in space.links()
    assert not (UAPI_DIRECTORY / f"{name}.sock").exists()


def test_wg_says_that_a_port_is_taken_and_the_old_one_stays(
    space: Namespace, tmp_path: Path
) -> None:
    _take_port(space, 51820, tmp_path)
    name = space.interface_name("wg")
    space.run(WGMPD, name, timeout_s=20)
    before = space.run("wg", "show", name, "listen-port").stdout
    done = space.run("wg", "set", name, "listen-port", "51820", check=False)
    assert done.returncode != 0
    assert "Address already in use" in done.stderr
    assert space.run("wg", "show", name, "listen-port").stdout == before


def test_a_mistake_of_wgmp_itself_is_named_with_its_place(space: Namespace) -> None:
    name = space.interface_name("wg")
    line = refusal(space, sys.executable, str(Path(__file__).with_name("broken_gateway.py")), name)
    assert "internal error: AssertionError: two is not three (broken_gateway.py:" in line
    assert "--foreground" in line
    assert name not in space.links()
    assert not (UAPI_DIRECTORY / f"{name}.sock").exists()


def test_missing_privileges_are_named(space: Namespace) -> None:
    # Root without capabilities: it may read this Python, wherever it lies, and nothing else.
    drop = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    for command in (("-f",), ()):
        line = refusal(space, *drop, WGMPD, *command, space.interface_name("wg"))
        assert "root" in line
        assert "CAP_NET_ADMIN" in line


def test_a_missing_tun_device_is_named(space: Namespace) -> None:
    hidden = 'mount -t tmpfs none /dev/net && exec "$@"'
    name = space.interface_name("wg")
    line = refusal(space, "unshare", "--mount", "sh", "-c", hidden, "sh", WGMPD, "-f", name)
    assert "/dev/net/tun" in line


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ((WGMP, "supervise", "wg0", "--workers", "0"), "--workers"),
        ((WGMP, "supervise", "wg0", "--workers", "many"), "--workers"),
        ((WGMP, "supervise", "wg0", "--topology", "ring"), "--topology"),
        ((WGMP, "supervise", "wg0", "--config", "/nowhere.conf"), "/nowhere.conf"),
        ((WGMP, "supervise", "a-name-that-is-too-long"), "a-name-that-is-too-long"),
        ((WGMP, "stats", "nothere"), "nothere"),
        ((WGMPD, "-f", "a/b"), "a/b"),
        (("env", "WGMP_WORKERS=x", WGMPD, "-f", "wg0"), "WGMP_WORKERS"),
        (("env", "WGMP_TOPOLOGY=x", WGMPD, "-f", "wg0"), "WGMP_TOPOLOGY"),
        ((WGMP, "supervise"), "IFACE"),
        ((WGMP, "fly"), "fly"),
        ((WGMPD, "--unknown", "wg0"), "--unknown"),
        ((WGMPD,), "IFACE"),
    ],
)
def test_wrong_options_are_named(space: Namespace, command: tuple[str, ...], said: str) -> None:
    assert said in refusal(space, *command)


def _take_port(space: Namespace, port: int, directory: Path) -> None:
    code = (
        "import socket, time; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); "
        f"s.bind(('::', {port})); print('taken', flush=True); time.sleep(60)"
    )
    log = directory / "taken"
    space.start(sys.executable, "-c", code, log=log)
    wait_for(log.read_text, 10, "the port is taken")
