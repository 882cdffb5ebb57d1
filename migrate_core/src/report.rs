//! What a run leaves behind: the same report in every world.
//!
//! Times are seconds, sizes bytes, rates bytes per second. A figure that a world cannot have is `null`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::policy::{Decision, Round};

mod brownout;
mod coding;
mod faults;

pub use brownout::{brownout, Brownout, Cost, Place, Point};
pub use coding::{Coding, CodingRound};
pub use faults::{Faults, Latencies, Latency};

/// Version of the report's JSON.
pub const SCHEMA: u32 = 1;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The guest runs on the destination.
    Completed,
    /// A policy or the user gave up; the guest runs on the source.
    Aborted,
    /// Something went wrong; `reason` says what, and where the guest is.
    Failed,
}

/// The parts of the blackout on the source's clock, in the order in which they come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BlackoutParts {
    /// From the order to stop until no vCPU ran.
    pub stop: f64,
    /// From there until all pages were on the link.
    pub last_pages: f64,
    /// Execution state, and the destination's acknowledgement that all is there.
    pub acknowledge: f64,
    /// From letting go until the destination's word that the guest runs there.
    pub resume: f64,
}

/// How the guest fared, in operations per second of its own counting.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuestCost {
    /// Operations per second before the migration.
    pub before: Option<f64>,
    /// During the live rounds.
    pub during: Option<f64>,
    /// On the destination, after the blackout; `null` where it was not observed there.
    pub after: Option<f64>,
    /// `1 - during / before`: 0 means unharmed.
    pub slowdown: Option<f64>,
    /// Bytes written per second before the migration: the rate reached, whatever was asked for.
    pub write_rate: Option<f64>,
    /// Seconds that a writer was held back in the live rounds, by throttle, quota or delay: the mean of all.
    #[serde(default)]
    pub held_time: Option<f64>,
}

/// What tracking costs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TrackingTax {
    /// The tracker's name.
    pub tracker: String,
    /// Nanoseconds that the first write to a page costs beyond an untracked one.
    pub first_write_ns: Option<f64>,
    /// Microseconds to scan a GiB: the mean over all harvests and peeks.
    pub scan_us_per_gib: Option<f64>,
    /// Seconds spent in harvests and peeks.
    pub scan_time: f64,
}

/// Something worth a mark on a chart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Since the migration's start.
    pub time: f64,
    /// What happened.
    #[serde(flatten)]
    pub what: Happening,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happening {
    /// The policy decided something else than to go on.
    Decided {
        /// At the end of this round.
        round: u32,
        /// What and why.
        decision: Decision,
    },
    /// A policy that only watches would have decided this.
    Shadow {
        /// The policy's name.
        policy: String,
        /// At the end of this round.
        round: u32,
        /// What and why.
        decision: Decision,
    },
    /// No vCPU runs any more.
    Paused,
    /// The destination asked for torn pages again.
    Resent {
        /// How many.
        pages: u64,
    },
    /// The destination acknowledged.
    Acknowledged,
    /// The guest runs on the destination.
    Resumed,
    /// The link was lost in post-copy: the guest waits for pages that cannot come.
    LinkLost {
        /// How it was noticed.
        reason: String,
    },
    /// There is another link.
    LinkBack {
        /// Pages that the destination lacks.
        missing_pages: u64,
    },
    /// The destination has every page.
    Completed,
}

/// Which part of memory was sent when.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PageMap {
    /// Pages of a region; the last may have fewer.
    pub region_pages: u64,
    /// In order of time: rounds, or neighbouring ones together where there are many; then what followed execution.
    pub rows: Vec<MapRow>,
}

