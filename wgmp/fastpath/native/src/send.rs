//! Out to the UDP sockets: records of datagrams, as trains where they may be.

use std::cell::Cell;
use std::collections::HashSet;
use std::io;
use std::mem::zeroed;

use pyo3::prelude::*;

use crate::address::{CONTROL_BYTES, Control, get_address, put_control};
use crate::counters::Counters;
use crate::layout::record::{HANDSHAKE, MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS};
use crate::layout::{counter, drop};
use crate::record::{Checked, Endpoint};
use crate::ring::RingReader;

/// Records sent from one ring in one call.
const BURST: usize = 16;
/// Messages of one system call: a record is at most four trains of 64.
const MESSAGES: usize = 64;
/// DSCP AF41 on handshake datagrams (kernel messages.h, HANDSHAKE_DSCP).
const HANDSHAKE_TRAFFIC_CLASS: i32 = 0x88;

/// One datagram, or a train of `count` that the kernel cuts at `segment` bytes.
struct Outgoing {
    at: usize,
    bytes: usize,
    segment: u16,
    count: usize,
}

/// Sends. `segments`: whether trains go in one message; off for good when the kernel says that it
/// cannot. `counters`: udp_writer's.
#[pyclass(unsendable)]
pub struct DatagramWriter {
    v4: i32,
    v6: i32,
    #[pyo3(get)]
    segments: bool,
    counters: Counters,
    /// Endpoints behind a path too narrow for a train: the kernel never fragments those.
    single_only: HashSet<Endpoint>,
}

#[pymethods]
impl DatagramWriter {
    /// `v4`, `v6`: the sockets' descriptors, -1 for none.
    #[new]
    fn new(v4: i32, v6: i32, segments: bool, counters: &Bound<'_, PyAny>) -> PyResult<Self> {
        let counters = Counters::new(counters)?;
        Ok(Self { v4, v6, segments, counters, single_only: HashSet::new() })
    }

    /// Go on with other sockets.
    fn use_sockets(&mut self, v4: i32, v6: i32) {
        (self.v4, self.v6) = (v4, v6);
        self.single_only.clear();
    }

    /// Routes changed: what was too narrow for a train may be wide enough now.
    fn forget_paths(&mut self) {
        self.single_only.clear();
    }

    /// Send some of the ring's records; return the descriptor to wait for if a socket is full.
    pub fn burst(&mut self, ring: &RingReader) -> Option<i32> {
        for _ in 0..BURST {
            let record = ring.peek()?;
            if let Some(blocked) = self.send(&record, &ring.begun) {
                return Some(blocked);
            }
            ring.begun.set(0);
            self.counters.add(counter::RECORDS_IN, 1);
            self.counters.add(counter::PACKETS_IN, record.lengths().len() as u64);
            self.counters.add(counter::BYTES_IN, record.used as u64);
            ring.release();
        }
        None
    }
}

