"""`wgmp capture`: which packets it writes, when it ends, and what it leaves."""

from __future__ import annotations

import io
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest
from pcapngfile import read

from wgmp.capture import comment_of
from wgmp.cli import main
from wgmp.commands import capture
from wgmp.keys import to_base64
from wgmp.netns import wait_for
from wgmp.protocol.outcome import DropReason, Endpoint
from wgmp.record import Kind
from wgmp.ring import RingView
from wgmp.tap import Annotation, Point
from wgmp.tapreader import Captured

from .conftest import Served

LIMIT_S = 10.0
HERE = Endpoint(bytes([127, 0, 0, 2]), 5)
DATAGRAM = b"\4\0\0\0" + bytes(28)


def ipv4(number: int) -> bytes:
    """A packet that ends with its number."""
    return (
        b"\x45\0\0\x18" + bytes(8) + bytes([10, 0, 0, 1, 10, 0, 0, 2]) + number.to_bytes(4, "big")
    )


def see(gateway: Served, number: int, point: Point, peer: int = 0, reason: int = 0) -> None:
    """Let worker0 have a packet in its hands."""
    tap = gateway.fabric.taps.tap("worker0")
    assert tap is not None
    if point in (Point.INNER_IN, Point.INNER_OUT):
        packet, kind = bytes(10) + ipv4(number), Kind.PACKETS
    else:
        packet, kind = DATAGRAM + number.to_bytes(4, "big"), Kind.DATAGRAMS
    tap.packets(kind, packet, [len(packet)], point, peer=peer, endpoint=HERE, reason=reason)


