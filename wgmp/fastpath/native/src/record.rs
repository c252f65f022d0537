//! Records in slots: read after a check of every length, written one packet behind the other.

use crate::counters::Counters;
use crate::layout::counter;
use crate::layout::record as at;
use crate::memory::Piece;
use crate::ring::Writer;

/// An endpoint as it lies in shared memory: wgmp/record.py, `pack_endpoint`.
pub type Endpoint = [u8; at::ENDPOINT_BYTES];

/// One slot of a ring.
#[derive(Clone, Copy)]
pub struct Slot(Piece);

impl Slot {
    pub fn new(piece: Piece) -> Self {
        Self(piece)
    }

    fn u32(&self, offset: usize) -> u32 {
        let bytes = self.0.bytes();
        u32::from_ne_bytes(bytes[offset..offset + 4].try_into().unwrap())
    }

    fn set_u32(&self, offset: usize, value: u32) {
        self.0.bytes()[offset..offset + 4].copy_from_slice(&value.to_ne_bytes());
    }

    /// The payload. It belongs to whoever holds the slot (`Piece::bytes`).
    #[allow(clippy::mut_from_ref)]
    pub fn payload(&self) -> &mut [u8] {
        &mut self.0.bytes()[at::PAYLOAD..]
    }

    /// The same, for as long as the caller's ring lives.
    pub fn into_payload<'r>(self) -> &'r mut [u8] {
        &mut self.0.into_bytes()[at::PAYLOAD..]
    }

    pub fn endpoint(&self) -> Endpoint {
        self.0.bytes()[at::ENDPOINT..at::ENDPOINT + at::ENDPOINT_BYTES].try_into().unwrap()
    }
}

/// A record that waits to be read. Its header and lengths were copied, then checked.
pub struct Checked {
    slot: Slot,
    pub kind: u32,
    pub flags: u32,
    pub peer: u64,
    pub used: usize,
    count: usize,
    lengths: [u32; at::MAX_PACKETS],
}

impl Checked {
    /// Return the slot's record, or None when its lengths do not fit the slot.
    pub fn of(slot: Slot) -> Option<Self> {
        let count = slot.u32(at::COUNT) as usize;
        let used = slot.u32(at::USED) as usize;
        if count > at::MAX_PACKETS || used > slot.payload().len() {
            return None;
        }
        let mut lengths = [0; at::MAX_PACKETS];
        let stored = &slot.0.bytes()[at::LENGTHS..at::LENGTHS + 4 * count];
        let mut sum = 0usize;
        for (length, bytes) in lengths.iter_mut().zip(stored.as_chunks::<4>().0) {
            *length = u32::from_ne_bytes(*bytes);
            sum += *length as usize;
        }
        if sum != used {
            return None;
        }
        let peer = slot.0.bytes()[at::PEER..at::PEER + 8].try_into().unwrap();
        Some(Self {
            slot,
            kind: slot.u32(at::KIND),
            flags: slot.u32(at::FLAGS),
            peer: u64::from_ne_bytes(peer),
            used,
            count,
            lengths,
        })
    }

    pub fn lengths(&self) -> &[u32] {
        &self.lengths[..self.count]
    }

    pub fn payload(&self) -> &[u8] {
        &self.slot.payload()[..self.used]
    }

    pub fn endpoint(&self) -> Endpoint {
        self.slot.endpoint()
    }

    pub fn shortest(&self) -> usize {
        self.lengths().iter().min().map_or(0, |length| *length as usize)
    }

    pub fn ecn(&self) -> u8 {
        (self.flags >> at::ECN_SHIFT & 3) as u8
    }

    /// The packets, in order.
    pub fn packets(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.payload();
        self.lengths().iter().map(move |length| {
            let (packet, behind) = rest.split_at(*length as usize);
            rest = behind;
            packet
        })
    }
}

