"""What `wg setconf` takes and what it refuses, wgmp's grammar takes and refuses."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from wgmp import config
from wgmp.errors import ConfigError

pytestmark = pytest.mark.skipif(shutil.which("wg") is None, reason="needs wg")

KEY = "QClYU9hL3fb0SFPPGvP0eA3hUJdSgEKVkhTNNfAAzUg="

INTERFACE = {
    "ListenPort": ["", "0", "65535", "-1", "0x10", "5a", "\u0665", "=1"],
    "FwMark": ["", "0", "off", "OFF", "none", "0x", "0xff", "0XFF", "4294967295", "4294967296",
               "0xffffffff", "0x100000000", "010", "-1", "a"],
    "PrivateKey": ["", KEY, KEY[:-1], f"{KEY}=", KEY.replace("Q", " Q"), "A" * 43 + "=",
                   "A" * 42 + "B=", "A" * 44],
    "listen port": ["1"],
    "PublicKey": [KEY],
    "Nonsense": ["1"],
}  # fmt: skip
PEER = {
    "PresharedKey": ["", KEY, "A" * 43 + "=", "x"],
    "Endpoint": ["", "1.2.3.4:5", "1.2.3.4", "[::1]:5", "[::1]", "[::1:5", ":5", "[]:5",
                 "1.2.3.4 :5", "[fe80::1%lo]:5", "1.2.3.4:05"],
    "AllowedIPs": ["", ",", "10.0.0.0/8", "10.0.0.0/8,", ",10.0.0.0/8", "10.0.0.0", "::/0",
                   "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/8 , ::/0", "10.0.0/8", "10.0.0.1/8",
                   "1.2.3.4/+8", "1.2.3.4/-8", "010.0.0.1/8", "::1%lo/128", "::/0x10"],
    "PersistentKeepalive": ["", "0", "off", "OFF", "65535", "65536", "-1", "0x10", "010", "on"],
    "ListenPort": ["1"],
}  # fmt: skip
WHOLE = [
    "", "\n", "# x\n", "[Interface]", "[interface]\n", "[ Interface ]\n", "[Interface\n",
    "[Interface] x\n", "[Interface]#x\n", "[Peers]\n", "x\n", "ListenPort=1\n",
    "[Interface]\nListenPort 1\n", "[Interface]\n\tListenPort\t=\t1\r\n",
    "[Interface]\n\x0bListenPort=1\n", "[Interface]\nListenPort=1\nListenPort=2",
    "[Interface]\n[Interface]\n", "[Interface]\nListenPort = 1 # c\n", "[Peer]\n",
    f"[Peer]\nPublicKey={KEY}\n[Peer]\n", f"[Peer]\n[Peer]\nPublicKey={KEY}",
    "[Peer]\nPublicKey=", f"[Peer]\nPublicKey={KEY[:-1]}",
]  # fmt: skip

# What `wg` reads as something else than what stands there: some of it, as the C library does.
REFUSED_HERE = [
    "[Interface]\nListenPort = 65536\n",  # as port 0
    "[Interface]\nListenPort = 1 2\n",  # as 12
    "[Interface]\nFwMark = 1 2\n",
    f"[Peer]\nPublicKey = {KEY}\nPersistentKeepalive = 1 2\n",
    f"[Peer]\nPublicKey = {KEY}\nEndpoint = 1.2.3.4:0\n",
    f"[Peer]\nPublicKey = {KEY}\nEndpoint = 1.2.3.4:65536\n",
    f"[Peer]\nPublicKey = {KEY}\nEndpoint = ::1:5\n",
    f"[Peer]\nPublicKey = {KEY}\nAllowedIPs = 10.0.0.0/08\n",
]


def wg_takes(text: str, directory: Path) -> bool:
    """Tell whether `wg setconf` reads a text to its end: then it looks for the interface."""
    path = directory / "wg.conf"
    path.write_text(text)
    command = ["wg", "setconf", "no-such-device", str(path)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stderr
    took = "Unable to modify interface" in said
    assert took or "Configuration parsing error" in said or "Invalid configuration" in said, said
    return took


def we_take(text: str) -> bool:
    """Tell whether wgmp reads a text."""
    try:
        config.parse(text, "wg.conf")
    except ConfigError:
        return False
    return True


def test_wg_and_wgmp_take_the_same_lines(tmp_path: Path) -> None:
    texts = [f"[Interface]\n{name} = {v}\n" for name, values in INTERFACE.items() for v in values]
    head = f"[Peer]\nPublicKey = {KEY}\n"
    texts += [f"{head}{name} = {value}\n" for name, values in PEER.items() for value in values]
    taken = {text: wg_takes(text, tmp_path) for text in (*texts, *WHOLE)}
    assert {text: we_take(text) for text in taken} == taken
    assert {*taken.values()} == {True, False}


def test_what_wg_reads_as_something_else_is_refused(tmp_path: Path) -> None:
    assert any(wg_takes(text, tmp_path) for text in REFUSED_HERE)
    assert not [text for text in REFUSED_HERE if we_take(text)]
