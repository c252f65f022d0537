//! Memory that belongs to Python, borrowed for as long as an object here lives.

use std::sync::atomic::{AtomicU64, Ordering};

use pyo3::buffer::{Element, PyBuffer};
use pyo3::exceptions::PyBufferError;
use pyo3::prelude::*;

/// One writable, contiguous buffer of Python's: a shared segment, or a keypair's words.
///
/// Other processes map the same memory. Words that they write are only ever touched as atomics;
/// bytes are touched by one process at a time, by the rings' rules.
pub struct Memory {
    start: *mut u8,
    len: usize,
    _kept: Box<dyn Kept>,
}

trait Kept {}
impl<T: Element> Kept for PyBuffer<T> {}

impl Memory {
    /// Borrow the buffer of a Python object whose items are of type `T`.
    pub fn of<T: Element + 'static>(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let buffer = PyBuffer::<T>::get(object)?;
        if buffer.readonly() || !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("needs writable memory in one piece"));
        }
        Ok(Self {
            start: buffer.buf_ptr().cast(),
            len: buffer.len_bytes(),
            _kept: Box::new(buffer),
        })
    }

    /// The memory's length in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The 8-byte word number `index`. Panics when it is not in the memory.
    #[inline]
    pub fn word(&self, index: usize) -> &AtomicU64 {
        assert!(index < self.len / 8, "word {index} of {} bytes", self.len);
        // SAFETY: in bounds by the assertion; Python's mappings and its arrays of "Q" are aligned
        // to 8 bytes; the buffer is held, so it stays where it is; atomics may be shared.
        unsafe { &*self.start.cast::<AtomicU64>().add(index) }
    }

    /// Load a word that only this process writes.
    #[inline]
    pub fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Relaxed)
    }

    /// Store a word that only this process writes.
    #[inline]
    pub fn set(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Relaxed);
    }

    /// Add to a word that only this process writes.
    #[inline]
    pub fn add(&self, index: usize, amount: u64) {
        self.set(index, self.get(index).wrapping_add(amount));
    }

    /// `len` bytes from `at` on, for a caller whose turn the rings' rules say it is.
    /// Panics when they are not in the memory.
    pub fn piece(&self, at: usize, len: usize) -> Piece {
        assert!(at <= self.len && len <= self.len - at);
        // SAFETY: in bounds by the assertion.
        Piece { start: unsafe { self.start.add(at) }, len }
    }
}

/// A stretch of shared memory. It must not outlive the `Memory` it is of; nothing here keeps one
/// beyond a call.
#[derive(Clone, Copy)]
pub struct Piece {
    start: *mut u8,
    len: usize,
}

impl Piece {
    /// The bytes. Whoever calls it holds the slot: a producer between reserve and publish, a
    /// consumer between peek and release.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub fn bytes(&self) -> &mut [u8] {
        // SAFETY: in bounds since `piece`. The ring gives the slot to one process at a time, and
        // callers here take no two overlapping slices at once. A hostile process that maps the
        // ring could still write meanwhile: lengths are therefore copied before they are checked
        // (record.rs), so it can spoil contents but not reach beyond the slot.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }

    /// The same, for a caller that keeps the memory itself.
    #[inline]
    pub fn into_bytes<'m>(self) -> &'m mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}
