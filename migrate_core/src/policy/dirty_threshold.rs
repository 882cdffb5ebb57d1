//! Xen's classic three thresholds.

use super::{Decision, Policy, Reason, Round, Rule};
use crate::error::Result;

crate::knobs! {
    /// Switches over at a round count, at few remaining pages, or when too much was sent.
    ///
    /// It asks nothing of the link, and always ends.
    ///
    /// Origin: the constants of Xen's classic tools: 29 rounds, 50 pages, 3 x memory.
    pub struct DirtyThreshold {
        /// Rounds of live copying, round 0 included, after which it switches over.
        rounds: u64 [Count, 1.0..=1e9] = 29,
        /// It switches over when fewer pages remain.
        pages: u64 [Count, 0.0..=1e12] = 50,
        /// It switches over when pages sent are more than this multiple of memory.
        factor: f64 [Ratio, 0.0..=1e6] = 3.0,
    }
}

impl Rule for DirtyThreshold {
    fn build(self) -> Result<Box<dyn Policy>> {
        Ok(Box::new(self))
    }
}

impl Policy for DirtyThreshold {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        let (done, sent) = (u64::from(round.index) + 1, round.total_sent_pages as f64);
        let most_sent = self.factor * (round.memory_bytes / crate::guest::PAGE as u64) as f64;
        let reason = if round.remaining_pages < self.pages {
            Reason::met("remaining_pages", round.remaining_pages as f64, self.pages as f64)
        } else if done >= self.rounds {
            Reason::met("rounds", done as f64, self.rounds as f64)
        } else if sent > most_sent {
            Reason::met("total_sent_pages", sent, most_sent)
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
    fn each_threshold_fires_alone_and_says_so() {
        let mut policy = DirtyThreshold { rounds: 29, pages: 50, factor: 3.0 }.build().unwrap();
        let calm = Round {
            remaining_pages: 50,
            memory_bytes: 4096 * 100,
            total_sent_pages: 300,
            index: 27,
            ..Round::default()
        };
        let mut why = |round: Round| policy.decide(&round, &[]).unwrap().reason.quantity;
        assert_eq!(why(calm.clone()), "");
        assert_eq!(why(Round { remaining_pages: 49, ..calm.clone() }), "remaining_pages");
        assert_eq!(why(Round { index: 28, ..calm.clone() }), "rounds");
        assert_eq!(why(Round { total_sent_pages: 301, ..calm }), "total_sent_pages");
    }
}
