//! The token bucket: how fast bytes leave the bottleneck.

/// A bucket as deep as the burst at hand, kept as the time at which the line falls idle.
///
/// In any window of `t` seconds at most `rate * t` bytes and one burst leave. Idle time earns
/// nothing, as on a wire. Time comes in with each call.
pub(super) struct Bucket {
    /// Bytes per second; infinite where bandwidth is not shaped.
    rate: f64,
    idle_from: f64,
}

impl Bucket {
    pub(super) fn new(rate: f64) -> Self {
        Self { rate, idle_from: 0.0 }
    }

    /// Puts a burst on the line at `now`; the time at which its last byte has left.
    pub(super) fn take(&mut self, now: f64, bytes: usize) -> f64 {
        self.idle_from = self.idle_from.max(now) + bytes as f64 / self.rate;
        self.idle_from
    }

    /// Puts a burst on the line before those that wait for it; the time at which its last byte has left. The
    /// others are not put back, but who comes later waits for longer: in the mean no more leaves than the
    /// rate allows.
    pub(super) fn overtake(&mut self, now: f64, bytes: usize) -> f64 {
        self.take(now, bytes);
        now + bytes as f64 / self.rate
    }

    /// The time at which all bursts taken so far have left.
    pub(super) fn idle_from(&self) -> f64 {
        self.idle_from
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn bursts_leave_one_after_the_other() {
        let mut bucket = Bucket::new(1000.0);
        assert_eq!(bucket.take(1.0, 500), 1.5);
        assert_eq!(bucket.take(1.0, 500), 2.0);
        assert_eq!(bucket.take(5.0, 250), 5.25);
        assert_eq!(bucket.idle_from(), 5.25);
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        let mut bucket = Bucket::new(f64::INFINITY);
        assert_eq!(bucket.take(1.5, usize::MAX), 1.5);
    }

    proptest! {
        /// Every window that begins and ends with a departure, so every window.
        #[test]
        fn no_window_carries_more_than_its_rate_and_a_burst(
            rate in 1.0..1e6f64,
            bursts in prop::collection::vec((0.0..0.01f64, 1..2000usize), 1..60),
        ) {
            let mut bucket = Bucket::new(rate);
            let mut now = 0.0;
            let left: Vec<(f64, usize)> = bursts
                .iter()
                .map(|&(gap, bytes)| {
                    now += gap;
                    (bucket.take(now, bytes), bytes)
                })
                .collect();
            for first in 0..left.len() {
                let mut sum = 0.0;
                for &(at, bytes) in &left[first..] {
                    sum += bytes as f64;
                    let allowed = rate * (at - left[first].0) + left[first].1 as f64;
                    prop_assert!(sum <= allowed * (1.0 + 1e-9) + 1e-3, "{sum} > {allowed}");
                }
            }
        }

        /// A busy line is used fully: the last byte leaves when rate says, not later.
        #[test]
        fn a_busy_line_wastes_nothing(rate in 1.0..1e6f64, bursts in prop::collection::vec(1..2000usize, 1..60)) {
            let mut bucket = Bucket::new(rate);
            let last = bursts.iter().map(|&bytes| bucket.take(0.0, bytes)).last().unwrap();
            let total: usize = bursts.iter().sum();
            prop_assert!((last * rate / total as f64 - 1.0).abs() < 1e-9);
        }
    }
}
