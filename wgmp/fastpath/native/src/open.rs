//! In: records of transport datagrams become records of packets for the TUN.
//!
//! Each datagram is copied once, to where its payload would continue the super-packet that is
//! growing, and opened there. The headers then lie over the end of what came before, which is
//! kept aside meanwhile and put back:
//!
//! ```text
//! | virtio | headers | payload ........... | payload ........... |
//!                                   | headers | payload of the next |   <- opened here
//! ```

use std::rc::Rc;

use pyo3::prelude::*;

use crate::allowedips::{AllowedIPs, Routes};
use crate::coalesce::{Growing, MAX_HEADERS, Shape, Wanted};
use crate::counters::{Counters, PeerDrops};
use crate::finder::{Find, Finder, Received, Refused, Results};
use crate::layout::record::{DATAGRAMS, PACKETS};
use crate::layout::transport::{HEADER, OVERHEAD, TAG};
use crate::layout::{counter, drop};
use crate::packet::{ecn, source, true_length, virtio};
use crate::record::{Checked, Endpoint, Label, Stream};
use crate::ring::{RingReader, RingWriter, Writer};
use crate::session::Session;

/// Records taken in one call, so that others get their turn.
const BURST: usize = 8;

/// Opens into one ring. `allowed_ips`: device-wide, for inner sources. `counters`, `drops`: the
/// worker's and its peers'.
#[pyclass(unsendable, frozen)]
pub struct Opener {
    out: Rc<Writer>,
    routes: Rc<Routes>,
    pub counters: Counters,
    drops: PeerDrops,
    wanted: Wanted,
}

#[pymethods]
impl Opener {
    #[new]
    fn new(
        out: PyRef<'_, RingWriter>,
        allowed_ips: PyRef<'_, AllowedIPs>,
        counters: &Bound<'_, PyAny>,
        drops: &Bound<'_, PyAny>,
        tcp: bool,
        udp: bool,
    ) -> PyResult<Self> {
        let wanted = Wanted { tcp, udp };
        let (out, routes) = (Rc::clone(&out.0), Rc::clone(&allowed_ips.0));
        let (counters, drops) = (Counters::new(counters)?, PeerDrops::new(drops)?);
        Ok(Self { out, routes, counters, drops, wanted })
    }

    /// Open the ring's records of datagrams from the oldest on.
    ///
    /// `find(index)` returns the Session of a receiver index, or the number of the reason to drop
    /// its datagrams. Returns what each session received, in order, and what was refused.
    fn open(
        &self,
        ring: &RingReader,
        find: &Bound<'_, PyAny>,
    ) -> PyResult<(Vec<Received>, Vec<Refused>)> {
        let results = self.burst(ring, &mut Finder::new(find))?;
        Ok((results.received, results.refused))
    }
}

impl Opener {
    /// See `open`; up to a record that the finder does not take.
    pub fn burst<'py>(&self, ring: &RingReader, finder: &mut impl Find<'py>) -> PyResult<Results> {
        let label = Label { kind: PACKETS, peer: 0, flags: 0, endpoint: None };
        let mut opening = Opening {
            counters: &self.counters,
            drops: &self.drops,
            routes: &self.routes,
            out: Stream::new(&self.out, &self.counters, label),
            wanted: self.wanted,
            congestion: ecn::NOT_ECT,
            growing: None,
        };
        let mut results = Results::default();
        for _ in 0..BURST {
            let Some(record) = ring.peek() else { break };
            if record.kind != DATAGRAMS || !finder.takes(&record) {
                break;
            }
            results.records += 1;
            self.counters.add(counter::RECORDS_IN, 1);
            self.counters.add(counter::PACKETS_IN, record.lengths().len() as u64);
            self.counters.add(counter::BYTES_IN, record.used as u64);
            if record.shortest() < OVERHEAD || !matches!(record.endpoint()[0], 4 | 16) {
                self.counters.drop(drop::RING_CORRUPT, record.lengths().len() as u64);
            } else {
                opening.open_record(&record, finder, &mut results)?;
            }
            ring.release();
        }
        Ok(results)
    }
}

