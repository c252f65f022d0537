//! Where a call of open.rs finds the sessions, and what it has to say of each.

use pyo3::prelude::*;

use crate::record::{Checked, Endpoint};
use crate::session::Session;

/// What one session received: (index, packets, keepalives, outer bytes, last endpoint).
pub type Received = (u32, u64, u64, u64, Endpoint);

/// What nobody could open: (index, reason, datagrams).
pub type Refused = (u32, usize, u64);

/// What a call returns, in the order in which it came. `records`: taken from the ring.
#[derive(Default)]
pub struct Results {
    pub records: usize,
    pub received: Vec<Received>,
    pub refused: Vec<Refused>,
}

impl Results {
    /// Add what a run of datagrams brought to what its session has received.
    pub fn receive(&mut self, more: Received) {
        let (index, packets, keepalives, bytes, endpoint) = more;
        match self.received.iter_mut().find(|entry| entry.0 == index) {
            Some(entry) => {
                entry.1 += packets;
                entry.2 += keepalives;
                entry.3 += bytes;
                entry.4 = endpoint;
            }
            None => self.received.push(more),
        }
    }
}

/// Who knows the session of a receiver index.
pub trait Find<'py> {
    /// Whether it is to be asked about the datagrams of this record at all.
    fn takes(&self, record: &Checked) -> bool;

    /// The session of a receiver index, or the reason to drop its datagrams.
    fn get(&mut self, index: u32) -> PyResult<Result<Bound<'py, Session>, usize>>;
}

/// Python knows: asked once in each call.
pub struct Finder<'a, 'py> {
    find: &'a Bound<'py, PyAny>,
    found: Vec<(u32, Result<Bound<'py, Session>, usize>)>,
}

impl<'a, 'py> Finder<'a, 'py> {
    /// `find`: see `Opener::open`.
    pub fn new(find: &'a Bound<'py, PyAny>) -> Self {
        Self { find, found: vec![] }
    }
}

impl<'py> Find<'py> for Finder<'_, 'py> {
    fn takes(&self, _: &Checked) -> bool {
        true
    }

    fn get(&mut self, index: u32) -> PyResult<Result<Bound<'py, Session>, usize>> {
        let known = self.found.iter().position(|(known, _)| *known == index);
        let at = match known {
            Some(at) => at,
            None => {
                let answer = self.find.call1((index,))?;
                let session = match answer.cast::<Session>() {
                    Ok(session) => Ok(session.clone()),
                    Err(_) => Err(answer.extract::<usize>()?),
                };
                self.found.push((index, session));
                self.found.len() - 1
            }
        };
        Ok(self.found[at].1.clone())
    }
}
