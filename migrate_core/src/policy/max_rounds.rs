//! A cap on rounds.

use super::{Act, Decision, Policy, Reason, Round, Rule};
use crate::error::{Error, Result};

crate::knobs! {
    /// Ends the live copy after so many rounds, whatever remains.
    ///
    /// It always ends.
    ///
    /// Origin: common; a cap beside a rule that has none.
    pub struct MaxRounds {
        /// Rounds of live copying, round 0 included.
        rounds: u64 [Count, 1.0..=1e9] = 30,
        /// What then: `switchover`, `postcopy` or `abort`.
        then: String [Text] = "switchover",
    }
}

/// What a cap does when it is reached.
pub(super) fn act(part: &str, then: &str) -> Result<Act> {
    match then {
        "switchover" => Ok(Act::SwitchOver),
        "postcopy" => Ok(Act::PostCopy),
        "abort" => Ok(Act::Abort),
        other => {
            Err(Error::usage(format!("{part}: then must be switchover, postcopy or abort, not `{other}`")))
        }
    }
}

struct Cap {
    rounds: u64,
    then: Act,
}

impl Rule for MaxRounds {
    fn build(self) -> Result<Box<dyn Policy>> {
        Ok(Box::new(Cap { rounds: self.rounds, then: act("MaxRounds", &self.then)? }))
    }
}

impl Policy for Cap {
    fn decide(&mut self, round: &Round, _history: &[Round]) -> Result<Decision> {
        let done = u64::from(round.index) + 1;
        Ok(match done >= self.rounds {
            true => Decision::new(self.then, Reason::met("rounds", done as f64, self.rounds as f64)),
            false => Decision::proceed(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_round_zero() {
        let mut policy = MaxRounds { rounds: 2, then: "abort".into() }.build().unwrap();
        let mut at = |index| policy.decide(&Round { index, ..Round::default() }, &[]).unwrap().act;
        assert_eq!((at(0), at(1), at(7)), (Act::Proceed, Act::Abort, Act::Abort));
        assert!(MaxRounds { rounds: 2, then: "explode".into() }.build().is_err());
    }
}
