//! Limits that grow with time: oVirt's old exponential ramp and Nova's linear one.

use super::max_rounds::act;
use super::watch::{due, gib, Moment, Timeout, Together, Watch};
use super::{Act, Decision, Policy, Reason, Rule};
use crate::error::{Error, Result};

crate::knobs! {
    /// A limit that grows exponentially up to its greatest value.
    ///
    /// Value i of n, in milliseconds: offset + base^i, with offset = most / n and
    /// base = (most - offset)^(1 / (n - 1)); the one value `most` if n is 1. Value i is set i waits after the
    /// start, a wait being `delay` x GiB / n, but no longer than `most_wait`. It never ends for a guest that
    /// does not fit the last value.
    ///
    /// Origin: oVirt's vdsm, before its named policies (`migration_downtime`, `migration_downtime_steps`,
    /// `migration_downtime_delay`).
    pub struct OvirtLegacy {
        /// Greatest limit (500 ms).
        most: f64 [Seconds, 0.001..=2000.0] = 0.5,
        /// Number of values (10).
        steps: u64 [Count, 1.0..=1000.0] = 10,
        /// Time over which the values are spread, for each GiB of memory (75 s).
        delay: f64 [Seconds, 0.0..=1e6] = 75,
        /// Longest wait between two values (60 s).
        most_wait: f64 [Seconds, 0.0..=1e9] = 60,
    }
}

crate::knobs! {
    /// A limit that grows linearly, and a time-out; both by the size of the guest. It always ends.
    ///
    /// With base = most / steps and offset = (most - base) / steps, at `delay` x GiB x i the limit is
    /// base + offset x i, for i from 0 to `steps`. After `completion` x GiB it aborts, or is forced.
    ///
    /// Origin: OpenStack Nova, `live_migration_downtime`, `_downtime_steps`, `_downtime_delay`,
    /// `_completion_timeout` and `_timeout_action`.
    pub struct Nova {
        /// Greatest limit (500 ms).
        most: f64 [Seconds, 0.001..=2000.0] = 0.5,
        /// Steps to it (10).
        steps: u64 [Count, 1.0..=1000.0] = 10,
        /// Time between two steps, for each GiB (75 s).
        delay: f64 [Seconds, 0.0..=1e6] = 75,
        /// Time-out, for each GiB (800 s).
        completion: f64 [Seconds, 0.0..=1e6] = 800,
        /// What then: `abort`; forced by `switchover` (a pause) or `postcopy`.
        then: String [Text] = "abort",
        /// Disks that are moved along, which count as memory does.
        disks: u64 [Bytes, 0.0..=1e18] = 0,
    }
}

/// Sets one value after another as time passes.
struct Ramp {
    /// Seconds.
    values: Vec<f64>,
    /// Seconds from one value to the next for each GiB.
    wait: f64,
    most_wait: f64,
    /// Bytes that count as memory does.
    extra: u64,
    set: usize,
}

impl Watch for Ramp {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        let wait = (self.wait * gib(now.memory.saturating_add(self.extra))).min(self.most_wait);
        let passed = |i: &usize| *i < self.values.len() && due(now.elapsed, 0.0, wait * *i as f64);
        let last = (self.set..self.values.len()).take_while(passed).last()?;
        self.set = last + 1;
        let reason = Reason::met("elapsed", now.elapsed, wait * last as f64);
        Some(Decision::new(Act::blackout(*self.values.get(last)?), reason))
    }
}

/// The exponential ramp's values in seconds. Its unit is part of the rule: base^0 is one millisecond.
fn exponential(most: f64, steps: u64) -> Vec<f64> {
    let (most, n) = (most * 1000.0, steps as f64);
    if steps == 1 {
        return vec![most / 1000.0];
    }
    let offset = most / n;
    let base = (most - offset).powf(1.0 / (n - 1.0));
    (0..steps).map(|i| (offset + base.powf(i as f64)) / 1000.0).collect()
}

fn linear(most: f64, steps: u64) -> Vec<f64> {
    let base = most / steps as f64;
    let offset = (most - base) / steps as f64;
    (0..=steps).map(|i| base + offset * i as f64).collect()
}

