//! QEMU's auto-converge: hold all vCPUs back, more and more, while the guest writes too fast.

use super::qemu::Pending;
use super::watch::{Moment, Together, Watch};
use super::{Act, Decision, Policy, Reason, Round, Rule};
use crate::error::Result;

crate::knobs! {
    /// QEMU's rule, with a throttle that grows while the guest writes too fast.
    ///
    /// At a round's end more than `period` after the last one that was counted: if the bytes dirtied since
    /// then are more than `trigger` of the bytes sent, count one. At every second count, which need not
    /// follow the first directly, throttle: first `initial`, then `increment` more, at most `most`, never
    /// less again. All vCPUs are held back alike: in slices of 10 ms, each followed by a sleep of
    /// 10 ms x p / (1 - p). It never ends for a guest that writes too fast even so.
    ///
    /// QEMU 9.2 and later also force a harvest when 5 s pass without one while throttling; a world whose
    /// rounds are longer decides later than QEMU would.
    ///
    /// Origin: QEMU, `auto-converge`, `throttle-trigger-threshold`, `cpu-throttle-*`.
    pub struct QemuAutoConverge {
        /// Longest blackout to accept (`downtime-limit`, 300 ms).
        limit: f64 [Seconds, 0.0..=2000.0] = 0.3,
        /// Share of the bytes sent that may be dirtied meanwhile (`throttle-trigger-threshold`, 50 %).
        trigger: f64 [Ratio, 0.01..=1.0] = 0.5,
        /// First throttle, as a share of the vCPUs' time (`cpu-throttle-initial`, 20 %).
        initial: f64 [Ratio, 0.01..=0.99] = 0.2,
        /// Step of the throttle (`cpu-throttle-increment`, 10 %).
        increment: f64 [Ratio, 0.01..=0.99] = 0.1,
        /// Greatest throttle (`max-cpu-throttle`, 99 %).
        most: f64 [Ratio, 0.01..=0.99] = 0.99,
        /// Whether a step is no longer than what would be enough (`cpu-throttle-tailslow`).
        tail_slow: bool [Flag] = false,
        /// A period is longer than this (1 s).
        period: f64 [Seconds, 0.0..=3600.0] = 1.0,
    }
}

impl Rule for QemuAutoConverge {
    fn build(self) -> Result<Box<dyn Policy>> {
        let pending = Box::new(Pending::new(self.limit));
        Ok(Together::policy(vec![pending, Box::new(Converge::new(self))]))
    }
}

/// What was dirtied and what may have been, in bytes of one period.
pub(super) struct Excess {
    pub dirty: f64,
    pub allowed: f64,
}

/// Counts periods in which the guest wrote too fast.
pub(super) struct Trigger {
    share: f64,
    period: f64,
    since: f64,
    sent: u64,
    dirty: f64,
    count: u32,
}

impl Trigger {
    pub fn new(share: f64, period: f64) -> Self {
        Self { share, period, since: 0.0, sent: 0, dirty: 0.0, count: 0 }
    }

    /// What was too much, at every second period in which there was.
    pub fn counts(&mut self, round: &Round) -> Option<Excess> {
        self.dirty += round.dirty_rate * round.duration;
        if round.elapsed - self.since <= self.period + 1e-9 {
            return None;
        }
        let sent = round.total_sent_bytes.saturating_sub(self.sent) as f64;
        let excess = Excess { dirty: self.dirty, allowed: sent * self.share };
        (self.since, self.sent, self.dirty) = (round.elapsed, round.total_sent_bytes, 0.0);
        self.count += u32::from(excess.dirty > excess.allowed);
        if self.count < 2 {
            return None;
        }
        self.count = 0;
        Some(excess)
    }
}

/// The throttle alone, for managers that switch auto-converge on. Percent.
pub(super) struct Converge {
    trigger: Trigger,
    initial: f64,
    increment: f64,
    most: f64,
    tail_slow: bool,
    throttle: f64,
}

impl Converge {
    pub fn new(knobs: QemuAutoConverge) -> Self {
        Self {
            trigger: Trigger::new(knobs.trigger, knobs.period),
            initial: knobs.initial * 100.0,
            increment: knobs.increment * 100.0,
            most: knobs.most * 100.0,
            tail_slow: knobs.tail_slow,
            throttle: 0.0,
        }
    }

    /// QEMU's defaults.
    pub fn qemu() -> Result<Box<dyn Watch>> {
        let knobs = crate::knobs::Knobs::from_knobs(&crate::knobs::Given::new())?;
        Ok(Box::new(Self::new(knobs)))
    }

    fn next(&self, excess: &Excess) -> f64 {
        if self.throttle == 0.0 {
            return self.initial.min(self.most);
        }
        let left = 100.0 - self.throttle;
        let enough = left - left * excess.allowed / excess.dirty;
        let step = if self.tail_slow { self.increment.min(enough) } else { self.increment };
        (self.throttle + step).min(self.most)
    }
}

