//! Out: records of packets become records of sealed transport datagrams.

use std::rc::Rc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::counters::{Counters, PeerDrops};
use crate::layout::record::{DATAGRAMS, ENDPOINT_BYTES, PACKETS, PAYLOAD_BYTES};
use crate::layout::transport::{HEADER, OVERHEAD, PADDING, TYPE};
use crate::layout::{counter, drop};
use crate::packet::virtio;
use crate::record::{Checked, Endpoint, Label, Stream};
use crate::ring::{RingReader, RingWriter, Writer};
use crate::segment::Packets;
use crate::session::Session;

/// Records of one peer taken in one call, so that others get their turn.
const BURST: usize = 8;

/// The length of a packet once padded: to 16 bytes, not past the MTU.
fn padded_length(length: usize, mtu: usize) -> usize {
    length.max(mtu.min(length.next_multiple_of(PADDING)))
}

/// Seals into one ring. `counters`: the worker's block; `drops`: its peers'.
#[pyclass(unsendable, frozen)]
pub struct Sealer {
    out: Rc<Writer>,
    pub counters: Counters,
    drops: PeerDrops,
}

#[pymethods]
impl Sealer {
    #[new]
    fn new(
        out: PyRef<'_, RingWriter>,
        counters: &Bound<'_, PyAny>,
        drops: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let (counters, drops) = (Counters::new(counters)?, PeerDrops::new(drops)?);
        Ok(Self { out: Rc::clone(&out.0), counters, drops })
    }

    /// Seal the ring's records from the oldest on, while they are packets of the session's peer.
    ///
    /// Returns (datagrams, their bytes). It stops before a record for whose packets the session
    /// may have too few counters left.
    fn seal(
        &self,
        ring: &RingReader,
        session: &Session,
        endpoint: &[u8],
        mtu: usize,
    ) -> PyResult<(u64, u64)> {
        Ok(self.burst(ring, session, endpoint_of(endpoint)?, mtu))
    }
}

/// An endpoint as Python packs it.
pub fn endpoint_of(bytes: &[u8]) -> PyResult<Endpoint> {
    let wrong = |_| PyValueError::new_err(format!("an endpoint has {ENDPOINT_BYTES} bytes"));
    bytes.try_into().map_err(wrong)
}

impl Sealer {
    /// See `seal`.
    pub fn burst(
        &self,
        ring: &RingReader,
        session: &Session,
        endpoint: Endpoint,
        mtu: usize,
    ) -> (u64, u64) {
        let label =
            Label { kind: DATAGRAMS, peer: session.peer, flags: 0, endpoint: Some(endpoint) };
        let mut out = Stream::new(&self.out, &self.counters, label);
        let mut sealed = (0, 0);
        for _ in 0..BURST {
            let Some(record) = ring.peek() else { break };
            // A super-packet stands for fewer packets than it has bytes.
            let enough = session.left() >= record.used as u64;
            if record.kind != PACKETS || record.peer != session.peer || !enough {
                break;
            }
            self.counters.add(counter::RECORDS_IN, 1);
            self.counters.add(counter::PACKETS_IN, record.lengths().len() as u64);
            self.counters.add(counter::BYTES_IN, record.used as u64);
            out.start(Label { flags: record.flags, ..label });
            if record.shortest() < virtio::SIZE {
                self.counters.drop(drop::RING_CORRUPT, record.lengths().len() as u64);
            } else {
                let (packets, bytes) = self.seal_record(&record, session, mtu, &mut out);
                sealed.0 += packets;
                sealed.1 += bytes;
            }
            out.flush();
            ring.release();
        }
        sealed
    }

    fn seal_record(
        &self,
        record: &Checked,
        session: &Session,
        mtu: usize,
        out: &mut Stream<'_>,
    ) -> (u64, u64) {
        let mut sealed = (0, 0);
        for packet in record.packets() {
            let packets =
                Packets::of(packet).filter(|all| all.length(0) + OVERHEAD <= PAYLOAD_BYTES);
            let Some(packets) = packets else {
                self.drop(session, drop::BAD_PACKET, 1);
                continue;
            };
            self.counters.add(counter::CUT, packets.count() as u64 - 1);
            let (datagrams, bytes) = seal_packets(&packets, session, mtu, out);
            if datagrams < packets.count() as u64 {
                self.drop(session, drop::RING_FULL, packets.count() as u64 - datagrams);
            }
            sealed.0 += datagrams;
            sealed.1 += bytes;
        }
        sealed
    }

    fn drop(&self, session: &Session, reason: usize, count: u64) {
        self.counters.drop(reason, count);
        self.drops.add(session.peer, reason, count);
    }
}

/// Seal each packet behind the last one, while there is room.
fn seal_packets(
    packets: &Packets<'_>,
    session: &Session,
    mtu: usize,
    out: &mut Stream<'_>,
) -> (u64, u64) {
    let count = packets.count();
    let mut sealed = (0, 0);
    let mut number = 0;
    while number < count {
        let stride = padded_length(packets.length(number), mtu) + OVERHEAD;
        let Some(open) = out.room(stride) else { break };
        // As many counters as fit into the record are taken at once.
        let room = open.slot.payload().len() - open.used;
        let left = crate::layout::record::MAX_PACKETS - open.count;
        let batch = (count - number).min(left).min(room / stride);
        let first = session.take(batch as u64);
        for step in 0..batch {
            let length = packets.length(number + step);
            let padded = padded_length(length, mtu);
            let total = padded + OVERHEAD;
            let datagram = &mut open.rest()[..total];
            let counter = first + step as u64;
            datagram[..4].copy_from_slice(&TYPE.to_le_bytes());
            datagram[4..8].copy_from_slice(&session.remote_index.to_le_bytes());
            datagram[8..HEADER].copy_from_slice(&counter.to_le_bytes());
            let body = &mut datagram[HEADER..];
            packets.write(number + step, &mut body[..length]);
            body[length..padded].fill(0);
            session.seal(counter, body);
            open.commit(total);
            sealed.0 += 1;
            sealed.1 += total as u64;
        }
        number += batch;
    }
    sealed
}