/// What was sent in a time, by region. With the discipline `skip` pages count that were left out in passing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct MapRow {
    /// When it began.
    pub start: f64,
    /// When it ended.
    pub end: f64,
    /// Pages sent for the first time.
    pub first: Vec<u64>,
    /// Pages that were sent before.
    pub again: Vec<u64>,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of Switchover that made it.
    pub version: String,
    /// `memory`, `sim` or `qemu`.
    pub world: String,
    /// The strategy's [`crate::knobs::Spec`].
    pub strategy: Value,
    /// The policy's, or its name if it is foreign.
    pub policy: Value,
    /// The link's.
    pub link: Value,
    /// The guest's: layout, workloads, seed.
    pub guest: Value,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, and where the guest is if it failed; empty for a completed run without remark.
    pub reason: String,
    /// From the start until the source may be freed.
    pub total_time: f64,
    /// Of it, until the first page was sent: the destination's memory, arming the tracker.
    pub setup_time: f64,
    /// The time that the guest ran nowhere: `guest_gap` where it is known. Checking pages for `verified`
    /// is the experimenter's doing and not counted; see `verify_time`.
    pub blackout: Option<f64>,
    /// Last instruction on the source to first on the destination, on one clock.
    pub guest_gap: Option<f64>,
    /// The error bound of `guest_gap`: 0 on one machine, half a round trip between two.
    pub guest_gap_error: Option<f64>,
    /// From stopping the guest to the word that it runs, on the source's clock.
    pub sender_pause: Option<f64>,
    /// As an outside probe saw it.
    pub observer_gap: Option<f64>,
    /// Parts of `sender_pause`.
    pub blackout_parts: BlackoutParts,
    /// Time in the blackout spent comparing memories, taken off `blackout`, `guest_gap` and `sender_pause`.
    pub verify_time: f64,
    /// Whether the destination equalled the source page for page at the blackout; `null` if not asked for.
    pub verified: Option<bool>,
    /// Memory of the guest.
    pub memory_bytes: u64,
    /// Bytes put on the link, headers included.
    pub sent_bytes: u64,
    /// Pages put on the link.
    pub sent_pages: u64,
    /// Of them, zero pages.
    pub zero_pages: u64,
    /// Of them, pages made shorter by a codec.
    pub encoded_pages: u64,
    /// `sent_bytes` over the time from the first page to the last.
    pub throughput: f64,
    /// The rounds in order; the last of a completed run was sent in the blackout.
    pub rounds: Vec<Round>,
    /// In order of time.
    pub events: Vec<Event>,
    /// How the guest fared.
    pub guest_cost: GuestCost,
    /// Remote faults, where execution moved ahead of memory.
    #[serde(default)]
    pub faults: Option<Faults>,
    /// How far it had come when: at round 0's beginning, every 100 ms or so from then on, at the pause, and at
    /// the destination for as long as it was observed there.
    #[serde(default)]
    pub progress: Vec<Point>,
    /// What it lost while it ran; `null` where nothing is known of its speed before.
    #[serde(default)]
    pub brownout: Option<Brownout>,
    /// Brownout loss + blackout: the number that compares strategies fairly. It holds what was observed: see
    /// [`Brownout::at_destination`].
    #[serde(default)]
    pub effective_downtime: Option<f64>,
    /// What tracking cost.
    pub tracking: TrackingTax,
    /// What encoding did and cost, where a codec was used.
    #[serde(default)]
    pub coding: Option<Coding>,
    /// Which part of memory was sent when, where pages are known one by one.
    #[serde(default)]
    pub page_map: Option<PageMap>,
}

impl Report {
    /// As indented JSON.
    pub fn to_json(&self) -> String {
        // A struct of numbers, texts and lists always serialises.
        serde_json::to_string_pretty(self).unwrap_or_default()
    }
}

impl Default for Report {
    /// A run of which nothing is known yet.
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION").into(),
            world: String::new(),
            strategy: Value::Null,
            policy: Value::Null,
            link: Value::Null,
            guest: Value::Null,
            outcome: Outcome::Aborted,
            reason: String::new(),
            total_time: 0.0,
            setup_time: 0.0,
            blackout: None,
            guest_gap: None,
            guest_gap_error: None,
            sender_pause: None,
            observer_gap: None,
            blackout_parts: BlackoutParts::default(),
            verify_time: 0.0,
            verified: None,
            memory_bytes: 0,
            sent_bytes: 0,
            sent_pages: 0,
            zero_pages: 0,
            encoded_pages: 0,
            throughput: 0.0,
            rounds: Vec::new(),
            events: Vec::new(),
            guest_cost: GuestCost::default(),
            faults: None,
            progress: Vec::new(),
            brownout: None,
            effective_downtime: None,
            tracking: TrackingTax::default(),
            coding: None,
            page_map: None,
        }
    }
}
