"""Where to send to a peer: when to look for another endpoint, and which. Decides, does no I/O.

A peer that answers is left alone, wherever it has roamed to. Silence is a sign only where an
answer was due (whitepaper section 6.5; a keepalive is not answered):

| the last handshake | what goes unanswered |
|---|---|
| is older than a keypair lasts, or there was none | anything: it can only be initiations |
| is recent | more than initiations and keepalives come to; data is answered within 10 s |

When the patience is over the peer's names are resolved again, and it gets

| now sent to | next |
|---|---|
| nowhere, or to what is none of its endpoints (it roamed there, or its name moved) | the first |
| one of several | the one after it, and after the last the first |
| the only one | nothing: it is just not there |
"""

from __future__ import annotations

from collections.abc import Sequence

from wgmp.protocol.constants import REJECT_AFTER_TIME
from wgmp.protocol.outcome import Endpoint

# What the gateway counted is looked at every few seconds: a keepalive sent just before its
# keypair ended is seen later.
_STALE_S = REJECT_AFTER_TIME + 10.0

_DATA_BYTES = 2048


class Silence:
    """Tells when a peer has been silent for long enough to try another endpoint.

    `patience_s`: seconds. Fed by `look` with what the gateway counts, every few seconds.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._rx_bytes = 0
        self._tx_bytes = 0
        self._begin()

    def _begin(self) -> None:
        self._since: float | None = None
        self._unanswered_bytes = 0
        self._answer_due = False

    def look(
        self,
        now: float,
        rx_bytes: int,
        tx_bytes: int,
        handshake_age_s: float | None,
        has_endpoint: bool,
    ) -> bool:
        """Tell whether it is time to try; then the patience begins anew.

        `now`: monotonic seconds. `handshake_age_s`: None when there was none. A peer without
        an endpoint, whose name did not resolve, is silent from the start.
        """
        sent = max(0, tx_bytes - self._tx_bytes)
        answered = rx_bytes != self._rx_bytes
        self._rx_bytes, self._tx_bytes = rx_bytes, tx_bytes
        if answered:
            self._begin()
            return False
        if sent or not has_endpoint:
            stale = handshake_age_s is None or handshake_age_s > _STALE_S
            self._since = now if self._since is None else self._since
            self._unanswered_bytes += sent
            self._answer_due |= stale or self._unanswered_bytes > _DATA_BYTES
        if self._since is None or not self._answer_due or now - self._since < self._patience_s:
            return False
        self._begin()
        return True


def following(current: Endpoint | None, candidates: Sequence[Endpoint]) -> Endpoint | None:
    """Return where to send to a silent peer from now on; None to leave it as it is.

    `candidates`: all addresses of all its endpoints, as they resolve now, in order.
    """
    if not candidates:
        return None
    if current not in candidates:
        return candidates[0]
    after = candidates[(candidates.index(current) + 1) % len(candidates)]
    return None if after == current else after
