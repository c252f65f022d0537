"""A gateway with the AEAD that was asked for, and one that cannot have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgmp.fastpath.choice import ipsec_mb_is_missing, native_is_missing
from wgmp.netns import Namespaces

from .conftest import MakeTunnel
from .tunnel import WGMP, WGMPD, transfer

WITHOUT = ipsec_mb_is_missing()

pytestmark = pytest.mark.root
needs_ipsec_mb = pytest.mark.skipif(bool(WITHOUT), reason=f"no ipsec-mb: {WITHOUT}")

needs_native = pytest.mark.skipif(
    bool(native_is_missing()), reason="the native fast path was not built: no Rust toolchain"
)

SIZE = 50_000_000
LIMIT_S = 90.0


@needs_ipsec_mb
@pytest.mark.parametrize("topology", ["pipeline", "compact"])
def test_with_ipsec_mb_wireguard_go_is_understood_and_understands(
    tunnel: MakeTunnel, topology: str
) -> None:
    environment = {"WGMP_AEAD": "ipsec-mb"}
    ends = tunnel("wgmpd", "wireguard-go", topology=topology, environment=environment)
    for size in (0, 1, 16, 555, 1392):
        assert ends.left.ping_all(ends.right.inner6, count=5, size=size)
    for sender, receiver in ((ends.left, ends.right), (ends.right, ends.left)):
        assert transfer(sender, receiver, "--bytes", str(SIZE)).finish(LIMIT_S).bytes == SIZE
    stats = ends.left.namespace.run(WGMP, "stats", ends.left.interface).stdout
    assert "native fast path, AEAD ipsec-mb 1." in stats
    assert "seccomp" in stats, "a role needs nothing more for it"
    ends.left.namespace.run(WGMP, "workers", "2", ends.left.interface)
    assert ends.left.ping_all(ends.right.inner4, count=5, size=1392)
    stats = ends.left.namespace.run(WGMP, "stats", ends.left.interface).stdout
    assert "2 worker(s), native fast path, AEAD ipsec-mb 1." in stats


@needs_native
def test_without_the_library_asked_for_no_gateway_starts(
    namespaces: Namespaces, tmp_path: Path
) -> None:
    space = namespaces.add("aead")
    (tmp_path / "libIPSec_MB.so.1").write_text("no library")
    environment = {"WGMP_AEAD": "ipsec-mb", "LD_LIBRARY_PATH": str(tmp_path)}
    name = space.interface_name("wg")
    for command in ((WGMPD, "-f", name), (WGMPD, name)):
        done = space.run(*command, check=False, timeout_s=30, environment=environment)
        assert done.returncode != 0
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("wgmpd: the AEAD ipsec-mb cannot be used here: ")
        assert line.endswith(": use ring")
        assert name not in space.links()
        assert not space.processes()


def test_the_reference_fast_path_refuses_another_aead(namespaces: Namespaces) -> None:
    space = namespaces.add("aead")
    name = space.interface_name("wg")
    options = ("--foreground", "--fastpath=reference", "--aead=ipsec-mb")
    done = space.run(WGMP, "supervise", name, *options, check=False, timeout_s=30)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "wgmp: the AEAD ipsec-mb is for the native fast path: use ring with reference\n"
    )
