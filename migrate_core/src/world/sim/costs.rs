//! What a migration costs beside sending pages.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Costs in seconds, 0 by default: fit them to runs of the world that is to be predicted. Round trips of
/// the link are counted beside them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Costs {
    /// From the start to the first page: the destination's memory, arming the tracker.
    pub setup: f64,
    /// The same for each GiB of memory.
    pub setup_per_gib: f64,
    /// Reading the dirty log of a GiB of memory.
    pub scan_per_gib: f64,
    /// Ending a round, the dirty log not counted.
    pub round: f64,
    /// From a decision to switch over to the vCPUs' being stopped; the live copy goes on meanwhile. A QEMU that is told
    /// over QMP looks at its limit every 100 ms.
    pub reaction: f64,
    /// Stopping the vCPUs.
    pub stop: f64,
    /// Sending, loading and acknowledging the execution state.
    pub load: f64,
    /// From the word to run to the guest's first instruction.
    pub resume: f64,
    /// Bytes, not seconds: what buffers on the way take before the link has carried it. So far the source
    /// is ahead of the link, and so much is still on its way when the guest stops.
    pub buffer: f64,
}

impl Costs {
    pub(super) fn validate(&self) -> Result<()> {
        let Self { setup, setup_per_gib, scan_per_gib, round, reaction, stop, load, resume, buffer } = *self;
        let all = [setup, setup_per_gib, scan_per_gib, round, reaction, stop, load, resume, buffer / 1e6];
        match all.iter().all(|cost| (0.0..=1e6).contains(cost)) {
            true => Ok(()),
            false => Err(Error::usage(format!(
                "costs must be from 0 to 1000000 seconds each, the buffer from 0 to 10^12 bytes: {self:?}"
            ))),
        }
    }
}
