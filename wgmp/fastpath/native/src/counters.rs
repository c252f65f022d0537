//! A role's block of counters (wgmp/counters.py) and the drops of its peers (wgmp/peerdrops.py), which
//! only this process writes.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::layout::{counter, peers};
use crate::memory::Memory;

pub struct Counters(Memory);

impl Counters {
    /// `block`: the block's words, a memoryview of format "Q".
    pub fn new(block: &Bound<'_, PyAny>) -> PyResult<Self> {
        let memory = Memory::of::<u64>(block)?;
        if memory.len() < counter::BLOCK_WORDS * 8 {
            return Err(PyValueError::new_err("not a whole block of counters"));
        }
        Ok(Self(memory))
    }

    pub fn add(&self, counter: usize, amount: u64) {
        self.0.add(counter, amount);
    }

    pub fn drop(&self, reason: usize, count: u64) {
        self.0.add(counter::DROPS + reason, count);
    }
}

/// Each peer's drops by reason.
pub struct PeerDrops(Memory);

impl PeerDrops {
    pub fn new(drops: &Bound<'_, PyAny>) -> PyResult<Self> {
        let memory = Memory::of::<u8>(drops)?;
        if memory.len() < peers::ROWS * (1 + peers::DROPS_WORDS) * 8 {
            return Err(PyValueError::new_err("not the drops of all peers"));
        }
        Ok(Self(memory))
    }

    pub fn add(&self, peer: u64, reason: usize, count: u64) {
        let row = (peer & peers::ROW_MASK) as usize;
        self.0.add(peers::ROWS + row * peers::DROPS_WORDS + reason, count);
        self.0.add(row, count);
    }
}
