//! A keypair as the fast path has it: both AEADs, and the words of its state.
//!
//! wgmp/protocol/keypair.py has the words' layout and the order in which they are written, so
//! that no counter is ever used twice, whatever is killed when.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::aead::{Aead, Key, key_bytes};
use crate::layout::drop;
use crate::layout::state as at;
use crate::memory::Memory;

/// `aead`: whose keys are made of `sending` and `receiving`, 32 bytes each. `state`: the keypair's words, borrowed.
#[pyclass(unsendable, frozen)]
pub struct Session {
    sending: Key,
    receiving: Key,
    state: Memory,
    pub remote_index: u32,
    pub peer: u64,
}

#[pymethods]
impl Session {
    #[new]
    fn new(
        aead: &Aead,
        sending: &[u8],
        receiving: &[u8],
        remote_index: u32,
        peer: u64,
        state: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let state = Memory::of::<u64>(state)?;
        if state.len() < at::WORDS * 8 {
            return Err(PyValueError::new_err("not all words of a keypair's state"));
        }
        let (sending, receiving) = (aead.key(key_bytes(sending)?), aead.key(key_bytes(receiving)?));
        Ok(Self { sending, receiving, state, remote_index, peer })
    }
}

impl Session {
    /// Whether so many have been sealed that it is reason for another handshake.
    pub fn is_worn(&self) -> bool {
        self.state.get(at::SEND_COUNTER) > at::REKEY_AFTER_MESSAGES
    }

    /// How many more packets may be sealed.
    pub fn left(&self) -> u64 {
        at::REJECT_AFTER_MESSAGES.saturating_sub(self.state.get(at::SEND_COUNTER))
    }

    /// Take `count` counters for good and return the first. The caller has asked `left`.
    pub fn take(&self, count: u64) -> u64 {
        assert!(count <= self.left());
        let first = self.state.get(at::SEND_COUNTER);
        // Stored before the first of them is used.
        self.state
            .word(at::SEND_COUNTER)
            .store(first + count, std::sync::atomic::Ordering::Release);
        std::sync::atomic::compiler_fence(std::sync::atomic::Ordering::SeqCst);
        first
    }

    /// Seal a packet in place; its tag goes into the last TAG bytes.
    pub fn seal(&self, counter: u64, packet_and_tag: &mut [u8]) {
        self.sending.seal(counter, packet_and_tag);
    }

    /// Open in place and mark the counter; Err: why the datagram is dropped. Tag before window.
    pub fn authenticate(&self, counter: u64, sealed: &mut [u8]) -> Result<(), usize> {
        if !self.receiving.open(counter, sealed) {
            return Err(drop::BAD_TAG);
        }
        if counter >= at::REJECT_AFTER_MESSAGES {
            return Err(drop::COUNTER_EXHAUSTED);
        }
        if self.accept(counter) { Ok(()) } else { Err(drop::REPLAYED) }
    }

    /// Mark an authentic counter below the limit as seen; false when it was, or is too old (RFC 6479).
    fn accept(&self, counter: u64) -> bool {
        let state = &self.state;
        let next = state.get(at::RECEIVED);
        let block = counter >> 6;
        let word = at::BITMAP + (block as usize & (at::BITMAP_WORDS - 1));
        let bit = 1 << (counter & 63);
        if counter < next {
            if next - 1 - counter > at::REPLAY_WINDOW || state.get(word) & bit != 0 {
                return false;
            }
        } else {
            // Stored before the blocks are cleared: a successor takes all below it as seen.
            state.word(at::RECEIVED).store(counter + 1, std::sync::atomic::Ordering::Release);
            let first = if next == 0 { 0 } else { ((next - 1) >> 6) + 1 };
            for stale in first.max((block + 1).saturating_sub(at::BITMAP_WORDS as u64))..=block {
                state.set(at::BITMAP + (stale as usize & (at::BITMAP_WORDS - 1)), 0);
            }
        }
        state.set(word, state.get(word) | bit);
        true
    }
}