/// The receiver index of a transport datagram, which is long enough.
pub fn index_of(datagram: &[u8]) -> u32 {
    u32::from_le_bytes(datagram[4..8].try_into().unwrap())
}

/// How a datagram ended.
enum End {
    Packet,
    Keepalive,
    Dropped(usize),
}

struct Opening<'a> {
    counters: &'a Counters,
    drops: &'a PeerDrops,
    routes: &'a Routes,
    out: Stream<'a>,
    wanted: Wanted,
    congestion: u8,
    growing: Option<Growing>,
}

impl Opening<'_> {
    fn open_record<'py>(
        &mut self,
        record: &Checked,
        finder: &mut impl Find<'py>,
        results: &mut Results,
    ) -> PyResult<()> {
        self.congestion = match record.ecn() {
            marked @ (ecn::ECT_1 | ecn::CE) => marked,
            _ => ecn::NOT_ECT,
        };
        let endpoint = record.endpoint();
        let mut datagrams = record.packets().peekable();
        while let Some(index) = datagrams.peek().map(|datagram| index_of(datagram)) {
            // All that follow of the same session.
            let run = std::iter::from_fn(|| datagrams.next_if(|next| index_of(next) == index));
            match finder.get(index)? {
                Err(reason) => results.refused.push((index, reason, run.count() as u64)),
                Ok(session) => self.open_run(run, &session.borrow(), index, endpoint, results),
            }
        }
        self.out.flush();
        Ok(())
    }

    fn open_run<'d>(
        &mut self,
        run: impl Iterator<Item = &'d [u8]>,
        session: &Session,
        index: u32,
        endpoint: Endpoint,
        results: &mut Results,
    ) {
        let peer = session.peer;
        self.out.start(Label { kind: PACKETS, peer, flags: 0, endpoint: None });
        let (mut packets, mut keepalives, mut bytes) = (0, 0, 0);
        for datagram in run {
            let (authentic, end) = self.open_datagram(session, datagram);
            if authentic {
                bytes += datagram.len() as u64;
                if matches!(end, End::Keepalive) {
                    keepalives += 1;
                } else {
                    packets += 1;
                }
            }
            if let End::Dropped(reason) = end {
                self.counters.drop(reason, 1);
                self.drops.add(peer, reason, 1);
            }
        }
        self.finish_growing();
        if packets + keepalives == 0 {
            return;
        }
        results.receive((index, packets, keepalives, bytes, endpoint));
    }

    /// Open one datagram; return whether it was authentic and new, and how it ended.
    fn open_datagram(&mut self, session: &Session, datagram: &[u8]) -> (bool, End) {
        let counter = u64::from_le_bytes(datagram[8..HEADER].try_into().unwrap());
        let sealed = &datagram[HEADER..];
        let plain = sealed.len() - TAG;
        if plain == 0 {
            let mut tag = [0; TAG];
            tag.copy_from_slice(sealed);
            return match session.authenticate(counter, &mut tag) {
                Err(reason) => (false, End::Dropped(reason)),
                Ok(()) => (true, End::Keepalive),
            };
        }
        if self.growing.as_ref().is_some_and(|growing| !growing.may_grow(plain)) {
            self.finish_growing();
        }
        // What an opened packet needs while it is opened: its tag, and a virtio header before it.
        let needed = virtio::SIZE + plain + TAG;
        if let Some(growing) = &self.growing {
            let room = self.out.current().expect("it grows there").slot.payload().len();
            if growing.end + needed > room {
                self.finish_growing();
            }
        }
        if self.growing.is_none() && self.out.room(needed).is_none() {
            let mut aside = sealed.to_vec();
            return match session.authenticate(counter, &mut aside) {
                Err(reason) => (false, End::Dropped(reason)),
                Ok(()) => (true, End::Dropped(drop::RING_FULL)),
            };
        }
        self.open_in_place(session, counter, sealed)
    }

    fn open_in_place(&mut self, session: &Session, counter: u64, sealed: &[u8]) -> (bool, End) {
        let open = self.out.current().expect("room was made");
        let slot = open.slot;
        let memory = slot.payload();
        let plain = sealed.len() - TAG;
        // Where the packet goes, and the headers' length of the one it may continue.
        let (at, headers) = match &self.growing {
            Some(growing) => (growing.end - growing.shape.end, growing.shape.end),
            None => (open.used + virtio::SIZE, 0),
        };
        let mut aside = [0; MAX_HEADERS];
        aside[..headers].copy_from_slice(&memory[at..at + headers]);
        let place = &mut memory[at..at + sealed.len()];
        place.copy_from_slice(sealed);
        let outcome = match session.authenticate(counter, place) {
            Err(reason) => Err((false, reason)),
            Ok(()) => {
                self.check(session.peer, &mut place[..plain]).map_err(|reason| (true, reason))
            }
        };
        let length = match outcome {
            Err((authentic, reason)) => {
                memory[at..at + headers].copy_from_slice(&aside[..headers]);
                return (authentic, End::Dropped(reason));
            }
            Ok(length) => length,
        };
        let Some(growing) = &mut self.growing else {
            return (true, self.keep(length));
        };
        let mut head = [0; MAX_HEADERS];
        head[..headers].copy_from_slice(&memory[at..at + headers]);
        memory[at..at + headers].copy_from_slice(&aside[..headers]);
        let payload = at + headers..at + length.max(headers);
        if growing.join(memory, &head[..headers], &memory[payload.clone()]) {
            return (true, End::Packet);
        }
        // It is a packet of its own, behind the other.
        let behind = growing.end + virtio::SIZE;
        memory.copy_within(payload, behind + headers);
        memory[behind..behind + headers].copy_from_slice(&head[..headers]);
        self.finish_growing();
        (true, self.keep(length))
    }

    /// Take in the packet that lies behind room for a virtio header behind the open record's last.
    /// One record's datagrams are no more packets than one record has room for; if they were, they
    /// would be dropped.
    fn keep(&mut self, length: usize) -> End {
        let wanted = self.wanted;
        let Some(open) = self.out.current().filter(|open| open.has_room(virtio::SIZE + length, 1))
        else {
            return End::Dropped(drop::RING_FULL);
        };
        let start = open.used;
        let packet = &open.slot.payload()[start + virtio::SIZE..][..length];
        let shape = if self.congestion == ecn::NOT_ECT { Shape::of(packet, wanted) } else { None };
        match shape {
            Some(shape) => self.growing = Some(Growing::new(start, packet, shape)),
            None => {
                open.rest()[..virtio::SIZE].fill(0);
                open.commit(virtio::SIZE + length);
            }
        }
        End::Packet
    }

    /// Check an opened packet; return its length without padding, or why to drop it.
    fn check(&self, peer: u64, padded: &mut [u8]) -> Result<usize, usize> {
        let (Some(length), Some(source)) = (true_length(padded), source(padded)) else {
            return Err(drop::BAD_PACKET);
        };
        if self.routes.find(source) != Some(peer) {
            return Err(drop::SOURCE_NOT_ALLOWED);
        }
        if self.congestion != ecn::NOT_ECT && !ecn::decapsulate(padded, self.congestion) {
            return Err(drop::CONGESTION_NOT_ECT);
        }
        Ok(length)
    }

    /// Close the super-packet that is growing, if there is one.
    fn finish_growing(&mut self) {
        if let Some(growing) = self.growing.take() {
            let open = self.out.current().expect("it grows there");
            let length = growing.finish(open.slot.payload());
            open.commit(length);
            self.counters.add(counter::JOINED, growing.count as u64 - 1);
        }
    }
}
