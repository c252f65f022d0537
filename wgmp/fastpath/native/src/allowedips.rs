//! Allowed IPs by longest match, for the whole device: wgmp/protocol/allowedips.py, faster.
//!
//! The same shape: one table per prefix length in use, probed from the longest down. The answer
//! found last is kept, for packets come in runs.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::packet::Address;

/// Prefixes are hashed by one multiplication. Their choice is the operator's, not a stranger's.
#[derive(Default)]
struct PrefixHasher(u64);

impl Hasher for PrefixHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.write_u64(u64::from(number));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 29);
    }

    fn write_u128(&mut self, number: u128) {
        self.write_u64(number as u64);
        self.write_u64((number >> 64) as u64);
    }
}

type Table<K> = HashMap<K, u64, BuildHasherDefault<PrefixHasher>>;

/// Per prefix length: bits to shift out, and {prefix: owner}; the longest first.
struct Family<K>(Vec<(u32, Table<K>)>);

impl<K: Copy + Eq + std::hash::Hash> Family<K> {
    fn insert(&mut self, shift: u32, prefix: K, owner: u64) {
        let at = match self.0.binary_search_by_key(&shift, |(shift, _)| *shift) {
            Ok(at) => at,
            Err(at) => {
                self.0.insert(at, (shift, Table::default()));
                at
            }
        };
        self.0[at].1.insert(prefix, owner);
    }

    fn remove(&mut self, shift: u32, prefix: K, owner: u64) {
        if let Ok(at) = self.0.binary_search_by_key(&shift, |(shift, _)| *shift) {
            let table = &mut self.0[at].1;
            if table.get(&prefix) == Some(&owner) {
                table.remove(&prefix);
            }
            if table.is_empty() {
                self.0.remove(at);
            }
        }
    }

    fn sweep(&mut self, gone: &HashSet<u64>) {
        for (_, table) in &mut self.0 {
            table.retain(|_, owner| !gone.contains(owner));
            table.shrink_to_fit();
        }
        self.0.retain(|(_, table)| !table.is_empty());
    }

    fn lookup(&self, key: impl Fn(u32) -> K) -> Option<u64> {
        self.0.iter().find_map(|(shift, table)| table.get(&key(*shift)).copied())
    }
}

fn shr32(number: u32, shift: u32) -> u32 {
    number.checked_shr(shift).unwrap_or(0)
}

fn shr128(number: u128, shift: u32) -> u128 {
    number.checked_shr(shift).unwrap_or(0)
}

struct Tables {
    v4: Family<u32>,
    v6: Family<u128>,
    /// Owners that have gone; their prefixes are swept out before the next lookup.
    gone: HashSet<u64>,
}

impl Tables {
    fn sweep(&mut self) {
        if !self.gone.is_empty() {
            self.v4.sweep(&self.gone);
            self.v6.sweep(&self.gone);
            self.gone.clear();
        }
    }
}

/// The table as Python holds it; what looks things up here shares it. Addresses are packed: 4 bytes
/// (IPv4) or 16 (IPv6).
#[pyclass(unsendable, frozen)]
pub struct AllowedIPs(pub Rc<Routes>);

pub struct Routes {
    tables: RefCell<Tables>,
    last: Cell<Option<(Address, Option<u64>)>>,
}

fn parse(network: &[u8], length: u32) -> PyResult<(Address, u32)> {
    let address =
        Address::of(network).ok_or_else(|| PyValueError::new_err("a network has 4 bytes or 16"))?;
    let shift = (network.len() as u32 * 8)
        .checked_sub(length)
        .ok_or_else(|| PyValueError::new_err("the prefix is longer than the address"))?;
    Ok((address, shift))
}

#[pymethods]
impl AllowedIPs {
    #[new]
    fn new() -> Self {
        let tables = Tables { v4: Family(vec![]), v6: Family(vec![]), gone: HashSet::new() };
        Self(Rc::new(Routes { tables: RefCell::new(tables), last: Cell::new(None) }))
    }

    fn insert(&self, network: &[u8], length: u32, owner: u64) -> PyResult<()> {
        let (address, shift) = parse(network, length)?;
        self.0.last.set(None);
        let mut tables = self.0.tables.borrow_mut();
        if tables.gone.contains(&owner) {
            tables.sweep();
        }
        match address {
            Address::V4(number) => tables.v4.insert(shift, shr32(number, shift), owner),
            Address::V6(number) => tables.v6.insert(shift, shr128(number, shift), owner),
        }
        Ok(())
    }

    fn remove(&self, network: &[u8], length: u32, owner: u64) -> PyResult<()> {
        let (address, shift) = parse(network, length)?;
        self.0.last.set(None);
        let mut tables = self.0.tables.borrow_mut();
        match address {
            Address::V4(number) => tables.v4.remove(shift, shr32(number, shift), owner),
            Address::V6(number) => tables.v6.remove(shift, shr128(number, shift), owner),
        }
        Ok(())
    }

    fn remove_owner(&self, owner: u64) {
        self.0.last.set(None);
        self.0.tables.borrow_mut().gone.insert(owner);
    }

    fn lookup(&self, address: &[u8]) -> PyResult<Option<u64>> {
        let (address, _) = parse(address, 0)?;
        Ok(self.0.find(address))
    }
}

impl Routes {
    /// The owner of the longest prefix that holds the address.
    #[inline]
    pub fn find(&self, address: Address) -> Option<u64> {
        match self.last.get() {
            Some((last, owner)) if last == address => owner,
            _ => self.search(address),
        }
    }

    fn search(&self, address: Address) -> Option<u64> {
        let mut tables = self.tables.borrow_mut();
        tables.sweep();
        let owner = match address {
            Address::V4(number) => tables.v4.lookup(|shift| shr32(number, shift)),
            Address::V6(number) => tables.v6.lookup(|shift| shr128(number, shift)),
        };
        self.last.set(Some((address, owner)));
        owner
    }
}
