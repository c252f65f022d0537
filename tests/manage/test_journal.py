"""The undo list survives a crash, and shares what several interfaces need."""

from __future__ import annotations

from pathlib import Path

import pytest

from wgmp.manage.journal import Journal, Undo


def undo(text: str, shared: str = "") -> Undo:
    return Undo(command=("echo", text), shared=shared)


def test_what_was_added_is_there_after_a_crash_and_gone_when_undone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "wg0.undo"
    journal = Journal(path)
    journal.add(undo("one"))
    journal.add(undo("two"))
    assert path.stat().st_mode & 0o777 == 0o600, "hooks may hold secrets"
    successor = Journal(path)
    assert [step.command[1] for step in successor.steps] == ["one", "two"]
    successor.drop_last()
    assert [step.command[1] for step in Journal(path).steps] == ["one"]
    successor.drop_last()
    assert not path.exists()
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b'{"namespace": 1, "steps": [{"com',
        b'{"namespace": 1, "steps": [{"command": ["\xff"]}]}',
        b'{"namespace": 1, "steps": ' + b"[" * 5000,
        b'{"namespace": 1, "steps": [{"undo": "rm"}]}',
    ],
)
def test_a_damaged_file_is_warned_of_and_an_empty_list(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "wg0.undo"
    path.write_bytes(damage)
    journal = Journal(path)
    assert journal.steps == ()
    assert f"{path} is damaged, and what it should undo stays" in caplog.text
    journal.add(undo("one"))
    assert Journal(path).steps == (undo("one"),)


def test_a_shared_setting_is_found_with_the_others_only(tmp_path: Path) -> None:
    ours, theirs = Journal(tmp_path / "wg0.undo"), Journal(tmp_path / "wg1.undo")
    ours.add(undo("mine", "forwarding"))
    assert ours.of_others("forwarding") is None
    theirs.add(undo("theirs", "forwarding"))
    found = ours.of_others("forwarding")
    assert found is not None
    assert found.command == ("echo", "theirs")
    assert ours.of_others("another") is None
