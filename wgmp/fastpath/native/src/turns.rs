//! Whole turns of a process's loop, for as long as nothing has to be decided.
//!
//! A turn is what wgmp/process.py describes: wait for descriptors, let every role step. Here the
//! roles' parts (part.rs) step, one behind the other, on the sessions that are leased (lease.rs).
//! As soon as there is anything else, an order, a timer, a packet that nobody expects, Python has
//! its turn: it finds everything as if there had been no other.

use std::sync::atomic::{Ordering, fence};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::courtesy::Courtesy;
use crate::lease::Leases;
use crate::memory::Memory;
use crate::open::Opener;
use crate::part::{Event, Part, Step};
use crate::receive::DatagramIntake;
use crate::ring::RingReader;
use crate::seal::Sealer;
use crate::send::DatagramWriter;
use crate::tun::{PacketIntake, PacketWriter};

/// So many seconds after the first of such turns Python has one, and hears of what was done.
const REPORT_AFTER: f64 = 0.1;
const EVENTS: usize = 8;

/// The loop of one process. `poller`: its epoll descriptor; `bell`, `bell_word`,
/// `bell_descriptor`: its doorbell; `captured`: a word that is not 0 while somebody captures.
#[pyclass(unsendable)]
pub struct Turns {
    poller: i32,
    bell: Memory,
    bell_word: usize,
    bell_descriptor: i32,
    captured: Option<Memory>,
    parts: Vec<Part>,
    courtesy: Courtesy,
    /// Times it slept.
    #[pyo3(get)]
    sleeps: u64,
}

#[pymethods]
impl Turns {
    #[new]
    fn new(
        poller: i32,
        bell: &Bound<'_, PyAny>,
        bell_word: usize,
        bell_descriptor: i32,
        captured: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let bell = Memory::of::<u8>(bell)?;
        if bell_word >= bell.len() / 8 {
            return Err(PyValueError::new_err("the doorbell's word is not in its memory"));
        }
        let captured = captured.map(Memory::of::<u64>).transpose()?;
        Ok(Self {
            poller,
            bell,
            bell_word,
            bell_descriptor,
            captured,
            parts: vec![],
            courtesy: Courtesy::default(),
            sleeps: 0,
        })
    }

    fn add_packet_intake(&mut self, intake: Py<PacketIntake>) {
        self.parts.push(Part::PacketIntake(intake));
    }

    fn add_datagram_intake(&mut self, intake: Py<DatagramIntake>) {
        self.parts.push(Part::DatagramIntake(intake));
    }

    fn add_worker(
        &mut self,
        rings: Vec<Py<RingReader>>,
        sealer: Py<Sealer>,
        opener: Py<Opener>,
        leases: Py<Leases>,
    ) {
        self.parts.push(Part::Worker { rings, sealer, opener, leases });
    }

    fn add_datagram_writer(&mut self, rings: Vec<Py<RingReader>>, writer: Py<DatagramWriter>) {
        self.parts.push(Part::DatagramWriter(rings, writer));
    }

    fn add_packet_writer(&mut self, rings: Vec<Py<RingReader>>, writer: Py<PacketWriter>) {
        self.parts.push(Part::PacketWriter(rings, writer));
    }

    /// A role that has no part: what comes in its rings is Python's.
    fn add_none(&mut self, rings: Vec<Py<RingReader>>) {
        self.parts.push(Part::None(rings));
    }

    /// Turn until there is something for Python, or the time `until` has come; return the
    /// descriptors that are ready then.
    ///
    /// `busy`: a role has work left, so it does not sleep at first. `blocked`: a role waits for a
    /// descriptor to drain, and all others with it.
    fn wait(
        &mut self,
        py: Python<'_>,
        mut busy: bool,
        mut until: f64,
        blocked: bool,
    ) -> PyResult<Vec<Event>> {
        loop {
            let Some(mut events) = self.poll(py, busy, until, blocked) else {
                return Ok(vec![]);
            };
            let now = boottime();
            let captured = self.captured.as_ref().is_some_and(|word| word.get(0) != 0);
            if blocked || captured || now >= until || !self.are_ours(py, &events) {
                return Ok(events);
            }
            busy = false;
            let mut python = false;
            for part in &self.parts {
                match part.step(py, &mut events, now)? {
                    Step::Done => {}
                    Step::Busy => busy = true,
                    Step::Python => python = true,
                }
            }
            if python {
                return Ok(events);
            }
            until = until.min(now + REPORT_AFTER);
            if busy {
                // SAFETY: takes and returns no memory.
                self.courtesy.give_way(boottime, || unsafe {
                    libc::sched_yield();
                });
            }
        }
    }
}

impl Turns {
    /// Wait for descriptors, at most until the time `until`; silence the doorbell. None: a signal
    /// came instead.
    fn poll(
        &mut self,
        py: Python<'_>,
        busy: bool,
        until: f64,
        blocked: bool,
    ) -> Option<Vec<Event>> {
        let bell = self.bell.word(self.bell_word);
        let mut wait = 0.0;
        if !busy {
            // Ours stored, then theirs loaded: the one order that even x86-64 does not keep.
            bell.store(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            // A role that waits for a descriptor to drain leaves its rings as they are.
            if blocked || !self.parts.iter().any(|part| part.has_input(py)) {
                self.sleeps += 1;
                wait = (until - boottime()).max(0.0);
            }
        }
        let mut found = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        let (poller, milliseconds) = (self.poller, (wait * 1e3).ceil() as i32);
        let mut wait = || {
            // SAFETY: writes at most EVENTS entries of a live array.
            unsafe { libc::epoll_wait(poller, found.as_mut_ptr(), EVENTS as i32, milliseconds) }
        };
        let count = if milliseconds == 0 { wait() } else { py.detach(wait) };
        if !busy {
            bell.store(0, Ordering::Relaxed);
        }
        let mut events = Vec::with_capacity(EVENTS);
        for event in &found[..usize::try_from(count).ok()?] {
            let (descriptor, mask) = (event.u64 as i32, event.events);
            if descriptor == self.bell_descriptor {
                let mut rung = [0u8; 8];
                // SAFETY: reads into 8 bytes of a live array; the descriptor is the eventfd's.
                unsafe { libc::read(descriptor, rung.as_mut_ptr().cast(), rung.len()) };
            } else {
                events.push((descriptor, mask));
            }
        }
        Some(events)
    }

    /// Whether all that is ready is what a part reads from.
    fn are_ours(&self, py: Python<'_>, events: &[Event]) -> bool {
        events.iter().all(|(descriptor, mask)| {
            *mask == libc::EPOLLIN as u32
                && self.parts.iter().any(|part| part.reads(py, *descriptor))
        })
    }
}

fn boottime() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one live structure.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
