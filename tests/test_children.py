"""Processes and their successors: real ones, which do no more than a test asks of them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time

import pytest

from tests.home import LINK, NAME, Home, play, report_and_obey
from wgmp import children
from wgmp.errors import RoleError
from wgmp.orders import Failed, Ready, decode_orders, encode_report


def babble(control: socket.socket) -> None:
    """Be ready, and then say what is no report."""
    control.send(encode_report(Ready()))
    control.send(b"\xc1 no report")
    while control.recv(1 << 16):
        pass


def babble_at_the_end(control: socket.socket) -> None:
    """Obey, and then say what is no report."""
    report_and_obey(control)
    control.send(b"\xc1 no report")


def fail(control: socket.socket) -> None:
    """Say that there is no starting."""
    control.send(encode_report(Failed("there is no memory")))


KILLED = "was killed by SIGKILL"


def test_one_that_is_killed_has_a_successor_at_once() -> None:
    async def scene(home: Home) -> None:
        first = home.living.pid
        os.kill(first, signal.SIGKILL)
        assert await home.ends() == [KILLED]
        assert home.living.pid != first

    play(scene)


def test_one_that_dies_of_a_signal_without_a_name_has_a_successor_too() -> None:
    async def scene(home: Home) -> None:
        os.kill(home.living.pid, signal.SIGRTMIN + 3)
        assert await home.ends() == [f"was killed by signal {signal.SIGRTMIN + 3}"]

    play(scene)


def test_one_that_reports_nonsense_is_ended_and_replaced() -> None:
    async def scene(home: Home) -> None:
        home.parts = [babble]
        os.kill(home.living.pid, signal.SIGKILL)
        assert await home.ends(2) == [KILLED, KILLED]

    play(scene)


def test_nonsense_as_last_words_does_not_keep_the_successor_away() -> None:
    async def scene(home: Home) -> None:
        home.parts = [babble_at_the_end]
        os.kill(home.living.pid, signal.SIGKILL)
        await home.ends()
        home.living.stop()
        assert await home.ends() in (["exited with 0"], [KILLED])

    play(scene)


def test_a_successor_that_cannot_be_forked_is_tried_again() -> None:
    async def scene(home: Home) -> None:
        home.no_memory = 2
        os.kill(home.living.pid, signal.SIGKILL)
        failed = "cannot be forked: Cannot allocate memory"
        assert await home.ends(3) == [KILLED, failed, failed]
        assert home.failure is None

    play(scene)


def test_a_successor_that_cannot_start_is_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scene(home: Home) -> None:
        home.parts = [fail, fail]
        os.kill(home.living.pid, signal.SIGKILL)
        assert await home.ends(3) == [KILLED, "exited with 0", "exited with 0"]
        assert home.failure is None
        assert caplog.text.count(f"{NAME}: there is no memory") == 2

    play(scene)


def test_a_gateway_whose_first_process_cannot_start_stops_and_says_why() -> None:
    async def scene() -> Home:
        home = Home()
        home.parts = [fail]
        home.children.fill()
        await home.children.wait_until_ready()  # for the end has begun
        await home.children.stop()
        home.fabric.close()
        return home

    assert str(asyncio.run(scene()).failure) == f"{NAME} cannot start: there is no memory"


def test_a_gateway_whose_processes_keep_dying_stops_and_says_why() -> None:
    async def scene(home: Home) -> None:
        for _ in range(10):
            home.children.deaths.died(NAME, 0.0)
        os.kill(home.living.pid, signal.SIGSEGV)
        while home.failure is None:
            await asyncio.sleep(0.01)
        crashed = "was killed by SIGSEGV"
        assert str(home.failure) == f"{NAME} {crashed}, for the 11th time in a row: giving up"

    play(scene)


def test_a_gateway_that_cannot_fork_at_all_does_not_start() -> None:
    async def scene() -> Home:
        home = Home()
        home.no_memory = 1
        home.children.fill()
        await home.children.wait_until_ready()  # for the end has begun
        home.fabric.close()
        return home

    home = asyncio.run(scene())
    assert str(home.failure) == f"{NAME} cannot be forked: Cannot allocate memory"
    assert not home.children.living


def test_nobody_is_started_once_the_end_has_begun() -> None:
    async def scene(home: Home) -> None:
        home.children.replace_nobody()
        os.kill(home.living.pid, signal.SIGKILL)
        await home.living.ended.wait()
        home.children.fill()  # as after a handover that failed
        assert not home.children.living

    play(scene)


def test_who_comes_later_is_told_the_configuration_before_it_begins() -> None:
    heard, tell = os.pipe()

    def pass_on(control: socket.socket) -> None:
        control.send(encode_report(Ready()))
        while message := control.recv(1 << 16):
            os.write(tell, repr(decode_orders(message)).encode())

    async def scene(home: Home) -> None:
        home.parts = [pass_on]
        os.kill(home.living.pid, signal.SIGKILL)
        await home.ends()
        while b"Begin" not in (text := os.read(heard, 1 << 16)):
            assert repr(LINK).encode() in text
        assert b"Begin(orderly=False, deaths=1)" in text

    play(scene)
    os.close(heard)
    os.close(tell)


def wait_for_the_end(control: socket.socket) -> None:
    """Be ready, and heed nothing."""
    control.send(encode_report(Ready()))
    time.sleep(20)


def test_one_that_does_not_stop_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_STOP_LIMIT_S", 0.1)

    async def scene(home: Home) -> None:
        home.parts = [wait_for_the_end]
        os.kill(home.living.pid, signal.SIGKILL)
        await home.ends()
        last = home.living
        await home.children.stop()
        assert not home.children.living
        assert (last.ended.is_set(), last.ended_in_order) == (True, False)

    play(scene)


def test_those_that_stop_at_once_are_not_waited_for_and_have_ended_in_order() -> None:
    async def scene(home: Home) -> None:
        last = home.living
        await home.children.stop()
        assert (last.ended.is_set(), last.ended_in_order) == (True, True)

    play(scene)


def test_a_gateway_whose_process_says_nothing_does_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(children, "_BOOT_LIMIT_S", 0.2)

    async def scene() -> None:
        home = Home()
        home.parts = [lambda control: time.sleep(20)]
        home.children.fill()
        with pytest.raises(RoleError, match=f"not ready after 0 s: {NAME}"):
            await home.children.wait_until_ready()
        home.living.kill()
        await home.children.stop()
        home.fabric.close()

    asyncio.run(scene())


def test_a_gateway_whose_first_process_ends_without_a_word_says_how() -> None:
    async def scene() -> Home:
        home = Home()
        home.parts = [lambda control: None]
        home.children.fill()
        await home.children.wait_until_ready()
        await home.children.stop()
        home.fabric.close()
        return home

    failure = asyncio.run(scene()).failure
    assert str(failure) == f"{NAME} exited with 0 before it was ready"
