//! KubeVirt's time-outs, and the same with a limit that is tuned (VEP 291).

use super::watch::{due, Moment, Opening, Timeout, Together, Watch};
use super::{Act, Decision, Policy, Reason, Rule};
use crate::error::Result;

crate::knobs! {
    /// Aborts when remaining has not decreased for a time, or the whole takes too long. It always ends.
    ///
    /// When the whole takes too long it goes post-copy if allowed, else pauses if allowed, else aborts. Until
    /// then what fits QEMU's limit of 300 ms is switched over.
    ///
    /// Origin: KubeVirt, `progressTimeout`, `completionTimeoutPerGiB`, `allowPostCopy`,
    /// `allowWorkloadDisruption`.
    pub struct KubevirtLegacy {
        /// Time without a decrease below the least remaining so far (150 s).
        progress_timeout: f64 [Seconds, 0.0..=1e9] = 150,
        /// Time-out, for each GiB of memory (150 s).
        completion_timeout: f64 [Seconds, 0.0..=1e6] = 150,
        /// Whether it may go post-copy.
        allow_post_copy: bool [Flag] = false,
        /// Whether it may pause the guest for what remains.
        allow_pause: bool [Flag] = false,
    }
}

crate::knobs! {
    /// KubeVirt's time-outs with a limit that grows in steps once some rounds are done. It always ends.
    ///
    /// The limit is `initial` at once. When `start_after` rounds are done a timer starts; each time
    /// `cooldown` has passed the limit grows by (most - initial) / steps, up to `most`. The first step is
    /// taken from QEMU's own default of 300 ms, not from `initial`.
    ///
    /// Origin: KubeVirt, VEP 291: `initialMs`, `steps`, `startAfterIteration`, `cooldownSeconds`,
    /// `maxDowntimeMs`; its time-outs are those of `kubevirt-legacy`.
    pub struct KubevirtDowntime {
        /// Limit to begin with (150 ms).
        initial: f64 [Seconds, 0.0..=2000.0] = 0.15,
        /// Greatest limit (900 ms to 1050 ms in its texts).
        most: f64 [Seconds, 0.0..=2000.0] = 1.05,
        /// Steps from the first to the greatest (7).
        steps: u64 [Count, 1.0..=1e6] = 7,
        /// Rounds, round 0 included, before the timer starts (3).
        start_after: u64 [Count, 0.0..=1e9] = 3,
        /// Least time between two steps (10 s).
        cooldown: f64 [Seconds, 0.0..=1e6] = 10,
        /// Time without a decrease below the least remaining so far (150 s).
        progress_timeout: f64 [Seconds, 0.0..=1e9] = 150,
        /// Time-out, for each GiB of memory (150 s).
        completion_timeout: f64 [Seconds, 0.0..=1e6] = 150,
        /// Whether it may go post-copy.
        allow_post_copy: bool [Flag] = false,
        /// Whether it may pause the guest for what remains.
        allow_pause: bool [Flag] = false,
    }
}

/// Aborts without a new least remaining for a time.
struct Progress {
    timeout: f64,
    /// The least remaining, and when it was reached.
    best: Option<(u64, f64)>,
}

impl Watch for Progress {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        let Some((best, since)) = self.best.filter(|(best, _)| now.remaining >= *best) else {
            self.best = Some((now.remaining, now.elapsed));
            return None;
        };
        let reason = || Reason::met("remaining_bytes", now.remaining as f64, best as f64);
        due(now.elapsed, since, self.timeout).then(|| Decision::new(Act::Abort, reason()))
    }
}

/// The limit once it is tuned.
struct Tuning {
    step: f64,
    most: f64,
    start_after: u64,
    cooldown: f64,
    limit: f64,
    since: Option<f64>,
}

impl Watch for Tuning {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        if let (None, Some(round)) = (self.since, now.round) {
            self.since = (u64::from(round.index) + 1 >= self.start_after).then_some(now.elapsed);
        }
        let since = self.since?;
        let limit = (self.limit + self.step).min(self.most);
        if !due(now.elapsed, since, self.cooldown) || limit <= self.limit {
            return None;
        }
        (self.since, self.limit) = (Some(now.elapsed), limit);
        Some(Decision::new(Act::blackout(limit), Reason::met("elapsed", now.elapsed, since + self.cooldown)))
    }
}

impl KubevirtLegacy {
    fn timeouts(&self) -> [Box<dyn Watch>; 2] {
        let then = match (self.allow_post_copy, self.allow_pause) {
            (true, _) => Act::PostCopy,
            (_, true) => Act::SwitchOver,
            _ => Act::Abort,
        };
        let progress = Progress { timeout: self.progress_timeout, best: None };
        [Timeout::per_gib(self.completion_timeout, then), Box::new(progress)]
    }
}

