//! The memory world: real memory that a real workload writes, moved over real sockets to another mapping,
//! another process or another host.

mod channels;
#[cfg(test)]
mod coding_tests;
mod decoder;
mod destination;
mod encoder;
mod figures;
mod greeting;
mod hand_over;
mod lane;
mod learning;
mod pace;
mod pipe;
mod source;
#[cfg(test)]
mod tests;

use std::thread::{Builder, JoinHandle};

pub use channels::{Channels, Gauge};
pub use destination::{receive, Arrived, Reception};
pub use source::{Sending, Source};

use crate::error::{Error, Result};
use crate::guest::Workload;
use crate::link::Stream;

/// A function that restores workloads and may be sent to another thread.
pub type SendRestore = Box<dyn Fn(&str, serde_json::Value) -> Result<Box<dyn Workload>> + Send>;

/// A destination in this process: a thread that receives over `streams` into a mapping of its own.
pub fn receive_in_thread(
    streams: Vec<Stream>,
    reception: Reception,
    restore: SendRestore,
) -> Result<JoinHandle<Result<Arrived>>> {
    let mut streams = streams.into_iter();
    let Some(first) = streams.next() else {
        return Err(Error::usage("a destination needs at least one channel"));
    };
    let body = move || {
        let mut more =
            || streams.next().ok_or_else(|| Error::link("the source announced more channels than there are"));
        receive(first, &mut more, &reception, &restore)
    };
    let thread = Builder::new().name("destination".into()).spawn(body);
    thread.map_err(|source| Error::System { what: "starting the destination's thread".into(), source })
}
