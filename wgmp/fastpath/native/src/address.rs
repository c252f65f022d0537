//! Endpoints as the kernel has them: socket addresses, and control messages with the local address, the
//! traffic class and a train's segment size. As wgmp packs them: wgmp/record.py, `pack_endpoint`.

use std::mem::{size_of, zeroed};

use crate::record::Endpoint;

pub const CONTROL_BYTES: usize = 128;
const ECN_MASK: i32 = 3;
const SOL_UDP: i32 = 17;
const UDP_SEGMENT: i32 = 103;
const UDP_GRO: i32 = 104;

/// The control buffer of a message, aligned as its headers have to be.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub struct Control(pub [u8; CONTROL_BYTES]);

/// Where a train came from.
pub struct Source {
    pub endpoint: Endpoint,
    pub congestion: u8,
    pub segment: usize,
    pub truncated: bool,
}

/// Take in one control message: the local address, the traffic class, or a train's segment size.
pub fn read_control(level: i32, kind: i32, data: &[u8], source: &mut Source) {
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
pub fn put_address(name: &libc::sockaddr_storage, endpoint: &mut Endpoint) {
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

/// Unpack the receiver; return the structure's length.
pub fn get_address(endpoint: &Endpoint, name: &mut libc::sockaddr_storage) -> u32 {
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
pub fn put_control(control: &mut Control, endpoint: &Endpoint, class: i32, segment: u16) -> usize {
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
