//! Drafter's cycles.

use super::watch::due;
use super::{Decision, Policy, Reason, Round, Rule};
use crate::error::Result;

crate::knobs! {
    /// Switches over after some cycles in a row with few dirty blocks. It always ends.
    ///
    /// There is a least and a greatest number of cycles, and a pause between them.
    ///
    /// A round is a cycle if it ends at least `pause` after the cycle before it: that stands for the pause
    /// between cycles, which a policy cannot make. Dirty blocks are counted as the bytes that remain; pages
    /// that are scattered over blocks dirty more of them than that.
    ///
    /// Origin: Drafter's peer and its Silo storage: `maxDirtyBlocks` 200 of 64 KiB, `minCycles` 5,
    /// `maxCycles` 20, `cycleThrottle` 500 ms.
    pub struct Drafter {
        /// Remaining must be under this (200 blocks of 64 KiB).
        dirty: u64 [Bytes, 0.0..=1e18] = 200 * 65536,
        /// Cycles in a row with so little.
        in_a_row: u64 [Count, 1.0..=1e9] = 5,
        /// Least number of cycles.
        least: u64 [Count, 0.0..=1e9] = 5,
        /// Greatest number of cycles.
        most: u64 [Count, 1.0..=1e9] = 20,
        /// Least time between the ends of two cycles (500 ms).
        pause: f64 [Seconds, 0.0..=3600.0] = 0.5,
    }
}

struct Cycles {
    knobs: Drafter,
    last: f64,
    done: u64,
    calm: u64,
}

impl Rule for Drafter {
    fn build(self) -> Result<Box<dyn Policy>> {
        Ok(Box::new(Cycles { knobs: self, last: f64::NEG_INFINITY, done: 0, calm: 0 }))
    }
}

impl Policy for Cycles {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        let knobs = &self.knobs;
        if !due(round.elapsed, self.last, knobs.pause) {
            return Ok(Decision::proceed());
        }
        self.last = round.elapsed;
        self.done += 1;
        self.calm = if round.remaining_bytes < knobs.dirty { self.calm + 1 } else { 0 };
        let reason = if self.calm >= knobs.in_a_row && self.done >= knobs.least {
            Reason::met("remaining_bytes", round.remaining_bytes as f64, knobs.dirty as f64)
        } else if self.done >= knobs.most {
            Reason::met("cycles", self.done as f64, knobs.most as f64)
        } else {
            return Ok(Decision::proceed());
        };
        Ok(Decision::switch_over(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The round at which it switches over, and why; rounds are `every` seconds apart.
    fn fires(
        knobs: Drafter,
        every: f64,
        remaining: impl IntoIterator<Item = u64>,
    ) -> Option<(usize, String)> {
        let mut policy = knobs.build().unwrap();
        remaining.into_iter().enumerate().find_map(|(index, remaining_bytes)| {
            let round = Round { elapsed: (index + 1) as f64 * every, remaining_bytes, ..Round::default() };
            let decision = policy.decide(&round, &[]).unwrap();
            decision.fires().then(|| (index, decision.reason.quantity.to_string()))
        })
    }

    fn knobs() -> Drafter {
        Drafter { dirty: 100, in_a_row: 2, least: 4, most: 6, pause: 0.5 }
    }

    #[test]
    fn calm_cycles_count_in_a_row_only() {
        let calm = |index| Some((index, "remaining_bytes".to_owned()));
        assert_eq!(fires(knobs(), 1.0, [9, 9, 9, 100, 9, 9]), calm(5));
        assert_eq!(fires(knobs(), 1.0, [9, 9, 9, 9]), calm(3), "not before the least number of cycles");
        assert_eq!(fires(Drafter { least: 0, ..knobs() }, 1.0, [9, 9]), calm(1));
    }

    #[test]
    fn the_greatest_number_of_cycles_ends_it() {
        assert_eq!(fires(knobs(), 1.0, [100; 9]), Some((5, "cycles".to_owned())));
    }

    #[test]
    fn rounds_within_the_pause_are_no_cycles() {
        assert_eq!(fires(knobs(), 0.25, [100; 20]), Some((10, "cycles".to_owned())));
    }
}
