//! Where things lie in the memory that Python shares with us, and its numbers for them.
//!
//! The tables themselves are in the Python modules named here. `layout_table` hands these numbers to
//! Python, which compares every one with its own before it uses this crate.

/// wgmp/fastpath/native/agreement.py: one more with every change to what Python calls here.
pub mod interface {
    pub const VERSION: usize = 2;
}

/// wgmp/ring.py: words of a ring's header, and where its slots begin.
pub mod ring {
    pub const MAGIC_VALUE: u64 = 0x676E_6972_5F70_6D77;
    pub const VERSION_VALUE: u64 = 1;
    pub const MAGIC: usize = 0;
    pub const VERSION: usize = 1;
    pub const SLOTS: usize = 2;
    pub const SLOT_BYTES: usize = 3;
    pub const HEAD: usize = 8;
    pub const FULL: usize = 9;
    pub const HIGH_WATER: usize = 10;
    pub const WAKE_UPS: usize = 11;
    pub const TAIL: usize = 16;
    pub const CORRUPT: usize = 17;
    pub const FIRST_SLOT_BYTE: usize = 4096;
    pub const SLOT_ALIGNMENT: usize = 64;
}

/// wgmp/record.py: bytes of a slot.
pub mod record {
    pub const KIND: usize = 0;
    pub const COUNT: usize = 4;
    pub const USED: usize = 8;
    pub const FLAGS: usize = 12;
    pub const PEER: usize = 16;
    pub const ENDPOINT: usize = 64;
    pub const ENDPOINT_BYTES: usize = 44;
    pub const LENGTHS: usize = 128;
    pub const MAX_PACKETS: usize = 256;
    pub const PAYLOAD: usize = LENGTHS + 4 * MAX_PACKETS;
    pub const PAYLOAD_BYTES: usize = 66_048;
    pub const MAX_TRAIN_DATAGRAMS: usize = 64;
    pub const MAX_TRAIN_BYTES: usize = 65_507;
    pub const HANDSHAKE: u32 = 1;
    pub const ECN_SHIFT: u32 = 8;
    pub const PACKETS: u32 = 1;
    pub const DATAGRAMS: u32 = 2;
}

/// wgmp/counters.py: words of a role's block.
pub mod counter {
    pub const RECORDS_IN: usize = 3;
    pub const RECORDS_OUT: usize = 4;
    pub const PACKETS_IN: usize = 5;
    pub const PACKETS_OUT: usize = 6;
    pub const BYTES_IN: usize = 7;
    pub const BYTES_OUT: usize = 8;
    pub const SEALED: usize = 10;
    pub const OPENED: usize = 11;
    pub const KEEPALIVES_RECEIVED: usize = 17;
    pub const TRAINS_IN: usize = 20;
    pub const CUT: usize = 21;
    pub const JOINED: usize = 22;
    pub const DROPS: usize = 64;
    pub const BLOCK_WORDS: usize = 128;
}

/// wgmp/protocol/outcome.py: the reasons for drops that are met here.
pub mod drop {
    pub const BAD_LENGTH: usize = 1;
    pub const BAD_TYPE: usize = 2;
    pub const UNKNOWN_INDEX: usize = 4;
    pub const COUNTER_EXHAUSTED: usize = 19;
    pub const BAD_TAG: usize = 20;
    pub const REPLAYED: usize = 21;
    pub const BAD_PACKET: usize = 22;
    pub const SOURCE_NOT_ALLOWED: usize = 23;
    pub const NO_ENDPOINT: usize = 25;
    pub const RING_FULL: usize = 29;
    pub const RING_CORRUPT: usize = 30;
    pub const SEND_FAILED: usize = 31;
    pub const WRITE_FAILED: usize = 32;
    pub const CONGESTION_NOT_ECT: usize = 35;
}

