//! Policies: when to switch over, throttle, go post-copy, or give up.
//!
//! A policy is one file here and one line of [`POLICIES`]. It sees [`Round`]s and answers with
//! [`Decision`]s; it reads no clock, does no I/O and draws no unseeded random number, so that the same
//! policy runs on real memory, in the simulator and on a real VM.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::knobs::{Entry, Given, Knobs, Registry, Spec};

mod any_of;
mod dirty_threshold;
mod downtime_limit;
mod max_rounds;
mod time_limit;

pub use any_of::AnyOf;
pub use dirty_threshold::DirtyThreshold;
pub use downtime_limit::DowntimeLimit;
pub use max_rounds::MaxRounds;
pub use time_limit::TimeLimit;

/// The policies there are.
pub static POLICIES: Registry<Make> = Registry {
    kind: "policy",
    entries: &[
        entry::<DowntimeLimit>("downtime-limit"),
        entry::<MaxRounds>("max-rounds"),
        entry::<DirtyThreshold>("dirty-threshold"),
        entry::<TimeLimit>("time-limit"),
        entry::<AnyOf>("any-of"),
    ],
};

/// One pass, as it stands at its end. Times are seconds, sizes bytes, rates bytes per second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// 0 for the round that sends everything.
    pub index: u32,
    /// Whether the guest ran during it; the last round of a pre-copy is sent in the blackout.
    pub live: bool,
    /// When it began, from the migration's start.
    pub start: f64,
    /// How long it took, harvest included.
    pub duration: f64,
    /// Time since the migration's start, at its end.
    pub elapsed: f64,
    /// Bytes that it put on the link, headers included.
    pub sent_bytes: u64,
    /// Pages that it sent, of all kinds.
    pub sent_pages: u64,
    /// Of them, pages of zeros.
    pub zero_pages: u64,
    /// Of them, pages sent shorter than raw by a codec.
    pub encoded_pages: u64,
    /// Pages left out because they were dirty again.
    pub skipped_pages: u64,
    /// Bytes put on the link since the migration's start.
    pub total_sent_bytes: u64,
    /// Pages sent since the migration's start.
    pub total_sent_pages: u64,
    /// Pages dirty at its end.
    pub remaining_pages: u64,
    /// The same in bytes.
    pub remaining_bytes: u64,
    /// Unique pages written during it, in bytes per second: an interval statistic.
    pub dirty_rate: f64,
    /// Bytes per second over the last 100 ms or more.
    pub bandwidth: f64,
    /// `remaining_bytes / bandwidth` and the fixed cost of switchover, if known; infinite before there is
    /// a bandwidth.
    #[serde(deserialize_with = "infinite_if_null")]
    pub expected_blackout: f64,
    /// Share of their time that writers are held back, percent.
    pub throttle: f64,
    /// The guest's memory.
    pub memory_bytes: u64,
}

/// JSON has no infinity: serde_json writes it as null.
fn infinite_if_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

/// Why a decision was made: a quantity met its limit, in words that a chart can show.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The quantity that decided, such as `expected_blackout`; empty for a free text.
    pub quantity: Cow<'static, str>,
    /// Its value.
    pub seen: f64,
    /// What it was held against.
    pub limit: f64,
    /// In words.
    pub text: Cow<'static, str>,
}

impl Reason {
    /// `quantity` was `seen`, against `limit`.
    pub fn met(quantity: &'static str, seen: f64, limit: f64) -> Self {
        Self {
            quantity: quantity.into(),
            seen,
            limit,
            text: format!("{quantity} {seen:.6} against {limit:.6}").into(),
        }
    }

    /// A reason in words only.
    pub fn text(text: impl Into<Cow<'static, str>>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Act {
    /// Another round.
    Proceed,
    /// Hold writers back for this share of their time, percent from 0 to 99.
    Throttle {
        /// Percent.
        percent: f64,
    },
    /// Change limits.
    Limit {
        /// Seconds of blackout that are allowed.
        blackout: Option<f64>,
        /// Bytes per second that may be used; 0 lifts the limit.
        bandwidth: Option<f64>,
    },
    /// Stop the guest, send the rest, run on the destination.
    SwitchOver,
    /// Run on the destination now, send the rest afterwards.
    PostCopy,
    /// Give up; the guest runs on at the source.
    Abort,
}

/// What to do next, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// What.
    #[serde(flatten)]
    pub act: Act,
    /// Why.
    pub reason: Reason,
}

impl Decision {
    /// Another round, for no particular reason.
    pub fn proceed() -> Self {
        Self { act: Act::Proceed, reason: Reason::default() }
    }

    /// `act` because of `reason`.
    pub fn new(act: Act, reason: Reason) -> Self {
        Self { act, reason }
    }

    /// Switch over because of `reason`.
    pub fn switch_over(reason: Reason) -> Self {
        Self::new(Act::SwitchOver, reason)
    }

    /// Whether it is more than another round.
    pub fn fires(&self) -> bool {
        self.act != Act::Proceed
    }
}

/// Decides at each round's end.
pub trait Policy: Send {
    /// What to do after `round`; `history` holds the rounds before it, the oldest first. An error (a
    /// foreign policy raised) ends the migration as failed, with the guest on the source.
    fn decide(&mut self, round: &Round, history: &[Round]) -> Result<Decision>;
}

/// The knobs of a policy, able to make it.
pub trait Rule: Knobs {
    /// Makes it, with nothing seen yet.
    fn build(self) -> Result<Box<dyn Policy>>;
}

/// Builds a policy out of knobs.
pub type Make = fn(&Given) -> Result<Box<dyn Policy>>;

/// The registry's line for a policy.
pub const fn entry<R: Rule>(name: &'static str) -> Entry<Make> {
    Entry::of::<R>(name, build::<R> as Make)
}

fn build<R: Rule>(knobs: &Given) -> Result<Box<dyn Policy>> {
    R::from_knobs(knobs)?.build()
}

/// The policy that `spec` names.
pub fn find(spec: &Spec) -> Result<Box<dyn Policy>> {
    (POLICIES.find(&spec.name)?.make)(&spec.knobs)
}
