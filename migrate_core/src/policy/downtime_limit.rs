//! QEMU's rule: switch over when the rest fits the downtime limit.

use super::{Decision, Policy, Reason, Round, Rule};
use crate::error::Result;

crate::knobs! {
    /// Switches over when remaining / bandwidth is at most the limit.
    ///
    /// It has no cap on rounds or time: it never ends for a guest that writes faster than the link carries.
    ///
    /// Origin: QEMU's own rule (migration.c, migration_completion; `downtime-limit`, 300 ms), on the world's
    /// estimate.
    pub struct DowntimeLimit {
        /// Longest blackout to accept, by the estimate.
        limit: f64 [Seconds, 0.0..=2000.0] = 0.3,
    }
}

impl Rule for DowntimeLimit {
    fn build(self) -> Result<Box<dyn Policy>> {
        Ok(Box::new(self))
    }
}

impl Policy for DowntimeLimit {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        let expected = round.expected_blackout;
        Ok(match expected <= self.limit {
            true => Decision::switch_over(Reason::met("expected_blackout", expected, self.limit)),
            false => Decision::proceed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_at_the_limit_and_not_above() {
        let mut policy = DowntimeLimit { limit: 0.3 }.build().unwrap();
        let mut fires = |expected_blackout| {
            policy.decide(&Round { expected_blackout, ..Round::default() }, &[]).unwrap().fires()
        };
        assert_eq!([0.0, 0.3, 0.300001, f64::INFINITY].map(&mut fires), [true, true, false, false]);
    }
}
