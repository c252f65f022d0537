//! The sessions that a call of open.rs asks Python for, and what it has to say of each.

use pyo3::prelude::*;

use crate::record::Endpoint;
use crate::session::Session;

/// What one session received: (index, packets, keepalives, outer bytes, last endpoint).
pub type Received = (u32, u64, u64, u64, Endpoint);

/// What nobody could open: (index, reason, datagrams).
pub type Refused = (u32, usize, u64);

/// What a call returns, in the order in which it came.
#[derive(Default)]
pub struct Results {
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

/// The sessions that this call has asked Python for.
pub struct Finder<'a, 'py> {
    find: &'a Bound<'py, PyAny>,
    found: Vec<(u32, Result<PyRef<'py, Session>, usize>)>,
}

impl<'a, 'py> Finder<'a, 'py> {
    /// `find`: see `Opener::open`.
    pub fn new(find: &'a Bound<'py, PyAny>) -> Self {
        Self { find, found: vec![] }
    }

    /// The session of a receiver index, or the reason to drop its datagrams.
    pub fn get(&mut self, index: u32) -> PyResult<&Result<PyRef<'py, Session>, usize>> {
        let known = self.found.iter().position(|(known, _)| *known == index);
        let at = match known {
            Some(at) => at,
            None => {
                let answer = self.find.call1((index,))?;
                let session = match answer.cast::<Session>() {
                    Ok(session) => Ok(session.borrow()),
                    Err(_) => Err(answer.extract::<usize>()?),
                };
                self.found.push((index, session));
                self.found.len() - 1
            }
        };
        Ok(&self.found[at].1)
    }
}
