//! The two ends of a ring (wgmp/ring.py has its layout and its rules), with the acquire and release
//! that CPUs other than x86-64 need.
//!
//! Nothing about a ring is kept here: both indices are read from their words each time, so that
//! Python's and our ends of one ring can be used in turn by the same process.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::atomic::{Ordering, fence};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::layout::ring as at;
use crate::memory::Memory;
use crate::record::{Checked, Slot};

struct Ring {
    memory: Memory,
    slots: u64,
    slot_bytes: usize,
}

impl Ring {
    fn attach(segment: &Bound<'_, PyAny>) -> PyResult<Self> {
        let memory = Memory::of::<u8>(segment)?;
        if memory.len() < at::FIRST_SLOT_BYTE
            || memory.get(at::MAGIC) != at::MAGIC_VALUE
            || memory.get(at::VERSION) != at::VERSION_VALUE
        {
            return Err(PyValueError::new_err("not a ring of this version"));
        }
        let (slots, slot_bytes) = (memory.get(at::SLOTS), memory.get(at::SLOT_BYTES));
        let needed = slots
            .checked_mul(slot_bytes)
            .and_then(|bytes| bytes.checked_add(at::FIRST_SLOT_BYTE as u64));
        let fits = needed.is_some_and(|needed| needed <= memory.len() as u64);
        if slots == 0 || !slot_bytes.is_multiple_of(at::SLOT_ALIGNMENT as u64) || !fits {
            return Err(PyValueError::new_err(format!(
                "{slots} slots of {slot_bytes} bytes are not in {} bytes",
                memory.len()
            )));
        }
        let slot_bytes = slot_bytes as usize;
        if slot_bytes <= crate::layout::record::PAYLOAD {
            return Err(PyValueError::new_err("its slots are too small for a record"));
        }
        Ok(Self { memory, slots, slot_bytes })
    }

    fn slot(&self, index: u64) -> Slot {
        let number = (index % self.slots) as usize;
        let start = at::FIRST_SLOT_BYTE + number * self.slot_bytes;
        Slot::new(self.memory.piece(start, self.slot_bytes))
    }
}

/// The producing end, as Python holds it; what writes to the ring here shares it.
#[pyclass(unsendable, frozen)]
pub struct RingWriter(pub Rc<Writer>);

pub struct Writer {
    ring: Ring,
    bell: Memory,
    bell_word: usize,
    bell_descriptor: i32,
}

#[pymethods]
impl RingWriter {
    /// `bell`, `bell_word`, `bell_descriptor`: the consumer's doorbell.
    #[new]
    fn new(
        segment: &Bound<'_, PyAny>,
        bell: &Bound<'_, PyAny>,
        bell_word: usize,
        bell_descriptor: i32,
    ) -> PyResult<Self> {
        let bell = Memory::of::<u8>(bell)?;
        if bell_word >= bell.len() / 8 {
            return Err(PyValueError::new_err("the doorbell's word is not in its memory"));
        }
        let ring = Ring::attach(segment)?;
        Ok(Self(Rc::new(Writer { ring, bell, bell_word, bell_descriptor })))
    }
}

impl Writer {
    /// How many slots are free.
    pub fn free(&self) -> u64 {
        let memory = &self.ring.memory;
        let tail = memory.word(at::TAIL).load(Ordering::Acquire);
        self.ring.slots.saturating_sub(memory.get(at::HEAD).wrapping_sub(tail))
    }

    /// The slot `ahead` places behind the last one published; the caller knows that it is free.
    pub fn slot(&self, ahead: u64) -> Slot {
        self.ring.slot(self.ring.memory.get(at::HEAD).wrapping_add(ahead))
    }

    /// Count a record that found no slot.
    pub fn count_full(&self) {
        self.ring.memory.add(at::FULL, 1);
    }

    /// Hand the next `count` slots to the consumer, and wake it if it sleeps.
    pub fn publish(&self, count: u64) {
        let memory = &self.ring.memory;
        let head = memory.get(at::HEAD).wrapping_add(count);
        memory.word(at::HEAD).store(head, Ordering::Release);
        let waiting = head.wrapping_sub(memory.word(at::TAIL).load(Ordering::Relaxed));
        if waiting > memory.get(at::HIGH_WATER) && waiting <= self.ring.slots {
            memory.set(at::HIGH_WATER, waiting);
        }
        // Ours stored, then theirs loaded: the one order that even x86-64 does not keep.
        fence(Ordering::SeqCst);
        if self.bell.word(self.bell_word).load(Ordering::Relaxed) != 0 {
            let one = 1u64.to_ne_bytes();
            // SAFETY: writes 8 bytes of a live array; the descriptor is the eventfd's.
            unsafe { libc::write(self.bell_descriptor, one.as_ptr().cast(), one.len()) };
            memory.add(at::WAKE_UPS, 1);
        }
    }
}

/// The consuming end. `begun`: packets of the oldest record that are done with already (send.rs).
#[pyclass(unsendable, frozen)]
pub struct RingReader {
    ring: Ring,
    pub begun: Cell<usize>,
}

#[pymethods]
impl RingReader {
    #[new]
    fn new(segment: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { ring: Ring::attach(segment)?, begun: Cell::new(0) })
    }
}

impl RingReader {
    /// Whether records wait, as far as the producer's word can be believed.
    pub fn has_records(&self) -> bool {
        let memory = &self.ring.memory;
        memory.word(at::HEAD).load(Ordering::Acquire) != memory.get(at::TAIL)
    }

    /// The oldest record, checked. What fails its check is released and counted as corrupt.
    pub fn peek(&self) -> Option<Checked> {
        let memory = &self.ring.memory;
        loop {
            let head = memory.word(at::HEAD).load(Ordering::Acquire);
            let tail = memory.get(at::TAIL);
            let waiting = head.wrapping_sub(tail);
            if waiting == 0 {
                return None;
            }
            if waiting > self.ring.slots {
                memory.add(at::CORRUPT, 1);
                memory.word(at::TAIL).store(head, Ordering::Release);
                return None;
            }
            if let Some(record) = Checked::of(self.ring.slot(tail)) {
                return Some(record);
            }
            memory.add(at::CORRUPT, 1);
            self.release();
        }
    }

    /// Give the oldest record's slot back.
    pub fn release(&self) {
        let memory = &self.ring.memory;
        let tail = memory.get(at::TAIL).wrapping_add(1);
        memory.word(at::TAIL).store(tail, Ordering::Release);
    }
}
