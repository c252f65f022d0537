"""Logs: where lines go, what they look like, and which are written.

| | a line is |
|---|---|
| text | time, level, process and message |
| json | one object: the same, and the fields of the event (events.py) it tells of, if it does |
| under systemd | prefixed with its priority, such as `<4>` (sd-daemon(3)); text has no time |

Lines of one pattern are limited, and how many were suppressed is a line too. Nothing here or in
what is logged has a key in it but public ones.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

log = logging.getLogger("wgmp")

# Lines of one pattern within so many seconds.
_MOST_LINES = 20
_WINDOW_S = 5.0
_MOST_PATTERNS = 500

# sd-daemon(3), from LOG_ERR to LOG_DEBUG of syslog(3).
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3}

_SLOW_S = 0.25


class LogLevel(StrEnum):
    """How much to log: wireguard-go's words and one more ("debug" is another for "verbose").

    Warnings go with errors.
    """

    VERBOSE = "verbose"
    INFO = "info"
    ERROR = "error"
    SILENT = "silent"


class LogFormat(StrEnum):
    """How a line is written."""

    TEXT = "text"
    JSON = "json"


_NUMBERS = {
    LogLevel.VERBOSE: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.ERROR: logging.WARNING,
    LogLevel.SILENT: logging.CRITICAL + 1,
}

_process = "supervisor"


def set_up(level: LogLevel, form: LogFormat, environment: Mapping[str, str]) -> None:
    """Log to standard error from now on, in this process and those it forks."""
    journal = _is_journal(environment.get("JOURNAL_STREAM", ""))
    formatter: logging.Formatter
    if form is LogFormat.JSON:
        formatter = _JsonFormatter()
    else:
        formatter = _TextFormatter(with_time=not journal)
    handler = LimitedHandler(_JournalFormatter(formatter) if journal else formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_NUMBERS[level])


def set_level(level: LogLevel) -> None:
    """Change how much this process logs."""
    logging.getLogger().setLevel(_NUMBERS[level])


def name_process(name: str) -> None:
    """Let this process's lines bear its name."""
    global _process
    _process = name


def report_suppressed() -> None:
    """Log how many lines were suppressed, where that is over. Called now and then."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LimitedHandler):
            handler.report()


@contextlib.contextmanager
def timed(operation: str, limit_s: float = _SLOW_S) -> Iterator[None]:
    """Log how long an operation took, if that was longer than `limit_s`."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    if took > limit_s:
        log.info("slow: %s took %.2f s", operation, took, extra={"fields": {"took_s": took}})


def _is_journal(stream: str) -> bool:
    """Return whether standard error is the stream that systemd's JOURNAL_STREAM names."""
    try:
        status = os.fstat(2)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


class LimitedHandler(logging.StreamHandler[Any]):
    """Writes lines to standard error, of each pattern at most so many in a while.

    A pattern is a format string and a level: what it is filled with makes no difference.
    """

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__(sys.stderr)
        self.setFormatter(formatter)
        self._windows: dict[tuple[int, str], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line, or count it as suppressed."""
        pattern = record.levelno, str(record.msg)
        now = time.monotonic()
        begin, lines = self._windows.get(pattern, (now, 0))
        if now - begin >= _WINDOW_S or len(self._windows) > _MOST_PATTERNS:
            self.report()
            begin, lines = self._windows.get(pattern, (now, 0))
        self._windows[pattern] = begin, lines + 1
        if lines < _MOST_LINES:
            super().emit(record)

    def report(self) -> None:
        """Tell of what was suppressed in windows that are over, and begin new ones."""
        now = time.monotonic()
        for pattern, (begin, lines) in list(self._windows.items()):
            if now - begin < _WINDOW_S and len(self._windows) <= _MOST_PATTERNS:
                continue
            del self._windows[pattern]
            if lines > _MOST_LINES:
                level, text = pattern
                message = f"{lines - _MOST_LINES} more lines like this were suppressed: {text}"
                super().emit(logging.LogRecord(log.name, level, "", 0, message, None, None))


class _TextFormatter(logging.Formatter):
    """Lines for people."""

    def __init__(self, with_time: bool) -> None:
        time_part = "%(asctime)s %(levelname)s " if with_time else ""
        super().__init__(time_part + "%(wgmp_process)s[%(process)d]: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        record.wgmp_process = _process
        return super().format(record)


class _JsonFormatter(logging.Formatter):
    """Lines for programs. `extra={"fields": {...}}` of a logging call adds its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object."""
        when = datetime.fromtimestamp(record.created, UTC)
        fields = {
            **getattr(record, "fields", {}),
            "time": when.isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": _process,
            "pid": record.process,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)


class _JournalFormatter(logging.Formatter):
    """Another formatter's lines, each with its priority before it."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines."""
        prefix = f"<{_PRIORITIES.get(record.levelno, 2)}>"
        return "\n".join(prefix + line for line in self._inner.format(record).splitlines())
