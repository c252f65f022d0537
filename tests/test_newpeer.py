"""New peers: the address that is free, and files that change whole or not at all."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wgmp import config, keys, newpeer
from wgmp.cli import main
from wgmp.errors import ConfigError
from wgmp.newpeer import Network

SERVER = """\
[Interface]
PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=
ListenPort = 51820
Address = 10.0.0.1/24, fd00::1/64

# the office
[Peer]
PublicKey = xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=
AllowedIPs = 10.0.0.2/32, 192.168.5.0/24"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A gateway's configuration, without an end to its last line."""
    path = tmp_path / "wg0.conf"
    path.write_text(SERVER)
    path.chmod(0o640)
    return path


def obvious(subnet: ipaddress.IPv4Interface, taken: list[Network]) -> object:
    """Return the first free host by looking at each."""
    inside = [each for each in taken if each != subnet.network and each.subnet_of(subnet.network)]  # type: ignore[arg-type]
    for host in subnet.network.hosts():
        if host != subnet.ip and not any(host in each for each in inside):
            return host
    return None


@given(
    host=st.integers(0, 255),
    length=st.integers(24, 32),
    taken=st.lists(st.tuples(st.integers(0, 511), st.integers(20, 32)), max_size=40),
)
def test_the_free_address_is_the_first_that_nobody_has(
    host: int, length: int, taken: list[tuple[int, int]]
) -> None:
    subnet = ipaddress.IPv4Interface((0x0A000000 + host, length))
    base = 0x0A000000
    networks: list[Network] = [
        ipaddress.IPv4Network((base + offset, bits), strict=False) for offset, bits in taken
    ]
    assert newpeer.next_free(subnet, networks) == obvious(subnet, networks)


def test_a_subnet_of_18_quintillion_addresses_is_not_counted_through() -> None:
    subnet = ipaddress.IPv6Interface("fd00::1/64")
    taken: list[Network] = [ipaddress.IPv6Network("fd00::/65"), ipaddress.IPv6Network("::/0")]
    assert newpeer.next_free(subnet, taken) == ipaddress.IPv6Address("fd00::8000:0:0:0")


def add(file: Path, *options: str) -> int:
    """Add a peer to the file."""
    return main(["add-peer", "--config", str(file), "--endpoint", "vpn.example.org", *options])


