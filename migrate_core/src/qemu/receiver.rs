//! A destination for a real QEMU source that keeps or drops what comes, and notes all of it with its moment.
//!
//! The source sees a destination as QEMU's: all its connections are taken, pings are answered, and at the end it is
//! told that everything was loaded ([`Ending::Accept`]; the guest then runs nowhere), or it loses the link and goes on
//! running its guest ([`Ending::Drop`]).
//!
//! A source without a return path counts the migration as done when its last write has succeeded, and a write succeeds
//! when the bytes are in a socket's buffer. So it can only be dropped safely before that: without a return path,
//! `Drop` ends the migration at its first bytes of memory. Post-copy lets the guest go before the memory has come: with
//! `Drop` a source that has announced it is refused.
//!
//! Every connection has a thread that reads it; the calling thread accepts, and watches over time limits.

mod beside;
mod contents;
mod main_channel;
mod page_log;
mod session;
mod tally;
mod tap;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use page_log::{LOG_MAGIC, LOG_ROW};

use super::reception::Reception;
use crate::error::{Error, Result};
use crate::link::{Listener, Stream};
use session::Session;

/// How often the calling thread looks at limits and at the end.
const SLICE: Duration = Duration::from_millis(20);

/// What becomes of the migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The source completes: its guest has left it.
    Accept,
    /// The source loses the link when it is about to let the guest go, and goes on running it.
    Drop,
    /// As `Drop`, and a source with the capability `switchover-ack` is never told that it may switch over: it goes on
    /// copying, and its guest is not stopped for a moment, until the migration is cancelled there.
    Hold,
}

/// How a migration is received.
#[derive(Debug, Clone)]
pub struct ReceiverOptions {
    /// Where the bytes are kept: the main channel's in this file, those of others in files with `.1`, `.2`, ... after
    /// the name, in the order of their connections. `None`: they are measured and forgotten.
    ///
    /// Beside each of them is a file with `.times` after its name: what had come when (see [`Times`](super::times)).
    pub keep: Option<PathBuf>,
    /// Where the pages' numbers are noted, without their contents; see [`LOG_ROW`]. Beside it is a file with
    /// `.samples` after its name: what a sample of them held, by pass, as a JSON list of [`Sample`](crate::trace::Sample).
    pub log: Option<PathBuf>,
    /// How it ends.
    pub ending: Ending,
    /// It is dropped after that time, if it lasts as long, whatever `ending` says.
    pub limit: Option<Duration>,
    /// How long to wait for the first connection; `None` waits for ever.
    pub wait: Option<Duration>,
    /// How long the main channel may be silent before the source counts as lost; `None`: for ever, since a source that
    /// pauses before switchover is silent until its manager goes on.
    pub stall: Option<Duration>,
    /// Whether a source with the capability `switchover-ack` is told that it may switch over. It is told anyhow where
    /// the machine's type shows a QEMU that knows the message (8.1 and later); an older one fails on it.
    pub switchover_ack: bool,
}

impl Default for ReceiverOptions {
    fn default() -> Self {
        Self {
            keep: None,
            log: None,
            ending: Ending::Accept,
            limit: None,
            wait: None,
            stall: None,
            switchover_ack: false,
        }
    }
}

/// What other threads may see of a reception, or of the reading of a capture, and do to it.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    bytes: AtomicU64,
}

impl Control {
    /// Drops the migration, or ends the wait for one; ends the reading.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether that was asked for.
    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Bytes of all channels that have come in, or have been read.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// `count` more have.
    pub(super) fn add(&self, count: u64) {
        self.bytes.fetch_add(count, Ordering::Relaxed);
    }
}

/// Receives one migration.
///
/// # Errors
/// [`Error::Link`] where nobody connects in time; [`Error::System`] where a file cannot be made. What the source does
/// wrong is no error, but the outcome.
pub fn receive(listener: &Listener, options: &ReceiverOptions, control: &Control) -> Result<Reception> {
    let first = first(listener, options, control)?;
    let session = Session::new(options, listener, control)?;
    std::thread::scope(|scope| -> Result<()> {
        let taken = session.take(scope, first);
        // What was started must come to its end whatever happens here.
        taken.and_then(|()| session.oversee(scope)).inspect_err(|_| session.close())
    })?;
    session.finish()
}

fn first(listener: &Listener, options: &ReceiverOptions, control: &Control) -> Result<Stream> {
    let begun = Instant::now();
    loop {
        if control.is_cancelled() {
            return Err(Error::link("called off"));
        }
        match listener.accept(SLICE.min(options.wait.unwrap_or(SLICE))) {
            Ok(stream) => return Ok(stream),
            Err(Error::Link { source: None, .. }) => {}
            Err(error) => return Err(error),
        }
        if let Some(wait) = options.wait.filter(|wait| begun.elapsed() >= *wait) {
            let limit = wait.as_secs_f64();
            return Err(Error::link(format!("nobody connected to {} within {limit} s", listener.endpoint())));
        }
    }
}
