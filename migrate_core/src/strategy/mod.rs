//! Strategies: how memory moves, as state machines that do no I/O.
//!
//! A strategy is told what happened ([`Observation`]) and answers with what to do next ([`Action`]). It
//! never touches a clock, a socket or memory, so that a simulated run and a real run are the same
//! algorithm. A strategy is one file here and one line of [`STRATEGIES`].
//!
//! ```text
//!  Began ──► Send … Send ──► Sync ──► EndRound ──► (the policy decides) ──► Send …   live rounds
//!                                                        │
//!                                                        └──► Pause ──► Sync ──► Send … Send
//!                                                                  ──► EndRound ──► SwitchOver ──► Done
//! ```
//!
//! Where execution moves ahead of memory, `Pause` is followed by `Depart ──► Push … Push ──► Complete ──►
//! Done` instead. The guest's requests for pages are served by the world at once, and told as observations.

use crate::bitmap::{Bitmap, Run};
use crate::error::{Error, Result};
use crate::knobs::{Entry, Given, Knobs, Registry, Spec};
use crate::policy::{Decision, Reason};

mod following;
mod hybrid;
mod outgoing;
mod post_copy;
mod pre_copy;
pub mod prepaging;
mod stop_and_copy;
#[cfg(test)]
mod tests;

pub use hybrid::Hybrid;
pub use outgoing::Outgoing;
pub use post_copy::PostCopy;
pub use pre_copy::{Clear, PreCopy};
pub use stop_and_copy::StopAndCopy;

/// The strategies there are.
pub static STRATEGIES: Registry<Make> = Registry {
    kind: "strategy",
    entries: &[
        entry::<PreCopy>("pre-copy"),
        entry::<StopAndCopy>("stop-and-copy"),
        entry::<PostCopy>("post-copy"),
        entry::<Hybrid>("hybrid"),
    ],
};

/// What happens to the dirty bits of a chunk's pages when it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtSend {
    /// Nothing: they were cleared before, or the guest is paused.
    Keep,
    /// Pages that are dirty again are left out; their bits stay.
    SkipDirty,
    /// The bits of the chunk's whole span are cleared first.
    Clear,
}

/// Pages to be sent together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// In ascending order, without touching each other.
    pub runs: Vec<Run>,
    /// What to do with dirty bits.
    pub at_send: AtSend,
}

impl Chunk {
    /// From the first page to the last.
    pub fn span(&self) -> std::ops::Range<u64> {
        match (self.runs.first(), self.runs.last()) {
            (Some(first), Some(last)) => first.first..last.end(),
            _ => 0..0,
        }
    }

    /// Pages in it.
    pub fn pages(&self) -> u64 {
        self.runs.iter().map(|run| run.pages).sum()
    }
}

/// What a strategy wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Read the dirty log of all memory, clearing it or not. Answered by [`Observation::Synced`].
    Sync {
        /// Harvest, rather than peek.
        clear: bool,
    },
    /// Send pages. Answered by [`Observation::Sent`].
    Send(Chunk),
    /// A round is over. Answered by [`Observation::Decided`].
    EndRound {
        /// Pages dirty now.
        remaining_pages: u64,
        /// Whether the guest ran during it. If not, the policy is not asked.
        live: bool,
    },
    /// There is nothing to send: let the guest run for a moment. Answered by [`Observation::Waited`].
    Wait,
    /// Stop the guest. Answered by [`Observation::Paused`].
    Pause,
    /// Move the execution state, have the destination acknowledge, run there. Answered by
    /// [`Observation::SwitchedOver`].
    SwitchOver,
    /// Move execution ahead of memory: have the destination throw away and wait for `missing`, and run
    /// there. There is no way back from it. Answered by [`Observation::Departed`].
    Depart {
        /// Pages that the destination does not have as they are.
        missing: Bitmap,
    },
    /// Push pages to a guest that runs at the destination. Answered by [`Observation::Asked`].
    Push(Vec<Run>),
    /// Push nothing for a moment. Answered by [`Observation::Asked`].
    Serve,
    /// Every page is on its way: wait until the destination has them all, and let the source go. Answered by
    /// [`Observation::Completed`].
    Complete,
    /// Give up; the guest runs on at the source. Nothing follows.
    Abort(Reason),
    /// The migration is complete. Nothing follows.
    Done,
}