impl Rule for KubevirtLegacy {
    fn build(self) -> Result<Box<dyn Policy>> {
        let [completion, progress] = self.timeouts();
        Ok(Together::policy(vec![Opening::at(Opening::QEMU), completion, progress]))
    }
}

impl Rule for KubevirtDowntime {
    fn build(self) -> Result<Box<dyn Policy>> {
        let legacy = KubevirtLegacy {
            progress_timeout: self.progress_timeout,
            completion_timeout: self.completion_timeout,
            allow_post_copy: self.allow_post_copy,
            allow_pause: self.allow_pause,
        };
        let [completion, progress] = legacy.timeouts();
        let tuning = Tuning {
            step: (self.most - self.initial).max(0.0) / self.steps as f64,
            most: self.most,
            start_after: self.start_after,
            cooldown: self.cooldown,
            limit: Opening::QEMU,
            since: None,
        };
        let opening = Opening::at(self.initial.min(self.most));
        Ok(Together::policy(vec![opening, Box::new(tuning), completion, progress]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::knobs::Spec;
    use crate::policy::{find, Round, Sample};

    fn round(index: u32, elapsed: f64, remaining_bytes: u64) -> Round {
        Round { index, elapsed, remaining_bytes, memory_bytes: 2 << 30, ..Round::default() }
    }

    fn acts(spec: &Spec, rounds: &[Round]) -> Vec<Act> {
        let mut policy = find(spec).unwrap();
        rounds.iter().map(|round| policy.decide(round, &[]).unwrap().act).collect()
    }

    #[test]
    fn no_decrease_aborts_and_any_decrease_starts_over() {
        let spec = Spec::new("kubevirt-legacy").with("completion_timeout", 1e6);
        let opening = Act::blackout(0.3);
        let rounds = [(1.0, 900), (150.0, 899), (151.0, 950), (299.0, 899), (300.0, 900)];
        let stuck: Vec<Round> = (0..).zip(rounds).map(|(i, (t, left))| round(i, t, left)).collect();
        assert_eq!(acts(&spec, &stuck), [opening, Act::Proceed, Act::Proceed, Act::Proceed, Act::Abort]);
    }

    #[test]
    fn a_long_round_makes_progress_inside() {
        let mut policy = find(&Spec::new("kubevirt-legacy").with("completion_timeout", 1e6)).unwrap();
        let sample = |elapsed, remaining_bytes| Sample {
            elapsed,
            remaining_bytes,
            memory_bytes: 1 << 30,
            ..Sample::default()
        };
        let mut at = |elapsed, remaining| policy.sample(&sample(elapsed, remaining)).unwrap().map(|d| d.act);
        assert_eq!(at(0.0, 1000), Some(Act::blackout(0.3)));
        assert_eq!(
            [at(149.0, 600), at(290.0, 100), at(439.9, 800), at(440.0, 100)],
            [None, None, None, Some(Act::Abort)]
        );
    }

    #[test]
    fn completion_takes_what_is_allowed() {
        let last = |spec: &Spec| acts(spec, &[round(0, 299.0, 10), round(1, 300.0, 9)])[1];
        let spec = Spec::new("kubevirt-legacy");
        assert_eq!(last(&spec), Act::Abort);
        let pause = spec.with("allow_pause", true);
        assert_eq!(last(&pause), Act::SwitchOver);
        assert_eq!(last(&pause.with("allow_post_copy", true)), Act::PostCopy);
    }

    /// Limits in milliseconds with the time of each, of a guest whose rounds end every second.
    fn limits(spec: &Spec, rounds: u32) -> Vec<(u32, u64)> {
        let left = |index| round(index, f64::from(index + 1), 1_000_000 - u64::from(index));
        let acts = acts(spec, &(0..rounds).map(left).collect::<Vec<_>>());
        let times = (1..).zip(acts).filter(|(_, act)| *act != Act::Proceed);
        times
            .map(|(time, act)| match act {
                Act::Limit { blackout: Some(limit), .. } => (time, (limit * 1000.0).round() as u64),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn the_first_step_is_taken_from_three_hundred() {
        // (1050 - 150) / 7 is 128.57 a step: 300 + 128.57 and on, the timer starting after three rounds.
        let steps = [(1, 150), (13, 429), (23, 557), (33, 686), (43, 814), (53, 943), (63, 1050)];
        assert_eq!(limits(&Spec::new("kubevirt-downtime"), 100), steps);
    }

    #[test]
    fn the_limit_is_never_above_its_most() {
        let low = Spec::new("kubevirt-downtime").with("most", 0.2);
        assert_eq!(limits(&low, 100), [(1, 150)], "300 is above it already");
        let lower = Spec::new("kubevirt-downtime").with("most", 0.1);
        assert_eq!(limits(&lower, 100), [(1, 100)]);
    }
}
