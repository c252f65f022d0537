//! The TUN: packets in, routed into records for the workers; packets out.

use std::io;
use std::rc::Rc;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::allowedips::{AllowedIPs, Routes};
use crate::counters::Counters;
use crate::gather::Gather;
use crate::layout::record::{ECN_SHIFT, PACKETS};
use crate::layout::{counter, drop, peers};
use crate::memory::Memory;
use crate::packet::{destination, ecn, virtio};
use crate::record::Label;
use crate::ring::{RingReader, RingWriter};

const LONGEST_PACKET: usize = 65_535;
/// Records written from one ring in one call.
const BURST: usize = 16;

/// Reads the TUN. `virtio`: whether the kernel puts a virtio header before each packet.
/// `peer_table`: whose rows name the owners. `counters`: the tun_reader's.
#[pyclass(unsendable)]
pub struct PacketIntake {
    descriptor: i32,
    virtio: bool,
    gather: Gather,
    peer_table: Memory,
    counters: Counters,
    routes: Rc<Routes>,
    /// Packets that a turn without Python has read, for it to look at.
    refused: Vec<Py<PyBytes>>,
    /// The longest packet that goes through, in bytes.
    #[pyo3(get, set)]
    mtu: usize,
}

#[pymethods]
impl PacketIntake {
    #[new]
    fn new(
        descriptor: i32,
        virtio: bool,
        workers: Vec<PyRef<'_, RingWriter>>,
        peer_table: &Bound<'_, PyAny>,
        routes: PyRef<'_, AllowedIPs>,
        counters: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        Ok(Self {
            descriptor,
            virtio,
            gather: Gather::new(&workers, virtio::SIZE + LONGEST_PACKET),
            peer_table: Memory::of::<u8>(peer_table)?,
            counters: Counters::new(counters)?,
            routes: Rc::clone(&routes.0),
            refused: vec![],
            mtu: LONGEST_PACKET,
        })
    }

    /// Read a burst of packets into records and publish them.
    ///
    /// Returns whether something may be left to read; and the packets that are none, have no route
    /// or are longer than the MTU, for Python to decide. Raises OSError when the device is gone.
    fn burst(&mut self, py: Python<'_>) -> PyResult<(bool, Vec<Py<PyBytes>>)> {
        let more = self.fill(py)?;
        Ok((more, std::mem::take(&mut self.refused)))
    }

    /// Put a packet that was refused, behind its virtio header, into a record for its peer.
    fn put(&mut self, peer: u64, packet: &[u8]) {
        self.gather.bring();
        self.enter(peer, packet);
        self.gather.flush(&self.counters);
    }
}

impl PacketIntake {
    /// Whether this is the descriptor that is read.
    pub fn reads(&self, descriptor: i32) -> bool {
        self.descriptor == descriptor
    }

    /// Whether packets wait for Python to look at them.
    pub fn has_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Read and publish a burst; return whether something may be left to read.
    pub fn fill(&mut self, py: Python<'_>) -> io::Result<bool> {
        let mut outcome = Ok(true);
        while self.gather.turn() {
            match self.read() {
                Ok(length) => {
                    let packet = self.gather.view(length);
                    if !self.take(packet) {
                        self.refused.push(PyBytes::new(py, packet).unbind());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    outcome = Ok(false);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
        self.gather.flush(&self.counters);
        outcome
    }

    /// Read one packet behind its virtio header, or behind zeros in its place.
    fn read(&mut self) -> io::Result<usize> {
        let [first, second] = self.gather.buffers();
        let skipped = if self.virtio { 0 } else { virtio::SIZE };
        let (into_first, into_second) = if first.is_empty() {
            second[..skipped].fill(0);
            (&mut [][..], &mut second[skipped..])
        } else {
            first[..skipped].fill(0);
            (&mut first[skipped..], second)
        };
        let pieces = [
            libc::iovec { iov_base: into_first.as_mut_ptr().cast(), iov_len: into_first.len() },
            libc::iovec { iov_base: into_second.as_mut_ptr().cast(), iov_len: into_second.len() },
        ];
        // SAFETY: both pieces are live, exclusive memory of the lengths given.
        let length = unsafe { libc::readv(self.descriptor, pieces.as_ptr(), 2) };
        match usize::try_from(length) {
            Ok(length) => Ok(skipped + length),
            Err(_) => Err(io::Error::last_os_error()),
        }
    }

    /// Hand on one packet; return false when Python has to look at it.
    fn take(&mut self, packet: &[u8]) -> bool {
        let body = packet.get(virtio::SIZE..).unwrap_or(&[]);
        self.counters.add(counter::PACKETS_IN, 1);
        self.counters.add(counter::BYTES_IN, body.len() as u64);
        let Some(peer) = destination(body).and_then(|address| self.routes.find(address)) else {
            return false;
        };
        if body.len() > self.mtu && virtio::Header::of(packet).wire_length(body) > self.mtu {
            return false;
        }
        self.enter(peer, packet);
        true
    }

    fn enter(&mut self, peer: u64, packet: &[u8]) {
        let congestion = ecn::of_packet(&packet[virtio::SIZE..]);
        let flags = u32::from(congestion) << ECN_SHIFT;
        let label = Label { kind: PACKETS, peer, flags, endpoint: None };
        let row = (peer & peers::ROW_MASK) as usize;
        let owner = self.peer_table.word(row * peers::ROW_WORDS + peers::OWNER);
        let worker = owner.load(std::sync::atomic::Ordering::Acquire) as usize;
        if worker >= self.gather.workers() {
            self.counters.drop(drop::RING_CORRUPT, 1);
            return;
        }
        let all = 0..packet.len();
        self.gather.put(worker, label, packet, all, [packet.len()].into_iter(), &self.counters);
    }
}

/// Writes to the TUN. `counters`: the tun_writer's.
#[pyclass(unsendable, frozen)]
pub struct PacketWriter {
    descriptor: i32,
    virtio: bool,
    counters: Counters,
}

#[pymethods]
impl PacketWriter {
    #[new]
    fn new(descriptor: i32, virtio: bool, counters: &Bound<'_, PyAny>) -> PyResult<Self> {
        Ok(Self { descriptor, virtio, counters: Counters::new(counters)? })
    }

    /// Write the packets of some of the ring's records. What the kernel refuses is counted.
    pub fn burst(&self, ring: &RingReader) {
        for _ in 0..BURST {
            let Some(record) = ring.peek() else { return };
            self.counters.add(counter::RECORDS_IN, 1);
            self.counters.add(counter::PACKETS_IN, record.lengths().len() as u64);
            self.counters.add(counter::BYTES_IN, record.used as u64);
            for packet in record.packets() {
                let skipped = if self.virtio { 0 } else { virtio::SIZE.min(packet.len()) };
                let written = &packet[skipped..];
                // SAFETY: reads from a live slice of the length given.
                let length =
                    unsafe { libc::write(self.descriptor, written.as_ptr().cast(), written.len()) };
                if length < 0 {
                    self.counters.drop(drop::WRITE_FAILED, 1);
                } else {
                    self.counters.add(counter::PACKETS_OUT, 1);
                    self.counters.add(counter::BYTES_OUT, packet.len() as u64);
                }
            }
            ring.release();
        }
    }
}
