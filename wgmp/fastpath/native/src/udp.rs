//! The UDP sockets: datagrams and trains in, sorted into records for the workers; records out.

use std::collections::HashSet;
use std::io;
use std::mem::{size_of, zeroed};
use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::counters::Counters;
use crate::gather::Gather;
use crate::layout::record::{
    DATAGRAMS, ECN_SHIFT, ENDPOINT_BYTES, HANDSHAKE, MAX_TRAIN_BYTES, MAX_TRAIN_DATAGRAMS,
};
use crate::layout::transport::{OVERHEAD, TYPE};
use crate::layout::{counter, drop, peers};
use crate::memory::Memory;
use crate::record::{Checked, Endpoint, Label};
use crate::ring::{RingReader, RingWriter};

const LONGEST_DATAGRAM: usize = 65_535;
/// Records sent from one ring in one call.
const BURST: usize = 16;
/// System calls' arguments: a record is at most four trains of 64.
const MESSAGES: usize = 64;
const CONTROL_BYTES: usize = 128;
/// DSCP AF41 on handshake datagrams (kernel messages.h, HANDSHAKE_DSCP).
const HANDSHAKE_TRAFFIC_CLASS: i32 = 0x88;
const ECN_MASK: i32 = 3;
const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;
const UDP_GRO: i32 = 104;

/// The control buffer of a message, aligned as its headers have to be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_BYTES]);

/// A handshake message for Python: the datagram and its packed endpoint.
type Message<'py> = (Bound<'py, PyBytes>, Bound<'py, PyBytes>);

/// Receives. `peer_table`, `index_table`: who owns a receiver index. `counters`: udp_reader's.
#[pyclass(unsendable)]
pub struct DatagramIntake {
    gather: Gather,
    peer_table: Memory,
    index_table: Memory,
    counters: Counters,
}

/// Where a train came from.
struct Source {
    endpoint: Endpoint,
    congestion: u8,
    segment: usize,
    truncated: bool,
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
        })
    }

    /// Receive a burst from each socket, put transport data into records and publish them.
    ///
    /// Returns whether something may be left to receive, and the handshake messages, for Python
    /// to decide. Raises OSError when a socket is unusable.
    fn burst<'py>(
        &mut self,
        py: Python<'py>,
        sockets: Vec<i32>,
    ) -> PyResult<(bool, Vec<Message<'py>>)> {
        let mut messages = vec![];
        let mut outcome = Ok(());
        let mut drained = 0;
        for descriptor in &sockets {
            match self.drain(py, *descriptor, &mut messages) {
                Ok(true) => drained += 1,
                Ok(false) => {}
                Err(error) => outcome = Err(error),
            }
        }
        self.gather.flush(&self.counters);
        outcome?;
        Ok((drained < sockets.len(), messages))
    }
}

