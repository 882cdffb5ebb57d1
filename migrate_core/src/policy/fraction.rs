//! Switch over when a share of memory remains.

use super::{Decision, Policy, Reason, Round, Rule};
use crate::error::Result;

crate::knobs! {
    /// Switches over when remaining <= alpha x memory, whatever the link.
    ///
    /// It never ends for a guest whose writable working set is larger than that.
    ///
    /// Origin: Aldhalaan and Menasce's analytic models of pre-copy; the default is ours.
    pub struct Fraction {
        /// Share of memory that may remain.
        alpha: f64 [Ratio, 0.0..=1.0] = 0.01,
    }
}

impl Rule for Fraction {
    fn build(self) -> Result<Box<dyn Policy>> {
        Ok(Box::new(self))
    }
}

impl Policy for Fraction {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        let (remaining, most) = (round.remaining_bytes as f64, self.alpha * round.memory_bytes as f64);
        Ok(match remaining <= most {
            true => Decision::switch_over(Reason::met("remaining_bytes", remaining, most)),
            false => Decision::proceed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_at_the_share_and_not_above() {
        let mut policy = Fraction { alpha: 0.25 }.build().unwrap();
        let mut fires = |remaining_bytes| {
            let round = Round { remaining_bytes, memory_bytes: 4000, ..Round::default() };
            policy.decide(&round, &[]).unwrap().fires()
        };
        assert_eq!([0, 1000, 1001].map(&mut fires), [true, true, false]);
    }
}
