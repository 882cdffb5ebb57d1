//! Act when a round leaves no less than the round before it.

use super::max_rounds::act;
use super::{Act, Decision, Policy, Reason, Round, Rule};
use crate::error::Result;

crate::knobs! {
    /// Acts when remaining is no smaller than after the round before.
    ///
    /// A round counts when its remaining is not less than the one before's by more than `margin`; `times`
    /// such rounds in a row, and it acts. With `times` 1 it always ends; with more, a guest that rises and
    /// falls may keep it going.
    ///
    /// Origin: the oldest stop rule of pre-copy (Nelson et al., USENIX ATC 2005; Xen's at full rate).
    pub struct NoProgress {
        /// Rounds without progress in a row.
        times: u64 [Count, 1.0..=1e6] = 1,
        /// Share by which remaining must fall to be progress; at 0 any fall is.
        margin: f64 [Ratio, 0.0..=0.99] = 0.0,
        /// What then: `switchover`, `postcopy` or `abort`.
        then: String [Text] = "switchover",
    }
}

struct Counter {
    times: u64,
    margin: f64,
    then: Act,
    before: Option<u64>,
    count: u64,
}

impl Rule for NoProgress {
    fn build(self) -> Result<Box<dyn Policy>> {
        let then = act("NoProgress", &self.then)?;
        Ok(Box::new(Counter { times: self.times, margin: self.margin, then, before: None, count: 0 }))
    }
}

impl Policy for Counter {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        let Some(before) = self.before.replace(round.remaining_bytes) else { return Ok(Decision::proceed()) };
        let enough = before as f64 * (1.0 - self.margin);
        let remaining = round.remaining_bytes as f64;
        self.count = if remaining >= enough { self.count + 1 } else { 0 };
        Ok(match self.count >= self.times {
            true => Decision::new(self.then, Reason::met("remaining_bytes", remaining, enough)),
            false => Decision::proceed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Spec;
    use crate::policy::find;

    fn fires(spec: &Spec, remaining: &[u64]) -> Vec<bool> {
        let mut policy = find(spec).unwrap();
        let round = |bytes: &u64| Round { remaining_bytes: *bytes, ..Round::default() };
        remaining.iter().map(|bytes| policy.decide(&round(bytes), &[]).unwrap().fires()).collect()
    }

    #[test]
    fn as_much_is_no_progress() {
        assert_eq!(fires(&Spec::new("no-progress"), &[9, 8, 8, 9, 7]), [false, false, true, true, false]);
    }

    #[test]
    fn several_times_means_in_a_row() {
        let spec = Spec::new("no-progress").with("times", 2);
        assert_eq!(fires(&spec, &[9, 9, 8, 8, 9]), [false, false, false, false, true]);
    }

    #[test]
    fn less_than_the_margin_is_no_progress() {
        let spec = Spec::new("no-progress").with("margin", 0.1).with("then", "postcopy");
        assert_eq!(fires(&spec, &[1000, 899, 890]), [false, false, true]);
    }
}