/// wgmp/peertable.py: words of a row, and the entries of the index table; wgmp/peerdrops.py.
pub mod peers {
    pub const ROWS: usize = 16_384;
    pub const ROW_WORDS: usize = 16;
    pub const OWNER: usize = 0;
    pub const RECEIVED: usize = 3;
    pub const SENT: usize = 4;
    pub const ROW_MASK: u64 = (1 << 20) - 1;
    pub const DROPS_WORDS: usize = 64;
    pub const INDEX_ENTRIES: usize = 131_072;
}

/// wgmp/protocol/keypair.py: words of a keypair's state.
pub mod state {
    pub const SEND_COUNTER: usize = 0;
    pub const RECEIVED: usize = 1;
    pub const BITMAP: usize = 2;
    pub const BITMAP_WORDS: usize = 128;
    pub const WORDS: usize = BITMAP + BITMAP_WORDS;
    pub const REPLAY_WINDOW: u64 = 8192 - 64;
    pub const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
    pub const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);
}

/// wgmp/protocol/messages.py: a transport datagram is a header, a packet and a tag.
pub mod transport {
    pub const TYPE: u32 = 4;
    pub const HEADER: usize = 16;
    pub const TAG: usize = 16;
    pub const OVERHEAD: usize = HEADER + TAG;
    pub const PADDING: usize = 16;
}

macro_rules! table {
    ($($module:ident :: $name:ident),* $(,)?) => {
        /// Every number above that Python has too, by its name there.
        pub const ALL: &[(&str, u64)] =
            &[$((concat!(stringify!($module), ".", stringify!($name)), $module::$name as u64)),*];
    };
}

table!(
    interface::VERSION,
    ring::MAGIC_VALUE,
    ring::VERSION_VALUE,
    ring::SLOTS,
    ring::SLOT_BYTES,
    ring::HEAD,
    ring::FULL,
    ring::HIGH_WATER,
    ring::WAKE_UPS,
    ring::TAIL,
    ring::CORRUPT,
    ring::FIRST_SLOT_BYTE,
    ring::SLOT_ALIGNMENT,
    record::ENDPOINT,
    record::ENDPOINT_BYTES,
    record::LENGTHS,
    record::MAX_PACKETS,
    record::PAYLOAD,
    record::PAYLOAD_BYTES,
    record::MAX_TRAIN_DATAGRAMS,
    record::MAX_TRAIN_BYTES,
    record::HANDSHAKE,
    record::ECN_SHIFT,
    record::PACKETS,
    record::DATAGRAMS,
    counter::RECORDS_IN,
    counter::RECORDS_OUT,
    counter::PACKETS_IN,
    counter::PACKETS_OUT,
    counter::BYTES_IN,
    counter::BYTES_OUT,
    counter::SEALED,
    counter::OPENED,
    counter::KEEPALIVES_RECEIVED,
    counter::TRAINS_IN,
    counter::CUT,
    counter::JOINED,
    counter::DROPS,
    counter::BLOCK_WORDS,
    drop::BAD_LENGTH,
    drop::BAD_TYPE,
    drop::UNKNOWN_INDEX,
    drop::COUNTER_EXHAUSTED,
    drop::BAD_TAG,
    drop::REPLAYED,
    drop::BAD_PACKET,
    drop::SOURCE_NOT_ALLOWED,
    drop::NO_ENDPOINT,
    drop::RING_FULL,
    drop::RING_CORRUPT,
    drop::SEND_FAILED,
    drop::WRITE_FAILED,
    drop::CONGESTION_NOT_ECT,
    peers::ROWS,
    peers::ROW_WORDS,
    peers::OWNER,
    peers::RECEIVED,
    peers::SENT,
    peers::ROW_MASK,
    peers::DROPS_WORDS,
    peers::INDEX_ENTRIES,
    state::WORDS,
    state::REPLAY_WINDOW,
    state::REKEY_AFTER_MESSAGES,
    state::REJECT_AFTER_MESSAGES,
    transport::TYPE,
    transport::HEADER,
    transport::TAG,
    transport::PADDING,
);
