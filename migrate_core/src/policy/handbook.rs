//! The textbook rule: a dirty rate or a number of rounds.

use super::{Decision, Policy, Reason, Round, Rule};
use crate::error::Result;

crate::knobs! {
    /// Iterates until the dirty rate falls under a threshold or enough rounds are done.
    ///
    /// Then the guest is stopped for the last pages. It always ends.
    ///
    /// Origin: the cloud-server handbook, which gives no numbers; the defaults are ours.
    pub struct Handbook {
        /// Dirty rate under which it switches over.
        rate: f64 [BytesPerSecond, 0.0..=1e15] = 1e7,
        /// Rounds of live copying, round 0 included, after which it does so anyway.
        rounds: u64 [Count, 1.0..=1e9] = 30,
    }
}

impl Rule for Handbook {
    fn build(self) -> Result<Box<dyn Policy>> {
        Ok(Box::new(self))
    }
}

impl Policy for Handbook {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        let done = u64::from(round.index) + 1;
        let reason = if round.dirty_rate < self.rate {
            Reason::met("dirty_rate", round.dirty_rate, self.rate)
        } else if done >= self.rounds {
            Reason::met("rounds", done as f64, self.rounds as f64)
        } else {
            return Ok(Decision::proceed());
        };
        Ok(Decision::switch_over(reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_clause_fires_alone() {
        let mut policy = Handbook { rate: 1e6, rounds: 3 }.build().unwrap();
        let mut why = |index, dirty_rate| {
            policy.decide(&Round { index, dirty_rate, ..Round::default() }, &[]).unwrap().reason.quantity
        };
        assert_eq!(
            (why(0, 1e6), why(0, 0.9e6), why(2, 1e6)),
            ("".into(), "dirty_rate".into(), "rounds".into())
        );
    }
}
