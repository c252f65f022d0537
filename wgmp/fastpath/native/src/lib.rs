//! wgmp's native fast path: all that happens once per packet, as batch functions over records.
//!
//! ```text
//! out  tun.rs (read, route) -> ring -> seal.rs (segment.rs, session.rs) -> ring -> send.rs
//! in   receive.rs -> ring -> open.rs (finder.rs, session.rs, coalesce.rs) -> ring -> tun.rs (write)
//! ```
//!
//! Nothing here decides: handshakes, timers, configuration and errors are Python's. Each call gets
//! a ring and does a burst of its records; what has to be looked at is returned. The reference fast
//! path (wgmp/fastpath/reference.py and its neighbours) does the same, and the tests hold the two
//! to the same bytes and the same counters.
//!
//! All memory belongs to Python (memory.rs). A length from a ring or from the network is checked
//! before it is used; a broken invariant panics, which Python sees as an exception and which ends
//! the role.

use pyo3::prelude::*;
use pyo3::types::PyDict;

pub mod address;
pub mod aead;
pub mod allowedips;
pub mod checksum;
pub mod coalesce;
pub mod counters;
pub mod courtesy;
pub mod finder;
pub mod gather;
pub mod ipsec_mb;
pub mod layout;
pub mod lease;
pub mod memory;
pub mod open;
pub mod packet;
pub mod part;
pub mod receive;
pub mod record;
pub mod ring;
pub mod seal;
pub mod segment;
pub mod send;
pub mod session;
pub mod tun;
pub mod turns;

/// Order every earlier load and store of this thread before every later one.
#[pyfunction]
fn full_fence() {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
}

/// The numbers that Python and this crate have to agree on.
#[pyfunction]
fn layout_table(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    let table = PyDict::new(py);
    for (name, value) in layout::ALL {
        table.set_item(name, value)?;
    }
    Ok(table)
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(full_fence, module)?)?;
    module.add_function(wrap_pyfunction!(layout_table, module)?)?;
    module.add_class::<aead::Aead>()?;
    module.add_class::<allowedips::AllowedIPs>()?;
    module.add_class::<ring::RingReader>()?;
    module.add_class::<ring::RingWriter>()?;
    module.add_class::<session::Session>()?;
    module.add_class::<seal::Sealer>()?;
    module.add_class::<open::Opener>()?;
    module.add_class::<tun::PacketIntake>()?;
    module.add_class::<tun::PacketWriter>()?;
    module.add_class::<receive::DatagramIntake>()?;
    module.add_class::<send::DatagramWriter>()?;
    module.add_class::<lease::Leases>()?;
    module.add_class::<turns::Turns>()?;
    Ok(())
}