impl DatagramIntake {
    /// Receive while this turn lasts; return whether nothing is left.
    fn drain<'py>(
        &mut self,
        py: Python<'py>,
        descriptor: i32,
        messages: &mut Vec<Message<'py>>,
    ) -> io::Result<bool> {
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
            self.take(py, datagrams, &source, messages);
        }
        Ok(false)
    }

    /// Hand on what one call received: a train of one session as a whole, any other in parts.
    fn take<'py>(
        &mut self,
        py: Python<'py>,
        datagrams: &[u8],
        source: &Source,
        messages: &mut Vec<Message<'py>>,
    ) {
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
                    let endpoint = PyBytes::new(py, &source.endpoint);
                    messages.push((PyBytes::new(py, datagram), endpoint));
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

/// Take in one control message: the local address, the traffic class, or a train's segment size.
fn read_control(level: i32, kind: i32, data: &[u8], source: &mut Source) {
    let endpoint = &mut source.endpoint;
    match (level, kind) {
        // struct in_pktinfo: interface, address to answer from, destination.
        (libc::IPPROTO_IP, libc::IP_PKTINFO) if data.len() >= 8 => {
            endpoint[1] = 4;
            endpoint[8..12].copy_from_slice(&data[..4]);
            endpoint[28..32].copy_from_slice(&data[4..8]);
        }
        // struct in6_pktinfo: address, interface.
        (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) if data.len() >= 20 => {
            endpoint[1] = 16;
            endpoint[8..12].copy_from_slice(&data[16..20]);
            endpoint[28..44].copy_from_slice(&data[..16]);
        }
        (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
            // One byte or an int: little-endian machines have the field first either way.
            let value = match data.len() {
                4.. => i32::from_ne_bytes(data[..4].try_into().unwrap()),
                0 => 0,
                _ => i32::from(data[0]),
            };
            source.congestion = (value & ECN_MASK) as u8;
        }
        (SOL_UDP, UDP_GRO) if data.len() >= 4 => {
            let size = i32::from_ne_bytes(data[..4].try_into().unwrap());
            source.segment = usize::try_from(size).unwrap_or(0);
        }
        _ => {}
    }
}

/// Pack the sender: wgmp/record.py, `pack_endpoint`.
fn put_address(name: &libc::sockaddr_storage, endpoint: &mut Endpoint) {
    let name: *const libc::sockaddr_storage = name;
    // SAFETY: the family says which structure lies in the storage, which is large enough for both.
    unsafe {
        match i32::from((*name).ss_family) {
            libc::AF_INET => {
                let name = &*name.cast::<libc::sockaddr_in>();
                endpoint[0] = 4;
                endpoint[2..4].copy_from_slice(&u16::from_be(name.sin_port).to_le_bytes());
                endpoint[12..16].copy_from_slice(&name.sin_addr.s_addr.to_ne_bytes());
            }
            libc::AF_INET6 => {
                let name = &*name.cast::<libc::sockaddr_in6>();
                endpoint[0] = 16;
                endpoint[2..4].copy_from_slice(&u16::from_be(name.sin6_port).to_le_bytes());
                endpoint[4..8].copy_from_slice(&name.sin6_scope_id.to_le_bytes());
                endpoint[12..28].copy_from_slice(&name.sin6_addr.s6_addr);
            }
            _ => {}
        }
    }
}

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
    /// Datagrams of the first waiting record that are on their way already.
    sent: usize,
}

#[pymethods]
impl DatagramWriter {
    /// `v4`, `v6`: the sockets' descriptors, -1 for none.
    #[new]
    fn new(v4: i32, v6: i32, segments: bool, counters: &Bound<'_, PyAny>) -> PyResult<Self> {
        let counters = Counters::new(counters)?;
        Ok(Self { v4, v6, segments, counters, single_only: HashSet::new(), sent: 0 })
    }

    /// Go on with other sockets. What is on its way of the first record stays.
    fn use_sockets(&mut self, v4: i32, v6: i32) {
        (self.v4, self.v6) = (v4, v6);
        self.single_only.clear();
    }

    /// Routes changed: what was too narrow for a train may be wide enough now.
    fn forget_paths(&mut self) {
        self.single_only.clear();
    }

    /// Send some of the ring's records; return the descriptor to wait for if a socket is full.
    ///
    /// Then the same ring has to come first in the next call.
    fn burst(&mut self, ring: &RingReader) -> Option<i32> {
        for _ in 0..BURST {
            let record = ring.peek()?;
            if let Some(blocked) = self.send(&record) {
                return Some(blocked);
            }
            self.sent = 0;
            self.counters.add(counter::RECORDS_IN, 1);
            self.counters.add(counter::PACKETS_IN, record.lengths().len() as u64);
            self.counters.add(counter::BYTES_IN, record.used as u64);
            ring.release();
        }
        None
    }
}

