"""What a process cannot do any more once it has given it up: each way of giving up by itself."""

from __future__ import annotations

import errno
import os
import pwd
import resource
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from wgmp import landlock, memory, sandbox
from wgmp.sandbox import Sandbox
from wgmp.syscalls import parent_death_signal, prctl

pytestmark = pytest.mark.root

NOBODY = pwd.getpwnam("nobody")
CAP_SYS_RESOURCE = 24
NO_NEW_PRIVS = 38  # linux/prctl.h
GET_DUMPABLE = 3
# linux/capability.h: KILL, SETGID, SETUID, NET_BIND_SERVICE, NET_ADMIN
KEPT = sum(1 << capability for capability in (5, 6, 7, 10, 12))


def told_by_child(body: Callable[[], object]) -> str:
    """Return what a child answers that does this: the repr of its answer, or an error's name."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writer, repr(body()).encode())
        except OSError as error:
            os.write(writer, errno.errorcode[error.errno or 0].encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


def status() -> dict[str, str]:
    """Return this process's /proc/self/status by its names."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def entered(limits: Sandbox, then: Callable[[], object]) -> str:
    """Return what a child answers that has entered a sandbox."""

    def body() -> object:
        sandbox.enter(limits)
        return then()

    return told_by_child(body)


AS_NOBODY = Sandbox(True, "nobody", NOBODY.pw_uid, NOBODY.pw_gid)


def test_a_role_becomes_its_user_for_good_and_has_no_capability_left() -> None:
    ids = [str(NOBODY.pw_uid)] * 4, [str(NOBODY.pw_gid)] * 4
    assert entered(AS_NOBODY, lambda: (status()["Uid"].split(), status()["Gid"].split())) == (
        repr(ids)
    )
    sets = ("CapInh", "CapPrm", "CapEff", "CapAmb")
    assert entered(AS_NOBODY, lambda: {int(status()[each], 16) for each in sets}) == "{0}"
    assert entered(AS_NOBODY, lambda: os.setuid(0)) == "EPERM"
    assert entered(AS_NOBODY, lambda: os.getgroups()) == "[]"


def test_a_role_of_the_same_user_has_no_capability_either() -> None:
    same = Sandbox(True, "", os.getuid(), os.getgid())
    assert entered(same, os.getuid) == "0"
    assert entered(same, lambda: int(status()["CapPrm"], 16)) == "0"
    assert entered(same, lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) == "EPERM"


def test_a_role_dumps_nothing_gains_nothing_and_dies_with_its_supervisor() -> None:
    assert entered(AS_NOBODY, lambda: resource.getrlimit(resource.RLIMIT_CORE)) == "(0, 0)"
    assert entered(AS_NOBODY, lambda: prctl(GET_DUMPABLE)) == "0"
    assert entered(AS_NOBODY, lambda: status()["NoNewPrivs"]) == "'1'"
    assert entered(AS_NOBODY, parent_death_signal) == repr(int(signal.SIGKILL))


def test_without_a_sandbox_nothing_is_given_up() -> None:
    before = status()
    names = ("Uid", "CapEff", "NoNewPrivs", "Seccomp")
    expected = repr([before[name] for name in names])
    assert entered(sandbox.OFF, lambda: [status()[name] for name in names]) == expected


def in_landlock(version: int, attempt: Callable[[], object]) -> str:
    """Return what becomes of an attempt in a child that is in Landlock alone."""

    def body() -> object:
        prctl(NO_NEW_PRIVS, 1)
        landlock.enter(version)
        return attempt()

    return told_by_child(body)


def connect_tcp() -> None:
    with socket.socket() as sock:
        sock.connect(("127.0.0.1", 9))


def send_udp() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        return sock.sendto(b"x", ("127.0.0.1", 9))


