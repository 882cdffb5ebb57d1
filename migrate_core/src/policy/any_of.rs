//! Several policies at once.

use super::{Decision, Policy, Round, Rule, Sample};
use crate::error::{Error, Result};
use crate::knobs::Spec;

crate::knobs! {
    /// Asks each policy in turn and does what the first that fires says. All of them see every round.
    ///
    /// It ends as its parts do: it always ends if one of them does, and never ends otherwise.
    ///
    /// Origin: ours.
    pub struct AnyOf {
        /// The policies, the most important first.
        policies: Vec<Spec> [Parts] = Vec::<Spec>::new(),
    }
}

struct First(Vec<Box<dyn Policy>>);

impl Rule for AnyOf {
    fn build(self) -> Result<Box<dyn Policy>> {
        if self.policies.is_empty() {
            return Err(Error::usage("AnyOf: policies must name at least one policy"));
        }
        Ok(Box::new(First(self.policies.iter().map(super::find).collect::<Result<_>>()?)))
    }
}

impl Policy for First {
    fn decide(&mut self, round: &Round, history: &[Round]) -> Result<Decision> {
        let decisions =
            self.0.iter_mut().map(|policy| policy.decide(round, history)).collect::<Result<Vec<_>>>()?;
        Ok(decisions.into_iter().find(Decision::fires).unwrap_or_else(Decision::proceed))
    }

    fn sample(&mut self, sample: &Sample) -> Result<Option<Decision>> {
        let decisions = self.0.iter_mut().map(|policy| policy.sample(sample)).collect::<Result<Vec<_>>>()?;
        Ok(decisions.into_iter().flatten().find(Decision::fires))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{find, Act};

    #[test]
    fn samples_reach_every_part() {
        let timeout = serde_json::json!({"name": "cloud-hypervisor", "timeout": 5});
        let spec =
            Spec::new("any-of").with("policies", vec![serde_json::json!({"name": "fraction"}), timeout]);
        let mut policy = find(&spec).unwrap();
        let mut at = |elapsed| policy.sample(&Sample { elapsed, ..Sample::default() }).unwrap();
        assert_eq!((at(4.9), at(5.0).map(|d| d.act)), (None, Some(Act::Abort)));
    }

    #[test]
    fn the_first_that_fires_wins() {
        let cap = |rounds: u64, then: &str| serde_json::json!({"name": "max-rounds", "rounds": rounds, "then": then});
        let spec = Spec::new("any-of").with("policies", vec![cap(3, "abort"), cap(2, "switchover")]);
        let mut policy = find(&spec).unwrap();
        let mut at = |index| policy.decide(&Round { index, ..Round::default() }, &[]).unwrap().act;
        assert_eq!((at(0), at(1), at(2)), (Act::Proceed, Act::SwitchOver, Act::Abort));
        assert!(find(&Spec::new("any-of")).is_err());
    }
}
