//! What must be known of an inner packet, and the virtio header before it
//! (wgmp/protocol/ip.py, wgmp/protocol/ecn.py, wgmp/fastpath/virtio.py).

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;

/// 4 or 6 when the packet has a whole header of that version, else 0.
#[inline]
pub fn version(packet: &[u8]) -> u8 {
    match packet.first().map(|byte| byte >> 4) {
        Some(4) if packet.len() >= 20 => 4,
        Some(6) if packet.len() >= 40 => 6,
        _ => 0,
    }
}

/// An address of either family.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Address {
    V4(u32),
    V6(u128),
}

impl Address {
    /// 4 or 16 bytes, else None.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.len() {
            4 => Some(Self::V4(u32::from_be_bytes(bytes.try_into().ok()?))),
            16 => Some(Self::V6(u128::from_be_bytes(bytes.try_into().ok()?))),
            _ => None,
        }
    }
}

#[inline]
pub fn source(packet: &[u8]) -> Option<Address> {
    match version(packet) {
        4 => Address::of(&packet[12..16]),
        6 => Address::of(&packet[8..24]),
        _ => None,
    }
}

#[inline]
pub fn destination(packet: &[u8]) -> Option<Address> {
    match version(packet) {
        4 => Address::of(&packet[16..20]),
        6 => Address::of(&packet[24..40]),
        _ => None,
    }
}

#[inline]
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
pub fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[inline]
pub fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

/// A packet's length without its padding; None when it promises more than there is.
#[inline]
pub fn true_length(padded: &[u8]) -> Option<usize> {
    let (length, least) = match version(padded) {
        4 => (usize::from(u16_at(padded, 2)), 20),
        6 => (40 + usize::from(u16_at(padded, 4)), 40),
        _ => return None,
    };
    (least <= length && length <= padded.len()).then_some(length)
}

/// Explicit congestion notification through the tunnel (RFC 6040).
pub mod ecn {
    pub const NOT_ECT: u8 = 0;
    pub const ECT_1: u8 = 1;
    pub const ECT_0: u8 = 2;
    pub const CE: u8 = 3;

    /// The field of an IP packet with a whole header.
    pub fn of_packet(packet: &[u8]) -> u8 {
        (if packet[0] >> 4 == 4 { packet[1] } else { packet[1] >> 4 }) & 3
    }

    /// Combine the outer field into a packet's own; false: the packet has to be dropped.
    pub fn decapsulate(packet: &mut [u8], outer: u8) -> bool {
        let inner = of_packet(packet);
        if outer == CE && inner == NOT_ECT {
            return false;
        }
        if !(outer == CE || (outer == ECT_1 && inner == ECT_0)) || inner == outer {
            return true;
        }
        let changed = inner ^ outer;
        if packet[0] >> 4 == 6 {
            packet[1] ^= changed << 4;
            return true;
        }
        packet[1] ^= changed;
        // RFC 1624, equation 3, modulo 0xFFFF, where the complement of m is -m.
        let checksum = u32::from(super::u16_at(packet, 10));
        let total = (0xFFFF - checksum) + 0xFFFF + u32::from(outer) - u32::from(inner);
        let rest = total % 0xFFFF;
        let corrected = 0xFFFF - if rest == 0 { 0xFFFF } else { rest };
        super::put16(packet, 10, corrected as u16);
        true
    }
}

/// The virtio_net_hdr (linux/virtio_net.h), in host byte order.
pub mod virtio {
    pub const SIZE: usize = 10;
    pub const NEEDS_CSUM: u8 = 1;
    pub const GSO_NONE: u8 = 0;
    pub const GSO_TCPV4: u8 = 1;
    pub const GSO_TCPV6: u8 = 4;
    pub const GSO_UDP_L4: u8 = 5;
    pub const GSO_ECN: u8 = 0x80;

    #[derive(Clone, Copy, Default)]
    pub struct Header {
        pub flags: u8,
        pub gso_type: u8,
        pub hdr_len: u16,
        pub gso_size: u16,
        pub csum_start: u16,
        pub csum_offset: u16,
    }

    impl Header {
        /// The header at the start of at least SIZE bytes.
        pub fn of(bytes: &[u8]) -> Self {
            let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
            Self {
                flags: bytes[0],
                gso_type: bytes[1],
                hdr_len: word(2),
                gso_size: word(4),
                csum_start: word(6),
                csum_offset: word(8),
            }
        }

        pub fn put(&self, bytes: &mut [u8]) {
            bytes[0] = self.flags;
            bytes[1] = self.gso_type;
            bytes[2..4].copy_from_slice(&self.hdr_len.to_ne_bytes());
            bytes[4..6].copy_from_slice(&self.gso_size.to_ne_bytes());
            bytes[6..8].copy_from_slice(&self.csum_start.to_ne_bytes());
            bytes[8..10].copy_from_slice(&self.csum_offset.to_ne_bytes());
        }

        /// The length of the longest packet that `packet`, behind this header, becomes.
        pub fn wire_length(&self, packet: &[u8]) -> usize {
            let start = usize::from(self.csum_start);
            if self.gso_type == GSO_NONE || start + 12 >= packet.len() {
                return packet.len();
            }
            let tcp = self.gso_type != GSO_UDP_L4;
            let l4_header = if tcp { usize::from(packet[start + 12] >> 4) * 4 } else { 8 };
            packet.len().min(start + l4_header + usize::from(self.gso_size))
        }
    }
}
