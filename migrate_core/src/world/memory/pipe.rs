//! What is between an encoder and its link: how much, and how fast it drains.
//!
//! Buffers hide the link: while they have room, they take bytes at the speed of memory, however slow the link is. Only a
//! write that had to wait has met the link itself. Between the ends of two such writes in a row, with the buffers full at
//! both, as many bytes left as came: that is the link's pace.
//!
//! While the encoder is the slower one, no write waits, and nothing is learnt. The pace is then held for a while, and
//! after that the speed of the buffers is believed, which makes the encoder fill them: either the link has become faster,
//! or a write waits. The hold is so long that filling the buffers for nothing takes a small share of the time.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::codec::Drain;

/// Share of a measurement that is kept when the next one comes: the pace is that of the last twenty or so.
const KEPT: f64 = 0.95;

/// Seconds a byte before anything is known: 1 Gbit/s.
const GUESS: f64 = 8e-9;

/// Bytes that the guess is worth.
const WORTH: f64 = (1 << 20) as f64;

/// Bytes that buffers on the way take, about: the first ones tell nothing of the link.
const FILL: u64 = 1 << 19;

/// For how many times the time of filling the buffers a pace is held.
const HELD: f64 = 100.0;

/// Counts that an encoder and the thread which sends for it share.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    queued: AtomicU64,
    taken: Mutex<Taken>,
}

/// What the link, or the buffers before it, took since the beginning.
#[derive(Debug, Default, Clone, Copy)]
struct Taken {
    /// Bytes, and the time that writes took.
    bytes: u64,
    seconds: f64,
    /// The same between writes that had to wait.
    waited: (u64, f64),
    /// The end of the last write, if it had to wait.
    full: Option<Instant>,
}

impl Pipe {
    /// The encoder hands `bytes` over.
    pub(super) fn put(&self, bytes: u64) {
        self.queued.fetch_add(bytes, Relaxed);
    }

    /// `bytes`, of which `queued` had been put, were written in `time`; `waited` if not all at once.
    pub(super) fn took(&self, queued: u64, bytes: u64, time: Range<Instant>, waited: bool) {
        self.queued.fetch_sub(queued, Relaxed);
        let mut taken = self.taken();
        taken.bytes += bytes;
        taken.seconds += (time.end - time.start).as_secs_f64();
        if let (Some(full), true) = (taken.full, waited) {
            taken.waited.0 += bytes;
            taken.waited.1 += (time.end - full).as_secs_f64();
        }
        taken.full = waited.then_some(time.end);
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        // Sums are never half made.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes and seconds, old ones counting less.
#[derive(Debug, Clone, Copy)]
struct Recent(f64, f64);

impl Recent {
    fn add(&mut self, bytes: u64, seconds: f64) {
        *self = Self(self.0 * KEPT + bytes as f64, self.1 * KEPT + seconds);
    }

    fn per_byte(self) -> f64 {
        self.1 / self.0
    }
}

/// Follows a pipe's pace.
#[derive(Debug)]
pub(super) struct Pace {
    seen: Taken,
    /// Of all writes, and of those that met the link.
    all: Recent,
    link: Recent,
    /// Until when the link's pace counts.
    held: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        let guess = Recent(WORTH, WORTH * GUESS);
        Self { seen: Taken::default(), all: guess, link: Recent(0.0, 0.0), held: None }
    }
}

impl Pace {
    /// How the pipe stands at `now`.
    pub(super) fn look(&mut self, pipe: &Pipe, now: Instant) -> Drain {
        let taken = *pipe.taken();
        if taken.bytes > self.seen.bytes && self.seen.bytes >= FILL {
            self.all.add(taken.bytes - self.seen.bytes, taken.seconds - self.seen.seconds);
        }
        if taken.waited.0 > self.seen.waited.0 {
            self.link.add(taken.waited.0 - self.seen.waited.0, taken.waited.1 - self.seen.waited.1);
            let hold = HELD * FILL as f64 * self.link.per_byte();
            self.held =
                std::time::Duration::try_from_secs_f64(hold).ok().and_then(|hold| now.checked_add(hold));
        }
        self.seen = taken;
        let per_byte =
            if self.held.is_some_and(|until| now < until) { self.link } else { self.all }.per_byte();
        Drain { backlog: pipe.queued.load(Relaxed) as f64 * per_byte, per_byte }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A pipe, its pace, and a clock.
    struct Bench {
        pipe: Pipe,
        pace: Pace,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { pipe: Pipe::default(), pace: Pace::default(), now: Instant::now() }
        }

        /// A write of `bytes` that took `micros`, after the sender had nothing to do for `idle`.
        fn write(&mut self, bytes: u64, idle: u64, micros: u64, waited: bool) -> Drain {
            let start = self.now + Duration::from_micros(idle);
            self.now = start + Duration::from_micros(micros);
            self.pipe.put(bytes);
            self.pipe.took(bytes, bytes, start..self.now, waited);
            self.pace.look(&self.pipe, self.now)
        }
    }

    #[test]
    fn the_guess_stands_while_buffers_fill_and_the_backlog_follows() {
        let mut bench = Bench::new();
        bench.pipe.put(1000);
        let drain = bench.pace.look(&bench.pipe, bench.now);
        assert_eq!(drain, Drain { backlog: 1000.0 * GUESS, per_byte: GUESS });
        assert_eq!(bench.write(FILL, 0, 10, false).per_byte, GUESS);
        // Then the writes' own speed is believed: a fast link never makes one wait.
        let last = (0..400).map(|_| bench.write(10_000, 0, 10, false)).last().unwrap();
        assert!((last.per_byte - 1e-9).abs() < 1e-11, "{last:?}");
    }

    #[test]
    fn writes_that_wait_tell_the_pace_of_the_link() {
        let mut bench = Bench::new();
        // 10 MB/s: the first fills buffers as well, and is left out.
        bench.write(FILL, 0, 10, true);
        let drain = bench.write(10_000, 600, 400, true);
        assert!((drain.per_byte - 1e-7).abs() < 1e-10, "{drain:?}");
    }

    #[test]
    fn a_pace_is_held_while_the_encoder_is_the_slower_one_and_then_put_to_the_test() {
        let mut bench = Bench::new();
        bench.write(FILL, 0, 10, true);
        bench.write(10_000, 0, 1000, true);
        let (began, mut held) = (bench.now, 0);
        // The encoder makes 1 MB/s of it, which buffers take in a microsecond.
        while bench.write(1000, 999, 1, false).per_byte > 5e-8 {
            held += 1;
            assert!(held < 20_000, "held for ever");
        }
        let seconds = (bench.now - began).as_secs_f64();
        assert!((seconds - HELD * FILL as f64 * 1e-7).abs() < 0.1, "held for {seconds} s");
        // Twice full with more between than the link's pace has room for: it is as fast as before.
        bench.write(FILL, 0, 10, true);
        let drain = bench.write(10_000, 0, 1000, true);
        assert!((drain.per_byte - 1e-7).abs() < 1e-9, "{drain:?}");
    }

    #[test]
    fn an_idle_time_between_full_buffers_is_not_the_links() {
        let mut bench = Bench::new();
        bench.write(FILL, 0, 10, true);
        bench.write(10_000, 0, 1000, true);
        bench.write(1000, 500_000, 1, false);
        let drain = bench.write(1_000_000, 0, 50, true);
        assert!((drain.per_byte - 1e-7).abs() < 1e-10, "{drain:?}");
    }
}
