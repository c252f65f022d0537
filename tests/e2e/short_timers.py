"""Run wgmpd with rekeying every few seconds: the constants change before anything reads them."""

from __future__ import annotations

import sys

from wgmp.protocol import constants

REKEY_AFTER_S = 3.0


def shorten() -> None:
    """Let sessions be replaced every REKEY_AFTER_S, and refused soon after they should have been.

    An initiation is not held back longer than a session lasts.
    """
    vars(constants).update(
        REKEY_TIMEOUT=1.0,
        REKEY_AFTER_TIME=REKEY_AFTER_S,
        REJECT_AFTER_TIME=2 * REKEY_AFTER_S,
        REKEY_ON_RECEIVE_AFTER_TIME=1.75 * REKEY_AFTER_S,
    )


if __name__ == "__main__":
    shorten()
    from wgmp.cli import main_wgmpd

    sys.exit(main_wgmpd())
