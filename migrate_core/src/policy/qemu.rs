//! QEMU's rule: what is pending fits the bandwidth of the last window times the limit.

use super::watch::{due, Moment, Together, Watch};
use super::{Decision, Policy, Reason, Rule};
use crate::error::Result;

crate::knobs! {
    /// QEMU's default: switches over when remaining <= bandwidth x limit.
    ///
    /// Bandwidth is what was sent in the last window over the window's length; before the first window has
    /// ended only a guest with nothing remaining is switched over. There is no cap on rounds or time: it
    /// never ends for a guest that writes faster than the link carries.
    ///
    /// Origin: QEMU, `downtime-limit`; until 10.0 the comparison was strict.
    pub struct Qemu {
        /// Longest blackout to accept (`downtime-limit`, 300 ms).
        limit: f64 [Seconds, 0.0..=2000.0] = 0.3,
        /// Least length of the window in which bandwidth is measured (100 ms).
        window: f64 [Seconds, 0.001..=60.0] = 0.1,
        /// Whether remaining must be less than the threshold, as before QEMU 10.1.
        strict: bool [Flag] = false,
    }
}

crate::knobs! {
    /// QEMU's rule with the bandwidth of the blackout given by the user.
    ///
    /// QEMU lifts the rate limit at switchover, so a migration held to a low rate has more to spend in the
    /// blackout than its windows show. Like `qemu` it never ends for a guest that writes too fast.
    ///
    /// Origin: QEMU 8.2, `avail-switchover-bandwidth`.
    pub struct QemuAvailBandwidth {
        /// Bandwidth that the blackout will have; 0 means the bandwidth of the last window, as `qemu`.
        bandwidth: f64 [BytesPerSecond, 0.0..=1e15] = 0,
        /// Longest blackout to accept (`downtime-limit`, 300 ms).
        limit: f64 [Seconds, 0.0..=2000.0] = 0.3,
        /// Least length of the window in which bandwidth is measured (100 ms).
        window: f64 [Seconds, 0.001..=60.0] = 0.1,
    }
}

/// Bandwidth in windows that follow each other.
#[derive(Debug)]
struct Window {
    length: f64,
    since: f64,
    sent: u64,
    bandwidth: Option<f64>,
}

impl Window {
    fn note(&mut self, elapsed: f64, sent: u64) {
        if due(elapsed, self.since, self.length) {
            let bytes = sent.saturating_sub(self.sent) as f64;
            self.bandwidth = Some(bytes / (elapsed - self.since));
            (self.since, self.sent) = (elapsed, sent);
        }
    }
}

/// The rule itself, for the policies that contain it.
#[derive(Debug)]
pub(super) struct Pending {
    limit: f64,
    strict: bool,
    /// Instead of the window's.
    available: Option<f64>,
    window: Window,
}

impl Pending {
    pub fn new(limit: f64) -> Self {
        let window = Window { length: 0.1, since: 0.0, sent: 0, bandwidth: None };
        Self { limit, strict: false, available: None, window }
    }

    fn fits(&self, remaining: u64, bandwidth: Option<f64>) -> bool {
        let threshold = bandwidth.unwrap_or(0.0) * self.limit;
        let remaining = remaining as f64;
        remaining == 0.0 || remaining < threshold || (!self.strict && remaining == threshold)
    }
}

impl Watch for Pending {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        self.window.note(now.elapsed, now.sent);
        now.round?;
        // A bandwidth that is given counts from the first window on, too.
        let bandwidth = self.window.bandwidth.map(|measured| self.available.unwrap_or(measured));
        let expected = now.remaining as f64 / bandwidth.unwrap_or(f64::INFINITY);
        let reason = || Reason::met("expected_blackout", expected, self.limit);
        self.fits(now.remaining, bandwidth).then(|| Decision::switch_over(reason()))
    }
}

impl Rule for Qemu {
    fn build(self) -> Result<Box<dyn Policy>> {
        let mut pending = Pending::new(self.limit);
        (pending.window.length, pending.strict) = (self.window, self.strict);
        Ok(Together::policy(vec![Box::new(pending)]))
    }
}

impl Rule for QemuAvailBandwidth {
    fn build(self) -> Result<Box<dyn Policy>> {
        let mut pending = Pending::new(self.limit);
        pending.window.length = self.window;
        pending.available = (self.bandwidth > 0.0).then_some(self.bandwidth);
        Ok(Together::policy(vec![Box::new(pending)]))
    }
}

#[cfg(test)]
mod tests {
    use crate::knobs::Spec;
    use crate::policy::{find, Round, Sample};

    fn round(elapsed: f64, total_sent_bytes: u64, remaining_bytes: u64) -> Round {
        Round { elapsed, total_sent_bytes, remaining_bytes, ..Round::default() }
    }

    /// Whether the policy fires on the last of `rounds`.
    fn fires(spec: &Spec, rounds: &[Round]) -> bool {
        let mut policy = find(spec).unwrap();
        let fired: Vec<bool> = rounds.iter().map(|r| policy.decide(r, &[]).unwrap().fires()).collect();
        *fired.last().unwrap()
    }

    #[test]
    fn what_fits_exactly_fires_unless_strict() {
        let (fit, above) = (round(1.0, 1_000_000, 300_000), round(1.0, 1_000_000, 300_001));
        let (now, before) = (Spec::new("qemu"), Spec::new("qemu").with("strict", true));
        assert_eq!([[fit.clone()], [above.clone()]].map(|r| fires(&now, &r)), [true, false]);
        assert_eq!([[fit], [above]].map(|r| fires(&before, &r)), [false, false]);
    }

    #[test]
    fn before_the_first_window_the_threshold_is_zero() {
        let spec = Spec::new("qemu");
        assert!(!fires(&spec, &[round(0.09, 1 << 30, 1)]));
        assert!(fires(&spec, &[round(0.09, 1 << 30, 0)]));
        assert!(fires(&spec, &[round(0.1, 1 << 30, 1)]));
        let given = Spec::new("qemu-avail-bandwidth").with("bandwidth", 1e9);
        assert!(!fires(&given, &[round(0.09, 1 << 30, 1)]));
    }

    #[test]
    fn bandwidth_is_that_of_the_last_whole_window() {
        // 1 MB in the first second, then ten times as much; 1 MB fits only the second.
        let (slow, short) = (round(1.0, 1_000_000, 1_000_000), round(1.05, 1_500_000, 1_000_000));
        let fast = round(1.1, 2_000_000, 1_000_000);
        assert!(!fires(&Spec::new("qemu"), &[slow.clone(), short]), "half a window is none");
        assert!(fires(&Spec::new("qemu"), &[slow, fast]));
    }

    #[test]
    fn samples_move_the_window_but_do_not_switch_over() {
        let mut policy = find(&Spec::new("qemu")).unwrap();
        let sample = |elapsed, sent_bytes| Sample { elapsed, sent_bytes, ..Sample::default() };
        assert_eq!(policy.sample(&sample(0.1, 1_000_000)).unwrap(), None);
        assert_eq!(policy.sample(&sample(0.2, 1_000_000)).unwrap(), None);
        assert!(!policy.decide(&round(0.25, 9_000_000, 1), &[]).unwrap().fires(), "the link stood still");
    }

    #[test]
    fn a_given_bandwidth_replaces_the_measured_one() {
        let given = |rate: f64| Spec::new("qemu-avail-bandwidth").with("bandwidth", rate);
        let last = [round(1.0, 1_000_000, 3_000_000)];
        assert_eq!([1e7, 9.9e6, 0.0].map(|rate| fires(&given(rate), &last)), [true, false, false]);
    }
}