@contextmanager
def meanwhile(gateway: Served, file: Path | None, act: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as somebody captures, into a new file if one is named.

    Fail if it does.
    """
    failures: list[Exception] = []

    def begun() -> bool:
        if file is None:
            return gateway.fabric.taps.busy
        return file.exists() and file.stat().st_size > 0

    def work() -> None:
        try:
            wait_for(begun, LIMIT_S, "a capture begins")
            act()
        except Exception as error:
            failures.append(error)

    wait_for(lambda: not gateway.fabric.taps.busy, LIMIT_S, "nobody captures any more")
    if file is not None:
        file.unlink(missing_ok=True)
    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join(LIMIT_S)
    assert failures == []


def written(file: Path) -> list[tuple[int, str, int, str]]:
    """Return of each packet its number, its interface, its direction and its comment."""
    return [
        (int.from_bytes(each.content[-4:], "big"), each.interface, each.direction, each.comment)
        for each in read(str(file))
    ]


ALL = {
    Point.INNER_OUT: ("wg0 inner", 2),
    Point.INNER_IN: ("wg0 inner", 1),
    Point.OUTER_OUT: ("wg0 outer", 2),
    Point.OUTER_IN: ("wg0 outer", 1),
}


@pytest.mark.parametrize(
    ("options", "points"),
    [
        ((), list(ALL)),
        (("--both",), list(ALL)),
        (("--inner",), [Point.INNER_OUT, Point.INNER_IN]),
        (("--outer",), [Point.OUTER_OUT, Point.OUTER_IN]),
    ],
)
def test_the_sides_asked_for_are_written_until_there_are_enough(
    gateway: Served,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    points: list[Point],
) -> None:
    entry = gateway.peer(1)
    key = to_base64(entry.public_key)

    def act() -> None:
        for number, point in enumerate(ALL):
            see(gateway, number, point, entry.peer)

    file = tmp_path / "file"
    with meanwhile(gateway, file, act):
        code = main(["capture", "wg0", "-w", str(file), "--count", str(len(points)), *options])
    assert code == 0
    assert capsys.readouterr() == ("", f"{len(points)} packets\n")
    assert written(file) == [
        (list(ALL).index(point), *ALL[point], f"worker0; peer {key}") for point in points
    ]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    wait_for(lambda: not gateway.fabric.taps.busy, LIMIT_S, "the taps are off")


def test_one_peer_s_packets_alone_and_the_reason_of_each_drop(
    gateway: Served, tmp_path: Path
) -> None:
    wanted, other = gateway.peer(1), gateway.peer(2)

    def act() -> None:
        see(gateway, 1, Point.OUTER_IN, other.peer)
        see(gateway, 2, Point.OUTER_IN, wanted.peer, DropReason.REPLAYED)
        see(gateway, 3, Point.OUTER_IN, wanted.peer, 200)

    file, key = tmp_path / "file", to_base64(wanted.public_key)
    with meanwhile(gateway, file, act):
        assert main(["capture", "-w", str(file), "--peer", key, "--count", "2"]) == 0
    assert written(file) == [
        (2, "wg0 outer", 1, f"worker0; peer {key}; dropped: replayed"),
        (3, "wg0 outer", 1, f"worker0; peer {key}; dropped: for an unknown reason"),
    ]


def test_no_more_packets_are_written_than_were_asked_for_and_of_a_batch_the_first(
    gateway: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"

    def act() -> None:
        see(gateway, 0, Point.INNER_OUT)
        wait_for(lambda: written(file), LIMIT_S, "it can be read while the capture goes on")
        tap = gateway.fabric.taps.tap("worker1")
        assert tap is not None
        packets = [bytes(10) + ipv4(number) for number in range(1, 6)]
        lengths = [len(packet) for packet in packets]
        tap.packets(Kind.PACKETS, b"".join(packets), lengths, Point.INNER_OUT)

    with meanwhile(gateway, file, act):
        assert main(["capture", "-w", str(file), "--count", "3"]) == 0
    assert [(number, comment) for number, _, _, comment in written(file)] == [
        *((0, "worker0"), (1, "worker1"), (2, "worker1")),
    ]
    assert capsys.readouterr().err == "3 packets\n"


def test_of_a_batch_it_is_said_how_many_were_dropped() -> None:
    def said(dropped: int, reason: int = DropReason.BAD_TAG) -> str:
        note = Annotation(0, Point.OUTER_IN, reason, dropped, 5)
        return comment_of(Captured("worker0", note, [], 3), {5: "KEY=", 6: "OTHER="})

    assert said(0) == "worker0; peer KEY="
    assert said(2) == "worker0; peer KEY=; dropped: bad_tag (2 of the 3 around this one)"
    assert said(3) == "worker0; peer KEY=; dropped: bad_tag"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_in_order_with_all_that_was_seen(
    gateway: Served, tmp_path: Path, number: int
) -> None:
    def act() -> None:
        see(gateway, 7, Point.OUTER_OUT)
        signal.pthread_kill(threading.main_thread().ident or 0, number)

    file = tmp_path / "file"
    with meanwhile(gateway, file, act):
        assert main(["capture", "-w", str(file)]) == 0
    assert [number for number, *_ in written(file)] == [7]


def test_without_a_file_it_goes_to_standard_output_which_stays_open(
    gateway: Served, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    with meanwhile(gateway, None, lambda: see(gateway, 7, Point.OUTER_OUT)):
        assert main(["capture", "--count", "1"]) == 0
    out, told = capfdbinary.readouterr()
    assert [each.content[-4:] for each in read(io.BytesIO(out))] == [bytes([0, 0, 0, 7])]
    assert told == b"1 packets\n"
    os.fstat(1)


def test_time_ends_it_and_so_does_the_gateway(gateway: Served, tmp_path: Path) -> None:
    file = tmp_path / "file"
    with meanwhile(gateway, file, lambda: see(gateway, 1, Point.OUTER_OUT)):
        assert main(["capture", "-w", str(file), "--seconds", "0.2"]) == 0
    assert [number for number, *_ in written(file)] == [1]

    def act() -> None:
        see(gateway, 2, Point.OUTER_OUT)
        ring = RingView(gateway.fabric.taps.rings["worker0"])
        wait_for(lambda: not ring.figures()["depth"], LIMIT_S, "the copy is taken")
        gateway.end()

    with meanwhile(gateway, file, act):
        assert main(["capture", "-w", str(file)]) == 0
    assert [number for number, *_ in written(file)] == [2]


def test_copies_that_found_no_room_are_told(
    gateway: Served,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = capture._open

    def opened(path: str) -> BinaryIO:
        for number in range(200):  # while nobody reads
            see(gateway, number, Point.OUTER_OUT)
        return real(path)

    monkeypatch.setattr(capture, "_open", opened)
    file = tmp_path / "file"
    assert main(["capture", "-w", str(file), "--seconds", "0.1"]) == 0
    assert [number for number, *_ in written(file)] == list(range(128))
    told = "128 packets, 72 records lost because the taps were full\n"
    assert capsys.readouterr().err == told


def test_keys_are_written_when_asked_for_with_a_warning(
    gateway: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entry, other = gateway.peer(1), gateway.peer(2)
    gateway.device.set_preshared_key(entry, b"\5" * 32)
    ephemeral = b"\7" * 32

    def act() -> None:
        tap = gateway.fabric.taps.tap("worker0")
        assert tap is not None
        for peer in (entry.peer, other.peer):
            tap.secret(ephemeral, peer)
        see(gateway, 1, Point.OUTER_OUT)

    file, keys = tmp_path / "file", tmp_path / "keys"
    with meanwhile(gateway, file, act):
        code = main(["capture", "-w", str(file), "--keys", str(keys), "--count", "1"])
    assert code == 0
    assert keys.read_text().splitlines() == [
        f"LOCAL_STATIC_PRIVATE_KEY = {to_base64(gateway.device.private_key)}",
        f"REMOTE_STATIC_PUBLIC_KEY = {to_base64(entry.public_key)}",
        f"REMOTE_STATIC_PUBLIC_KEY = {to_base64(other.public_key)}",
        f"LOCAL_EPHEMERAL_PRIVATE_KEY = {to_base64(ephemeral)}",
        f"PRESHARED_KEY = {to_base64(bytes([5] * 32))}",
        f"LOCAL_EPHEMERAL_PRIVATE_KEY = {to_base64(ephemeral)}",
    ]
    assert stat.S_IMODE(keys.stat().st_mode) == 0o600
    assert f"wgmp: {keys} gets this gateway's private key" in capsys.readouterr().err
    assert len(written(file)) == 1, "no key among the packets"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--count", "0"), "'0' is no number of packets: write 1 or more"),
        (("--count", "-1"), "'-1' is no number of packets"),
        (("--seconds", "0"), "'0' is no time: write seconds, such as 10"),
        (("--seconds", "nan"), "'nan' is no time"),
        (("--seconds", "inf"), "'inf' is no time"),
        (("--inner", "--outer"), "not allowed with argument"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_opened(
    gateway: Served,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    told: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["capture", "wg0", "-w", str(tmp_path / "file"), *options])
    assert caught.value.code == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "file").exists()


def test_a_file_that_cannot_be_written_is_named(
    gateway: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options, path in (
        (("-w", str(tmp_path)), tmp_path),
        (("-w", str(tmp_path / "f"), "--keys", str(tmp_path / "no" / "k")), tmp_path / "no" / "k"),
    ):
        assert main(["capture", "wg0", *options]) == 1
        assert f"wgmp: {path} cannot be written: " in capsys.readouterr().err
    assert main(["capture", "wg0", "-w", "/dev/full", "--count", "1"]) == 1
    assert capsys.readouterr().err == "wgmp: /dev/full cannot be written: No space left on device\n"
    wait_for(lambda: not gateway.fabric.taps.busy, LIMIT_S, "the taps are off")
