"""What the shared table says of a peer: outer bytes each way, and the last handshake."""

from __future__ import annotations

import time

from wgmp.counters import Counter
from wgmp.record import ENDPOINT_BYTES

from .rig import GATEWAY_INNER, HERE, INNER, Rig, packet

INITIATION, RESPONSE, KEEPALIVE = 148, 92, 32


def test_bytes_are_those_of_authentic_datagrams_each_way() -> None:
    rig = Rig()
    raw = rig.add_peer(endpoint=HERE)

    def transfer() -> tuple[int, int]:
        figures = rig.fabric.peers.figures(1)
        return figures.rx_bytes, figures.tx_bytes

    assert transfer() == (0, 0)
    session = rig.connect(raw)
    received, sent = INITIATION + KEEPALIVE, RESPONSE
    assert transfer() == (received, sent)
    inner = packet(source=INNER, destination=GATEWAY_INNER, length=100)
    datagram = session.seal(inner)
    rig.deliver(datagram)
    received += KEEPALIVE + 112
    assert transfer() == (received, sent)
    for _ in range(3):
        rig.send(packet(length=50))
    sent += 3 * (KEEPALIVE + 64)
    assert transfer() == (received, sent)
    rig.deliver(datagram)  # a replay
    rig.deliver(datagram[:-1] + b"?")
    rig.deliver(raw.initiation(timestamp=bytes(12)).datagram)
    assert transfer() == (received, sent)
    rig.forget_sessions()
    rig.step(6.0)
    rig.sent()
    rig.call(raw)  # the packet is padded to 32
    assert transfer() == (received + RESPONSE, sent + INITIATION + KEEPALIVE + 32)


def test_the_last_handshake_is_the_last_that_was_completed() -> None:
    rig = Rig()
    raw = rig.add_peer()
    rig.deliver(raw.initiation().datagram)
    assert rig.fabric.peers.figures(1).last_handshake_ns == 0
    assert len(rig.sent()) == 1
    rig.step(1.0)
    before = time.time_ns()
    rig.connect(raw)
    assert before <= rig.fabric.peers.figures(1).last_handshake_ns <= time.time_ns()


def test_handshake_messages_are_in_the_books() -> None:
    rig = Rig()
    raw = rig.add_peer(endpoint=HERE)
    rig.send(packet())
    (initiation,) = rig.sent()
    for cookie in (raw.cookie_reply(initiation, bytes(16)), bytes(64)):
        rig.deliver(b"\3" + cookie[1:4] + initiation[4:8] + cookie[8:])
    response, _ = raw.answer(initiation)
    rig.deliver(response)
    counters = rig.worker.counters.inward
    assert counters.value(Counter.MESSAGES_TAKEN) == 2
    assert counters.value(Counter.COOKIES_TAKEN) == 1
    assert rig.drops() == {"bad_cookie_reply": 1}


def test_packets_that_wait_for_a_session_are_in_the_books() -> None:
    rig = Rig()
    rig.add_peer(endpoint=HERE)
    rig.send(packet())
    figures = rig.worker.counters.outward.figures()
    assert (figures["records_in"], figures["packets_in"], figures["cut"]) == (1, 1, 0)
    assert rig.worker.counters.value(Counter.STAGED) == 1


def test_admission_counts_the_bytes_of_what_it_takes_and_gives() -> None:
    rig = Rig()
    rig.connect(rig.add_peer())
    counters = rig.admission.counters
    assert counters.value(Counter.BYTES_IN) == ENDPOINT_BYTES + INITIATION
    assert counters.value(Counter.PACKETS_IN) == counters.value(Counter.PACKETS_OUT) == 1
    assert counters.value(Counter.BYTES_OUT) > INITIATION, "it hands on what it has opened, too"
