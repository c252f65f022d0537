"""The messages of the control API, version 1: one JSON object a line, each way.

A request has an `id` of the client's choice, an `action`, and what the action needs. The answer
has the same `id`, and either `result` or `error`. Events have neither; see docs/CONTROL_API.md.
A field that is not known is refused in a request and must be passed over in an answer: that is
how the API grows without another version.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec

from wgmp import __version__
from wgmp.agent.lifecycle import State
from wgmp.events import AnyEvent, Event

VERSION: Final = 1
LINE_BYTES_MAX = 64 * 1024


class _Request(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What all requests have. `id`: comes back in the answer. `version`: of the API."""

    id: int | str = 0
    version: Literal[1] = VERSION


class _OfNetwork(_Request, frozen=True, kw_only=True):
    """A request about one network."""

    network: str


class Connect(_OfNetwork, frozen=True, tag_field="action", tag="connect"):
    """Start the network unless it runs. Answered when it carries traffic, with its Summary."""


class Disconnect(_OfNetwork, frozen=True, tag_field="action", tag="disconnect"):
    """Stop the network unless it is stopped. Answered when all is undone, with its Summary."""


class Status(_OfNetwork, frozen=True, tag_field="action", tag="status"):
    """Answered with the network's NetworkStatus."""


class Stats(_OfNetwork, frozen=True, tag_field="action", tag="stats"):
    """Answered with a Snapshot of the network's gateway, as `wgmp stats --json` prints it.

    What takes a second look is not in it: the rates, and what the system measures of processes.
    """


class AddPeer(_OfNetwork, frozen=True, tag_field="action", tag="add_peer"):
    """Add a peer, or change the one with this public key, until the next reload.

    `peer`: the fields of [[network.NAME.peers]]. Answered with the network's Summary.
    """

    peer: dict[str, Any]


class RemovePeer(_OfNetwork, frozen=True, tag_field="action", tag="remove_peer"):
    """Remove the peer of this name or public key until the next reload; answered likewise."""

    peer: str


class List(_Request, frozen=True, tag_field="action", tag="list"):
    """Answered with a Listing of all networks."""


class Reload(_Request, frozen=True, tag_field="action", tag="reload"):
    """Read the settings file again, and make all networks, or the one, what it says.

    Answered with a Reloaded when that is done.
    """

    network: str | None = None


class Subscribe(_Request, frozen=True, tag_field="action", tag="subscribe"):
    """Answered with the Listing there is now; from then on an AgentEvent comes for each event."""


class Stop(_Request, frozen=True, tag_field="action", tag="stop"):
    """Stop the agent and all its networks. Answered at once; the end of the stream follows."""


Request = (
    Connect | Disconnect | Status | Stats | AddPeer | RemovePeer | List | Reload | Subscribe | Stop
)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A network in short. `reason`: why it failed. `changed_at`: of the state, Unix seconds.

    `enabled`: whether it starts with the agent.
    """

    name: str
    interface: str
    state: State
    reason: str
    changed_at: float
    enabled: bool


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A peer. `endpoint`: where it is now, "" when not known. `handshake_age_s`: None for never."""

    name: str
    public_key: str
    endpoint: str
    allowed_ips: list[str]
    handshake_age_s: float | None
    rx_bytes: int
    tx_bytes: int


class NetworkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A network in full. What only a running gateway knows is 0 or empty without one."""

    summary: Summary
    public_key: str
    listen_port: int
    gateway_pid: int
    addresses: list[str]
    peers: list[PeerStatus]


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """All networks in the order of the settings file, and whom one speaks to."""

    networks: list[Summary]
    api_version: int = VERSION
    wgmp_version: str = __version__


class Reloaded(msgspec.Struct, frozen=True, kw_only=True):
    """What a reload did, by name. `failed`: with the reason; the others were not held up."""

    added: list[str] = []
    removed: list[str] = []
    changed: list[str] = []
    unchanged: list[str] = []
    failed: dict[str, str] = {}


Code = Literal[
    "malformed",
    "too_long",
    "too_slow",
    "too_many",
    "no_such_network",
    "not_running",
    "failed",
]


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why a request was not done. `code`: for programs; `message`: for people.

    | code | |
    |---|---|
    | malformed | not JSON, or not a request of this version |
    | too_long | a line of more than 64 KiB; the agent hangs up |
    | too_slow | answers or events were not read; the agent hangs up |
    | too_many | no connection is free; the agent hangs up |
    | no_such_network | |
    | not_running | the network has to be connected first |
    | failed | it was tried, and the message says what came of it |
    """

    code: Code
    message: str


class NetworkChanged(Event):
    """A network entered a state. The fields are those of Summary."""

    network: str
    interface: str
    state: State
    reason: str = ""

    def text(self) -> str:
        """Say which, and why if it failed."""
        return f"{self.network} is {self.state}{self.reason and ': '}{self.reason}"


class GatewayEvent(Event):
    """Something happened in a network's gateway: `detail` is one of events.py."""

    network: str
    detail: AnyEvent

    def text(self) -> str:
        """Say where and what."""
        return f"{self.network}: {self.detail.text()}"


AgentEvent = NetworkChanged | GatewayEvent


class Answer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The answer to the request with the same `id`: its result, or why there is none."""

    id: int | str | None
    result: msgspec.Raw = msgspec.Raw()
    error: Refusal | None = None
