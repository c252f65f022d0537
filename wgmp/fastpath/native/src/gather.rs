//! Readers fill several records at once, so that packets of several peers in turn still travel in
//! records of many, and read straight into the one where the next packet most likely belongs.
//!
//! The records under way lie in the slots behind the ring's last published one, in the order of
//! their first packets; all are published together at the end of the turn. Packets of one party (a
//! peer, an endpoint) keep their order: they join the party's newest record or begin another.

use std::ops::Range;
use std::rc::Rc;

use pyo3::prelude::*;

use crate::counters::Counters;
use crate::layout::drop;
use crate::record::{Label, Open};
use crate::ring::{RingWriter, Writer};

/// A turn ends after so many records, reads or bytes: then the roles behind get theirs, before
/// the rings between are full. So many datagrams at once also fit into the socket of whoever reads
/// them at the far end, which by default holds 208 KiB of the kernel's memory.
const TURN_RECORDS: usize = 8;
const TURN_READS: usize = 64;
const TURN_BYTES: usize = 256 << 10;

/// A record with more than this in it is not read into: what does not fit had to be copied.
const LARGE_BYTES: usize = 8_192;

/// Where the next read goes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Behind the packets of a record under way.
    Record(usize, usize),
    /// Into the first slot that is not in use yet.
    Spare(usize),
    /// Into memory of our own: the ring is full.
    Spill,
}

/// The records under way for each worker's ring.
pub struct Gather {
    rings: Vec<Rc<Writer>>,
    open: Vec<Vec<Open>>,
    last: (usize, usize),
    place: Place,
    room: usize,
    spill: Box<[u8]>,
    joined: Vec<u8>,
    reads: usize,
    bytes: usize,
}

impl Gather {
    /// `longest`: what one read may bring, in bytes.
    pub fn new(rings: &[PyRef<'_, RingWriter>], longest: usize) -> Self {
        Self {
            open: rings.iter().map(|_| vec![]).collect(),
            rings: rings.iter().map(|ring| Rc::clone(&ring.0)).collect(),
            last: (0, 0),
            place: Place::Spill,
            room: 0,
            spill: vec![0; longest].into_boxed_slice(),
            joined: vec![],
            reads: 0,
            bytes: 0,
        }
    }

    /// The number of workers.
    pub fn workers(&self) -> usize {
        self.rings.len()
    }

    /// Whether this turn may read once more.
    pub fn turn(&self) -> bool {
        let records: usize = self.open.iter().map(Vec::len).sum();
        records < TURN_RECORDS && self.reads < TURN_READS && self.bytes < TURN_BYTES
    }

    /// Where to read to: two pieces, filled one after the other.
    pub fn buffers(&mut self) -> [&mut [u8]; 2] {
        self.reads += 1;
        let (ring, record) = self.last;
        self.place = match self.open[ring].get(record) {
            Some(open) if open.used <= LARGE_BYTES && open.has_room(1, 1) => {
                Place::Record(ring, record)
            }
            _ if self.has_spare(ring) => Place::Spare(ring),
            _ => Place::Spill,
        };
        let first: &mut [u8] = match self.place {
            Place::Record(ring, record) => self.open[ring][record].rest(),
            Place::Spare(ring) => self.spare(ring),
            Place::Spill => &mut [],
        };
        self.room = first.len();
        [first, &mut self.spill]
    }

    /// What was read, in one piece, valid until the next `buffers`.
    pub fn view<'v>(&mut self, length: usize) -> &'v mut [u8] {
        self.bytes += length;
        let whole: &mut [u8] = if length <= self.room {
            match self.place {
                Place::Record(ring, record) => &mut self.open[ring][record].rest()[..length],
                Place::Spare(ring) => &mut self.spare(ring)[..length],
                Place::Spill => unreachable!("it has no room"),
            }
        } else if self.room == 0 {
            &mut self.spill[..length]
        } else {
            let (room, place) = (self.room, self.place);
            self.place = Place::Spill;
            self.joined.clear();
            if let Place::Record(ring, record) = place {
                let first = self.open[ring][record].rest();
                self.joined.extend_from_slice(&first[..room]);
            }
            self.joined.extend_from_slice(&self.spill[..length - room]);
            &mut self.joined
        };
        // SAFETY: as in `buffers`; `spill` and `joined` are touched again only by the next read.
        unsafe { std::slice::from_raw_parts_mut(whole.as_mut_ptr(), whole.len()) }
    }

    /// What comes next was not read, but lies in memory of the caller's.
    pub fn bring(&mut self) {
        self.place = Place::Spill;
    }

    /// Put packets of one label, the bytes `at` of what `view` returned, into a record for `ring`;
    /// count them as drops when there is none. `lengths`: of each packet.
    pub fn put(
        &mut self,
        ring: usize,
        label: Label,
        whole: &[u8],
        at: Range<usize>,
        lengths: impl ExactSizeIterator<Item = usize>,
        counters: &Counters,
    ) {
        let (bytes, packets) = (at.len(), lengths.len());
        let newest = self.open[ring].iter().rposition(|open| open.label.is_of_party(&label));
        let fitting = newest.filter(|record| {
            let open = &self.open[ring][*record];
            open.label == label && open.has_room(bytes, packets)
        });
        let in_place = at.start == 0;
        let record = match fitting {
            Some(record) => {
                if !(in_place && self.place == Place::Record(ring, record)) {
                    move_to(self.open[ring][record].rest(), &whole[at]);
                }
                record
            }
            None if self.has_spare(ring) => {
                if !(in_place && self.place == Place::Spare(ring)) {
                    move_to(self.spare(ring), &whole[at]);
                }
                let ahead = self.open[ring].len();
                let slot = self.rings[ring].slot(ahead as u64);
                self.open[ring].push(Open::new(slot, label));
                ahead
            }
            None => {
                self.rings[ring].count_full();
                counters.drop(drop::RING_FULL, packets as u64);
                return;
            }
        };
        for length in lengths {
            self.open[ring][record].commit(length);
        }
        self.last = (ring, record);
    }

    /// End the turn: publish everything, for nothing waits for a record to fill.
    pub fn flush(&mut self, counters: &Counters) {
        for (ring, open) in self.rings.iter().zip(&mut self.open) {
            if !open.is_empty() {
                for record in open.iter() {
                    record.finish(counters);
                }
                ring.publish(open.len() as u64);
                open.clear();
            }
        }
        self.reads = 0;
        self.bytes = 0;
    }

    fn has_spare(&self, ring: usize) -> bool {
        self.rings[ring].free() > self.open[ring].len() as u64
    }

    fn spare<'r>(&self, ring: usize) -> &'r mut [u8] {
        let ahead = self.open[ring].len() as u64;
        self.rings[ring].slot(ahead).into_payload()
    }
}

/// Copy packets to the start of a record's free memory. A train that is taken apart may lie in that
/// very memory.
fn move_to(place: &mut [u8], packets: &[u8]) {
    assert!(packets.len() <= place.len());
    // SAFETY: both are at least as long as `packets`, and `copy` allows an overlap.
    unsafe { std::ptr::copy(packets.as_ptr(), place.as_mut_ptr(), packets.len()) };
}
