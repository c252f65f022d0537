"""What endpoints as written become, in a process that asks the machine's resolver."""

from __future__ import annotations

import asyncio
import socket

import pytest

from wgmp.addresses import parse_endpoint
from wgmp.lookup import Answers, look_up
from wgmp.protocol.outcome import Endpoint


def looked_up(*texts: str) -> Answers:
    """Return what texts become."""
    return asyncio.run(look_up(texts))


def test_addresses_become_endpoints_and_are_not_asked_for() -> None:
    answers = looked_up("192.0.2.1:7", "[fe80::1%lo]:7")
    assert answers.first("192.0.2.1:7") == Endpoint(bytes([192, 0, 2, 1]), 7)
    assert answers.first("[fe80::1%lo]:7").scope_id == socket.if_nametoindex("lo")


def test_names_become_endpoints_or_a_reason() -> None:
    answers = looked_up("localhost:7", "no..name:7")
    local = {parse_endpoint("127.0.0.1:7"), parse_endpoint("[::1]:7")}
    assert answers.first("localhost:7") in local
    assert {*answers.all("localhost:7")} <= local
    assert answers.all("no..name:7") == []
    with pytest.raises(ValueError, match="label"):
        answers.first("no..name:7")
