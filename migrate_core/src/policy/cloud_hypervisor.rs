//! Cloud Hypervisor's rule, and its throttle.

use super::watch::{Fits, Moment, Timeout, Together, Watch};
use super::{Act, Decision, Policy, Reason, Rule};
use crate::error::{Error, Result};

crate::knobs! {
    /// Switches over when the estimated downtime of the next delta fits; cancels after a time-out.
    ///
    /// A delta is what a round leaves to be sent. It always ends.
    ///
    /// Origin: Cloud Hypervisor, `downtime_ms`, `timeout_s` and `timeout_strategy` of send-migration.
    pub struct CloudHypervisor {
        /// Longest blackout to accept, by the estimate (`downtime_ms`, 300 ms).
        downtime: f64 [Seconds, 0.0..=2000.0] = 0.3,
        /// Time since the migration's start (`timeout_s`, 3600 s).
        timeout: f64 [Seconds, 0.0..=1e9] = 3600,
        /// What then: `cancel` it, or `ignore` the downtime and switch over.
        on_timeout: String [Text] = "cancel",
    }
}

crate::knobs! {
    /// Cloud Hypervisor's rule with its own auto-converge.
    ///
    /// After `after` deltas the throttle grows by `step` every `every` rounds, whatever the guest does. vCPUs
    /// are paused in slices of 100 ms: at 99 % they run 1 ms of each. It always ends.
    ///
    /// Origin: the throttling branch of Cloud Hypervisor, whose steps are not configurable there.
    pub struct CloudHypervisorThrottle {
        /// Deltas before the first step (4).
        after: u64 [Count, 0.0..=1e9] = 4,
        /// Rounds from one step to the next (2).
        every: u64 [Count, 1.0..=1e9] = 2,
        /// Share of the vCPUs' time that a step adds (10 %).
        step: f64 [Ratio, 0.01..=0.99] = 0.1,
        /// Greatest throttle (99 %).
        most: f64 [Ratio, 0.01..=0.99] = 0.99,
        /// Longest blackout to accept, by the estimate (300 ms).
        downtime: f64 [Seconds, 0.0..=2000.0] = 0.3,
        /// Time since the migration's start (3600 s).
        timeout: f64 [Seconds, 0.0..=1e9] = 3600,
        /// What then: `cancel` it, or `ignore` the downtime and switch over.
        on_timeout: String [Text] = "cancel",
    }
}

fn on_timeout(part: &str, word: &str) -> Result<Act> {
    match word {
        "cancel" => Ok(Act::Abort),
        "ignore" => Ok(Act::SwitchOver),
        other => Err(Error::usage(format!("{part}: on_timeout must be cancel or ignore, not `{other}`"))),
    }
}

impl Rule for CloudHypervisor {
    fn build(self) -> Result<Box<dyn Policy>> {
        let then = on_timeout("CloudHypervisor", &self.on_timeout)?;
        Ok(Together::policy(vec![Box::new(Fits(self.downtime)), Timeout::after(self.timeout, then)]))
    }
}

struct Steps {
    knobs: CloudHypervisorThrottle,
    steps: u64,
}

impl Rule for CloudHypervisorThrottle {
    fn build(self) -> Result<Box<dyn Policy>> {
        let then = on_timeout("CloudHypervisorThrottle", &self.on_timeout)?;
        let (fits, timeout) = (Box::new(Fits(self.downtime)), Timeout::after(self.timeout, then));
        Ok(Together::policy(vec![fits, timeout, Box::new(Steps { knobs: self, steps: 0 })]))
    }
}

impl Watch for Steps {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        // Round 0 sends everything; each later one sends a delta.
        let deltas = u64::from(now.round?.index);
        let due = self.knobs.after.max(1) + self.steps * self.knobs.every;
        let percent = |steps: u64| (self.knobs.step * steps as f64).min(self.knobs.most) * 100.0;
        if deltas < due || percent(self.steps + 1) <= percent(self.steps) {
            return None;
        }
        let act = Act::Throttle { percent: percent(self.steps + 1) };
        self.steps += 1;
        Some(Decision::new(act, Reason::met("deltas", deltas as f64, due as f64)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Spec;
    use crate::policy::{find, Round};

    fn round(index: u32, elapsed: f64, expected_blackout: f64) -> Round {
        Round { index, elapsed, expected_blackout, ..Round::default() }
    }

    #[test]
    fn fits_or_times_out() {
        let spec = Spec::new("cloud-hypervisor");
        let act = |spec: &Spec, round| find(spec).unwrap().decide(&round, &[]).unwrap().act;
        assert_eq!(act(&spec, round(0, 1.0, 0.3)), Act::SwitchOver);
        assert_eq!(act(&spec, round(0, 3599.0, 0.301)), Act::Proceed);
        assert_eq!(act(&spec, round(0, 3600.0, 0.301)), Act::Abort);
        assert_eq!(act(&spec, round(0, 3600.0, 0.3)), Act::SwitchOver, "what fits comes first");
        let ignore = spec.with("on_timeout", "ignore");
        assert_eq!(act(&ignore, round(0, 3600.0, 9.0)), Act::SwitchOver);
        assert!(find(&ignore.with("on_timeout", "explode")).is_err());
    }

    #[test]
    fn throttles_from_the_fourth_delta_every_second_round() {
        let mut policy = find(&Spec::new("cloud-hypervisor-throttle")).unwrap();
        let mut act = |index| policy.decide(&round(index, 1.0, 9.0), &[]).unwrap().act;
        let steps: Vec<(u32, u32)> = (0..60)
            .filter_map(|index| match act(index) {
                Act::Throttle { percent } => Some((index, percent.round() as u32)),
                _ => None,
            })
            .collect();
        let ten = [(4, 10), (6, 20), (8, 30), (10, 40), (12, 50), (14, 60), (16, 70), (18, 80), (20, 90)];
        assert_eq!((&steps[..9], &steps[9..]), (&ten[..], &[(22, 99)][..]));
    }
}
