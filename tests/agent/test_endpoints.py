"""When another endpoint of a peer is tried, and which."""

from __future__ import annotations

from wgmp.addresses import parse_endpoint
from wgmp.agent.endpoints import Silence, following

A, B, C = (parse_endpoint(f"192.0.2.{host}:51820") for host in (1, 2, 3))
ROAMED = parse_endpoint("198.51.100.9:7")

INITIATION, KEEPALIVE = 148, 32


def tries(
    *looks: tuple[float, int, int], age: float | None = None, has_endpoint: bool = True
) -> list[float]:
    """Return when it was time to try; a look is (now, rx_bytes, tx_bytes)."""
    silence = Silence(patience_s=15.0)
    return [now for now, rx, tx in looks if silence.look(now, rx, tx, age, has_endpoint)]


def test_initiations_without_an_answer_are_silence() -> None:
    assert tries(*((t, 0, INITIATION * (1 + int(t) // 5)) for t in range(0, 40, 5))) == [15, 35]


def test_a_peer_that_answers_is_left_alone() -> None:
    assert tries(*((t, t * 100, t * 100) for t in range(0, 300, 5)), age=100) == []
    assert tries(*((t, t * 100, t * 100) for t in range(0, 300, 5)), age=None) == []


def test_a_peer_that_nothing_is_sent_to_is_left_alone_however_old_its_session() -> None:
    assert tries((0, 500, 500), *((t, 500, 500) for t in range(5, 3600, 5)), age=3000) == []


def test_keepalives_need_no_answer_while_the_session_lasts() -> None:
    keepalives = [(t, 500, 500 + KEEPALIVE * (t // 25)) for t in range(0, 600, 5)]
    assert tries(*keepalives, age=100) == []
    # The first is unanswered at 25 s, with which a session ended.
    assert tries(*keepalives[:10], age=200) == [40]


def test_data_without_an_answer_is_silence_even_while_the_session_lasts() -> None:
    assert tries(*((t, 500, 500 + 5000 * t) for t in range(0, 30, 5)), age=100) == [20]


def test_an_answer_begins_the_patience_anew() -> None:
    looks = [(0, 0, 148), (10, 0, 296), (14, 92, 296), (16, 92, 296), (40, 92, 296)]
    assert tries(*looks) == []


def test_a_peer_without_an_endpoint_is_looked_up_again_and_again() -> None:
    assert tries(*((t, 0, 0) for t in range(0, 60, 5)), has_endpoint=False) == [15, 35, 55]


def test_counters_that_begin_anew_are_no_silence() -> None:
    assert tries((0, 900, 900), (5, 0, 0), (10, 0, 0), (60, 0, 0), age=100) == []


def test_endpoints_are_tried_in_turn() -> None:
    assert following(A, [A, B, C]) == B
    assert following(B, [A, B, C]) == C
    assert following(C, [A, B, C]) == A


def test_a_silent_peer_that_roamed_or_whose_name_moved_gets_the_first() -> None:
    assert following(ROAMED, [A, B]) == A
    assert following(None, [A, B]) == A


def test_where_there_is_nothing_else_nothing_changes() -> None:
    assert following(A, [A]) is None
    assert following(A, []) is None
    assert following(None, []) is None
