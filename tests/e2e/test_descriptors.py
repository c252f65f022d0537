"""A gateway on descriptors that were open before it: WG_TUN_FD and WG_UAPI_FD of wireguard-go."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from wgmp.netns import UAPI_DIRECTORY, Namespace, Namespaces, wait_for

from .tunnel import WGMP, WGMPD, is_listened_at

pytestmark = pytest.mark.root

# A program that opens what stands between these two, and becomes wgmpd with it.
PREPARE = """
import os, socket, sys
from wgmp import tun, uapi_server
name, program, *options = sys.argv[1:]
def give(variable, descriptor):
    os.set_inheritable(descriptor, True)
    os.environ[variable] = str(descriptor)
"""
BECOME = "\nos.execv(program, [program, *options, name])"

TUN = "\ngive('WG_TUN_FD', tun.open_tun(name)[0])"
UAPI = "\nlistener = uapi_server.bind_socket(uapi_server.socket_path(name))"
GIVE_UAPI = "\ngive('WG_UAPI_FD', listener.fileno())"


@pytest.fixture
def space(namespaces: Namespaces) -> Namespace:
    """Give a namespace to start gateways in."""
    return namespaces.add("given")


def test_a_gateway_serves_the_interface_and_the_socket_it_is_given_and_hands_them_on(
    space: Namespace, tmp_path: Path
) -> None:
    name, path = space.interface_name("wg"), tmp_path / "log"
    program = PREPARE + TUN + UAPI + GIVE_UAPI + BECOME
    first = space.start(sys.executable, "-c", program, name, WGMPD, "-f", log=path)
    listening = UAPI_DIRECTORY / f"{name}.sock"
    control = Path("/run/wgmp") / listening.name
    wait_for(lambda: is_listened_at(control), 20, "the gateway starts")
    space.run("wg", "set", name, "fwmark", "7", timeout_s=10)
    space.run(WGMP, "upgrade", name, timeout_s=30)
    assert first.wait(8) == 0, path.read_text()
    assert space.run("wg", "show", name, "fwmark", timeout_s=10).stdout == "0x7\n"
    space.run("ip", "link", "delete", name)
    wait_for(lambda: not space.processes(), 8, "the gateway ends with its interface")
    assert not listening.exists()


UDP = "\nlistener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)"
TCP = "\nlistener = socket.create_server(('127.0.0.1', 0))"
DATAGRAMS = "\nlistener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)"
ABSTRACT = "\nlistener = socket.socket(socket.AF_UNIX); listener.bind(b'\\0' + name.encode())"
ABSTRACT += "; listener.listen()"
NO_LISTENER = "is no listening Unix socket with a path"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("\nos.environ['WG_UAPI_FD'] = '99'", "99 is no socket: Bad file descriptor"),
        ("\ngive('WG_UAPI_FD', os.open('/dev/null', os.O_RDWR))", "is no socket: "),
        (UDP + GIVE_UAPI, NO_LISTENER),
        (TCP + GIVE_UAPI, NO_LISTENER),
        (DATAGRAMS + GIVE_UAPI, NO_LISTENER),
        (ABSTRACT + GIVE_UAPI, NO_LISTENER),
        ("\nos.environ['WG_TUN_FD'] = '99'", "99 is no TUN device: Bad file descriptor"),
    ],
    ids=["closed", "no-socket", "udp", "tcp", "datagrams", "abstract", "closed-tun"],
)
@pytest.mark.parametrize("mode", [("-f",), ()], ids=["foreground", "detached"])
def test_a_descriptor_that_is_something_else_is_refused_in_one_line(
    space: Namespace, mode: tuple[str, ...], given: str, said: str
) -> None:
    name = space.interface_name("wg")
    program = PREPARE + given + BECOME
    command = (sys.executable, "-c", program, name, WGMPD, *mode)
    done = space.run(*command, check=False, timeout_s=30)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert said in line
    assert name not in space.links()
    assert not space.processes()
