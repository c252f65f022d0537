//! What a role does in a turn without Python (turns.rs): the batch functions, on leased sessions.

use pyo3::prelude::*;

use crate::layout::counter;
use crate::layout::record::PACKETS;
use crate::lease::{Holder, Leases};
use crate::open::Opener;
use crate::receive::DatagramIntake;
use crate::ring::RingReader;
use crate::seal::Sealer;
use crate::send::DatagramWriter;
use crate::tun::{PacketIntake, PacketWriter};

/// Calls for one ring in one turn.
const BURST: usize = 16;

/// A descriptor, and how it is ready (poll's bits).
pub type Event = (i32, u32);

/// How a part's step ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing is left to do.
    Done,
    /// Something is left for the next turn.
    Busy,
    /// Something is left for Python.
    Python,
}

/// What a role does without Python.
pub enum Part {
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

impl Part {
    pub fn reads(&self, py: Python<'_>, descriptor: i32) -> bool {
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

    pub fn has_input(&self, py: Python<'_>) -> bool {
        self.rings().iter().any(|ring| ring.borrow(py).has_records())
    }

    /// Do a bounded amount of work. `events`: what is ready; what Python is to look at stays there.
    pub fn step(&self, py: Python<'_>, events: &mut Vec<Event>, now: f64) -> PyResult<Step> {
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