impl DatagramWriter {
    /// Send a record's datagrams from the first unsent one on.
    fn send(&mut self, record: &Checked) -> Option<i32> {
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
            let messages = plan(record.lengths(), self.sent, trains);
            let first = messages.first()?;
            match transmit(descriptor, record.payload(), &messages, &endpoint, traffic_class) {
                Ok(count) => {
                    again = true;
                    for message in &messages[..count] {
                        self.sent += message.count;
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
                    self.sent += first.count;
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
    let mut controls = [Control([0; CONTROL_BYTES]); MESSAGES];
    // SAFETY: as above.
    let mut pieces: [libc::iovec; MESSAGES] = unsafe { zeroed() };
    // SAFETY: as above.
    let mut headers: [libc::mmsghdr; MESSAGES] = unsafe { zeroed() };
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

/// Unpack the receiver; return the structure's length.
fn get_address(endpoint: &Endpoint, name: &mut libc::sockaddr_storage) -> u32 {
    let port = u16::from_le_bytes([endpoint[2], endpoint[3]]).to_be();
    let name: *mut libc::sockaddr_storage = name;
    // SAFETY: the storage is large enough and aligned for either structure.
    unsafe {
        if endpoint[0] == 4 {
            let name = &mut *name.cast::<libc::sockaddr_in>();
            name.sin_family = libc::AF_INET as u16;
            name.sin_port = port;
            name.sin_addr.s_addr = u32::from_ne_bytes(endpoint[12..16].try_into().unwrap());
            size_of::<libc::sockaddr_in>() as u32
        } else {
            let name = &mut *name.cast::<libc::sockaddr_in6>();
            name.sin6_family = libc::AF_INET6 as u16;
            name.sin6_port = port;
            name.sin6_scope_id = u32::from_le_bytes(endpoint[4..8].try_into().unwrap());
            name.sin6_addr.s6_addr = endpoint[12..28].try_into().unwrap();
            size_of::<libc::sockaddr_in6>() as u32
        }
    }
}

/// Write the control messages: the local address to send from, the traffic class, and a train's
/// segment size. Returns their length.
fn put_control(control: &mut Control, endpoint: &Endpoint, class: i32, segment: u16) -> usize {
    let mut used = 0;
    let mut put = |level: i32, kind: i32, data: &[u8]| {
        // SAFETY: CMSG_LEN and CMSG_SPACE only compute.
        let (length, space) = unsafe {
            (libc::CMSG_LEN(data.len() as u32) as usize, libc::CMSG_SPACE(data.len() as u32))
        };
        // SAFETY: plain C structure.
        let mut header: libc::cmsghdr = unsafe { zeroed() };
        header.cmsg_level = level;
        header.cmsg_type = kind;
        header.cmsg_len = length as _;
        let place = &mut control.0[used..used + space as usize];
        let start = length - data.len();
        // SAFETY: a header's bytes, all of which were set (zeroed above).
        let bytes = unsafe {
            std::slice::from_raw_parts((&raw const header).cast::<u8>(), size_of_val(&header))
        };
        place[..bytes.len()].copy_from_slice(bytes);
        place[start..start + data.len()].copy_from_slice(data);
        used += space as usize;
    };
    match endpoint[1] {
        // Naming the interface too would take the peer to be on its link, and lose the datagram
        // where routes to and from the peer differ.
        4 => {
            let mut info = [0; 12];
            info[4..8].copy_from_slice(&endpoint[28..32]);
            put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
        }
        16 => {
            let mut info = [0; 20];
            info[..16].copy_from_slice(&endpoint[28..44]);
            info[16..].copy_from_slice(&endpoint[8..12]);
            put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        }
        _ => {}
    }
    if class != 0 && endpoint[0] == 4 {
        put(libc::IPPROTO_IP, libc::IP_TOS, &class.to_ne_bytes());
    } else if class != 0 {
        put(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &class.to_ne_bytes());
    }
    if segment != 0 {
        put(SOL_UDP, UDP_SEGMENT, &segment.to_ne_bytes());
    }
    used
}
