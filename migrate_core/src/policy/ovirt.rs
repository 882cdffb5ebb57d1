//! oVirt's named policies: limits by the number of rounds, then the last resort.

use std::collections::VecDeque;

use super::auto_converge::Converge;
use super::watch::{Moment, Opening, Together, Watch};
use super::{Act, Decision, Policy, Reason, Rule};
use crate::error::Result;

crate::knobs! {
    /// 100 ms; when more than 1, 2, 3, 4, 6 rounds have passed: 150, 200, 300, 400, 500 ms; then abort.
    ///
    /// oVirt calls the rounds stalling, but counts all of them, stalled or not, from the first that it
    /// sees, which is round 0. Each round takes one step; the abort follows in the round after the last
    /// limit. It always ends.
    ///
    /// Origin: oVirt engine, policy "Minimal downtime"; vdsm's convergence schedule.
    pub struct OvirtMinimalDowntime {
        /// Whether QEMU's auto-converge is on beside it, with its defaults.
        auto_converge: bool [Flag] = true,
    }
}

crate::knobs! {
    /// The steps of `ovirt-minimal-downtime`, then 5000 ms, then abort. It always ends.
    ///
    /// oVirt has XBZRLE on beside it: choose that codec.
    ///
    /// Origin: oVirt engine, policy "Suspend workload if needed".
    pub struct OvirtSuspend {
        /// Whether QEMU's auto-converge is on beside it, with its defaults.
        auto_converge: bool [Flag] = true,
    }
}

crate::knobs! {
    /// 100 ms; when more than 1, 2 rounds have passed: 150, 200 ms; then post-copy; then abort.
    ///
    /// It always ends.
    ///
    /// Origin: oVirt engine, policy "Post-copy migration".
    pub struct OvirtPostCopy {
        /// Whether QEMU's auto-converge is on beside it, with its defaults.
        auto_converge: bool [Flag] = false,
    }
}

crate::knobs! {
    /// 300 ms; after more than 1, 2, 3, 4, 6 rounds: 400, 500, 700, 1000, 1500 ms; then 5000 ms; then abort.
    ///
    /// It always ends.
    ///
    /// Origin: oVirt engine, policy "Very large VMs".
    pub struct OvirtVeryLarge {
        /// Whether QEMU's auto-converge is on beside it, with its defaults.
        auto_converge: bool [Flag] = false,
    }
}

/// One step: taken when more rounds than this have passed, or in any case.
type Step = (Option<u64>, Act);

struct Schedule(VecDeque<Step>);

impl Schedule {
    /// A policy that opens with `first` and then takes `limits`, seconds after so many rounds, and `last`.
    fn policy(first: f64, limits: &[(u64, f64)], last: &[Act], converge: bool) -> Result<Box<dyn Policy>> {
        let limits = limits.iter().map(|(rounds, limit)| (Some(*rounds), Act::blackout(*limit)));
        let steps = limits.chain(last.iter().map(|act| (None, *act)));
        let mut rules: Vec<Box<dyn Watch>> = vec![Opening::at(first), Box::new(Self(steps.collect()))];
        if converge {
            rules.push(Converge::qemu()?);
        }
        Ok(Together::policy(rules))
    }
}

impl Watch for Schedule {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        // At the end of round 0 the second round is seen, one after the first.
        let passed = u64::from(now.round?.index) + 1;
        let (more_than, act) = *self.0.front()?;
        if more_than.is_some_and(|rounds| passed <= rounds) {
            return None;
        }
        self.0.pop_front();
        Some(Decision::new(act, Reason::met("rounds", passed as f64, more_than.unwrap_or(0) as f64)))
    }
}

const MINIMAL: [(u64, f64); 5] = [(1, 0.15), (2, 0.2), (3, 0.3), (4, 0.4), (6, 0.5)];
const LARGE: [(u64, f64); 5] = [(1, 0.4), (2, 0.5), (3, 0.7), (4, 1.0), (6, 1.5)];

impl Rule for OvirtMinimalDowntime {
    fn build(self) -> Result<Box<dyn Policy>> {
        Schedule::policy(0.1, &MINIMAL, &[Act::Abort], self.auto_converge)
    }
}

impl Rule for OvirtSuspend {
    fn build(self) -> Result<Box<dyn Policy>> {
        Schedule::policy(0.1, &MINIMAL, &[Act::blackout(5.0), Act::Abort], self.auto_converge)
    }
}

impl Rule for OvirtPostCopy {
    fn build(self) -> Result<Box<dyn Policy>> {
        Schedule::policy(0.1, &MINIMAL[..2], &[Act::PostCopy, Act::Abort], self.auto_converge)
    }
}

impl Rule for OvirtVeryLarge {
    fn build(self) -> Result<Box<dyn Policy>> {
        Schedule::policy(0.3, &LARGE, &[Act::blackout(5.0), Act::Abort], self.auto_converge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Spec;
    use crate::policy::{find, Round, Sample};

    /// What each round's end is answered with, in words: limits in milliseconds.
    fn acts(spec: &Spec, rounds: impl IntoIterator<Item = Round>) -> Vec<String> {
        let mut policy = find(spec).unwrap();
        let opening = policy.sample(&Sample::default()).unwrap();
        let rounds: Vec<Round> = rounds.into_iter().collect();
        let rest = rounds.iter().map(|round| policy.decide(round, &[]).unwrap());
        let word = |act: Act| match act {
            Act::Limit { blackout: Some(limit), .. } => format!("{}", (limit * 1000.0).round()),
            Act::Throttle { percent } => format!("{percent}%"),
            Act::Proceed => "-".into(),
            other => format!("{other:?}"),
        };
        opening.into_iter().chain(rest).map(|decision| word(decision.act)).collect()
    }

    /// Rounds that shrink all the time: to oVirt they stall as much as any.
    fn shrinking(n: u32) -> impl Iterator<Item = Round> {
        (0..n).map(|index| Round { index, remaining_bytes: 1 << (40 - index), ..Round::default() })
    }

    #[test]
    fn stalling_counts_rounds_not_stalls() {
        let steps = acts(&Spec::new("ovirt-minimal-downtime"), shrinking(8));
        assert_eq!(steps, ["100", "-", "150", "200", "300", "400", "-", "500", "Abort"]);
    }

    #[test]
    fn each_name_has_its_list() {
        let of = |name| acts(&Spec::new(name), shrinking(9)).join(" ");
        assert_eq!(of("ovirt-suspend"), "100 - 150 200 300 400 - 500 5000 Abort");
        assert_eq!(of("ovirt-very-large"), "300 - 400 500 700 1000 - 1500 5000 Abort");
        assert_eq!(of("ovirt-post-copy"), "100 - 150 200 PostCopy Abort - - - -");
    }

    #[test]
    fn auto_converge_runs_beside_the_steps() {
        let busy = |index: u32| Round {
            index,
            elapsed: f64::from(index + 1) * 2.0,
            duration: 2.0,
            dirty_rate: 1e6,
            total_sent_bytes: u64::from(index + 1) * 2_000_000,
            ..Round::default()
        };
        let spec = Spec::new("ovirt-minimal-downtime");
        // The throttle of round 1 waits until a round has no limit to set.
        let steps = acts(&spec, (0..6).map(busy));
        assert_eq!(steps, ["100", "-", "150", "200", "300", "400", "40%"]);
        let off = acts(&spec.with("auto_converge", false), (0..6).map(busy));
        assert_eq!(off, ["100", "-", "150", "200", "300", "400", "-"]);
    }
}
