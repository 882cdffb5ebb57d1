//! An idle guest: kernel timers write a few pages, now and then.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};

use super::pattern::{Aim, Pattern};
use super::permutation::Permutation;
use super::Boot;
use crate::error::Result;
use crate::guest::Region;
use crate::knobs::Spec;

crate::knobs! {
    /// Writes a few pages again and again, some per second: the timers of a kernel with nothing to do.
    pub struct Idle {
        /// Bytes written per second, 4096 for each page write; 0 means as fast as the thread can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 40_960.0,
        /// Pages that are written at all, scattered over memory.
        pages: u64 [Count, 1.0..=1e12] = 16,
        /// What a write puts into a page.
        content: Spec [Parts] = Spec::new("counter"),
    }
}

/// The pages of the timers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Timers {
    pages: u64,
    seed: u64,
}

impl Boot for Idle {
    type Program = Pattern<Timers>;
    fn boot(self, seed: u64, _ram: &Region) -> Result<Pattern<Timers>> {
        Pattern::new(Timers { pages: self.pages, seed }, self.rate, &self.content, seed)
    }
}

impl Aim for Timers {
    const NAME: &'static str = "idle";

    fn aim(
        &mut self,
        count: u64,
        pages: u64,
        _now: Duration,
        random: &mut Pcg32,
        mut write: impl FnMut(u64),
    ) -> Result<()> {
        let scattered = Permutation::new(pages, self.seed);
        let timers = self.pages.clamp(1, pages);
        (0..count).for_each(|_| write(scattered.at(random.random_range(0..timers))));
        Ok(())
    }
}
