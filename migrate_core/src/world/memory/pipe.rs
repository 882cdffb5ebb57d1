//! What is between an encoder and its link: how much, and how fast it drains.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::codec::Drain;

/// Share of a measurement that is kept when the next one comes: the pace is that of the last twenty or so.
const KEPT: f64 = 0.95;

/// Seconds a byte before anything is known: 1 Gbit/s.
const GUESS: f64 = 8e-9;

/// Bytes that the guess is worth.
const WORTH: f64 = (1 << 20) as f64;

/// The first bytes fill buffers on the way at the speed of memory, and tell nothing of the link.
const FILL: u64 = 1 << 20;

/// Counts that an encoder and the thread which sends for it share.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    queued: AtomicU64,
    sent: AtomicU64,
    busy_ns: AtomicU64,
}

impl Pipe {
    /// The encoder hands `bytes` over.
    pub(super) fn put(&self, bytes: u64) {
        self.queued.fetch_add(bytes, Relaxed);
    }

    /// `bytes`, of which `queued` had been put, are on the link after `spent`.
    pub(super) fn took(&self, queued: u64, bytes: u64, spent: Duration) {
        self.queued.fetch_sub(queued, Relaxed);
        self.sent.fetch_add(bytes, Relaxed);
        self.busy_ns.fetch_add(spent.as_nanos() as u64, Relaxed);
    }
}

/// Follows a pipe's pace.
#[derive(Debug)]
pub(super) struct Pace {
    sent: u64,
    busy_ns: u64,
    /// Bytes and seconds, old ones counting less.
    recent: (f64, f64),
}

impl Default for Pace {
    fn default() -> Self {
        Self { sent: 0, busy_ns: 0, recent: (WORTH, WORTH * GUESS) }
    }
}

impl Pace {
    /// How the pipe stands.
    pub(super) fn look(&mut self, pipe: &Pipe) -> Drain {
        let (sent, busy_ns) = (pipe.sent.load(Relaxed), pipe.busy_ns.load(Relaxed));
        if sent > self.sent {
            let (bytes, seconds) = ((sent - self.sent) as f64, (busy_ns - self.busy_ns) as f64 / 1e9);
            if self.sent >= FILL {
                self.recent = (self.recent.0 * KEPT + bytes, self.recent.1 * KEPT + seconds);
            }
            (self.sent, self.busy_ns) = (sent, busy_ns);
        }
        let per_byte = self.recent.1 / self.recent.0;
        Drain { backlog: pipe.queued.load(Relaxed) as f64 * per_byte, per_byte }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pace_is_that_of_late_and_the_backlog_follows() {
        let (pipe, mut pace) = (Pipe::default(), Pace::default());
        pipe.put(1000);
        assert_eq!(pace.look(&pipe), Drain { backlog: 1000.0 * GUESS, per_byte: GUESS });
        pipe.took(1000, FILL, Duration::from_micros(10));
        assert_eq!(pace.look(&pipe), Drain { backlog: 0.0, per_byte: GUESS }, "buffers filled");
        for _ in 0..400 {
            pipe.put(30_000);
            pipe.took(10_000, 10_000, Duration::from_millis(1));
            pace.look(&pipe);
        }
        let drain = pace.look(&pipe);
        assert!((drain.per_byte - 1e-7).abs() < 1e-10, "{drain:?}");
        assert!((drain.backlog - 0.8).abs() < 1e-3, "{drain:?}");
    }
}