impl Watch for Converge {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        let excess = self.trigger.counts(now.round?)?;
        let percent = self.next(&excess);
        if percent <= self.throttle {
            return None;
        }
        self.throttle = percent;
        let reason = Reason::met("dirty_bytes", excess.dirty, excess.allowed);
        Some(Decision::new(Act::Throttle { percent }, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Spec;
    use crate::policy::find;

    /// Rounds of `length` seconds over a link of 1 MB/s; `dirty` is the share dirtied of what is sent.
    fn round(index: u32, length: f64, dirty: f64) -> Round {
        let elapsed = f64::from(index + 1) * length;
        Round {
            index,
            elapsed,
            duration: length,
            dirty_rate: dirty * 1e6,
            total_sent_bytes: (elapsed * 1e6).round() as u64,
            remaining_bytes: 1 << 40,
            ..Round::default()
        }
    }

    /// The throttles that a policy sets while the guest dirties `shares` of what is sent.
    fn throttles(spec: &Spec, length: f64, shares: impl IntoIterator<Item = f64>) -> Vec<(u32, f64)> {
        let mut policy = find(spec).unwrap();
        let acts = (0..).zip(shares).map(|(i, share)| (i, policy.decide(&round(i, length, share), &[])));
        acts.filter_map(|(i, decision)| match decision.unwrap().act {
            Act::Throttle { percent } => Some((i, percent)),
            _ => None,
        })
        .collect()
    }

    /// The steps that a guest that slows with its CPU gets, its load being `lambda` x the link.
    fn steps(spec: &Spec, lambda: f64) -> Vec<f64> {
        let mut policy = find(spec).unwrap();
        let mut steps: Vec<f64> = Vec::new();
        for index in 0..60 {
            let share = lambda * (1.0 - steps.last().unwrap_or(&0.0) / 100.0);
            if let Act::Throttle { percent } = policy.decide(&round(index, 2.0, share), &[]).unwrap().act {
                steps.push(percent);
            }
        }
        steps
    }

    #[test]
    fn steps_are_as_many_as_the_closed_form_says() {
        // The least k with lambda (1 - q_k) <= 0.5, q = 0.2, 0.3 .. 0.9, 0.99.
        let spec = Spec::new("qemu-auto-converge");
        let ends = [(0.6, 1, 20.0), (0.9, 4, 50.0), (1.5, 6, 70.0), (3.0, 8, 90.0), (10.0, 9, 99.0)];
        for (lambda, count, end) in ends {
            let steps = steps(&spec, lambda);
            assert_eq!((steps.len(), *steps.last().unwrap()), (count, end), "{lambda}: {steps:?}");
        }
        assert_eq!(steps(&spec, 10.0), [20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 99.0]);
        assert!(steps(&spec, 0.5).is_empty(), "half is not more than half");
    }

    #[test]
    fn tail_slow_ends_where_dirtying_is_half_of_sending() {
        let spec = Spec::new("qemu-auto-converge").with("tail_slow", true);
        for (lambda, end) in [(0.6, 0.2), (0.9, 4.0 / 9.0), (1.5, 2.0 / 3.0), (3.0, 5.0 / 6.0), (10.0, 0.95)]
        {
            let steps = steps(&spec, lambda);
            let last = steps.last().unwrap() / 100.0;
            assert!((last - end).abs() < 1e-12, "{lambda}: {steps:?}");
        }
    }

    #[test]
    fn two_counts_need_not_follow_each_other() {
        let shares = [0.9, 0.1, 0.1, 0.9, 0.9, 0.5, 0.9];
        let spec = Spec::new("qemu-auto-converge");
        assert_eq!(throttles(&spec, 2.0, shares), [(3, 20.0), (6, 30.0)]);
    }

    #[test]
    fn it_never_throttles_less_again() {
        let shares = std::iter::repeat_n(0.9, 4).chain(std::iter::repeat_n(0.0, 50));
        assert_eq!(throttles(&Spec::new("qemu-auto-converge"), 2.0, shares), [(1, 20.0), (3, 30.0)]);
    }

    #[test]
    fn a_period_is_longer_than_a_second() {
        // Rounds of a quarter of a second: the fifth ends the period, and its bytes are those of all five.
        let short = throttles(&Spec::new("qemu-auto-converge"), 0.25, [0.9; 10]);
        assert_eq!(short, [(9, 20.0)]);
        assert_eq!(throttles(&Spec::new("qemu-auto-converge"), 1.0, [0.9; 3]), [(3, 20.0); 0]);
        let mixed = [0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 2.0];
        assert!(throttles(&Spec::new("qemu-auto-converge"), 0.25, mixed).is_empty(), "0.4 on the average");
    }

    #[test]
    fn what_fits_is_switched_over_without_a_throttle() {
        let mut policy = find(&Spec::new("qemu-auto-converge")).unwrap();
        policy.decide(&round(0, 2.0, 0.9), &[]).unwrap();
        let fits = Round { remaining_bytes: 300_000, ..round(1, 2.0, 0.9) };
        assert_eq!(policy.decide(&fits, &[]).unwrap().act, Act::SwitchOver);
    }
}
