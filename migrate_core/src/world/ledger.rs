//! The ledger of a migration: counts and times in, rounds out. Pure arithmetic, the same in all worlds.

use std::collections::VecDeque;
use std::time::Duration;

use crate::guest::PAGE;
use crate::policy::{Round, Sample};

/// The least time over which bandwidth is measured: QEMU's window.
const WINDOW: Duration = Duration::from_millis(100);

/// What sending put on the link.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes, headers included.
    pub bytes: u64,
    /// Pages of all kinds.
    pub pages: u64,
    /// Zero pages among them.
    pub zero_pages: u64,
    /// Pages made shorter by a codec among them.
    pub encoded_pages: u64,
    /// Pages left out because they were dirty again.
    pub skipped_pages: u64,
}

impl Sent {
    fn since(self, before: Self) -> Self {
        Self {
            bytes: self.bytes - before.bytes,
            pages: self.pages - before.pages,
            zero_pages: self.zero_pages - before.zero_pages,
            encoded_pages: self.encoded_pages - before.encoded_pages,
            skipped_pages: self.skipped_pages - before.skipped_pages,
        }
    }
}

/// Bytes per second over the last 100 ms or more; 0 before anything was sent.
#[derive(Debug, Default)]
pub struct Bandwidth {
    /// Time and bytes sent until then, the oldest first; the first is at or before the window's start.
    samples: VecDeque<(Duration, u64)>,
}