def test_a_peer_gets_keys_the_next_addresses_and_a_configuration_that_fits_the_server_s(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(file, "--name", "phone", "--dns", "10.0.0.1") == 0
    client = config.parse(capsys.readouterr().out, "client")
    server = config.load(file)
    office, phone = server.peers
    assert file.read_text().startswith(SERVER), "what was there stays as it was"
    assert phone.name == "phone"
    assert file.stat().st_mode & 0o777 == 0o640
    assert [str(each) for each in client.interface.addresses] == ["10.0.0.3/32", "fd00::2/128"]
    (gateway,) = client.peers
    assert gateway.endpoint == "vpn.example.org:51820"
    assert gateway.preshared_key == phone.preshared_key
    assert gateway.preshared_key != office.preshared_key
    assert keys.public_key_of(client.interface.private_key) == phone.public_key
    assert keys.public_key_of(server.interface.private_key) == gateway.public_key
    assert add(file) == 0
    assert "10.0.0.4/32" in capsys.readouterr().out


def test_a_peer_may_keep_its_key_and_do_without_all_that_can_be_left_out(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = keys.to_base64(keys.public_key_of(keys.generate_private_key()))
    left_out = ("--no-psk", "--keepalive", "0", "--routes", "10.0.0.0/24")
    assert add(file, "--public-key", own, *left_out) == 0
    gateway = keys.to_base64(keys.public_key_of(config.load(file).interface.private_key))
    assert capsys.readouterr().out == (
        "[Interface]\n"
        f"# PrivateKey = the one that belongs to {own}\n"
        "Address = 10.0.0.3/32, fd00::2/128\n"
        "\n[Peer]\n"
        f"PublicKey = {gateway}\n"
        "AllowedIPs = 10.0.0.0/24\n"
        "Endpoint = vpn.example.org:51820\n"
    )
    section = f"[Peer]\nPublicKey = {own}\nAllowedIPs = 10.0.0.3, fd00::2\n"
    assert file.read_text() == f"{SERVER}\n\n{section}"


def test_what_a_peer_is_told_by_default_and_by_name(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(file, "--name", "phone", "--dns", "10.0.0.1, example.org") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("[Interface]\n# phone\nPrivateKey = ")
    client = config.parse(printed, "client")
    assert [str(entry) for entry in client.interface.dns] == ["10.0.0.1", "example.org"]
    assert client.peers[0].keepalive == 25
    assert [length for _, length in client.peers[0].allowed_ips] == [0, 0], "everything"


def test_a_peer_gets_one_address_of_each_family(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = SERVER.replace("10.0.0.1/24, ", "10.0.0.1/24, 10.5.0.1/24, fd05::1/64, ")
    file.write_text(text)
    assert add(file) == 0
    assert "Address = 10.0.0.3/32, fd05::2/128\n" in capsys.readouterr().out


def test_without_a_gateway_or_a_file_it_is_said_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(tmp_path / "none" / "wg0.conf") == 2
    assert f"{tmp_path}/none: there is no such directory" in capsys.readouterr().err
    assert add(tmp_path / "none.conf") == 2
    assert "none.conf: cannot be read: No such file or directory" in capsys.readouterr().err
    assert main(["add-peer", "no-such-iface", "--endpoint", "h:1"]) == 1
    assert "wgmp supervise" in capsys.readouterr().err


def test_a_key_that_is_a_peer_already_is_refused(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(file, "--public-key", "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=") == 2
    assert "already" in capsys.readouterr().err
    assert file.read_text() == SERVER


@pytest.mark.parametrize(
    ("change", "remedy"),
    [
        (("Address = 10.0.0.1/24, fd00::1/64", ""), "Address = "),
        (("ListenPort = 51820", ""), "--endpoint HOST:PORT"),
        (("10.0.0.1/24", "10.0.0.1/31, 10.0.0.9/30"), "no address of 10.0.0.0/31 is free"),
        (("PrivateKey = yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=", ""), "wgmp genkey"),
    ],
)
def test_what_is_missing_is_one_line_and_the_file_stays(
    file: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], remedy: str
) -> None:
    text = SERVER.replace(*change).replace("10.0.0.2/32", "10.0.0.0/32")
    file.write_text(text)
    assert add(file) == 2
    error = capsys.readouterr().err
    assert remedy in error
    assert error.count("\n") == 1
    assert file.read_text() == text
    assert [path.name for path in file.parent.iterdir()] == ["wg0.conf"]


def test_two_at_once_do_not_get_one_address(file: Path) -> None:
    command = [sys.executable, "-m", "wgmp", "add-peer", "--config", str(file)]
    command += ["--endpoint", "h:1"]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    addresses = {out.split("Address = ")[1].split("/")[0] for out, _ in map(_finish, running)}
    assert addresses == {f"10.0.0.{host}" for host in range(3, 7)}
    assert len(config.load(file).peers) == 5


def test_a_file_is_utf_8_whatever_the_locale_says(file: Path) -> None:
    file.write_text(SERVER.replace("the office", "das Büro"), "utf-8")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "wgmp", "add-peer", "--config", str(file)]
    subprocess.run([*command, "--endpoint", "h:1"], check=True, env=os.environ | locale)
    text = file.read_text("utf-8")
    assert text.startswith(SERVER.replace("the office", "das Büro"))
    assert len(config.parse(text, "").peers) == 2


def _finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    return process.communicate(timeout=30)


def test_a_qr_code_holds_the_configuration_without_its_comments(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "code.png"
    assert main(["qr", str(file), "-o", str(image)]) == 0
    assert image.stat().st_mode & 0o777 == 0o600
    assert main(["qr", str(file)]) == 0
    assert "▀" in capsys.readouterr().out
    if shutil.which("zbarimg") is None:
        pytest.skip("needs zbarimg (zbar-tools) to read it")
    command = ["zbarimg", "--quiet", "--raw", "--oneshot", str(image)]
    read = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    assert read.strip() == SERVER.replace("\n\n# the office", "")


def test_a_qr_code_can_be_made_of_what_comes_through_a_pipe(file: Path) -> None:
    command = f"{sys.executable} -m wgmp qr <(cat {file}) && {sys.executable} -m wgmp qr - < {file}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[: len(lines) // 2] == lines[len(lines) // 2 :]


def test_what_is_no_configuration_makes_no_qr_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes"
    path.write_text("buy milk\n")
    assert main(["qr", str(path)]) == 2
    assert "write [Interface]" in capsys.readouterr().err


def test_the_file_stays_when_the_result_would_be_none(file: Path) -> None:
    peer = newpeer.make(newpeer.of_file(file), "a\nnot = possible")
    with pytest.raises(ConfigError):
        newpeer.add_to_file(file, peer)
    assert file.read_text() == SERVER
