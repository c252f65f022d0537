"""Every number and string the protocol fixes. Times are seconds, sizes bytes.

WP: the WireGuard whitepaper, by section. Kernel: drivers/net/wireguard/, by file.
Go: wireguard-go's device/, by file.
"""

from __future__ import annotations

from typing import Final

# Names that are hashed into every handshake (WP 5.4).
CONSTRUCTION: Final = b"Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"
IDENTIFIER: Final = b"WireGuard v1 zx2c4 Jason@zx2c4.com"
LABEL_MAC1: Final = b"mac1----"
LABEL_COOKIE: Final = b"cookie--"

# Sizes (WP 5.4).
KEY_SIZE: Final = 32
HASH_SIZE: Final = 32
MAC_SIZE: Final = 16
TAG_SIZE: Final = 16
COOKIE_SIZE: Final = 16
COOKIE_NONCE_SIZE: Final = 24
TIMESTAMP_SIZE: Final = 12
ZERO_KEY: Final = bytes(KEY_SIZE)

# How long and how often a keypair is used (WP 6.1).
REKEY_AFTER_MESSAGES: Final = 2**60
REJECT_AFTER_MESSAGES: Final = 2**64 - 2**13 - 1
REKEY_AFTER_TIME: Final = 120.0
REJECT_AFTER_TIME: Final = 180.0

# When handshakes are tried again, and when not any more (WP 6.1, 6.4; kernel messages.h,
# MAX_TIMER_HANDSHAKES).
REKEY_TIMEOUT: Final = 5.0
REKEY_ATTEMPT_TIME: Final = 90.0
MAX_TIMER_HANDSHAKES: Final = int(REKEY_ATTEMPT_TIME / REKEY_TIMEOUT)
KEEPALIVE_TIMEOUT: Final = 10.0
# Kernel messages.h, REKEY_TIMEOUT_JITTER_MAX_JIFFIES: HZ / 3.
REKEY_TIMEOUT_JITTER: Final = 0.333

# Data sent and nothing back for this long asks for a new handshake (WP 6.5).
NEW_HANDSHAKE_TIMEOUT: Final = KEEPALIVE_TIMEOUT + REKEY_TIMEOUT
# From this age on, receiving alone makes an initiator rekey (WP 6.2; kernel receive.c).
REKEY_ON_RECEIVE_AFTER_TIME: Final = REJECT_AFTER_TIME - KEEPALIVE_TIMEOUT - REKEY_TIMEOUT
# Keys are forgotten this long after the last session was derived (WP 6.3).
ZERO_KEY_MATERIAL_AFTER_TIME: Final = 3 * REJECT_AFTER_TIME

# One initiation in this time is consumed per peer (kernel messages.h, INITIATIONS_PER_SECOND).
INITIATION_INTERVAL: Final = 1 / 50

# Cookies (WP 5.4.7). An initiator stops using one a little before its responder does,
# for the message is still on its way then (kernel messages.h, COOKIE_SECRET_LATENCY).
COOKIE_SECRET_MAX_AGE: Final = 120.0
COOKIE_SECRET_LATENCY: Final = 5.0

# Handshake messages of one source, under load (kernel ratelimiter.c, Go ratelimiter.go).
HANDSHAKES_PER_SECOND: Final = 20
HANDSHAKES_BURST: Final = 5
RATELIMITER_ENTRIES: Final = 8192  # kernel ratelimiter.c bounds its table by memory

# Under load: admission's queue is above this part of its capacity, and a while after
# (kernel receive.c: MAX_QUEUED_INCOMING_HANDSHAKES / 8, one second).
UNDER_LOAD_FRACTION: Final = 1 / 8
UNDER_LOAD_HOLD: Final = 1.0

# The replay window: 8192 bits, of which the newest block of 64 may be partly ahead
# (RFC 6479; kernel messages.h, COUNTER_WINDOW_SIZE).
REPLAY_BITS: Final = 8192
REPLAY_WINDOW: Final = REPLAY_BITS - 64

# Packets kept while a handshake runs (kernel messages.h, MAX_STAGED_PACKETS).
MAX_STAGED_PACKETS: Final = 128

# Transport padding (WP 5.4.6; kernel messages.h, MESSAGE_PADDING_MULTIPLE).
PADDING_MULTIPLE: Final = 16
# 1500 less an IPv6 and a UDP header, a transport header and a tag (kernel device.c, wg_setup).
DEFAULT_MTU: Final = 1420

# DSCP AF41 with ECN 0 on handshake datagrams (kernel messages.h, HANDSHAKE_DSCP).
HANDSHAKE_TRAFFIC_CLASS: Final = 0x88