def test_landlock_alone_refuses_files_tcp_and_signals_as_far_as_the_kernel_goes(
    tmp_path: Path,
) -> None:
    kernel = landlock.version()
    if not kernel:
        pytest.skip("needs Landlock")
    (tmp_path / "file").write_text("x")
    parent = os.getpid()
    attempts: list[tuple[int, Callable[[], object]]] = [
        (1, lambda: os.open(tmp_path / "file", os.O_RDONLY)),
        (1, lambda: os.open("/dev/null", os.O_WRONLY)),
        (1, lambda: os.mkdir(tmp_path / "made")),
        (1, lambda: os.unlink(tmp_path / "file")),
        (1, lambda: os.listdir(tmp_path)),
        (3, lambda: os.truncate(tmp_path / "file", 0)),
        (4, connect_tcp),
        (4, lambda: socket.create_server(("127.0.0.1", 0))),
        (6, lambda: os.kill(parent, 0)),
    ]
    for version in {1, 3, 4, 6, kernel} & set(range(1, kernel + 1)):
        for since, attempt in attempts:
            if since <= version:
                assert in_landlock(version, attempt) in ("EACCES", "EPERM"), (version, since)
        assert in_landlock(version, send_udp) == "1"
        if version < 4:
            assert in_landlock(version, connect_tcp) == "ECONNREFUSED"
    assert (tmp_path / "file").read_text() == "x"


def test_a_supervisor_keeps_five_capabilities_and_gives_no_more_to_what_it_executes() -> None:
    grep = ("grep", "-E", "^Cap(Inh|Prm|Eff|Bnd|Amb)", "/proc/self/status")

    def body() -> dict[str, int]:
        sandbox.narrow_supervisor()
        lines = subprocess.run(grep, capture_output=True, text=True, check=True).stdout.split("\n")
        sets = dict(line.split(":\t") for line in lines if line)
        return {name: int(bits, 16) for name, bits in sets.items()}

    found = {"CapInh": 0, "CapPrm": KEPT, "CapEff": KEPT, "CapBnd": KEPT, "CapAmb": 0}
    assert told_by_child(body) == repr(found)


def test_a_supervisor_that_has_few_capabilities_gets_none_and_goes_on() -> None:
    def body() -> set[int]:
        sandbox._set_capabilities((10, 12))
        sandbox.narrow_supervisor()
        return sandbox.capabilities()

    assert told_by_child(body) == "{10, 12}"


def test_a_supervisor_lets_its_workers_lock_session_memory_where_it_may() -> None:
    def body() -> tuple[int, int]:
        sandbox.narrow_supervisor()
        return resource.getrlimit(resource.RLIMIT_MEMLOCK)

    may = CAP_SYS_RESOURCE in sandbox.capabilities()
    limit = (128 << 20, 128 << 20) if may else resource.getrlimit(resource.RLIMIT_MEMLOCK)
    assert told_by_child(body) == repr(limit)


@pytest.mark.parametrize(
    ("user", "expected"),
    [("", "nobody"), ("nobody", "nobody"), ("daemon", "daemon")],
)
def test_roles_of_root_run_as_the_user_asked_for_or_one_without_rights(
    user: str, expected: str
) -> None:
    decided = sandbox.decide(True, user)
    if user or not _has_user("wgmp"):
        assert (decided.user, decided.uid) == (expected, pwd.getpwnam(expected).pw_uid)
    assert str(decided).startswith(f"user {decided.user}, no capabilities")


def test_a_supervisor_that_is_not_root_keeps_its_user_for_its_roles() -> None:
    def body() -> str:
        os.setgid(NOBODY.pw_gid)
        os.setuid(NOBODY.pw_uid)
        decided = sandbox.decide(True, "daemon")
        assert (decided.uid, decided.gid) == (NOBODY.pw_uid, NOBODY.pw_gid)
        return str(decided)

    assert told_by_child(body).startswith("\"the supervisor's user, no capabilities")


def test_what_is_not_wanted_is_off() -> None:
    assert sandbox.decide(False, "no-such-user") == sandbox.OFF
    assert str(sandbox.OFF) == "off"


def test_a_gateway_leaves_no_core_dump_and_cannot_be_attached_to() -> None:
    def body() -> tuple[int, int, bool]:
        memory.keep_out_of_dumps()
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        return soft, prctl(GET_DUMPABLE), hard == before[1]

    before = resource.getrlimit(resource.RLIMIT_CORE)
    assert told_by_child(body) == "(0, 0, True)"


def _has_user(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())
