//! The brake of a vCPU: how a writer is held back. Arithmetic only; time is given to it.

use std::time::Duration;

/// How long a vCPU runs between two sleeps of its duty cycle: QEMU's time slice.
pub const SLICE: Duration = Duration::from_millis(10);
/// The most that a duty cycle can take of a vCPU's time.
pub const MOST_DUTY: f64 = 0.99;
/// Sleeps that are due add up to this before they are slept: shorter ones would mostly be overhead.
const LEAST_SLEEP: f64 = 1e-3;

/// How a vCPU is held back. Lifted by the default, under which it runs freely.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Brake {
    /// Share of its time that it sleeps, from 0 to [`MOST_DUTY`]: after each [`SLICE`] of running a sleep of
    /// slice x duty / (1 - duty).
    pub duty: f64,
    /// Seconds that it sleeps for each first write to a page since the last harvest.
    pub write_delay: f64,
}

impl Brake {
    /// Whether it holds nothing back.
    pub fn is_lifted(&self) -> bool {
        *self == Self::default()
    }

    /// Pages that may be written before the next look at the sleep that is due, so that one sleep is not
    /// much longer than a slice.
    pub(super) fn pages_at_once(&self) -> u64 {
        match self.write_delay > 0.0 {
            true => (SLICE.as_secs_f64() / self.write_delay).max(1.0) as u64,
            false => u64::MAX,
        }
    }
}

/// The sleep that is due to a vCPU under a brake.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Run since the last sleep of the duty cycle.
    ran: Duration,
    /// Seconds; below zero after a sleep that took longer than it should.
    sleep: f64,
}

impl Due {
    /// Takes note of what was done under `brake`: the time run, waits included, and the pages that were
    /// written for the first time.
    pub(super) fn ran(&mut self, brake: Brake, ran: Duration, first_writes: u64) {
        if brake.is_lifted() {
            *self = Self::default();
            return;
        }
        self.ran += ran;
        self.sleep += first_writes as f64 * brake.write_delay.max(0.0);
        if self.ran >= SLICE {
            let duty = brake.duty.clamp(0.0, MOST_DUTY);
            self.sleep += self.ran.as_secs_f64() * duty / (1.0 - duty);
            self.ran = Duration::ZERO;
        }
    }

    /// How long to sleep before anything else is done.
    pub(super) fn sleep(&self) -> Duration {
        match self.sleep >= LEAST_SLEEP {
            true => Duration::try_from_secs_f64(self.sleep).unwrap_or(Duration::MAX),
            false => Duration::ZERO,
        }
    }

    /// Takes note of a sleep.
    pub(super) fn slept(&mut self, time: Duration) {
        self.sleep -= time.as_secs_f64();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Ticks of `tick`, each with so many first writes, until `end`; returns the time run and slept.
    fn drive(brake: Brake, tick: Duration, first_writes: u64, late: Duration, end: Duration) -> (f64, f64) {
        let (mut due, mut ran, mut slept) = (Due::default(), Duration::ZERO, Duration::ZERO);
        while ran + slept < end {
            due.ran(brake, tick, first_writes);
            ran += tick;
            if !due.sleep().is_zero() {
                let time = due.sleep() + late;
                due.slept(time);
                slept += time;
            }
        }
        (ran.as_secs_f64(), slept.as_secs_f64())
    }

    #[test]
    fn a_slice_is_followed_by_its_sleep() {
        let brake = Brake { duty: 0.99, write_delay: 0.0 };
        let mut due = Due::default();
        due.ran(brake, SLICE - Duration::from_nanos(1), 9);
        assert_eq!(due.sleep(), Duration::ZERO);
        due.ran(brake, Duration::from_nanos(1), 9);
        assert!((due.sleep().as_secs_f64() - 0.99).abs() < 1e-9);
    }

    #[test]
    fn first_writes_are_held_and_others_are_not() {
        let brake = Brake { duty: 0.0, write_delay: 0.002 };
        let mut due = Due::default();
        due.ran(brake, Duration::from_secs(5), 0);
        assert_eq!(due.sleep(), Duration::ZERO);
        due.ran(brake, Duration::ZERO, 3);
        assert!((due.sleep().as_secs_f64() - 0.006).abs() < 1e-9);
        assert_eq!((brake.pages_at_once(), Brake { write_delay: 9.0, ..brake }.pages_at_once()), (5, 1));
    }

    #[test]
    fn a_lifted_brake_forgets_what_was_due() {
        let mut due = Due::default();
        due.ran(Brake { duty: 0.5, write_delay: 0.0 }, Duration::from_secs(1), 0);
        due.ran(Brake::default(), Duration::ZERO, 0);
        assert_eq!(due.sleep(), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn the_share_slept_is_the_duty(duty in 0.01f64..0.99, tick_us in 50u64..30_000, late_us in 0u64..500) {
            let (tick, late) = (Duration::from_micros(tick_us), Duration::from_micros(late_us));
            let (ran, slept) = drive(Brake { duty, write_delay: 0.0 }, tick, 0, late, Duration::from_secs(60));
            prop_assert!((slept / (ran + slept) - duty).abs() < 0.03, "{ran} {slept}");
        }

        #[test]
        fn first_writes_come_at_the_delay(delay_us in 10u64..50_000, late_us in 0u64..500) {
            let brake = Brake { duty: 0.0, write_delay: delay_us as f64 * 1e-6 };
            let tick = Duration::from_micros(10);
            let (ran, slept) =
                drive(brake, tick, 1, Duration::from_micros(late_us), Duration::from_secs(60));
            let writes = ran / tick.as_secs_f64();
            prop_assert!((slept / writes - brake.write_delay).abs() < brake.write_delay * 0.02 + 1e-6);
        }
    }
}