impl Bandwidth {
    /// Notes that `bytes` in all had been sent at `now`.
    pub fn note(&mut self, now: Duration, bytes: u64) {
        self.samples.push_back((now, bytes));
        while self.samples.get(1).is_some_and(|(time, _)| now.saturating_sub(*time) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// The estimate at the last note.
    pub fn estimate(&self) -> f64 {
        match (self.samples.front(), self.samples.back()) {
            (Some((t0, b0)), Some((t1, b1))) if t1 > t0 => (b1 - b0) as f64 / (*t1 - *t0).as_secs_f64(),
            _ => 0.0,
        }
    }
}

/// Makes rounds out of what was sent when.
#[derive(Debug)]
pub struct Ledger {
    memory_bytes: u64,
    index: u32,
    /// Pages that this round is to send.
    pages: u64,
    round_began: Duration,
    at_round_start: Sent,
    bandwidth: Bandwidth,
}

impl Ledger {
    /// For a guest of `memory_bytes`, before round 0, which begins at `now`.
    pub fn new(memory_bytes: u64, now: Duration) -> Self {
        let mut bandwidth = Bandwidth::default();
        bandwidth.note(now, 0);
        let pages = memory_bytes / PAGE as u64;
        Self { memory_bytes, index: 0, pages, round_began: now, at_round_start: Sent::default(), bandwidth }
    }

    /// The round under way.
    pub fn round(&self) -> u32 {
        self.index
    }

    /// How the copy stands in the middle of a round, `sent` being the counts since the migration's start.
    pub fn sample(&mut self, now: Duration, sent: Sent) -> Sample {
        self.note(now, &sent);
        let this = sent.since(self.at_round_start);
        Sample {
            round: self.index,
            elapsed: now.as_secs_f64(),
            bandwidth: self.bandwidth.estimate(),
            remaining_bytes: self.pages.saturating_sub(this.pages + this.skipped_pages) * PAGE as u64,
            sent_bytes: sent.bytes,
            memory_bytes: self.memory_bytes,
        }
    }

    /// Notes progress inside a round, for the bandwidth.
    pub fn note(&mut self, now: Duration, sent: &Sent) {
        self.bandwidth.note(now, sent.bytes);
    }

    /// Ends a round at `now`, `sent` being the counts since the migration's start.
    pub fn end_round(&mut self, now: Duration, sent: Sent, remaining_pages: u64, live: bool) -> Round {
        self.note(now, &sent);
        let (this, duration) =
            (sent.since(self.at_round_start), now.saturating_sub(self.round_began).as_secs_f64());
        let remaining_bytes = remaining_pages * PAGE as u64;
        let bandwidth = self.bandwidth.estimate();
        let round = Round {
            index: self.index,
            live,
            start: self.round_began.as_secs_f64(),
            duration,
            elapsed: now.as_secs_f64(),
            sent_bytes: this.bytes,
            sent_pages: this.pages,
            zero_pages: this.zero_pages,
            encoded_pages: this.encoded_pages,
            skipped_pages: this.skipped_pages,
            total_sent_bytes: sent.bytes,
            total_sent_pages: sent.pages,
            remaining_pages,
            remaining_bytes,
            dirty_rate: if duration > 0.0 { remaining_bytes as f64 / duration } else { 0.0 },
            bandwidth,
            expected_blackout: expected_blackout(remaining_bytes, bandwidth),
            throttle: 0.0,
            memory_bytes: self.memory_bytes,
        };
        (self.index, self.pages) = (self.index + 1, remaining_pages);
        (self.round_began, self.at_round_start) = (now, sent);
        round
    }
}

/// Seconds to send `remaining` bytes; infinite while there is no bandwidth to speak of, unless nothing remains.
fn expected_blackout(remaining: u64, bandwidth: f64) -> f64 {
    match remaining {
        0 => 0.0,
        bytes => bytes as f64 / bandwidth,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn bandwidth_is_that_of_the_last_window_or_more() {
        let mut bandwidth = Bandwidth::default();
        assert_eq!(bandwidth.estimate(), 0.0);
        for (at, bytes) in [(0, 0), (50, 500), (100, 1000), (150, 3000), (200, 5000)] {
            bandwidth.note(ms(at), bytes);
        }
        // From 100 ms on: 4000 bytes in 100 ms.
        assert!((bandwidth.estimate() - 40_000.0).abs() < 1e-6);
        bandwidth.note(ms(1000), 5000);
        assert!((bandwidth.estimate() - 0.0).abs() < 1e-6, "a link that stands still has no bandwidth");
    }

    #[test]
    fn rounds_hold_differences_and_totals() {
        let mut ledger = Ledger::new(1 << 20, ms(10));
        let first = Sent { bytes: 1_000_000, pages: 256, zero_pages: 12, ..Sent::default() };
        let round = ledger.end_round(ms(110), first, 100, true);
        assert_eq!(
            (round.index, round.sent_pages, round.zero_pages, round.remaining_bytes),
            (0, 256, 12, 409_600)
        );
        assert!((round.bandwidth - 1e7).abs() < 1.0 && (round.expected_blackout - 0.04096).abs() < 1e-9);
        let second =
            Sent { bytes: 1_100_000, pages: 300, zero_pages: 12, skipped_pages: 4, ..Sent::default() };
        let round = ledger.end_round(ms(210), second, 0, false);
        assert_eq!(
            (round.index, round.sent_pages, round.skipped_pages, round.total_sent_pages),
            (1, 44, 4, 300)
        );
        assert!(!round.live && round.expected_blackout == 0.0 && (round.start - 0.11).abs() < 1e-12);
    }

    #[test]
    fn a_sample_says_what_the_round_has_still_to_send() {
        let mut ledger = Ledger::new(1 << 20, ms(0));
        let sent =
            |pages, skipped_pages| Sent { bytes: pages * 4096, pages, skipped_pages, ..Sent::default() };
        let sample = ledger.sample(ms(100), sent(56, 0));
        assert_eq!((sample.round, sample.remaining_bytes, sample.sent_bytes), (0, 200 * 4096, 56 * 4096));
        assert!((sample.bandwidth - 56.0 * 40_960.0).abs() < 1e-6 && sample.elapsed == 0.1);
        ledger.end_round(ms(200), sent(250, 6), 30, true);
        let sample = ledger.sample(ms(300), sent(260, 10));
        assert_eq!((sample.round, sample.remaining_bytes), (1, 16 * 4096));
        assert_eq!(ledger.sample(ms(400), sent(999, 10)).remaining_bytes, 0);
    }

    #[test]
    fn without_bandwidth_the_expected_blackout_is_infinite() {
        let round = Ledger::new(1 << 20, ms(0)).end_round(ms(0), Sent::default(), 5, true);
        assert_eq!(round.expected_blackout, f64::INFINITY);
    }
}