impl Rule for OvirtLegacy {
    fn build(self) -> Result<Box<dyn Policy>> {
        // Less would have the ramp begin above its end.
        if self.steps > 1 && self.most * 1000.0 * (1.0 - 1.0 / self.steps as f64) < 1.0 {
            let text = "OvirtLegacy: most must leave 1 ms above most / steps: give more, or steps = 1";
            return Err(Error::usage(text));
        }
        let values = exponential(self.most, self.steps);
        let wait = self.delay / self.steps as f64;
        let ramp = Ramp { values, wait, most_wait: self.most_wait, extra: 0, set: 0 };
        Ok(Together::policy(vec![Box::new(ramp)]))
    }
}

impl Rule for Nova {
    fn build(self) -> Result<Box<dyn Policy>> {
        let values = linear(self.most, self.steps);
        let ramp = Ramp { values, wait: self.delay, most_wait: f64::INFINITY, extra: self.disks, set: 0 };
        let then = act("Nova", &self.then)?;
        let timeout = Timeout { after: 0.0, per_gib: self.completion, extra: self.disks, then };
        Ok(Together::policy(vec![Box::new(ramp), Box::new(timeout)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Spec;
    use crate::policy::{find, Sample};

    fn micros(values: &[f64]) -> Vec<u64> {
        values.iter().map(|seconds| (seconds * 1e6).round() as u64).collect()
    }

    #[test]
    fn the_exponential_ramp_starts_a_millisecond_above_its_offset_and_ends_at_its_most() {
        // 100, 20 + 80^(i/4): the roots of 80 to the microsecond.
        assert_eq!(micros(&exponential(0.1, 5)), [21_000, 22_991, 28_944, 46_750, 100_000]);
        assert_eq!(micros(&exponential(0.5, 1)), [500_000]);
        let ten = micros(&exponential(0.5, 10));
        assert_eq!((ten[0], ten[9]), (51_000, 500_000));
    }

    #[test]
    fn the_linear_ramp_has_a_value_more_than_steps() {
        let values = micros(&linear(0.5, 10));
        assert_eq!(values, (0..=10).map(|i| 50_000 + 45_000 * i).collect::<Vec<u64>>());
    }

    /// Limits in milliseconds at times, and other acts as 0, of a guest of 2 GiB.
    fn acts(spec: &Spec, times: &[f64]) -> Vec<Option<u64>> {
        let mut policy = find(spec).unwrap();
        let sample = |elapsed: &f64| Sample { elapsed: *elapsed, memory_bytes: 2 << 30, ..Sample::default() };
        let said = times.iter().map(|t| policy.sample(&sample(t)).unwrap().map(|d| d.act));
        said.map(|act| match act {
            Some(Act::Limit { blackout: Some(limit), .. }) => Some((limit * 1000.0).round() as u64),
            other => other.map(|_| 0),
        })
        .collect()
    }

    #[test]
    fn steps_come_by_time_and_size() {
        let nova = Spec::new("nova");
        assert_eq!(acts(&nova, &[0.0, 149.0, 150.0, 151.0]), [Some(50), None, Some(95), None]);
        assert_eq!(acts(&nova, &[450.0, 1500.0, 1599.0, 1600.0]), [Some(185), Some(500), None, Some(0)]);
        let disks = nova.with("disks", 2u64 << 30);
        assert_eq!(acts(&disks, &[0.0, 299.0, 300.0, 1600.0]), [Some(50), None, Some(95), Some(275)]);
        // 75 s x 2 GiB / 10 is a wait of 15 s.
        let ovirt = Spec::new("ovirt-legacy");
        assert_eq!(acts(&ovirt, &[0.0, 14.0, 15.0, 135.0, 9e9]), [Some(51), None, Some(52), Some(500), None]);
        let slow = Spec::new("ovirt-legacy").with("delay", 1000).with("steps", 5);
        assert_eq!(acts(&slow, &[0.0, 59.0, 60.0])[1..], [None, Some(104)], "60 s is the longest wait");
    }

    #[test]
    fn a_ramp_that_would_fall_is_refused() {
        assert!(find(&Spec::new("ovirt-legacy").with("most", 0.001)).is_err());
        assert!(find(&Spec::new("ovirt-legacy").with("most", 0.001).with("steps", 1)).is_ok());
    }
}
