"""What a log line looks like, which are written, and that none holds a key."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmp import logs
from wgmp.eventhub import EventHub
from wgmp.events import HandshakeFailed, PacketsDropped, RoleRestarted
from wgmp.logs import LogFormat, LogLevel

log = logging.getLogger("wgmp")


@pytest.fixture(autouse=True)
def _handlers_put_back() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    root.setLevel(level)


class Written:
    """What went to standard error so far."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture
        self._text = ""

    def getvalue(self) -> str:
        """Return all of it."""
        self._text += self._capture.readouterr().err
        return self._text


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Written:
    """What goes to standard error."""
    return Written(capsys)


class Clock:
    """The time that everybody is told, until it is changed."""

    now = 1000.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that is stepped by hand."""
    made = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    return made


def test_a_text_line_has_time_level_process_and_message(written: Written) -> None:
    logs.set_up(LogLevel.ERROR, LogFormat.TEXT, {})
    log.info("not this")
    log.warning("%d rings are full", 3)
    (line,) = written.getvalue().splitlines()
    assert line.endswith(f" WARNING supervisor[{os.getpid()}]: 3 rings are full")


def test_a_json_line_is_an_object_with_the_event_s_fields(written: Written) -> None:
    logs.set_up(LogLevel.INFO, LogFormat.JSON, {})
    EventHub().publish(HandshakeFailed(source="worker3", reason="unknown_peer", peer="KEY="))
    line = json.loads(written.getvalue())
    assert {"level": "info", "process": "supervisor", "pid": os.getpid()}.items() <= line.items()
    assert {
        "event": "handshake_failed",
        "source": "worker3",
        "peer": "KEY=",
    }.items() <= line.items()
    assert line["message"].startswith("worker3: handshake failed with KEY=")


def test_a_json_line_has_the_traceback_of_what_went_wrong(written: Written) -> None:
    logs.set_up(LogLevel.ERROR, LogFormat.JSON, {})
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("unexpected: übel")
    (line,) = written.getvalue().splitlines()
    assert "unexpected: übel" in line, "as people write it"
    assert json.loads(line)["traceback"].endswith("ValueError: broken")


@pytest.mark.parametrize("form", list(LogFormat))
def test_under_systemd_a_line_has_its_priority_and_text_no_time(
    form: LogFormat, tmp_path: Path
) -> None:
    path = tmp_path / "journal"
    with open(path, "wb") as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            status = os.fstat(2)
            stream = f"{status.st_dev}:{status.st_ino}"
            with open(2, "w", closefd=False) as stderr, pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "stderr", stderr)
                logs.set_up(LogLevel.VERBOSE, form, {"JOURNAL_STREAM": stream})
                log.warning("first\nsecond")
                log.debug("third")
                log.info("fourth")
                log.error("fifth")
                log.critical("sixth")
        finally:
            os.dup2(kept, 2)
            os.close(kept)
    lines = path.read_text().splitlines()
    if form is LogFormat.TEXT:
        me = f"supervisor[{os.getpid()}]"
        assert lines == [
            *(f"<4>{me}: first", "<4>second", f"<7>{me}: third"),
            *(f"<6>{me}: fourth", f"<3>{me}: fifth", f"<2>{me}: sixth"),
        ]
    else:
        assert [line[:3] for line in lines] == ["<4>", "<7>", "<6>", "<3>", "<2>"]
        assert json.loads(lines[0][3:])["message"] == "first\nsecond"


def test_a_stream_that_is_not_the_journal_s_gets_no_priorities(written: Written) -> None:
    logs.set_up(LogLevel.ERROR, LogFormat.TEXT, {"JOURNAL_STREAM": "1:2"})
    log.warning("hello")
    assert not written.getvalue().startswith("<")


def test_lines_of_one_pattern_are_limited_and_the_rest_is_counted(
    written: Written, clock: Clock
) -> None:
    logs.set_up(LogLevel.ERROR, LogFormat.TEXT, {})
    for number in range(50):
        log.warning("number %d", number)
    log.warning("something else")
    lines = written.getvalue().splitlines()
    assert len(lines) == 21
    assert lines[-1].endswith("something else")
    logs.report_suppressed()
    assert len(written.getvalue().splitlines()) == 21
    clock.now += 6
    logs.report_suppressed()
    assert len(written.getvalue().splitlines()) == 22, "told without a further line"
    log.warning("number %d", 51)
    told, again = written.getvalue().splitlines()[21:]
    assert told.endswith("30 more lines like this were suppressed: number %d")
    assert again.endswith("number 51")


def test_a_flood_that_goes_on_is_told_of_in_each_window_and_begins_anew(
    written: Written, clock: Clock
) -> None:
    logs.set_up(LogLevel.ERROR, LogFormat.TEXT, {})
    for number in range(120):
        log.warning("number %d", number)
        clock.now += 0.1
    told = [line.partition("]: ")[2] for line in written.getvalue().splitlines()]
    assert told == [
        *(f"number {number}" for number in range(20)),
        "30 more lines like this were suppressed: number %d",
        *(f"number {number}" for number in range(50, 70)),
        "30 more lines like this were suppressed: number %d",
        *(f"number {number}" for number in range(100, 120)),
    ]


def test_a_line_that_is_no_flood_is_not_said_to_have_been_suppressed(
    written: Written, clock: Clock
) -> None:
    logs.set_up(LogLevel.ERROR, LogFormat.TEXT, {})
    for _ in range(20):
        log.warning("again")
    clock.now += 6
    logs.report_suppressed()
    assert "suppressed" not in written.getvalue()


def test_thousands_of_patterns_are_not_remembered_and_what_they_push_out_is_told(
    written: Written, clock: Clock
) -> None:
    logs.set_up(LogLevel.ERROR, LogFormat.TEXT, {})
    for _ in range(27):
        log.warning("a flood")
    for number in range(2000):
        log.warning(f"one of a kind {number}")
    lines = written.getvalue().splitlines()
    assert sum(" one of a kind " in line for line in lines) == 2000
    assert sum("7 more lines like this were suppressed: a flood" in line for line in lines) == 1
    (handler,) = logging.getLogger().handlers
    assert isinstance(handler, logs.LimitedHandler)
    assert len(handler._windows) <= 501


def test_a_flood_of_one_kind_of_event_hides_no_other(written: Written) -> None:
    logs.set_up(LogLevel.INFO, LogFormat.TEXT, {})
    hub = EventHub()
    for _ in range(100):
        hub.publish(HandshakeFailed(reason="unknown_peer"))
    hub.publish(RoleRestarted(process="worker0", how="was killed", delay_s=0.0))
    assert "worker0 was killed" in written.getvalue().splitlines()[-1]


@pytest.mark.parametrize("level", LogLevel)
def test_drops_are_in_the_log_at_its_most_verbose_level_only(
    written: Written, level: LogLevel
) -> None:
    logs.set_up(level, LogFormat.TEXT, {})
    EventHub().publish(PacketsDropped(source="worker0", reason="bad_tag", count=7))
    assert ("worker0: 7 dropped: bad_tag" in written.getvalue()) is (level is LogLevel.VERBOSE)


def test_the_level_can_be_changed_while_running(written: Written) -> None:
    logs.set_up(LogLevel.SILENT, LogFormat.TEXT, {})
    log.error("not this")
    log.critical("not this either")
    logs.set_level(LogLevel.VERBOSE)
    log.debug("this")
    assert written.getvalue().endswith(": this\n")
    assert "not this" not in written.getvalue()


def test_a_slow_operation_is_told_with_its_time(written: Written, clock: Clock) -> None:
    logs.set_up(LogLevel.INFO, LogFormat.JSON, {})
    for seconds in (0.2, 0.5):
        with logs.timed("a set request"):
            clock.now += seconds
    line = json.loads(written.getvalue())
    assert line["message"] == "slow: a set request took 0.50 s"
    assert line["took_s"] == 0.5
