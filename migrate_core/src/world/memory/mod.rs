//! The memory world: real memory that a real workload writes, moved over real sockets to another mapping,
//! another process or another host.

#[cfg(test)]
mod brake_tests;
mod brakes;
mod channels;
#[cfg(test)]
mod coding_tests;
mod cut;
#[cfg(test)]
mod cut_tests;
mod decoder;
mod destination;
mod encoder;
mod figures;
mod greeting;
mod hand_over;
mod lane;
mod learning;
mod observe;
mod pace;
mod pipe;
mod post_copy;
mod source;
#[cfg(test)]
mod tests;

use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

pub use channels::{Channels, Gauge};
pub use cut::Cutter;
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
    if streams.is_empty() {
        return Err(Error::usage("a destination needs at least one channel"));
    }
    Ok(receive_from_thread(streams, reception, restore)?.0)
}

/// The same; more streams, for a source that lost its link and resumes, go over what is returned beside.
/// Once that is dropped the destination waits for none.
pub fn receive_from_thread(
    streams: Vec<Stream>,
    reception: Reception,
    restore: SendRestore,
) -> Result<(JoinHandle<Result<Arrived>>, Sender<Stream>)> {
    let (connect, connected) = channel();
    // The receiving end is in our hands: nothing can fail.
    streams.into_iter().for_each(|stream| drop(connect.send(stream)));
    let body = move || {
        let first = accept(&connected, reception.stall)?;
        receive(first, &mut |wait| accept(&connected, wait), &reception, &restore)
    };
    let thread = Builder::new().name("destination".into()).spawn(body);
    let thread = thread
        .map_err(|source| Error::System { what: "starting the destination's thread".into(), source })?;
    Ok((thread, connect))
}

fn accept(connected: &Receiver<Stream>, wait: Duration) -> Result<Stream> {
    connected.recv_timeout(wait).map_err(|error| match error {
        RecvTimeoutError::Timeout => Error::link("nobody connected"),
        RecvTimeoutError::Disconnected => Error::link("there are no more channels"),
    })
}
