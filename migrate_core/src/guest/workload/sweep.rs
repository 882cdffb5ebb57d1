//! A sweep: pages written one after the other, for ever.

use std::time::Duration;

use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};

use super::pattern::{share_of, Aim, Pattern};
use super::Boot;
use crate::error::Result;
use crate::guest::Region;
use crate::knobs::Spec;

crate::knobs! {
    /// Writes page after page over a share of memory, then again from the start.
    /// Its unique-pages function is min(v t, W): the classic worst case of QEMU's stress guest.
    pub struct Sweep {
        /// Bytes written per second; 0 means as fast as the thread can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 1e8,
        /// Share of memory that is swept, from its start.
        share: f64 [Ratio, 0.0..=1.0] = 1.0,
        /// What a write puts into a page.
        content: Spec [Parts] = Spec::new("mix"),
    }
}

/// Where a sweep is.
#[derive(Debug, Serialize, Deserialize)]
pub struct Sweeping {
    share: f64,
    position: u64,
}

impl Boot for Sweep {
    type Program = Pattern<Sweeping>;
    fn boot(self, seed: u64, _ram: &Region) -> Result<Pattern<Sweeping>> {
        Pattern::new(Sweeping { share: self.share, position: 0 }, self.rate, &self.content, seed)
    }
}

impl Aim for Sweeping {
    const NAME: &'static str = "sweep";

    fn aim(
        &mut self,
        count: u64,
        pages: u64,
        _now: Duration,
        _random: &mut Pcg32,
        mut write: impl FnMut(u64),
    ) -> Result<()> {
        let swept = share_of(pages, self.share);
        for _ in 0..count {
            write(self.position % swept);
            self.position = (self.position + 1) % swept;
        }
        Ok(())
    }
}