/// What happened.
#[derive(Debug)]
pub enum Observation<'a> {
    /// The migration begins; every page is clean in the dirty log and none has been sent.
    Began {
        /// Pages of the guest.
        pages: u64,
    },
    /// The dirty log was read.
    Synced {
        /// What it held.
        dirty: &'a Bitmap,
    },
    /// A chunk was sent.
    Sent {
        /// Pages whose bits were cleared with the chunk's without being sent: still to be sent.
        spilled: &'a Bitmap,
    },
    /// The same, and the round is to end here: what it has not sent is left to what follows. Told only to
    /// strategies that can ([`Strategy::cuts_rounds`]).
    CutShort {
        /// As with [`Observation::Sent`].
        spilled: &'a Bitmap,
    },
    /// The policy's answer to [`Action::EndRound`].
    Decided(&'a Decision),
    /// The guest ran for a moment.
    Waited,
    /// Nothing writes to memory any more.
    Paused,
    /// The guest runs on the destination.
    SwitchedOver,
    /// The guest runs on the destination, ahead of its memory.
    Departed,
    /// What was asked of the source since the last action, and is on its way.
    Asked {
        /// Each page once; in the order in which they were asked for.
        pages: &'a [u64],
    },
    /// The link was lost after [`Action::Depart`], and there is another one: may come in answer to any
    /// action from then on.
    Recovered {
        /// What the destination lacks.
        missing: &'a Bitmap,
    },
    /// The destination has every page.
    Completed,
}

/// When execution moves, as against memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Departure {
    /// With the last of it.
    #[default]
    Never,
    /// Ahead of what is dirty after some rounds.
    Later,
    /// Ahead of all of it.
    First,
}

/// How memory moves.
pub trait Strategy: Send {
    /// The answer to what happened. An observation that cannot come here, or a decision that this strategy
    /// cannot carry out, is an error; the guest then goes on where it is.
    fn next(&mut self, seen: Observation<'_>) -> Result<Action>;

    /// Whether it may ask for [`Action::Depart`]: a world makes ready for that before it begins.
    fn departure(&self) -> Departure {
        Departure::Never
    }

    /// Whether a live round can be cut short after a chunk by [`Observation::CutShort`]. Where it cannot, a
    /// policy's decision in the middle of a round waits for the round's end.
    fn cuts_rounds(&self) -> bool {
        false
    }
}

/// The knobs of a strategy, able to make it.
pub trait Plan: Knobs {
    /// Makes it, before its beginning.
    fn build(self) -> Result<Box<dyn Strategy>>;
}

/// Builds a strategy out of knobs.
pub type Make = fn(&Given) -> Result<Box<dyn Strategy>>;

/// The registry's line for a strategy.
pub const fn entry<P: Plan>(name: &'static str) -> Entry<Make> {
    Entry::of::<P>(name, build::<P> as Make)
}

fn build<P: Plan>(knobs: &Given) -> Result<Box<dyn Strategy>> {
    P::from_knobs(knobs)?.build()
}

/// The strategy that `spec` names.
pub fn find(spec: &Spec) -> Result<Box<dyn Strategy>> {
    (STRATEGIES.find(&spec.name)?.make)(&spec.knobs)
}

/// The error for an observation that `strategy` did not ask for.
fn unasked(strategy: &str, state: &impl std::fmt::Debug, seen: &Observation<'_>) -> Error {
    Error::usage(format!("{strategy} in state {state:?} was told {seen:?}, which answers nothing it asked"))
}
