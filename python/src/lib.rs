//! The native module of the package `switchover`: conversions between Python and [`migrate_core`], a file
//! a room of the core. No decision is made here.
//!
//! Parts, rounds, decisions and reports cross as JSON text, memory as a view of itself, pages as bytes.

mod bakeoff;
mod codec;
mod cost;
mod errors;
mod fork;
mod forwarder;
mod guest;
mod interrupt;
mod memory;
mod policy;
mod receiver;
mod recording;
mod registry;
mod session;
mod simulation;
mod stream;
mod stream_receiver;
mod trace;
mod tracker;
mod workload;

use pyo3::prelude::*;

/// What `switchover` is built on; private.
#[pymodule(gil_used = true)]
mod _native {
    #[pymodule_export]
    use crate::bakeoff::PageSet;
    #[pymodule_export]
    use crate::codec::Codec;
    #[pymodule_export]
    use crate::cost::cost;
    #[pymodule_export]
    use crate::forwarder::Forwarder;
    #[pymodule_export]
    use crate::guest::Guest;
    #[pymodule_export]
    use crate::memory::{machine_bytes, Memory};
    #[pymodule_export]
    use crate::policy::Policy;
    #[pymodule_export]
    use crate::receiver::Receiver;
    #[pymodule_export]
    use crate::recording::{probe_process, Recording};
    #[pymodule_export]
    use crate::registry::{check, describe};
    #[pymodule_export]
    use crate::session::Session;
    #[pymodule_export]
    use crate::simulation::{simulate, simulate_many};
    #[pymodule_export]
    use crate::stream::{
        stream_core, stream_devices, stream_diff, stream_extract, stream_squash, stream_summary, StreamLines,
        StreamPages,
    };
    #[pymodule_export]
    use crate::stream_receiver::StreamReceiver;
    #[pymodule_export]
    use crate::trace::Trace;
    #[pymodule_export]
    use crate::tracker::Tracker;

    #[pymodule_export]
    const PAGE: usize = migrate_core::guest::PAGE;
    #[pymodule_export]
    const VERSION: &str = env!("CARGO_PKG_VERSION");
}
