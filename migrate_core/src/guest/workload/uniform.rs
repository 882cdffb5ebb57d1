//! Uniform writes: each page is as likely as any other.

use std::time::Duration;

use rand::RngExt;
use rand_pcg::Pcg32;
use serde::{Deserialize, Serialize};

use super::pattern::{share_of, Aim, Pattern};
use super::Boot;
use crate::error::Result;
use crate::guest::Region;
use crate::knobs::Spec;

crate::knobs! {
    /// Writes pages at random, each as likely as any other.
    /// Its unique-pages function is W (1 - exp(-v t / W)).
    pub struct Uniform {
        /// Bytes written per second; 0 means as fast as the thread can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 1e8,
        /// Share of memory that is written, from its start.
        share: f64 [Ratio, 0.0..=1.0] = 1.0,
        /// What a write puts into a page.
        content: Spec [Parts] = Spec::new("mix"),
    }
}

/// The pages that are written.
#[derive(Debug, Serialize, Deserialize)]
pub struct Anywhere {
    share: f64,
}

impl Boot for Uniform {
    type Program = Pattern<Anywhere>;
    fn boot(self, seed: u64, _ram: &Region) -> Result<Pattern<Anywhere>> {
        Pattern::new(Anywhere { share: self.share }, self.rate, &self.content, seed)
    }
}

impl Aim for Anywhere {
    const NAME: &'static str = "uniform";

    fn aim(
        &mut self,
        count: u64,
        pages: u64,
        _now: Duration,
        random: &mut Pcg32,
        mut write: impl FnMut(u64),
    ) -> Result<()> {
        let written = share_of(pages, self.share);
        (0..count).for_each(|_| write(random.random_range(0..written)));
        Ok(())
    }
}
