//! In from the UDP sockets: datagrams and trains, sorted into records for the workers.

use std::io;
use std::mem::{size_of, zeroed};
use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::address::{CONTROL_BYTES, Control, Source, put_address, read_control};
use crate::counters::Counters;
use crate::gather::Gather;
use crate::layout::record::{DATAGRAMS, ECN_SHIFT, ENDPOINT_BYTES};
use crate::layout::transport::{OVERHEAD, TYPE};
use crate::layout::{counter, drop, peers};
use crate::memory::Memory;
use crate::record::Label;
use crate::ring::RingWriter;

const LONGEST_DATAGRAM: usize = 65_535;

/// A handshake message for Python: the datagram and its packed endpoint.
type Message = (Py<PyBytes>, Py<PyBytes>);

/// Receives. `peer_table`, `index_table`: who owns a receiver index. `counters`: udp_reader's.
#[pyclass(unsendable)]
pub struct DatagramIntake {
    gather: Gather,
    peer_table: Memory,
    index_table: Memory,
    counters: Counters,
    sockets: Vec<i32>,
    /// Received, and not yet given to Python.
    messages: Vec<Message>,
}

#[pymethods]
impl DatagramIntake {
    #[new]
    fn new(
        workers: Vec<PyRef<'_, RingWriter>>,
        peer_table: &Bound<'_, PyAny>,
        index_table: &Bound<'_, PyAny>,
        counters: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        Ok(Self {
            gather: Gather::new(&workers, LONGEST_DATAGRAM),
            peer_table: Memory::of::<u8>(peer_table)?,
            index_table: Memory::of::<u8>(index_table)?,
            counters: Counters::new(counters)?,
            sockets: vec![],
            messages: vec![],
        })
    }

    /// Receive a burst from each socket, put transport data into records and publish them.
    ///
    /// Returns whether something may be left to receive, and the handshake messages, for Python
    /// to decide. Raises OSError when a socket is unusable.
    fn burst(&mut self, py: Python<'_>) -> PyResult<(bool, Vec<Message>)> {
        let more = self.fill(py, |_| true)?;
        Ok((more, std::mem::take(&mut self.messages)))
    }

    /// Whether handshake messages wait for Python to decide about them.
    #[getter]
    pub fn has_messages(&self) -> bool {
        !self.messages.is_empty()
    }

    /// Receive from these descriptors from now on.
    fn use_sockets(&mut self, sockets: Vec<i32>) {
        self.sockets = sockets;
    }
}

impl DatagramIntake {
    /// Whether this is a descriptor that is received from.
    pub fn reads(&self, descriptor: i32) -> bool {
        self.sockets.contains(&descriptor)
    }

    /// Receive a burst from each socket that is `ready` and publish it; return whether something may
    /// be left to receive.
    pub fn fill(&mut self, py: Python<'_>, ready: impl Fn(i32) -> bool) -> io::Result<bool> {
        // Which one begins changes, so that neither starves the other.
        let first = 1.min(self.sockets.len());
        self.sockets.rotate_left(first);
        let mut outcome = Ok(());
        let mut drained = 0;
        for number in 0..self.sockets.len() {
            let descriptor = self.sockets[number];
            match if ready(descriptor) { self.drain(py, descriptor) } else { Ok(true) } {
                Ok(true) => drained += 1,
                Ok(false) => {}
                Err(error) => outcome = Err(error),
            }
        }
        self.gather.flush(&self.counters);
        outcome.map(|()| drained < self.sockets.len())
    }

