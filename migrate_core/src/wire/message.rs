//! Messages: the sections whose body is JSON.

use serde::{Deserialize, Serialize};

use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::{ExecutionState, Layout};
use crate::knobs::Spec;

/// Runs of pages as `[first, pages]`.
pub type PageRuns = Vec<(u64, u64)>;

/// What the two sides say to each other beside pages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "snake_case", deny_unknown_fields)]
pub enum Message {
    /// The first on each channel.
    Hello {
        /// Chosen by the source; the same on all channels of a migration.
        session: u64,
        /// This channel, from 0; messages go over channel 0 only.
        channel: u32,
        /// How many channels there are.
        channels: u32,
        /// The guest's RAM blocks.
        layout: Layout,
        /// How pages are encoded; nothing where they come as they are.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        codec: Option<Spec>,
    },
    /// The destination has memory for the guest.
    Welcome {
        /// Of the machine's boot: equal on both sides means that they share a clock.
        boot_id: String,
    },
    /// Asks for the peer's clock.
    Ping,
    /// Answers with the peer's monotonic clock.
    Pong {
        /// Nanoseconds.
        clock_ns: u64,
    },
    /// The vCPUs, as they were when the guest was stopped.
    State {
        /// Without memory.
        state: ExecutionState,
    },
    /// All sections of this channel have been sent.
    Flush,
    /// Pages that arrived torn and did not come again.
    Resend {
        /// Which.
        runs: PageRuns,
    },
    /// What decoding has cost; comes before `Loaded` where pages were encoded.
    Decoded {
        /// Seconds of processor time, all channels together.
        seconds: f64,
    },
    /// Everything is there and the guest could run.
    Loaded,
    /// Asks for the checksums of all pages.
    Verify,
    /// The guest is the destination's now.
    Go,
    /// The guest runs on the destination.
    Running {
        /// Destination's monotonic clock at the end of its first tick.
        first_ran_ns: u64,
    },
    /// The sender gives up.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Message {
    /// Its name in lower case, for texts.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Hello { .. } => "hello",
            Self::Welcome { .. } => "welcome",
            Self::Ping => "ping",
            Self::Pong { .. } => "pong",
            Self::State { .. } => "state",
            Self::Flush => "flush",
            Self::Resend { .. } => "resend",
            Self::Decoded { .. } => "decoded",
            Self::Loaded => "loaded",
            Self::Verify => "verify",
            Self::Go => "go",
            Self::Running { .. } => "running",
            Self::Failed { .. } => "failed",
        }
    }

    /// Asks for the pages of `torn` again.
    pub fn resend(torn: &Bitmap) -> Self {
        Self::Resend { runs: torn.runs().map(|run| (run.first, run.pages)).collect() }
    }
}

/// Runs out of a peer's message, refused where they leave a guest of `pages` pages.
pub fn checked_runs(runs: &PageRuns, pages: u64) -> Result<Vec<Run>> {
    let inside =
        |(first, count): &(u64, u64)| *count > 0 && first.checked_add(*count).is_some_and(|end| end <= pages);
    match runs.iter().find(|run| !inside(run)) {
        Some((first, count)) => {
            Err(Error::link(format!("the peer named {count} pages from {first} of {pages}")))
        }
        None => Ok(runs.iter().map(|(first, pages)| Run { first: *first, pages: *pages }).collect()),
    }
}
