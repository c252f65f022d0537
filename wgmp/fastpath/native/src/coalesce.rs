//! Coalescing: consecutive packets of one flow become one super-packet for the TUN.
//!
//! wgmp/fastpath/coalesce.py has the conditions. Here they are tried one packet at a time, against
//! the super-packet that is growing.

use crate::checksum::{fold, sum};
use crate::packet::{TCP, UDP, put16, u16_at, u32_at, virtio};

const MAX_PACKET_BYTES: usize = 65_535;
/// Linux before 6.9 takes no more of UDP, newer ones 128 (linux/udp.h, UDP_MAX_SEGMENTS).
const MAX_UDP_SEGMENTS: usize = 64;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const VALID: u16 = 0xFFFF;
/// The longest headers of a packet that may be coalesced: IPv6, and TCP with all options.
pub const MAX_HEADERS: usize = 100;

/// Of which protocols super-packets may be made.
#[derive(Clone, Copy)]
pub struct Wanted {
    pub tcp: bool,
    pub udp: bool,
}

/// The headers of a packet that may be coalesced. `l4`: offset; `end`: header bytes in all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    version: u8,
    protocol: u8,
    l4: usize,
    pub end: usize,
}

impl Shape {
    /// None when the packet may not be coalesced. `packet`: without padding.
    pub fn of(packet: &[u8], wanted: Wanted) -> Option<Self> {
        let (version, protocol, l4) = if packet.len() >= 28 && packet[0] == 0x45 {
            if packet[6] & 0x3F != 0 || packet[7] != 0 {
                return None; // more fragments, or an offset
            }
            (4, packet[9], 20)
        } else if packet.len() >= 48 && packet[0] >> 4 == 6 {
            (6, packet[6], 40)
        } else {
            return None;
        };
        let end = match protocol {
            UDP if wanted.udp => l4 + 8,
            TCP if wanted.tcp && packet.len() >= l4 + 20 => {
                let flags = packet[l4 + 13];
                let end = l4 + usize::from(packet[l4 + 12] >> 4) * 4;
                if end < l4 + 20 || flags & !PSH != ACK {
                    return None;
                }
                end
            }
            _ => return None,
        };
        (end < packet.len()).then_some(Self { version, protocol, l4, end })
    }

    /// Whether lengths and checksums of a packet of this shape are what they should be.
    fn is_valid(&self, head: &[u8], payload: &[u8]) -> bool {
        let l4 = self.l4;
        let addresses = if self.version == 4 {
            if fold(sum(&head[..20])) != VALID {
                return false;
            }
            &head[12..20]
        } else {
            &head[8..40]
        };
        let l4_length = head.len() - l4 + payload.len();
        if self.protocol == UDP
            && (usize::from(u16_at(head, l4 + 4)) != l4_length || u16_at(head, l4 + 6) == 0)
        {
            return false;
        }
        let pseudo = sum(addresses) + u32::from(self.protocol) + l4_length as u32;
        // Headers have an even length, so the payload's words begin where the sum's do.
        fold(sum(&head[l4..]) + sum(payload) + pseudo) == VALID
    }
}

/// A super-packet that grows in the memory `of` a record, from its virtio header at `start` on.
pub struct Growing {
    pub start: usize,
    pub end: usize,
    pub shape: Shape,
    /// Packets in it.
    pub count: usize,
    /// Bytes of the first packet.
    length: usize,
    /// Whether the first packet has been found valid, if it has been looked at.
    valid: Option<bool>,
    last_flags: u8,
    /// The last packet was shorter or had PSH: nothing may follow it.
    complete: bool,
}

impl Growing {
    /// Begin with a packet of `shape` that lies behind room for its virtio header.
    pub fn new(start: usize, packet: &[u8], shape: Shape) -> Self {
        let last_flags = if shape.protocol == TCP { packet[shape.l4 + 13] } else { 0 };
        Self {
            start,
            end: start + virtio::SIZE + packet.len(),
            shape,
            count: 1,
            length: packet.len(),
            valid: None,
            last_flags,
            complete: last_flags & PSH != 0,
        }
    }

    /// Whether a packet of `longest` bytes could still join.
    pub fn may_grow(&self, longest: usize) -> bool {
        let total = self.end - self.start - virtio::SIZE;
        !self.complete && total - self.shape.end + longest <= MAX_PACKET_BYTES
    }

