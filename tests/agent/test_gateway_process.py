"""The gateways of an agent: what they are started with, what they print, and when they end."""

from __future__ import annotations

import json
import os
import signal

import pytest

from wgmp.netns import wait_for

from .site import Site

pytestmark = pytest.mark.root

LIMIT_S = 15


def gateway(site: Site) -> int:
    """Return the process of the network's gateway."""
    status = json.loads(site.wgmp("status", "home", "--json").stdout)
    return int(status["gateway_pid"])


def wait_until_said(site: Site, line: str) -> None:
    """Wait until the agent's log has a line."""
    wait_for(lambda: line in site.log.read_text(), LIMIT_S, line)


def test_what_is_meant_for_one_gateway_or_the_agent_alone_is_not_handed_on(site: Site) -> None:
    site.start(
        site.head(),
        site.home(),
        WGMP_CONFIG="/nonexistent.conf",
        WG_TUN_FD="77",
        WG_UAPI_FD="78",
        WGMP_WORKERS="3",
    )
    site.wait_for_state("running")
    with open(f"/proc/{gateway(site)}/environ", "rb") as file:
        names = {line.partition(b"=")[0] for line in file.read().split(b"\0")}
    assert {b"WGMP_WORKERS", b"PATH"} <= names
    assert not names & {b"WGMP_CONFIG", b"WG_TUN_FD", b"WG_UAPI_FD"}
    assert json.loads(site.wgmp("stats", site.interface, "--json").stdout)["workers_count"] == 3


def test_every_line_of_the_log_is_json_where_that_is_asked_for(site: Site) -> None:
    site.start(site.head(), site.home(), WGMP_LOG_FORMAT="json", LOG_LEVEL="info")
    site.wait_for_state("running")
    site.wgmp("agent", "stop")
    assert site.process is not None
    site.process.wait(10)
    lines = [json.loads(line) for line in site.log.read_text().splitlines()]
    said = {line["message"] for line in lines}
    assert "home is running" in said
    processes = {line["process"] for line in lines}
    assert {"agent", "supervisor"} <= processes, "the gateway's, too"


def test_as_text_a_gateways_lines_have_its_networks_name(site: Site) -> None:
    site.start(site.head(), site.home(), LOG_LEVEL="info")
    site.wait_for_state("running")
    site.wgmp("agent", "stop")
    assert site.process is not None
    site.process.wait(10)
    lines = site.log.read_text().splitlines()
    assert any(line.startswith("home: ") and "supervisor" in line for line in lines)
    assert not [line for line in lines if "supervisor" in line and not line.startswith("home: ")]


def test_a_gateway_that_cannot_start_says_why_in_its_last_line(site: Site) -> None:
    site.start(site.head(), site.home(), WGMP_USER="nobody-of-that-name")
    before = site.space.links()
    site.wait_for_state("failed")
    (line,) = site.wgmp("networks").stdout.splitlines()
    assert "nobody-of-that-name" in line
    assert ": wgmp: " not in line
    assert "wgmp: home" not in line
    assert site.space.links() == before


def test_a_network_whose_gateway_keeps_dying_waits_longer_and_can_be_given_up(site: Site) -> None:
    site.start(site.head(), site.home())
    for wait_s in ("1", "2"):
        site.wait_for_state("running")
        os.kill(gateway(site), signal.SIGKILL)
        wait_until_said(site, f"home is started again in {wait_s} s")
    assert "home: stopped" in site.wgmp("disconnect", "home").stdout
    site.space.run("sleep", "2.5")
    assert site.states() == {"home": "stopped"}
    assert site.log.read_text().count("home is starting") == 2


def test_a_gateway_that_does_not_stop_is_killed(site: Site) -> None:
    site.start(site.head(), site.home())
    site.wait_for_state("running")
    pid = gateway(site)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert "home: stopped" in site.wgmp("disconnect", "home").stdout
    finally:
        if os.path.exists(f"/proc/{pid}"):
            os.kill(pid, signal.SIGCONT)
    assert "home: the gateway does not stop: killing it" in site.log.read_text()
    assert site.interface not in site.space.links()
    assert site.traces()["files"] == ["control.sock"]
    assert "home: running" in site.wgmp("connect", "home").stdout


def test_ctrl_c_on_the_agents_terminal_takes_its_networks_down_in_order(site: Site) -> None:
    told = site.directory / "told"
    hook = f"pre_down = ['sleep 0.5; ip -br link show %i > {told}']"
    site.start(site.head(run_hooks="true"), site.home(hook))
    site.wait_for_state("running")
    assert site.process is not None
    os.killpg(os.getpgid(site.process.pid), signal.SIGINT)  # to all there is on the terminal
    assert site.process.wait(15) == 0
    assert told.read_text().startswith(site.interface), "the gateway has not heard it"
    assert "failed" not in site.log.read_text()
    assert site.traces()["files"] == []
