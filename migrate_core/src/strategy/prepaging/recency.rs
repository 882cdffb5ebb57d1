//! By how lately they were written.

use super::{ascending, Order, Prepaging};
use crate::bitmap::{Bitmap, Run};

crate::knobs! {
    /// Pushes the pages that were written last first, and those that were never seen written at the end: a
    /// guest writes again what it wrote lately. What was written when is known from the rounds of a hybrid,
    /// or from watching the guest for a moment before execution moves.
    pub struct Recency {
        /// Intervals that are told apart; what was written before them counts as never.
        intervals: u64 [Count, 1.0..=255.0] = 16,
    }
}

#[derive(Debug)]
struct Machine {
    /// Pages written in each interval and in no later one; the latest first.
    written: Vec<Bitmap>,
    most: usize,
}

impl Order for Recency {
    fn build(self, _pages: u64) -> Box<dyn Prepaging> {
        Box::new(Machine { written: Vec::new(), most: self.intervals as usize })
    }
}

impl Prepaging for Machine {
    fn next(&mut self, left: &Bitmap, most: u64) -> Vec<Run> {
        while let Some(latest) = self.written.first_mut() {
            latest.intersect_with(left);
            let runs = ascending(latest, 0, most);
            if !runs.is_empty() {
                return runs;
            }
            self.written.remove(0);
        }
        ascending(left, 0, most)
    }

    fn wants_writes(&self) -> bool {
        true
    }

    fn wrote(&mut self, pages: &Bitmap) {
        self.written.iter_mut().for_each(|earlier| earlier.subtract(pages));
        self.written.insert(0, pages.clone());
        self.written.truncate(self.most);
    }
}