    /// Receive while this turn lasts; return whether nothing is left.
    fn drain(&mut self, py: Python<'_>, descriptor: i32) -> io::Result<bool> {
        while self.gather.turn() {
            let (length, source) = match receive(descriptor, self.gather.buffers()) {
                Ok(received) => received,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(true),
                    // An ICMP error that an earlier datagram met.
                    io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionRefused
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::BrokenPipe => continue,
                    _ => return Err(error),
                },
            };
            self.counters.add(counter::BYTES_IN, length as u64);
            if source.truncated {
                self.counters.add(counter::PACKETS_IN, 1);
                self.counters.drop(drop::BAD_LENGTH, 1);
                continue;
            }
            let datagrams = self.gather.view(length);
            self.take(py, datagrams, &source);
        }
        Ok(false)
    }

    /// Hand on what one call received: a train of one session as a whole, any other in parts.
    fn take(&mut self, py: Python<'_>, datagrams: &[u8], source: &Source) {
        let total = datagrams.len();
        let size = if source.segment == 0 { total } else { source.segment.min(total) };
        let count = if size == 0 { 1 } else { total.div_ceil(size) };
        self.counters.add(counter::PACKETS_IN, count as u64);
        if count > 1 {
            self.counters.add(counter::TRAINS_IN, 1);
        }
        let lengths = |number: usize| size.min(total - number * size);
        let mut number = 0;
        while number < count {
            let at = number * size;
            let datagram = &datagrams[at..at + lengths(number)];
            let run = match self.sort(datagram) {
                Ok(worker) => {
                    let head = &datagram[..8];
                    let alike = |other: &usize| {
                        let next = &datagrams[other * size..][..lengths(*other)];
                        next.len() >= OVERHEAD && &next[..8] == head
                    };
                    let run = 1 + (number + 1..count).take_while(alike).count();
                    self.enter(worker, datagrams, size, number..number + run, source);
                    run
                }
                Err(0) => {
                    let endpoint = PyBytes::new(py, &source.endpoint).unbind();
                    self.messages.push((PyBytes::new(py, datagram).unbind(), endpoint));
                    1
                }
                Err(reason) => {
                    self.counters.drop(reason, 1);
                    1
                }
            };
            number += run;
        }
    }

    /// The worker that a transport datagram is for; Err(0): a handshake message; else the reason
    /// to drop it.
    fn sort(&self, datagram: &[u8]) -> Result<usize, usize> {
        let Some((kind, rest)) = datagram.split_first_chunk::<4>() else {
            return Err(drop::BAD_LENGTH);
        };
        match (u32::from_le_bytes(*kind), datagram.len()) {
            (TYPE, length) if length >= OVERHEAD => {}
            (1, 148) | (2, 92) | (3, 64) => return Err(0),
            (1..=3 | TYPE, _) => return Err(drop::BAD_LENGTH),
            _ => return Err(drop::BAD_TYPE),
        }
        let index = u32::from_le_bytes(rest[..4].try_into().unwrap());
        let entry = self.index_table.word(index as usize & (peers::INDEX_ENTRIES - 1));
        let entry = entry.load(Ordering::Acquire);
        let row = (entry >> 32) as usize;
        if entry as u32 != index || row == 0 || row > peers::ROWS {
            return Err(drop::UNKNOWN_INDEX);
        }
        let owner = self.peer_table.word((row - 1) * peers::ROW_WORDS + peers::OWNER);
        let worker = owner.load(Ordering::Acquire) as usize;
        if worker < self.gather.workers() { Ok(worker) } else { Err(drop::UNKNOWN_INDEX) }
    }

    fn enter(
        &mut self,
        worker: usize,
        datagrams: &[u8],
        size: usize,
        numbers: std::ops::Range<usize>,
        source: &Source,
    ) {
        let total = datagrams.len();
        let at = numbers.start * size..(numbers.end * size).min(total);
        let flags = u32::from(source.congestion) << ECN_SHIFT;
        let label = Label { kind: DATAGRAMS, peer: 0, flags, endpoint: Some(source.endpoint) };
        let lengths = numbers.map(|number| size.min(total - number * size));
        self.gather.put(worker, label, datagrams, at, lengths, &self.counters);
    }
}

fn receive(descriptor: i32, buffers: [&mut [u8]; 2]) -> io::Result<(usize, Source)> {
    let [first, second] = buffers;
    let mut pieces = [
        libc::iovec { iov_base: first.as_mut_ptr().cast(), iov_len: first.len() },
        libc::iovec { iov_base: second.as_mut_ptr().cast(), iov_len: second.len() },
    ];
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: both are plain C structures, for which zeros are valid.
    let (mut name, mut header): (libc::sockaddr_storage, libc::msghdr) = unsafe { zeroed() };
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
    header.msg_iov = pieces.as_mut_ptr();
    header.msg_iovlen = pieces.len();
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES as _;
    // SAFETY: the header names live, exclusive memory of the lengths given.
    let length = unsafe { libc::recvmsg(descriptor, &raw mut header, 0) };
    let Ok(length) = usize::try_from(length) else { return Err(io::Error::last_os_error()) };
    let mut source = Source {
        endpoint: [0; ENDPOINT_BYTES],
        congestion: 0,
        segment: 0,
        truncated: header.msg_flags & libc::MSG_TRUNC != 0,
    };
    put_address(&name, &mut source.endpoint);
    // SAFETY: the kernel filled the control buffer, and CMSG_* keep within msg_controllen. Data of
    // a control message is read unaligned, and only as many bytes as its length says.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            let bytes = (*message).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
            let data = std::slice::from_raw_parts(libc::CMSG_DATA(message), bytes);
            read_control((*message).cmsg_level, (*message).cmsg_type, data, &mut source);
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    Ok((length, source))
}
