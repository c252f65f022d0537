"""The command line: mistakes are one line and an exit code, options reach the gateway."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from wgmp import __version__, gateway, keys
from wgmp.cli import main, main_wgmpd
from wgmp.fastpath.choice import Aead, Choice
from wgmp.logs import LogFormat, LogLevel
from wgmp.options import Options
from wgmp.topology import Shape

WGMP = [sys.executable, "-m", "wgmp"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Options]]:
    """The options of gateways, which are not started."""
    options: list[Options] = []
    monkeypatch.setattr(gateway, "start", lambda each: options.append(each) or 0)
    for name in os.environ:
        if name.startswith(("WGMP_", "WG_")):
            monkeypatch.delenv(name)
    monkeypatch.delenv("LOG_LEVEL", raising=False)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield options
    root.handlers[:] = handlers
    root.setLevel(level)


def test_every_option_of_supervise_reaches_the_gateway(started: list[Options]) -> None:
    options = (
        *("--config", "wg0.conf", "--workers", "3", "--topology", "pipeline"),
        *("--tun-queues", "2", "--offload", "off", "--metrics", "127.0.0.1:9586"),
        *("--log-format", "json", "--sessions", "private", "--user", "somebody", "--no-sandbox"),
        *("--fastpath", "native", "--aead", "ipsec-mb", "--run-hooks", "--foreground"),
    )
    assert main(["supervise", "wg0", *options]) == 0
    assert started == [
        Options(
            interface="wg0",
            config=Path("wg0.conf"),
            workers=3,
            topology=Shape.PIPELINE,
            tun_queues=2,
            offload=False,
            fastpath=Choice.NATIVE,
            aead=Aead.IPSEC_MB,
            sandbox=False,
            user="somebody",
            shared_sessions=False,
            run_hooks=True,
            metrics=("127.0.0.1", 9586),
            foreground=True,
            log_format=LogFormat.JSON,
        )
    ]
    assert main(["supervise", "wg1"]) == 0
    assert started[1] == Options(interface="wg1")


def test_wgmpd_starts_as_wireguard_go_does(
    started: list[Options], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOG_LEVEL", "silent")
    monkeypatch.setenv("WGMP_WORKERS", "2")
    assert main_wgmpd(["wg0"]) == 0
    assert main_wgmpd(["-f", "wg0"]) == 0
    daemon = Options(interface="wg0", workers=2, log_level=LogLevel.SILENT)
    assert started[0] == daemon
    assert started[1].foreground
    assert not logging.getLogger().isEnabledFor(logging.CRITICAL)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("supervise", "a/b"), "wgmp: interface name 'a/b' is not possible: "),
        (("supervise", "wg0", "--workers", "x"), "wgmp: --workers: 'x' is not possible: "),
        (("top", "wg0", "--interval", "0"), "wgmp: --interval: 0 is not possible: write 0.1 to 60"),
        (("top", "wg0", "--interval", "61"), "wgmp: --interval: 61 is not possible"),
        (("log-level", "wg0", "loud"), "wgmp: LEVEL: 'loud' is not possible: "),
        (("strip", "/nonexistent"), "wgmp: /nonexistent: "),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_write_and_the_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    started: list[Options],
    arguments: tuple[str, ...],
    told: str,
) -> None:
    assert main(arguments) == 2
    out, error = capsys.readouterr()
    assert error.startswith(told)
    assert error.count("\n") == 1
    assert (out, started) == ("", [])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), "wgmp: the following arguments are required: COMMAND (`wgmp --help` says more)\n"),
        (("supervise",), "wgmp supervise: the following arguments are required: IFACE ("),
        (("supervise", "wg0", "--nothing"), "wgmp: unrecognized arguments: --nothing ("),
        (("top", "--sort", "size"), "wgmp top: argument --sort: invalid choice: 'size'"),
        (("workers", "many"), "wgmp workers: argument N: invalid int value: 'many' ("),
    ],
)
def test_what_is_no_command_line_is_one_line_too(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], told: str
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(told)
    assert error.count("\n") == 1


def test_both_programs_tell_their_version(capsys: pytest.CaptureFixture[str]) -> None:
    for program in (main, main_wgmpd):
        with pytest.raises(SystemExit) as caught:
            program(["--version"])
        assert caught.value.code == 0
        assert capsys.readouterr().out == f"wgmp {__version__}\n"


def test_help_says_what_the_exit_codes_mean(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "exit codes: 0 done; 1 failed, for the reason in one line" in text
    assert "130 ended by Ctrl-C" in text


def test_who_has_read_enough_and_ctrl_c_end_it_without_a_word() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    for command in ("man", "genkey"):
        done = subprocess.run(
            [*WGMP, command],
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=30,
        )
        assert (done.returncode, done.stderr) == (1, b"")
    os.close(writer)
    code = (
        "import sys, wgmp.keys as k; from wgmp.cli import main\n"
        "def interrupted(): raise KeyboardInterrupt\n"
        "k.generate_private_key = interrupted; sys.exit(main(['genkey']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_cannot_be_written_is_one_line_and_a_failure(unbuffered: str) -> None:
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    for command in ("genkey", "man"):
        with open("/dev/full", "w") as full:
            done = subprocess.run(
                [*WGMP, command],
                env=environment,
                stdout=full,
                stderr=subprocess.PIPE,
                text=True,
                timeout=30,
            )
        assert (done.returncode, done.stderr) == (1, "wgmp: No space left on device\n")


def test_keys_are_made_of_each_kind(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["genkey"]) == main(["genpsk"]) == 0
    private, preshared = (keys.from_base64(line) for line in capsys.readouterr().out.split())
    assert private[0] & 7 == 0, "a private key is clamped"
    assert private[31] >> 6 == 1
    assert len({private, preshared}) == 2
