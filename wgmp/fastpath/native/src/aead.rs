//! The AEAD of transport data, ChaCha20-Poly1305 (RFC 8439): `ring`'s, or ipsec-mb's where an
//! operator asks for it. This is the only place that knows that there are two.
//!
//! Both work in place and compare tags in constant time. ipsec-mb is used only after it has sealed,
//! opened and refused packets of all lengths as `ring` does.

use std::rc::Rc;
use std::sync::Arc;

use pyo3::exceptions::{PyImportError, PyValueError};
use pyo3::prelude::*;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use subtle::ConstantTimeEq;

use crate::ipsec_mb::{Direction, IpsecMb, KEY, Manager, NONCE};
use crate::layout::transport::TAG;

/// The lengths at which the two are compared: all of which a packet mostly is, and some longer.
const COMPARED_TO: usize = 2048;
const COMPARED_BEYOND: [usize; 4] = [4096, 9000, 16_385, 65_500];
/// Bytes around a packet that nobody may touch; packets begin anywhere in a cache line.
const MARGIN: usize = 64;

/// One of the two, ready to be used.
#[pyclass(frozen)]
pub struct Aead(Which);

enum Which {
    Ring,
    IpsecMb(Arc<IpsecMb>),
}

#[pymethods]
impl Aead {
    /// That of `ring`.
    #[staticmethod]
    fn ring() -> Self {
        Self(Which::Ring)
    }

    /// That of ipsec-mb, from the library `file`. Raises ImportError: why it cannot be used here.
    #[staticmethod]
    fn ipsec_mb(file: &str) -> PyResult<Self> {
        Self::checked_ipsec_mb(file).map_err(PyImportError::new_err)
    }

    /// What it is, with a version if that may be another tomorrow.
    #[getter]
    fn name(&self) -> String {
        match &self.0 {
            Which::Ring => "ring".to_string(),
            Which::IpsecMb(library) => format!("ipsec-mb {}", library.version),
        }
    }

    /// Return the sealed packet, for tests.
    fn seal(&self, key: &[u8], counter: u64, packet: &[u8]) -> PyResult<Vec<u8>> {
        let mut sealed = [packet, &[0; TAG]].concat();
        self.key(key_bytes(key)?).seal(counter, &mut sealed);
        Ok(sealed)
    }

    /// Return the opened packet, None when its tag does not fit, for tests.
    fn open(&self, key: &[u8], counter: u64, sealed: &[u8]) -> PyResult<Option<Vec<u8>>> {
        let mut opened = sealed.to_vec();
        let fits = self.key(key_bytes(key)?).open(counter, &mut opened);
        opened.truncate(sealed.len().saturating_sub(TAG));
        Ok(fits.then_some(opened))
    }

    /// Seal, or open, `count` times `length` bytes and do nothing else: what benchmarks compare with.
    fn repeat(&self, length: usize, count: usize, opening: bool) -> PyResult<()> {
        let key = self.key(&[0; KEY]);
        let mut sealed = vec![0; length + TAG];
        if !opening {
            (0..count as u64).for_each(|counter| key.seal(counter, &mut sealed));
            return Ok(());
        }
        key.seal(0, &mut sealed);
        let mut scratch = sealed.clone();
        for _ in 0..count {
            scratch.copy_from_slice(&sealed);
            if !key.open(0, &mut scratch) {
                return Err(PyValueError::new_err("it does not open what it sealed"));
            }
        }
        Ok(())
    }
}

impl Aead {
    fn checked_ipsec_mb(file: &str) -> Result<Self, String> {
        let library = Arc::new(IpsecMb::load(file)?);
        Manager::of_thread(&library)?;
        let loaded = Self(Which::IpsecMb(library));
        compare(&loaded, &Self::ring())?;
        Ok(loaded)
    }

    /// A key ready for use.
    pub fn key(&self, bytes: &[u8; KEY]) -> Key {
        match &self.0 {
            Which::Ring => {
                let key = UnboundKey::new(&CHACHA20_POLY1305, bytes).expect("it has 32 bytes");
                Key::Ring(LessSafeKey::new(key))
            }
            Which::IpsecMb(library) => {
                let manager = Manager::of_thread(library).expect("it was made before");
                Key::IpsecMb(manager, *bytes)
            }
        }
    }
}

/// A key as Python hands it over.
pub fn key_bytes(bytes: &[u8]) -> PyResult<&[u8; KEY]> {
    bytes.try_into().map_err(|_| PyValueError::new_err("a key has 32 bytes"))
}

/// A key of one direction.
#[allow(clippy::large_enum_variant)] // A session has two, and they are used for each packet.
pub enum Key {
    Ring(LessSafeKey),
    IpsecMb(Rc<Manager>, [u8; KEY]),
}

