"""Friendly names out of the comments of a configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from wgmp.keys import to_base64
from wgmp.observe.names import Names, names_in

A, B = to_base64(bytes([1] * 32)), to_base64(bytes([2] * 32))


def test_a_comment_names_its_peer() -> None:
    text = f"""[Interface]
ListenPort = 51820
[Peer]
# friendly_name = Anna's phone
PublicKey = {A}
AllowedIPs = 10.0.0.2/32
# friendly_name = Ben
[Peer]
publickey={B}   # its key
"""
    assert names_in(text) == {A: "Anna's phone", B: "Ben"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"[Peer]\nPublicKey = {A}\n",
        f"[Peer]\n# friendly_name =\nPublicKey = {A}\n",
        "[Peer]\n# friendly_name = X\nPublicKey = short\n",
        "\0\x1b[31m[Peer]\n",
    ],
)
def test_what_is_no_configuration_or_names_nobody_gives_no_names(text: str) -> None:
    assert names_in(text) == {}


def test_a_name_cannot_steer_a_terminal_nor_fill_the_screen() -> None:
    text = f"[Peer]\n# friendly_name = \x1b[2Jx\x07{'y' * 200}\nPublicKey={A}\n"
    (name,) = names_in(text).values()
    assert name.startswith("[2Jxy")
    assert len(name) == 64


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


def test_files_that_are_missing_hide_no_names_and_the_last_file_decides(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("gone", "first", "last")]
    files[1].write_text(
        f"[Peer]\n# friendly_name = one\nPublicKey = {A}\n"
        f"[Peer]\n# friendly_name = two\nPublicKey = {B}\n"
    )
    files[2].write_text(f"[Peer]\n# friendly_name = renamed\nPublicKey = {A}\n")
    assert Names(files).current() == {A: "renamed", B: "two"}
