"""The metrics' port: HTTP's clients get what they ask for, and whoever is none holds up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wgmp.errors import SocketError
from wgmp.netns import wait_for
from wgmp.observe.metrics_server import MetricsServer, bind

from .standing import Standing

LIMIT_S = 10.0


@pytest.fixture
def gateway() -> Iterator[Standing]:
    """A pipeline of two workers, all of which work."""
    made = Standing()
    for number, row in enumerate(made.topology.processes):
        made.run(row.name, 2000 + number)
    yield made
    made.close()


@pytest.fixture
def port(gateway: Standing) -> Iterator[int]:
    """The port of its metrics on loopback."""
    loop = asyncio.new_event_loop()
    listener = bind("127.0.0.1", 0)
    number: int = listener.getsockname()[1]
    server = MetricsServer(listener, gateway.supervisor)

    async def stop() -> None:
        server.stop()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(LIMIT_S)
    yield number
    asyncio.run_coroutine_threadsafe(stop(), loop).result(LIMIT_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(LIMIT_S)
    loop.close()


def ask(port: int, method: str, path: str) -> tuple[http.client.HTTPResponse, bytes]:
    """Return the answer to a request and its whole body."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, LIMIT_S)) as client:
        client.request(method, path)
        answer = client.getresponse()
        return answer, answer.read()


def say(port: int, *pieces: bytes) -> bytes:
    """Say something and return all that is answered, to the end of the connection."""
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as client:
        for piece in pieces:
            client.sendall(piece)
        answer = b""
        while piece := client.recv(1 << 16):
            answer += piece
        return answer


def test_metrics_come_in_chunks_to_a_client_of_http_1_1_and_plain_to_one_of_1_0(
    gateway: Standing, port: int
) -> None:
    for number in range(500):
        gateway.device.add_peer(number.to_bytes(32, "big"))
    answer, body = ask(port, "GET", "/metrics?any=thing")
    assert (answer.status, answer.chunked) == (200, True)
    assert answer.getheader("Content-Type") == "text/plain; version=0.0.4; charset=utf-8"
    assert answer.getheader("Cache-Control") == "no-store"
    assert len(list(text_string_to_metric_families(body.decode()))) > 30
    assert body.count(b"wireguard_sent_bytes_total{") == 500
    head, _, plain = say(port, b"GET /metrics HTTP/1.0\r\n\r\n").partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert plain.startswith(b"# HELP ")
    assert plain.count(b"\n") == body.count(b"\n")


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/healthz", 200, "ok\n"),
        ("GET", "/nothing", 404, "/metrics and /healthz are here\n"),
        ("POST", "/metrics", 405, "GET or HEAD\n"),
        ("DELETE", "/healthz", 405, "GET or HEAD\n"),
        ("HEAD", "/healthz", 200, "ok\n"),
        ("HEAD", "/nothing", 404, "/metrics and /healthz are here\n"),
    ],
)
def test_each_answer_has_its_length_and_head_asks_for_no_body(
    port: int, method: str, path: str, status: int, text: str
) -> None:
    answer, body = ask(port, method, path)
    assert (answer.status, answer.getheader("Content-Length")) == (status, str(len(text)))
    assert body == (b"" if method == "HEAD" else text.encode())
    assert answer.getheader("Connection") == "close"
    assert answer.getheader("Allow") == ("GET, HEAD" if status == 405 else None)


def test_head_of_the_metrics_says_how_they_would_come(port: int) -> None:
    answer, body = ask(port, "HEAD", "/metrics")
    assert (answer.status, body) == (200, b"")
    assert answer.getheader("Transfer-Encoding") == "chunked"


def test_a_process_that_is_gone_is_a_503_that_names_it(gateway: Standing, port: int) -> None:
    del gateway.children.living["admission"]
    answer, body = ask(port, "GET", "/healthz")
    assert (answer.status, body) == (503, b"admission is being replaced\n")
    assert answer.reason == "Service Unavailable"


def test_a_request_may_come_in_pieces_and_has_an_end(port: int) -> None:
    assert say(port, b"GET /hea", b"lthz HTTP/1.1\r", b"\nHost: x\r\n\r\n").endswith(
        b"\r\n\r\nok\n"
    )
    for nonsense in (b"GET /healthz\r\n\r\n", b"GET /healthz SPDY/3\r\n\r\n", b"a b c d\r\n\r\n"):
        assert say(port, nonsense).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_whoever_says_too_much_is_told_so_whatever_more_it_says(port: int) -> None:
    for _ in range(20):
        answer = say(port, b"GET /" + b"x" * 100_000, b"x" * 100_000)
        assert answer.endswith(b"one request of at most 8192 bytes, within 5 s\n")


def test_one_client_too_many_is_told_so_and_none_when_others_have_gone(port: int) -> None:
    with contextlib.ExitStack() as idle:
        for _ in range(8):
            client = socket.create_connection(("127.0.0.1", port), LIMIT_S)
            idle.enter_context(client)
            client.sendall(b"GET ")
        for _ in range(20):
            assert say(port, b"GET /healthz HTTP/1.1\r\n\r\n").endswith(b"too many clients\n")
        more = [
            idle.enter_context(socket.create_connection(("127.0.0.1", port), LIMIT_S))
            for _ in range(30)
        ]
        assert all(client.recv(12) == b"HTTP/1.1 503" for client in more)
    wait_for(lambda: ask(port, "GET", "/healthz")[0].status == 200, LIMIT_S, "there is room again")


def test_clients_that_hang_up_in_the_middle_leave_room_for_others(
    gateway: Standing, port: int
) -> None:
    for number in range(2000):
        gateway.device.add_peer(number.to_bytes(32, "big"))
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", port), LIMIT_S) as client:
            client.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            assert client.recv(10)
    wait_for(lambda: ask(port, "GET", "/healthz")[0].status == 200, LIMIT_S, "there is room")


def test_an_address_that_cannot_be_had_is_named(port: int) -> None:
    with pytest.raises(
        SocketError, match=rf"^cannot serve metrics on 127\.0\.0\.1:{port}: Address"
    ):
        bind("127.0.0.1", port)
    with pytest.raises(SocketError, match=r"^cannot serve metrics on \[2001:db8::1\]:9586: "):
        bind("2001:db8::1", 9586)
    with bind("::1", 0) as listener:
        assert listener.getsockname()[0] == "::1"
