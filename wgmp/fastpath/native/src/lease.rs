//! Leases: the sessions that whole turns may go on with, and until when, without asking Python.
//!
//! The worker grants one for a peer that it has just served, when nothing about the peer's current
//! session has to be decided for a while (wgmp/worker/transport.py), and takes it back before
//! anything about the peer changes. What happened under it is noted for the peer's timers.

use std::collections::HashMap;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::finder::{Find, Received};
use crate::layout::peers;
use crate::layout::transport::OVERHEAD;
use crate::memory::Memory;
use crate::open::index_of;
use crate::record::{Checked, Endpoint};
use crate::seal::endpoint_of;
use crate::session::Session;

/// What happened under a lease: (peer, packets sent, packets received, keepalives received, whether
/// sending came last).
type Work = (u64, u64, u64, u64, bool);

/// Whoever holds one may seal for the peer and send to `endpoint`, and open what comes from there.
pub struct Lease {
    pub session: Py<Session>,
    pub endpoint: Endpoint,
    pub mtu: usize,
    index: u32,
    until: f64,
    work: Work,
}

/// All that one worker has granted. `peer_table`: whose rows say how many bytes went each way.
#[pyclass(unsendable)]
pub struct Leases {
    peer_table: Memory,
    by_peer: HashMap<u64, Lease>,
    by_index: HashMap<u32, u64>,
    worked: Vec<u64>,
}

#[pymethods]
impl Leases {
    #[new]
    fn new(peer_table: &Bound<'_, PyAny>) -> PyResult<Self> {
        let peer_table = Memory::of::<u8>(peer_table)?;
        if peer_table.len() < peers::ROWS * peers::ROW_WORDS * 8 {
            return Err(PyValueError::new_err("not the rows of all peers"));
        }
        let (by_peer, by_index) = (HashMap::new(), HashMap::new());
        Ok(Self { peer_table, by_peer, by_index, worked: vec![] })
    }

    /// Grant one until the time `until`, instead of the peer's last one. `index`: our receiver
    /// index of the session; `endpoint`: packed.
    fn grant(
        &mut self,
        session: Py<Session>,
        py: Python<'_>,
        index: u32,
        endpoint: &[u8],
        mtu: usize,
        until: f64,
    ) -> PyResult<()> {
        let endpoint = endpoint_of(endpoint)?;
        let peer = session.borrow(py).peer;
        self.revoke(peer);
        let work = (peer, 0, 0, 0, false);
        self.by_peer.insert(peer, Lease { session, endpoint, mtu, index, until, work });
        self.by_index.insert(index, peer);
        Ok(())
    }

    /// Take the peer's lease back, if it has one.
    fn revoke(&mut self, peer: u64) {
        if let Some(lease) = self.by_peer.remove(&peer) {
            self.by_index.remove(&lease.index);
        }
    }

    /// Take all of them back.
    fn clear(&mut self) {
        self.by_peer.clear();
        self.by_index.clear();
    }

    /// Return what happened since the last call, for each peer of which anything did.
    fn settle(&mut self) -> Vec<Work> {
        let mut all = Vec::with_capacity(self.worked.len());
        for peer in self.worked.drain(..) {
            if let Some(lease) = self.by_peer.get_mut(&peer) {
                all.push(std::mem::replace(&mut lease.work, (peer, 0, 0, 0, false)));
            }
        }
        all
    }
}

impl Leases {
    /// The lease of a peer that has one now.
    pub fn of_peer(&self, py: Python<'_>, peer: u64, now: f64) -> Option<&Lease> {
        let lease = self.by_peer.get(&peer)?;
        (now < lease.until && !lease.session.borrow(py).is_worn()).then_some(lease)
    }

    /// Note what was sent to a peer: packets, and bytes of their datagrams.
    pub fn note_sent(&mut self, peer: u64, packets: u64, bytes: u64) {
        self.count(peer, peers::SENT, bytes);
        if let Some(work) = self.work(peer).filter(|_| packets > 0) {
            work.1 += packets;
            work.4 = true;
        }
    }

    /// Note what one session received.
    pub fn note_received(&mut self, (index, packets, keepalives, bytes, _): Received) {
        let Some(&peer) = self.by_index.get(&index) else { return };
        self.count(peer, peers::RECEIVED, bytes);
        if let Some(work) = self.work(peer) {
            work.2 += packets;
            work.3 += keepalives;
            work.4 = false;
        }
    }

    fn count(&self, peer: u64, word: usize, bytes: u64) {
        let row = (peer & peers::ROW_MASK) as usize;
        self.peer_table.add(row * peers::ROW_WORDS + word, bytes);
    }

    fn work(&mut self, peer: u64) -> Option<&mut Work> {
        let work = &mut self.by_peer.get_mut(&peer)?.work;
        if (work.1, work.2, work.3) == (0, 0, 0) {
            self.worked.push(peer);
        }
        Some(work)
    }
}

/// Finds the sessions that are leased at the time `now`, and takes no record of any other.
pub struct Holder<'a, 'py> {
    pub py: Python<'py>,
    pub leases: &'a Leases,
    pub now: f64,
}

impl Holder<'_, '_> {
    fn holds(&self, index: u32, endpoint: &Endpoint) -> bool {
        let peer = self.leases.by_index.get(&index);
        let lease = peer.and_then(|peer| self.leases.by_peer.get(peer));
        lease.is_some_and(|lease| self.now < lease.until && lease.endpoint == *endpoint)
    }
}

impl<'py> Find<'py> for Holder<'_, 'py> {
    fn takes(&self, record: &Checked) -> bool {
        let endpoint = record.endpoint();
        let mut known = None;
        record.shortest() >= OVERHEAD
            && record.packets().map(index_of).all(|index| {
                // Nearly always they are all of one session.
                known == Some(index) || {
                    known = Some(index);
                    self.holds(index, &endpoint)
                }
            })
    }

    fn get(&mut self, index: u32) -> PyResult<Result<Bound<'py, Session>, usize>> {
        let lease = &self.leases.by_peer[&self.leases.by_index[&index]];
        Ok(Ok(lease.session.bind(self.py).clone()))
    }
}
