"""Whether the extension and Python mean the same by the memory and the functions they share."""

from __future__ import annotations

from wgmp import counters, peerdrops, peertable, record, ring
from wgmp.fastpath import transport
from wgmp.orders import ROW_MASK
from wgmp.protocol import constants
from wgmp.protocol.keypair import STATE_WORDS
from wgmp.protocol.messages import MessageType
from wgmp.protocol.outcome import DropReason
from wgmp.shm import PAGE_BYTES

# One more with every change to a function of the extension (native/src/layout.rs).
_VERSION = 2


def expected() -> dict[str, int]:
    """Return Python's number for every name in the extension's layout.rs."""
    numbers = {
        "interface.VERSION": _VERSION,
        "ring.MAGIC_VALUE": ring.MAGIC,
        "ring.VERSION_VALUE": ring.VERSION,
        "ring.SLOTS": ring.SLOTS_WORD,
        "ring.SLOT_BYTES": ring.SLOT_BYTES_WORD,
        "ring.HEAD": ring.HEAD_WORD,
        "ring.FULL": ring.FULL_WORD,
        "ring.HIGH_WATER": ring.HIGH_WATER_WORD,
        "ring.WAKE_UPS": ring.WAKE_UPS_WORD,
        "ring.TAIL": ring.TAIL_WORD,
        "ring.CORRUPT": ring.CORRUPT_WORD,
        "ring.FIRST_SLOT_BYTE": PAGE_BYTES,
        "ring.SLOT_ALIGNMENT": ring.SLOT_ALIGNMENT,
        "record.ENDPOINT": record.ENDPOINT_OFFSET,
        "record.ENDPOINT_BYTES": record.ENDPOINT_BYTES,
        "record.LENGTHS": record.LENGTHS_OFFSET,
        "record.MAX_PACKETS": record.MAX_PACKETS,
        "record.PAYLOAD": record.PAYLOAD_OFFSET,
        "record.PAYLOAD_BYTES": record.PAYLOAD_BYTES,
        "record.MAX_TRAIN_DATAGRAMS": record.MAX_TRAIN_DATAGRAMS,
        "record.MAX_TRAIN_BYTES": record.MAX_TRAIN_BYTES,
        "record.HANDSHAKE": record.HANDSHAKE,
        "record.ECN_SHIFT": record.ECN_SHIFT,
        "counter.DROPS": counters.DROPS,
        "counter.BLOCK_WORDS": counters.BLOCK_WORDS,
        "peers.ROWS": peertable.ROWS,
        "peers.ROW_WORDS": peertable.ROW_WORDS,
        "peers.OWNER": peertable.OWNER,
        "peers.RECEIVED": peertable.RX,
        "peers.SENT": peertable.TX,
        "peers.ROW_MASK": ROW_MASK,
        "peers.DROPS_WORDS": peerdrops.BLOCK_WORDS,
        "peers.INDEX_ENTRIES": peertable.INDEX_ENTRIES,
        "state.WORDS": STATE_WORDS,
        "state.REPLAY_WINDOW": constants.REPLAY_WINDOW,
        "state.REKEY_AFTER_MESSAGES": constants.REKEY_AFTER_MESSAGES,
        "state.REJECT_AFTER_MESSAGES": constants.REJECT_AFTER_MESSAGES,
        "transport.TYPE": MessageType.TRANSPORT.value,
        "transport.HEADER": transport.HEADER_BYTES,
        "transport.TAG": constants.TAG_SIZE,
        "transport.PADDING": constants.PADDING_MULTIPLE,
    }
    numbers |= {f"record.{kind.name}": kind for kind in record.Kind}
    numbers |= {f"counter.{counter.name}": counter for counter in counters.Counter}
    numbers |= {f"drop.{reason.name}": reason for reason in DropReason}
    return numbers


def disagreements(layout: dict[str, int]) -> list[str]:
    """Return the names of which the extension's number is not Python's."""
    numbers = expected()
    layout = {"interface.VERSION": 0} | layout  # once there was none
    return [name for name, number in layout.items() if numbers.get(name) != number]