impl DatagramWriter {
    /// Send a record's datagrams from the first unsent one on; `begun` tells how many were.
    fn send(&mut self, record: &Checked, begun: &Cell<usize>) -> Option<i32> {
        let mut endpoint = record.endpoint();
        let descriptor = match endpoint[0] {
            4 if matches!(endpoint[1], 0 | 4) => self.v4,
            16 if matches!(endpoint[1], 0 | 16) => self.v6,
            _ => {
                self.counters.drop(drop::NO_ENDPOINT, record.lengths().len() as u64);
                return None;
            }
        };
        let traffic_class = if record.flags & HANDSHAKE != 0 {
            HANDSHAKE_TRAFFIC_CLASS
        } else {
            i32::from(record.ecn())
        };
        let mut again = true;
        loop {
            let trains = self.segments && !self.single_only.contains(&record.endpoint());
            let messages = plan(record.lengths(), begun.get(), trains);
            let first = messages.first()?;
            match transmit(descriptor, record.payload(), &messages, &endpoint, traffic_class) {
                Ok(count) => {
                    again = true;
                    for message in &messages[..count] {
                        begun.update(|begun| begun + message.count);
                        self.counters.add(counter::PACKETS_OUT, message.count as u64);
                        self.counters.add(counter::BYTES_OUT, message.bytes as u64);
                    }
                }
                Err(libc::EAGAIN) => return Some(descriptor),
                Err(libc::EINTR) => {}
                // An ICMP error that an earlier datagram met; this one was not sent because of it.
                Err(libc::ECONNREFUSED | libc::ECONNRESET | libc::ECONNABORTED | libc::EPIPE)
                    if again =>
                {
                    again = false;
                }
                Err(libc::EIO) if first.segment > 0 => self.segments = false,
                Err(libc::EINVAL | libc::EMSGSIZE) if first.segment > 0 => {
                    self.single_only.insert(record.endpoint());
                }
                // The local address may have gone: the kernel chooses another.
                Err(_) if endpoint[1] != 0 => {
                    endpoint[1] = 0;
                    endpoint[8..12].fill(0);
                    endpoint[28..].fill(0);
                }
                Err(_) => {
                    self.counters.drop(drop::SEND_FAILED, first.count as u64);
                    begun.update(|begun| begun + first.count);
                }
            }
        }
    }
}

/// Lay datagrams out as messages, from number `first` on: trains of one length where `trains` may
/// be, of which the last may be shorter.
fn plan(lengths: &[u32], first: usize, trains: bool) -> Vec<Outgoing> {
    let mut messages = Vec::with_capacity(4);
    let mut number = first.min(lengths.len());
    let mut at: usize = lengths[..number].iter().map(|length| *length as usize).sum();
    while number < lengths.len() && messages.len() < MESSAGES {
        let size = lengths[number] as usize;
        let (mut bytes, mut count) = (size, 1);
        while trains && number + count < lengths.len() && count < MAX_TRAIN_DATAGRAMS {
            let next = lengths[number + count] as usize;
            if next > size || next == 0 || bytes + next > MAX_TRAIN_BYTES {
                break;
            }
            bytes += next;
            count += 1;
            if next < size {
                break;
            }
        }
        let segment = if count > 1 { size as u16 } else { 0 };
        messages.push(Outgoing { at, bytes, segment, count });
        at += bytes;
        number += count;
    }
    messages
}

/// Send messages to one endpoint; return how many went, or the error that the first one met.
fn transmit(
    descriptor: i32,
    payload: &[u8],
    messages: &[Outgoing],
    endpoint: &Endpoint,
    traffic_class: i32,
) -> Result<usize, i32> {
    if descriptor < 0 {
        return Err(libc::EAFNOSUPPORT);
    }
    // SAFETY: plain C structures, for which zeros are valid.
    let mut name: libc::sockaddr_storage = unsafe { zeroed() };
    let name_bytes = get_address(endpoint, &mut name);
    // Nearly always there are one to four.
    let mut controls = vec![Control([0; CONTROL_BYTES]); messages.len()];
    // SAFETY: as above.
    let mut pieces = vec![unsafe { zeroed::<libc::iovec>() }; messages.len()];
    // SAFETY: as above.
    let mut headers = vec![unsafe { zeroed::<libc::mmsghdr>() }; messages.len()];
    for (number, message) in messages.iter().enumerate() {
        let part = &payload[message.at..message.at + message.bytes];
        pieces[number].iov_base = part.as_ptr().cast_mut().cast();
        pieces[number].iov_len = part.len();
        let header = &mut headers[number].msg_hdr;
        header.msg_name = (&raw mut name).cast();
        header.msg_namelen = name_bytes;
        header.msg_iov = &raw mut pieces[number];
        header.msg_iovlen = 1;
        let control = &mut controls[number];
        let used = put_control(control, endpoint, traffic_class, message.segment);
        if used > 0 {
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = used as _;
        }
    }
    // SAFETY: the first `messages.len()` headers name live memory of the lengths given, which the
    // kernel only reads.
    let count =
        unsafe { libc::sendmmsg(descriptor, headers.as_mut_ptr(), messages.len() as u32, 0) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(0))
}
