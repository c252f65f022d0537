"""Secret keys are in their files and nowhere else, whatever an agent prints, writes and answers."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from .site import Site

pytestmark = pytest.mark.root


def forms(key: str) -> list[bytes]:
    """Return the ways a key could be written: base64, hex, raw, escaped."""
    raw = base64.b64decode(key)
    return [key.rstrip("=").encode(), raw.hex().encode(), raw, repr(raw)[2:-1].encode()]


def test_no_secret_key_is_printed_or_written(site: Site) -> None:
    broken = '[network.broken]\nprivate_key_path = "/dev/null"\n'
    site.start(site.head(), site.home(), broken, LOG_LEVEL="verbose")
    site.peer.accept(site.public_key(), "10.77.0.1/32")
    site.wait_for_state("running")
    assert site.pings("10.77.0.2")
    private = (site.keys / "home" / "private.key").read_text().strip()
    secrets = [private, site.peer.psk]
    printed: list[str] = []
    for command in (
        ("networks", "--json"),
        ("status", "home"),
        ("status", "home", "--json"),
        ("connect", "broken"),
        ("connect", private),
        ("reload",),
        ("stats", site.interface, "--json"),
        ("disconnect", "home"),
        ("connect", "home"),
        ("agent", "check", "--config", str(site.file)),
    ):
        done = site.wgmp(*command, check=False)
        if private in command:
            done.stderr = done.stderr.replace(private, "(as given)")
        printed.append(done.stdout + done.stderr)
    # a key where none belongs
    for line in (f'private_key = "{private}"', f'listen_port = "{private}"', f"mtu = {private}"):
        site.file.write_text(site.head() + site.home(line))
        printed.append(site.wgmp("reload", check=False).stderr)
    site.file.write_text(site.head() + site.home().replace(site.peer.public_key, private[:-2]))
    printed.append(site.wgmp("reload", check=False).stderr)
    site.wgmp("agent", "stop")
    assert site.process is not None
    site.process.wait(10)

    everything = {f"printed {number}": text.encode() for number, text in enumerate(printed)}
    written = [site.log, *Path("/run/wgmp").glob(f"*{site.interface}*"), *site.directory.rglob("*")]
    written = [path for path in written if path.is_file() and path.name != "peer.log"]
    everything |= {str(path): path.read_bytes() for path in written}
    key_files = {str(site.keys / "home" / "private.key"), str(site.psk_file)}
    assert len(everything[str(site.log)]) > 500, "it did say something"
    for where, data in everything.items():
        if where in key_files or where == str(site.file):
            continue
        for secret in secrets:
            for form in forms(secret):
                assert form not in data, where
