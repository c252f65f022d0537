"""The supervisor's side of a capture: who may, what is copied, and what the client must know.

The client gets the memory of the tap rings and reads them itself, so that a capture costs the
supervisor nothing. When the client is gone the taps are turned off.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import msgspec

from wgmp import keys, system, tap
from wgmp.errors import ControlError
from wgmp.keys import KeyFormatError
from wgmp.protocol.constants import ZERO_KEY

if TYPE_CHECKING:
    from wgmp.supervisor import Supervisor


class Capture(msgspec.Struct, forbid_unknown_fields=True, tag_field="action", tag="capture"):
    """Ask for copies of inner and outer packets, of one peer (its key in base64) or of all ("").

    `secrets`: with the keys that a key log needs.
    """

    inner: bool = True
    outer: bool = True
    peer: str = ""
    secrets: bool = False


class CaptureStarted(msgspec.Struct):
    """The answer. `rings`: the roles whose rings' descriptors came with it, in order.

    `peers`: public keys by peer id. With secrets: `private_key`, and the `preshared_keys` that
    peers have, by peer id. All keys in base64.
    """

    listen_port: int
    rings: list[str]
    peers: dict[int, str]
    private_key: str = ""
    preshared_keys: dict[int, str] = {}


def start(supervisor: Supervisor, request: Capture) -> tuple[CaptureStarted, list[int]]:
    """Turn the taps on; return the answer and the descriptors that go with it.

    Raises ControlError when somebody captures already, the gateway is being handed over, or there
    is no such peer.
    """
    if not system.FULL:
        raise ControlError(
            "a capture needs memory that can be handed over, which only Linux has: "
            f"`tcpdump -i {supervisor.interface}` shows the inner packets"
        )
    device, taps = supervisor.device, supervisor.fabric.taps
    if taps.busy:
        raise ControlError("somebody captures on this gateway already: wait, or end that one")
    if supervisor.holding:
        raise ControlError("the gateway is being handed over: try again in a moment")
    only = tap.NOBODY
    if request.peer:
        try:
            entry = device.peers.get(keys.from_base64(request.peer))
        except KeyFormatError:
            raise ControlError("peer: write the 44 characters of a public key") from None
        if entry is None:
            raise ControlError(f"no peer has the key {request.peer}: `wg show` lists them")
        only = entry.peer
    wanted = tap.INNER * request.inner + tap.OUTER * request.outer + tap.SECRETS * request.secrets
    entries = device.peers.values()
    answer = CaptureStarted(
        device.listen_port,
        list(taps.rings),
        {entry.peer: keys.to_base64(entry.public_key) for entry in entries},
    )
    if request.secrets and device.private_key:
        answer.private_key = keys.to_base64(device.private_key)
        answer.preshared_keys = {
            entry.peer: keys.to_base64(entry.preshared_key)
            for entry in entries
            if entry.preshared_key != ZERO_KEY
        }
    return answer, taps.start(wanted, only)


def send_descriptors(connection: int, descriptors: list[int]) -> None:
    """Send descriptors, with one blank, over the Unix stream socket `connection`.

    Raises OSError, BlockingIOError among them, which does not happen to a fresh connection.
    """
    with socket.socket(fileno=os.dup(connection)) as sock:
        socket.send_fds(sock, [b" "], descriptors)
