//! Whole turns of a process's loop, for as long as nothing has to be decided.
//!
//! A turn is what wgmp/process.py describes: wait for descriptors, let every role step. Here the
//! roles' parts step, one behind the other, on the sessions that are leased (lease.rs). As soon as
//! there is anything else, an order, a timer, a packet that nobody expects, Python has its turn: it
//! finds everything as if there had been no other.

use std::sync::atomic::{Ordering, fence};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::layout::counter;
use crate::layout::record::PACKETS;
use crate::lease::{Holder, Leases};
use crate::memory::Memory;
use crate::open::Opener;
use crate::receive::DatagramIntake;
use crate::ring::RingReader;
use crate::seal::Sealer;
use crate::send::DatagramWriter;
use crate::tun::{PacketIntake, PacketWriter};

/// So many seconds after the first of such turns Python has one, and hears of what was done.
const REPORT_AFTER: f64 = 0.1;
/// Calls for one ring in one turn.
const BURST: usize = 16;
const EVENTS: usize = 8;

/// A descriptor, and how it is ready (poll's bits).
type Event = (i32, u32);

/// How a part's step ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Nothing is left to do.
    Done,
    /// Something is left for the next turn.
    Busy,
    /// Something is left for Python.
    Python,
}

/// What a role does without Python.
enum Part {
    PacketIntake(Py<PacketIntake>),
    DatagramIntake(Py<DatagramIntake>),
    Worker {
        rings: Vec<Py<RingReader>>,
        sealer: Py<Sealer>,
        opener: Py<Opener>,
        leases: Py<Leases>,
    },
    DatagramWriter(Vec<Py<RingReader>>, Py<DatagramWriter>),
    PacketWriter(Vec<Py<RingReader>>, Py<PacketWriter>),
    /// Nothing: what comes in its rings is Python's.
    None(Vec<Py<RingReader>>),
}

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
        Ok(Self { poller, bell, bell_word, bell_descriptor, captured, parts: vec![], sleeps: 0 })
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

impl Part {
    fn reads(&self, py: Python<'_>, descriptor: i32) -> bool {
        match self {
            Part::PacketIntake(intake) => intake.borrow(py).reads(descriptor),
            Part::DatagramIntake(intake) => intake.borrow(py).reads(descriptor),
            _ => false,
        }
    }

    fn rings(&self) -> &[Py<RingReader>] {
        match self {
            Part::PacketIntake(_) | Part::DatagramIntake(_) => &[],
            Part::Worker { rings, .. }
            | Part::DatagramWriter(rings, _)
            | Part::PacketWriter(rings, _)
            | Part::None(rings) => rings,
        }
    }

    fn has_input(&self, py: Python<'_>) -> bool {
        self.rings().iter().any(|ring| ring.borrow(py).has_records())
    }

    /// Do a bounded amount of work. `events`: what is ready; what Python is to look at stays there.
    fn step(&self, py: Python<'_>, events: &mut Vec<Event>, now: f64) -> PyResult<Step> {
        match self {
            Part::PacketIntake(intake) => {
                let mut intake = intake.borrow_mut(py);
                if !events.iter().any(|event| intake.reads(event.0)) {
                    return Ok(Step::Done);
                }
                // An error is met once more by Python.
                let more = intake.fill(py);
                let python = more.is_err() || intake.has_refused();
                Ok(read(events, |descriptor| intake.reads(descriptor), more.ok(), python))
            }
            Part::DatagramIntake(intake) => {
                let mut intake = intake.borrow_mut(py);
                if !events.iter().any(|event| intake.reads(event.0)) {
                    return Ok(Step::Done);
                }
                let ready = |descriptor| events.iter().any(|event| event.0 == descriptor);
                let more = intake.fill(py, ready);
                let python = more.is_err() || intake.has_messages();
                Ok(read(events, |descriptor| intake.reads(descriptor), more.ok(), python))
            }
            Part::Worker { rings, sealer, opener, leases } => {
                let (sealer, opener) = (sealer.borrow(py), opener.borrow(py));
                let mut leases = leases.borrow_mut(py);
                for ring in rings {
                    let ring = ring.borrow(py);
                    for _ in 0..BURST {
                        let Some(record) = ring.peek() else { break };
                        let leased = if record.kind == PACKETS && record.used > 0 {
                            seal(py, &sealer, &ring, record.peer, &mut leases, now)
                        } else {
                            open(py, &opener, &ring, &mut leases, now)?
                        };
                        if !leased {
                            return Ok(Step::Python);
                        }
                    }
                }
                Ok(self.after(py))
            }
            Part::DatagramWriter(rings, writer) => {
                let mut writer = writer.borrow_mut(py);
                for ring in rings {
                    if writer.burst(&ring.borrow(py)).is_some() {
                        return Ok(Step::Python);
                    }
                }
                Ok(self.after(py))
            }
            Part::PacketWriter(rings, writer) => {
                let writer = writer.borrow(py);
                rings.iter().for_each(|ring| writer.burst(&ring.borrow(py)));
                Ok(self.after(py))
            }
            Part::None(_) => Ok(if self.has_input(py) { Step::Python } else { Step::Done }),
        }
    }

    fn after(&self, py: Python<'_>) -> Step {
        if self.has_input(py) { Step::Busy } else { Step::Done }
    }
}

/// How an intake's step ended; what it has read to the end is ready no more.
fn read(
    events: &mut Vec<Event>,
    reads: impl Fn(i32) -> bool,
    more: Option<bool>,
    python: bool,
) -> Step {
    if python {
        return Step::Python;
    }
    events.retain(|event| !reads(event.0));
    if more == Some(true) { Step::Busy } else { Step::Done }
}

/// Seal the ring's oldest records of one peer; false when it has no lease.
fn seal(
    py: Python<'_>,
    sealer: &Sealer,
    ring: &RingReader,
    peer: u64,
    leases: &mut Leases,
    now: f64,
) -> bool {
    let Some(lease) = leases.of_peer(py, peer, now) else { return false };
    let session = lease.session.borrow(py);
    let (packets, bytes) = sealer.burst(ring, &session, lease.endpoint, lease.mtu);
    sealer.counters.add(counter::SEALED, packets);
    drop(session);
    leases.note_sent(peer, packets, bytes);
    true
}

/// Open the ring's oldest records of datagrams; false when there is one that is not leased.
fn open(
    py: Python<'_>,
    opener: &Opener,
    ring: &RingReader,
    leases: &mut Leases,
    now: f64,
) -> PyResult<bool> {
    let mut holder = Holder { py, leases, now };
    let results = opener.burst(ring, &mut holder)?;
    let taken = results.records > 0;
    for received in results.received {
        let (_, packets, keepalives, _, _) = received;
        opener.counters.add(counter::OPENED, packets + keepalives);
        opener.counters.add(counter::KEEPALIVES_RECEIVED, keepalives);
        leases.note_received(received);
    }
    Ok(taken)
}

fn boottime() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one live structure.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
