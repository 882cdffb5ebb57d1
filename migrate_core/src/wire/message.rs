//! Messages: the sections whose body is JSON.

use serde::{Deserialize, Serialize};

use super::page_set::PageSet;
use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::guest::{ExecutionState, Layout};
use crate::knobs::Spec;
use crate::report::Faults;

/// Runs of pages as `[first, pages]`.
pub type PageRuns = Vec<(u64, u64)>;

/// How execution may move ahead of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostCopy {
    /// Ahead of all of it: no page comes before.
    pub first: bool,
    /// This connection replaces one that was lost.
    pub resume: bool,
}

/// A sign of life from the destination, with what it has seen; from the source all are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beat {
    /// Pages placed.
    pub placed: u64,
    /// Remote faults so far.
    pub faults: u64,
    /// Median of their latency in seconds.
    pub median: f64,
    /// 99th percentile of it.
    pub p99: f64,
    /// How far the guest has come; nothing before it runs there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Milestone>,
}

/// How far a guest had come at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Milestone {
    /// The monotonic clock of the machine that tells.
    pub clock_ns: u64,
    /// Operations that the guest has finished since it began.
    pub operations: u64,
}

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
        /// Set where execution may move ahead of memory; the last channel is then that of faults.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        post_copy: Option<PostCopy>,
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
        /// Destination's monotonic clock at the beginning of its first tick.
        first_ran_ns: u64,
    },
    /// Execution moves ahead of these pages: the destination throws its copies away.
    Missing {
        /// Which.
        pages: PageSet,
        /// Whether checksums of pages as they are placed will be asked for.
        verify: bool,
    },
    /// To a source that resumes: what the destination lacks.
    Lacking {
        /// Which.
        pages: PageSet,
        /// Whether the guest was let go and runs.
        running: bool,
    },
    /// A page that the guest waits for.
    Request {
        /// Which.
        page: u64,
    },
    /// On the channel of faults: the sender lives.
    Beat(Beat),
    /// The destination has every page; its figures.
    Complete {
        /// As it saw them.
        faults: Box<Faults>,
    },
    /// The source may be freed; the last of a post-copy.
    Freed,
    /// Asks the destination to tell the guest's progress once it runs there; comes before [`Message::Go`].
    Observe {
        /// For how long, in nanoseconds.
        for_ns: u64,
    },
    /// How far the guest has come at the destination.
    Progress {
        /// When, and how far.
        guest: Milestone,
        /// Whether no more will be told.
        last: bool,
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
            Self::Missing { .. } => "missing",
            Self::Lacking { .. } => "lacking",
            Self::Request { .. } => "request",
            Self::Beat(_) => "beat",
            Self::Complete { .. } => "complete",
            Self::Freed => "freed",
            Self::Observe { .. } => "observe",
            Self::Progress { .. } => "progress",
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
