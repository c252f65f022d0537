"""Friendly names out of the comments of a configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wgmp.observe.names import MAX_NAME, Names, names_in

A, B = "a" * 43 + "=", "b" * 43 + "="


def test_a_comment_before_or_behind_the_key_names_its_peer() -> None:
    text = f"""[Interface]
# friendly_name = nobody
PrivateKey = {A}
[Peer]
# friendly_name = Anna's phone
PublicKey = {A}
AllowedIPs = 10.0.0.2/32
[Peer] # second
publickey={B}   # its key
#Name: Ben
"""
    assert names_in(text) == {A: "Anna's phone", B: "Ben"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"[Peer]\nPublicKey = {A}\n# friendly name of somebody\n",
        f"[Peer]\n# friendly_name =\nPublicKey = {A}\n",
        "[Peer]\n# friendly_name = X\nPublicKey = short\n",
        f"[Peer]\n# friendly_name = X\n[Peer]\nPublicKey = {A}\n",
        "\0\x1b[31m[Peer]\n",
    ],
)
def test_what_names_no_peer_is_passed_over(text: str) -> None:
    assert names_in(text) == {}


def test_a_name_cannot_steer_a_terminal_nor_fill_the_screen() -> None:
    (name,) = names_in(f"[Peer]\n#name = \x1b[2Jx\x07{'y' * 200}\nPublicKey={A}\n").values()
    assert name.startswith("[2Jxy")
    assert len(name) == MAX_NAME


def test_a_file_that_changes_is_read_again_and_one_that_is_gone_names_nobody(
    tmp_path: Path,
) -> None:
    file = tmp_path / "wg0.conf"
    names = Names([file])
    assert names.current() == {}
    file.write_text(f"[Peer]\n# friendly_name = one\nPublicKey = {A}\n")
    assert names.current() == {A: "one"}
    file.write_text(f"[Peer]\n# friendly_name = another\nPublicKey = {A}\n")
    assert names.current() == {A: "another"}
    os.unlink(file)
    assert names.current() == {}
