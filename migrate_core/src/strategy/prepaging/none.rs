//! Not at all.

use super::{ascending, Order, Prepaging};
use crate::bitmap::{Bitmap, Run};

crate::knobs! {
    /// Pushes nothing while the guest asks for pages: demand paging (Hines and Gopalan, 2009). A guest need
    /// never touch all of its memory, so once it has asked for nothing for a while the rest is pushed by
    /// ascending address: the source must come free at some time.
    pub struct OnDemand {
        /// Moments (of a millisecond in the memory world) without a fault after which the rest is pushed.
        patience: u64 [Count, 0.0..=1e9] = 100,
    }
}

#[derive(Debug)]
struct Machine {
    patience: u64,
    quiet: u64,
}

impl Order for OnDemand {
    fn build(self, _pages: u64) -> Box<dyn Prepaging> {
        Box::new(Machine { patience: self.patience, quiet: 0 })
    }
}

impl Prepaging for Machine {
    fn next(&mut self, left: &Bitmap, most: u64) -> Vec<Run> {
        match self.quiet < self.patience {
            true => Vec::new(),
            false => ascending(left, 0, most),
        }
    }

    fn waited(&mut self, quiet: bool) {
        // Once it has begun to push, it does not stop.
        if self.quiet < self.patience {
            self.quiet = if quiet { self.quiet + 1 } else { 0 };
        }
    }
}
