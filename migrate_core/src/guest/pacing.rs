//! Pacing: how much writing is due to a workload that has a rate. Arithmetic only; time is given to it.

use std::time::Duration;

use super::block::PAGE;
use super::workload::Work;

/// Most writing given in one go: it bounds how long a pause waits for a tick to end.
const SLICE: u64 = 64 * PAGE as u64;
/// How often a paced workload is given what is due.
const TICK: Duration = Duration::from_millis(1);
/// Longest wait for a page to fall due; the rate may rise meanwhile.
const LONGEST_WAIT: Duration = Duration::from_millis(10);
/// Writing that fell due in a stall (an overloaded machine) and is made up afterwards, at most.
const MOST_DEBT: Duration = Duration::from_millis(50);

/// What a workload may write, and when next.
#[derive(Debug, Clone)]
pub struct Pacing {
    /// Bytes due; below zero after an operation that wrote more than was due.
    due: f64,
    accrued_until: Duration,
    rate: f64,
}

impl Default for Pacing {
    /// A page is due at once, so that a guest shows its first write as soon as it is resumed.
    fn default() -> Self {
        Self { due: PAGE as f64, accrued_until: Duration::ZERO, rate: 0.0 }
    }
}

impl Pacing {
    /// Bytes to write at time `now`, whole pages, when the workload wants `rate` bytes per second
    /// (infinite: as fast as it can). `now` counts from the resume and never falls.
    pub fn budget(&mut self, rate: f64, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.accrued_until);
        (self.accrued_until, self.rate) = (now, rate.max(0.0));
        if self.rate.is_infinite() {
            self.due = 0.0;
            return SLICE;
        }
        let most = (self.rate * MOST_DEBT.as_secs_f64()).max(PAGE as f64);
        self.due = (self.due + self.rate * passed.as_secs_f64()).min(most);
        // A negative number converts to 0.
        (self.due as u64).min(SLICE) / PAGE as u64 * PAGE as u64
    }

    /// Takes note of what was written out of the last budget.
    pub fn wrote(&mut self, bytes: u64) {
        if self.rate.is_finite() {
            self.due -= bytes as f64;
        }
    }

    /// How long after the last budget was asked for to ask again, when this came of it. Zero where more is
    /// due already, which a workload that is as fast as it can tells by having done anything.
    pub fn wait(&self, work: Work) -> Duration {
        if self.rate.is_infinite() {
            return if work == Work::default() { TICK } else { Duration::ZERO };
        }
        if work.written > 0 && self.due >= PAGE as f64 {
            return Duration::ZERO;
        }
        let missing = (PAGE as f64 - self.due).max(0.0);
        // A rate of 0 gives infinity or no number, which min() turns into the longest wait.
        let seconds = (missing / self.rate).min(LONGEST_WAIT.as_secs_f64());
        Duration::from_secs_f64(seconds).max(TICK)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn wrote(written: u64) -> Work {
        Work { written, operations: written.min(1) }
    }

    /// Writes all that is asked for until `end`, each tick taking `cost`; returns the bytes written.
    fn drive(rate: f64, end: Duration, cost: Duration) -> u64 {
        let (mut pacing, mut now, mut written) = (Pacing::default(), Duration::ZERO, 0);
        while now < end {
            let budget = pacing.budget(rate, now);
            pacing.wrote(budget);
            written += budget;
            now += pacing.wait(wrote(budget)).max(cost);
        }
        written
    }

    #[test]
    fn the_rate_is_kept_whatever_it_is() {
        for rate in [4096.0, 40_960.0, 1e6, 1e8, 3e9] {
            let seconds = 4.0;
            let got = drive(rate, Duration::from_secs_f64(seconds), Duration::from_micros(10)) as f64;
            let slack = 2.0 * PAGE as f64 + rate * 0.002;
            assert!((got - rate * seconds).abs() <= slack, "{rate}: {got}");
        }
    }

    #[test]
    fn a_page_is_due_at_once_and_none_at_rate_zero_after_it() {
        let mut pacing = Pacing::default();
        assert_eq!(pacing.budget(0.0, Duration::ZERO), PAGE as u64);
        pacing.wrote(PAGE as u64);
        assert_eq!(pacing.budget(0.0, Duration::from_secs(99)), 0);
        assert_eq!(pacing.wait(wrote(0)), LONGEST_WAIT);
        for wrong in [f64::NAN, -5.0, f64::NEG_INFINITY] {
            assert_eq!(
                (pacing.budget(wrong, Duration::from_secs(100)), pacing.wait(wrote(0))),
                (0, LONGEST_WAIT)
            );
        }
    }

    #[test]
    fn a_stall_is_made_up_in_slices_and_only_in_part() {
        let (mut pacing, rate) = (Pacing::default(), 1e8);
        let late = Duration::from_secs(10);
        let mut made_up = 0;
        loop {
            let budget = pacing.budget(rate, late);
            assert!(budget <= SLICE);
            pacing.wrote(budget);
            made_up += budget;
            if pacing.wait(wrote(budget)) > Duration::ZERO {
                break;
            }
        }
        assert_eq!(made_up, (rate * 0.05) as u64 / 4096 * 4096);
    }

    #[test]
    fn an_operation_that_writes_too_much_is_paid_back() {
        let mut pacing = Pacing::default();
        pacing.budget(4096e3, Duration::ZERO);
        pacing.wrote(11 * PAGE as u64);
        assert_eq!(pacing.budget(4096e3, 10 * MS), 0);
        assert_eq!(pacing.budget(4096e3, 11 * MS), PAGE as u64);
    }

    #[test]
    fn a_workload_that_writes_nothing_does_not_spin() {
        let mut pacing = Pacing::default();
        assert!(pacing.budget(1e9, 40 * MS) > 0);
        assert_eq!(pacing.wait(wrote(0)), TICK);
        assert_eq!(pacing.wait(wrote(1)), Duration::ZERO);
        assert!(pacing.budget(f64::INFINITY, 41 * MS) > 0);
        assert_eq!(pacing.wait(wrote(0)), TICK);
        assert_eq!(pacing.wait(Work { written: 0, operations: 1 }), Duration::ZERO);
    }

    #[test]
    fn unpaced_means_slices_without_waits() {
        let mut pacing = Pacing::default();
        for ms in 0..5 {
            assert_eq!(pacing.budget(f64::INFINITY, ms * MS), SLICE);
            pacing.wrote(SLICE);
            assert_eq!(pacing.wait(wrote(SLICE)), Duration::ZERO);
        }
        assert!(pacing.budget(4096e3, 6 * MS) <= 2 * PAGE as u64);
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_allows(
            rate in 1e3f64..1e10,
            steps in prop::collection::vec((0u64..20_000, 0.0f64..2.0), 1..200),
        ) {
            let (mut pacing, mut now, mut written) = (Pacing::default(), Duration::ZERO, 0.0);
            for (micros, share) in steps {
                now += Duration::from_micros(micros);
                let budget = pacing.budget(rate, now);
                let wrote = (budget as f64 * share.min(1.0)) as u64;
                pacing.wrote(wrote);
                written += wrote as f64;
                prop_assert!(written <= PAGE as f64 * 2.0 + rate * now.as_secs_f64() * (1.0 + 1e-9));
            }
        }
    }
}
