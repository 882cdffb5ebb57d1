//! A sweep: pages written one after the other, for ever.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Boot, Tick, Work, Workload};
use crate::error::Result;
use crate::guest::{Region, PAGE};

crate::knobs! {
    /// Writes page after page over a share of memory, then again from the start.
    /// Its unique-pages function is min(v t, W): the classic worst case of QEMU's stress guest.
    pub struct Sweep {
        /// Bytes written per second; 0 means as fast as the thread can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 1e8,
        /// Share of memory that is swept.
        share: f64 [Ratio, 0.0..=1.0] = 1.0,
    }
}

/// A sweep that runs.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sweeping {
    knobs: Sweep,
    position: u64,
    writes: u64,
}

impl Boot for Sweep {
    type Program = Sweeping;
    fn boot(self, _seed: u64, _ram: &Region) -> Result<Sweeping> {
        Ok(Sweeping { knobs: self, position: 0, writes: 0 })
    }
}

impl Workload for Sweeping {
    fn name(&self) -> &'static str {
        "sweep"
    }

    fn rate(&self, _now: Duration) -> f64 {
        if self.knobs.rate == 0.0 {
            f64::INFINITY
        } else {
            self.knobs.rate
        }
    }

    fn run(&mut self, ram: &Region, tick: Tick) -> Result<Work> {
        let swept = ((ram.pages() as f64 * self.knobs.share) as u64).max(1);
        let pages = tick.budget / PAGE as u64;
        for _ in 0..pages {
            self.writes += 1;
            ram.write_u64(self.position * PAGE as u64, self.writes);
            self.position = (self.position + 1) % swept;
        }
        Ok(Work { written: pages * PAGE as u64, operations: pages })
    }

    fn check(&self, _ram: &Region) -> Result<()> {
        Ok(())
    }

    fn save(&self) -> Result<Value> {
        super::save(self)
    }
}
