//! A cap on total time.

use super::max_rounds::act;
use super::{Act, Decision, Policy, Reason, Round, Rule};
use crate::error::Result;

crate::knobs! {
    /// Ends the live copy after so long, at the first round's end after it.
    ///
    /// It always ends.
    ///
    /// Origin: common; managers put such a cap on every migration.
    pub struct TimeLimit {
        /// Time since the migration's start.
        limit: f64 [Seconds, 0.0..=1e9] = 60.0,
        /// What then: `switchover`, `postcopy` or `abort`.
        then: String [Text] = "abort",
    }
}

struct Cap {
    limit: f64,
    then: Act,
}

impl Rule for TimeLimit {
    fn build(self) -> Result<Box<dyn Policy>> {
        Ok(Box::new(Cap { limit: self.limit, then: act("TimeLimit", &self.then)? }))
    }
}

impl Policy for Cap {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        Ok(match round.elapsed >= self.limit {
            true => Decision::new(self.then, Reason::met("elapsed", round.elapsed, self.limit)),
            false => Decision::proceed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fires_from_the_limit_on() {
        let mut policy = TimeLimit { limit: 2.0, then: "abort".into() }.build().unwrap();
        let mut at = |elapsed| policy.decide(&Round { elapsed, ..Round::default() }, &[]).unwrap().act;
        assert_eq!((at(1.99), at(2.0)), (Act::Proceed, Act::Abort));
    }
}