/// What the packets of one record have in common.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Label {
    pub kind: u32,
    pub peer: u64,
    pub flags: u32,
    pub endpoint: Option<Endpoint>,
}

impl Label {
    /// Whether both are of one party, whose packets have to keep their order.
    pub fn is_of_party(&self, other: &Self) -> bool {
        self.peer == other.peer && self.endpoint == other.endpoint
    }
}

/// A record that is being written, in the slot `ahead` of a ring's last published one.
pub struct Open {
    pub slot: Slot,
    pub label: Label,
    pub count: usize,
    pub used: usize,
}

impl Open {
    pub fn new(slot: Slot, label: Label) -> Self {
        Self { slot, label, count: 0, used: 0 }
    }

    /// Whether so many more packets with so many more bytes fit.
    pub fn has_room(&self, bytes: usize, packets: usize) -> bool {
        self.count + packets <= at::MAX_PACKETS && bytes <= self.slot.payload().len() - self.used
    }

    /// The memory behind the packets so far.
    pub fn rest<'r>(&mut self) -> &'r mut [u8] {
        &mut self.slot.into_payload()[self.used..]
    }

    /// Count the next `length` bytes of `rest` as a packet.
    pub fn commit(&mut self, length: usize) {
        assert!(self.has_room(length, 1));
        self.slot.set_u32(at::LENGTHS + 4 * self.count, length as u32);
        self.count += 1;
        self.used += length;
    }

    /// Write the header, before the ring publishes the slot; count the record as gone out.
    pub fn finish(&self, counters: &Counters) {
        let Label { kind, peer, flags, endpoint } = self.label;
        self.slot.set_u32(at::KIND, kind);
        self.slot.set_u32(at::COUNT, self.count as u32);
        self.slot.set_u32(at::USED, self.used as u32);
        self.slot.set_u32(at::FLAGS, flags);
        let bytes = self.slot.0.bytes();
        bytes[at::PEER..at::PEER + 8].copy_from_slice(&peer.to_ne_bytes());
        if let Some(endpoint) = endpoint {
            bytes[at::ENDPOINT..at::ENDPOINT + at::ENDPOINT_BYTES].copy_from_slice(&endpoint);
        }
        counters.add(counter::RECORDS_OUT, 1);
        counters.add(counter::PACKETS_OUT, self.count as u64);
        counters.add(counter::BYTES_OUT, self.used as u64);
    }
}

/// Records for one ring, one at a time: opened when needed, published when full or flushed.
pub struct Stream<'a> {
    ring: &'a Writer,
    counters: &'a Counters,
    label: Label,
    open: Option<Open>,
}

impl<'a> Stream<'a> {
    pub fn new(ring: &'a Writer, counters: &'a Counters, label: Label) -> Self {
        Self { ring, counters, label, open: None }
    }

    /// Let the records to come have this label.
    pub fn start(&mut self, label: Label) {
        if label != self.label {
            self.flush();
            self.label = label;
            if let Some(open) = &mut self.open {
                open.label = label; // it is empty
            }
        }
    }

    /// The open record with room for a packet of `bytes`, or None when the ring is full.
    pub fn room(&mut self, bytes: usize) -> Option<&mut Open> {
        if self.open.as_ref().is_some_and(|open| !open.has_room(bytes, 1)) {
            self.flush();
        }
        if self.open.is_none() {
            if self.ring.free() == 0 {
                self.ring.count_full();
                return None;
            }
            self.open = Some(Open::new(self.ring.slot(0), self.label));
        }
        self.open.as_mut().filter(|open| open.has_room(bytes, 1))
    }

    /// The record that `room` opened, if it has not been published.
    pub fn current(&mut self) -> Option<&mut Open> {
        self.open.as_mut()
    }

    /// Publish the open record, unless it is empty.
    pub fn flush(&mut self) {
        if let Some(open) = self.open.take_if(|open| open.count > 0) {
            open.finish(self.counters);
            self.ring.publish(1);
        }
    }
}
