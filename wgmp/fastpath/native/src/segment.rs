//! Segmentation: what a packet from the TUN stands for, written out packet by packet.
//!
//! wgmp/fastpath/segment.py has the table of fields that differ between segments.

use crate::checksum::{finish, fold, sum};
use crate::packet::{TCP, UDP, put16, put32, u16_at, u32_at, version, virtio};

const UDP_HEADER: usize = 8;
const TCP_HEADER_MIN: usize = 20;
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;
/// What segments may take in all, each rounded up to 16: the reference's memory for them.
const MOST_BYTES: usize = 1 << 18;

/// A packet from the TUN, ready to be written out as `count` packets.
pub enum Packets<'a> {
    /// One packet, whose checksum field at `field` wants the sum from `start` on, if any.
    Whole { body: &'a [u8], checksum: Option<(usize, usize)> },
    /// A super-packet.
    Super(Super<'a>),
}

pub struct Super<'a> {
    body: &'a [u8],
    version: u8,
    protocol: u8,
    l4: usize,
    end: usize,
    size: usize,
    count: usize,
    /// Folded sums of what all segments share.
    ip_sum: u32,
    pseudo_sum: u32,
    l4_header_sum: u32,
}

impl<'a> Packets<'a> {
    /// Take a packet behind its virtio header; None when it is no packet.
    pub fn of(packet: &'a [u8]) -> Option<Self> {
        let header = virtio::Header::of(packet);
        let body = &packet[virtio::SIZE..];
        if header.gso_type != virtio::GSO_NONE {
            return Super::of(&header, body).map(Self::Super);
        }
        if header.flags & virtio::NEEDS_CSUM == 0 {
            return Some(Self::Whole { body, checksum: None });
        }
        let start = usize::from(header.csum_start);
        let field = start + usize::from(header.csum_offset);
        if version(body) == 0 || field + 2 > body.len() {
            return None;
        }
        Some(Self::Whole { body, checksum: Some((start, field)) })
    }

    pub fn count(&self) -> usize {
        match self {
            Self::Whole { .. } => 1,
            Self::Super(packet) => packet.count,
        }
    }

    /// The length of packet `number` in bytes.
    #[inline]
    pub fn length(&self, number: usize) -> usize {
        match self {
            Self::Whole { body, .. } => body.len(),
            Self::Super(packet) => packet.length(number),
        }
    }

    /// Write packet `number` into `target`, which is as long as it is.
    #[inline]
    pub fn write(&self, number: usize, target: &mut [u8]) {
        match self {
            Self::Whole { body, checksum } => {
                target.copy_from_slice(body);
                if let Some((start, field)) = *checksum {
                    let mut value = finish(sum(&body[start..]));
                    let next = body[if body[0] >> 4 == 6 { 6 } else { 9 }];
                    if value == 0 && next == UDP {
                        value = 0xFFFF; // zero means "no checksum" (RFC 768)
                    }
                    put16(target, field, value);
                }
            }
            Self::Super(packet) => packet.write(number, target),
        }
    }
}

impl<'a> Super<'a> {
    fn of(header: &virtio::Header, body: &'a [u8]) -> Option<Self> {
        let l4 = usize::from(header.csum_start);
        let size = usize::from(header.gso_size);
        let kind = header.gso_type & !virtio::GSO_ECN;
        if body.len() < l4 + UDP_HEADER || l4 & 1 != 0 || body.is_empty() || size == 0 {
            return None;
        }
        let version = body[0] >> 4;
        match version {
            4 if l4 >= 20 && l4 == usize::from(body[0] & 15) * 4 => {}
            6 if l4 >= 40 => {}
            _ => return None,
        }
        let tcp = if version == 4 { virtio::GSO_TCPV4 } else { virtio::GSO_TCPV6 };
        let (protocol, end) = if kind == virtio::GSO_UDP_L4 {
            (UDP, l4 + UDP_HEADER)
        } else if kind == tcp && body.len() >= l4 + TCP_HEADER_MIN {
            (TCP, l4 + usize::from(body[l4 + 12] >> 4) * 4)
        } else {
            return None;
        };
        if end > body.len() || (protocol == TCP && end < l4 + TCP_HEADER_MIN) {
            return None;
        }
        let payload = body.len() - end;
        let count = payload.div_ceil(size).max(1);
        if count * (end + size.min(payload)).next_multiple_of(16) > MOST_BYTES {
            return None;
        }
        let addresses = if version == 4 { &body[12..20] } else { &body[8..40] };
        // Fields that differ are left out of the sums, and added for each segment.
        let ip_sum =
            if version == 4 { sum(&body[..2]) + sum(&body[6..10]) + sum(&body[12..l4]) } else { 0 };
        let l4_header_sum = if protocol == TCP {
            sum(&body[l4..l4 + 4])
                + sum(&body[l4 + 8..l4 + 12])
                + (u32::from(body[l4 + 12]) << 8)
                + sum(&body[l4 + 14..l4 + 16])
                + sum(&body[l4 + 18..end])
        } else {
            sum(&body[l4..l4 + 4])
        };
        let pseudo_sum = sum(addresses) + u32::from(protocol);
        Some(Self {
            body,
            version,
            protocol,
            l4,
            end,
            size,
            count,
            ip_sum,
            pseudo_sum,
            l4_header_sum,
        })
    }

    fn payload(&self, number: usize) -> &'a [u8] {
        let start = (self.end + number * self.size).min(self.body.len());
        &self.body[start..(start + self.size).min(self.body.len())]
    }

    fn length(&self, number: usize) -> usize {
        self.end + self.payload(number).len()
    }

    fn write(&self, number: usize, target: &mut [u8]) {
        let (l4, end) = (self.l4, self.end);
        let payload = self.payload(number);
        let length = end + payload.len();
        target[..end].copy_from_slice(&self.body[..end]);
        target[end..].copy_from_slice(payload);
        if self.version == 4 {
            let identification = u16_at(self.body, 4).wrapping_add(number as u16);
            put16(target, 2, length as u16);
            put16(target, 4, identification);
            let total = self.ip_sum + length as u32 + u32::from(identification);
            put16(target, 10, finish(total));
        } else {
            put16(target, 4, (length - 40) as u16);
        }
        let l4_length = (length - l4) as u32;
        let mut total = self.pseudo_sum + self.l4_header_sum + l4_length + sum(payload);
        if self.protocol == TCP {
            let offset = (number * self.size) as u32;
            let sequence = u32_at(self.body, l4 + 4).wrapping_add(offset);
            put32(target, l4 + 4, sequence);
            let flags = &mut target[l4 + 13];
            if number + 1 < self.count {
                *flags &= !FIN_PSH;
            }
            if number > 0 {
                *flags &= !CWR;
            }
            total += (sequence >> 16) + (sequence & 0xFFFF) + u32::from(*flags);
            put16(target, l4 + 16, finish(total));
        } else {
            put16(target, l4 + 4, l4_length as u16);
            total += l4_length;
            let value = finish(u32::from(fold(total)));
            put16(target, l4 + 6, if value == 0 { 0xFFFF } else { value });
        }
    }
}