fn nonce(counter: u64) -> [u8; NONCE] {
    let mut bytes = [0; NONCE];
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    bytes
}

impl Key {
    /// Seal a packet in place; its tag goes into the last TAG bytes.
    #[inline]
    pub fn seal(&self, counter: u64, packet_and_tag: &mut [u8]) {
        let nonce = nonce(counter);
        let (packet, tag) = packet_and_tag.split_at_mut(packet_and_tag.len() - TAG);
        match self {
            Key::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                let sealed = key
                    .seal_in_place_separate_tag(nonce, Aad::empty(), packet)
                    .expect("a packet is much shorter than what ChaCha20-Poly1305 can seal");
                tag.copy_from_slice(sealed.as_ref());
            }
            Key::IpsecMb(manager, key) => {
                tag.copy_from_slice(&manager.run(Direction::Encrypt, key, &nonce, packet));
            }
        }
    }

    /// Open a sealed packet in place; false when its tag does not fit: then it is all zeros.
    #[inline]
    pub fn open(&self, counter: u64, sealed: &mut [u8]) -> bool {
        let nonce = nonce(counter);
        let Some(length) = sealed.len().checked_sub(TAG) else {
            sealed.fill(0);
            return false;
        };
        let fits = match self {
            Key::Ring(key) => {
                let nonce = Nonce::assume_unique_for_key(nonce);
                key.open_in_place(nonce, Aad::empty(), sealed).is_ok()
            }
            Key::IpsecMb(manager, key) => {
                let (packet, tag) = sealed.split_at_mut(length);
                manager.run(Direction::Decrypt, key, &nonce, packet)[..].ct_eq(tag).into()
            }
        };
        if !fits {
            sealed.fill(0);
        }
        fits
    }
}

/// Seal, open and refuse packets with `one`; Err: what it does otherwise than `other`.
fn compare(one: &Aead, other: &Aead) -> Result<(), String> {
    let mut noise = vec![0; 1 << 17];
    other.key(&[0; KEY]).seal(0, &mut noise);
    for length in (0..=COMPARED_TO).chain(COMPARED_BEYOND) {
        let secret = noise[length..].first_chunk().expect("noise goes beyond every packet");
        let counter = u64::from_le_bytes(*secret.first_chunk().expect("it has 32"));
        let (one, other) = (one.key(secret), other.key(secret));
        let whole = &noise[..length + TAG + 2 * MARGIN];
        let begin = length % MARGIN;
        let (tag, end) = (begin + length, begin + length + TAG);

        let mut sealed = whole.to_vec();
        other.seal(counter, &mut sealed[begin..end]);
        let mut bytes = whole.to_vec();
        one.seal(counter, &mut bytes[begin..end]);
        if bytes != sealed {
            return Err(format!("it does not seal {length} bytes as ring does"));
        }
        let opened = one.open(counter, &mut bytes[begin..end]);
        if !opened || bytes[..tag] != whole[..tag] || bytes[end..] != whole[end..] {
            return Err(format!("it does not open {length} bytes as ring does"));
        }
        let spoiled = begin + counter as usize % (length + TAG);
        sealed[spoiled] ^= 1 << (counter >> 61);
        if one.open(counter, &mut sealed[begin..end]) {
            return Err(format!("it opens {length} bytes whose tag does not fit"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 4096;

    /// A page between two that nobody may touch; it is never unmapped.
    fn guarded_page() -> &'static mut [u8] {
        let anonymous = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new memory, of which the middle page alone is made accessible and returned.
        unsafe {
            let start =
                libc::mmap(std::ptr::null_mut(), 3 * PAGE, libc::PROT_NONE, anonymous, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            let page = start.byte_add(PAGE);
            assert_eq!(libc::mprotect(page, PAGE, libc::PROT_READ | libc::PROT_WRITE), 0);
            std::slice::from_raw_parts_mut(page.cast(), PAGE)
        }
    }

    #[test]
    fn memory_around_a_packet_is_not_touched() {
        let aead = match Aead::checked_ipsec_mb("libIPSec_MB.so.1") {
            Ok(aead) => aead,
            Err(missing) => return println!("skipped: {missing}"),
        };
        let key = aead.key(&[7; KEY]);
        let page = guarded_page();
        for length in 0..=COMPARED_TO {
            let total = length + TAG;
            for place in [0..total, PAGE - total..PAGE] {
                key.seal(1, &mut page[place.clone()]);
                assert!(key.open(1, &mut page[place.clone()]));
                assert!(!key.open(2, &mut page[place]));
            }
        }
    }
}
