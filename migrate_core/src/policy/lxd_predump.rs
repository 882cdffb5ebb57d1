//! LXD's rule for dumping a container's memory ahead.

use super::{Decision, Policy, Reason, Round, Rule};
use crate::error::Result;
use crate::guest::PAGE;

crate::knobs! {
    /// Switches over after so many rounds, or when enough pages need no re-sending. It always ends.
    ///
    /// Origin: LXD, `migration.incremental.memory.iterations` and `.goal`.
    pub struct LxdPredump {
        /// Rounds of live copying, round 0 included (10).
        rounds: u64 [Count, 1.0..=1e9] = 10,
        /// Share of memory's pages that need no re-sending (70 %).
        goal: f64 [Ratio, 0.0..=1.0] = 0.7,
    }
}

impl Rule for LxdPredump {
    fn build(self) -> Result<Box<dyn Policy>> {
        Ok(Box::new(self))
    }
}

impl Policy for LxdPredump {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        let done = u64::from(round.index) + 1;
        let pages = round.memory_bytes / PAGE as u64;
        let (clean, enough) = (pages.saturating_sub(round.remaining_pages) as f64, self.goal * pages as f64);
        let reason = if clean >= enough {
            Reason::met("clean_pages", clean, enough)
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
        let mut policy = LxdPredump { rounds: 10, goal: 0.7 }.build().unwrap();
        let mut why = |index, remaining_pages| {
            let round = Round { index, remaining_pages, memory_bytes: 100 * PAGE as u64, ..Round::default() };
            policy.decide(&round, &[]).unwrap().reason.quantity
        };
        assert_eq!((why(8, 31), why(9, 31), why(0, 30)), ("".into(), "rounds".into(), "clean_pages".into()));
    }
}