    /// Take in the packet that continues this one, if it does. `memory`: the record's, where the
    /// first packet lies; `head`: as much of the packet as the first one has headers; `payload`:
    /// what follows, where it would have to lie.
    pub fn join(&mut self, memory: &[u8], head: &[u8], payload: &[u8]) -> bool {
        let shape = self.shape;
        let first = &memory[self.start + virtio::SIZE..][..self.length];
        let (first_head, first_payload) = first.split_at(shape.end);
        if payload.is_empty() || !self.continues(first_head, head, payload.len()) {
            return false;
        }
        let first_valid =
            *self.valid.get_or_insert_with(|| shape.is_valid(first_head, first_payload));
        if !first_valid || !shape.is_valid(head, payload) {
            return false;
        }
        if shape.protocol == TCP {
            self.last_flags = head[shape.l4 + 13];
        }
        self.count += 1;
        self.end += payload.len();
        self.complete = payload.len() < first_payload.len()
            || self.last_flags & PSH != 0
            || (shape.protocol == UDP && self.count == MAX_UDP_SEGMENTS);
        true
    }

    /// Whether every header field is equal or follows, compared with the first packet's.
    fn continues(&self, first: &[u8], head: &[u8], payload: usize) -> bool {
        let Shape { version, protocol, l4, end } = self.shape;
        let length = end + payload;
        if length > self.length || self.total() + payload > MAX_PACKET_BYTES {
            return false;
        }
        let same = |from: usize, to: usize| first[from..to] == head[from..to];
        let ip_follows = if version == 4 {
            usize::from(u16_at(head, 2)) == length
                && u16_at(head, 4) == u16_at(first, 4).wrapping_add(self.count as u16)
                && same(0, 2)
                && same(6, 10)
                && same(12, 20)
        } else {
            usize::from(u16_at(head, 4)) == length - 40 && same(0, 4) && same(6, 40)
        };
        if !ip_follows {
            return false;
        }
        if protocol == TCP {
            let before = (self.count * (self.length - end)) as u32;
            u32_at(head, l4 + 4) == u32_at(first, l4 + 4).wrapping_add(before)
                && head[l4 + 13] & !PSH == ACK
                && same(l4, l4 + 4)
                && same(l4 + 8, l4 + 13)
                && same(l4 + 14, l4 + 16)
                && same(l4 + 18, end)
        } else {
            same(l4, l4 + 4)
        }
    }

    /// Bytes of the packet without its virtio header.
    fn total(&self) -> usize {
        self.end - self.start - virtio::SIZE
    }

    /// Write virtio header and headers; return the length of it all.
    pub fn finish(&self, memory: &mut [u8]) -> usize {
        let total = self.total();
        let whole = &mut memory[self.start..self.end];
        if self.count == 1 {
            whole[..virtio::SIZE].fill(0);
            return whole.len();
        }
        let Shape { version, protocol, l4, end } = self.shape;
        let (gso_type, field) = match (protocol, version) {
            (TCP, 4) => (virtio::GSO_TCPV4, 16),
            (TCP, _) => (virtio::GSO_TCPV6, 16),
            _ => (virtio::GSO_UDP_L4, 6),
        };
        virtio::Header {
            flags: virtio::NEEDS_CSUM,
            gso_type,
            hdr_len: end as u16,
            gso_size: (self.length - end) as u16,
            csum_start: l4 as u16,
            csum_offset: field as u16,
        }
        .put(whole);
        let packet = &mut whole[virtio::SIZE..];
        let addresses = if version == 4 {
            put16(packet, 2, total as u16);
            put16(packet, 10, 0);
            let checksum = !fold(sum(&packet[..20]));
            put16(packet, 10, checksum);
            sum(&packet[12..20])
        } else {
            put16(packet, 4, (total - 40) as u16);
            sum(&packet[8..40])
        };
        if protocol == TCP {
            packet[l4 + 13] = self.last_flags;
        } else {
            put16(packet, l4 + 4, (total - l4) as u16);
        }
        let pseudo = addresses + u32::from(protocol) + (total - l4) as u32;
        put16(packet, l4 + field, fold(pseudo));
        whole.len()
    }
}
