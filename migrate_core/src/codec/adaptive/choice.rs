//! Which candidate takes the pages of a kind: arithmetic only; measurements and time are given to it.
//!
//! For each candidate and kind of page it follows seconds and bytes a page. For `n` pages at hand, the one is chosen
//! whose bytes are on the link first: encoding overlaps with what is queued before the link, then the bytes follow,
//!
//! ```text
//! max(backlog, n * seconds) + n * bytes * seconds per byte
//! ```
//!
//! While the link has more queued than an encoding takes, only bytes count; while it waits for the encoder, time
//! counts as well. Between the two, slow and fast candidates take turns and keep both busy.
//!
//! Estimates age. Each candidate is tried on a few pages of a kind when the kind is first seen, and again from time
//! to time: trials may take 2 % of the time, and more only while the link is busy without us.

use super::kind::KINDS;
use crate::codec::{Drain, PAGE};

/// Share of an estimate that a measurement of a whole batch leaves.
const KEPT: f64 = 0.75;

/// Share of the time that trials may take while they hold the link up.
const TRIALS: f64 = 0.02;

/// Share of the backlog that a trial may take while they do not.
const SPARE: f64 = 0.25;

/// Seconds to copy a page that stays as it is.
const COPY: f64 = 0.3e-6;

/// What a page of a kind costs with a candidate.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Estimate {
    /// To encode.
    pub seconds: f64,
    /// To send.
    pub bytes: f64,
    /// When it was measured last, as the count of batches.
    seen: u64,
}

/// What is known of all candidates.
#[derive(Debug)]
pub struct Choice {
    /// By kind, then candidate; the first candidate is a page as it is.
    estimates: [Vec<Option<Estimate>>; KINDS],
    batches: u64,
    drain: Drain,
    trial_seconds: f64,
}

impl Choice {
    /// Among `candidates` and the page as it is, which is candidate 0.
    pub fn new(candidates: usize) -> Self {
        let raw = Some(Estimate { seconds: COPY, bytes: PAGE as f64, seen: 0 });
        let unknown = || std::iter::once(raw).chain((0..candidates).map(|_| None)).collect();
        Self {
            estimates: std::array::from_fn(|_| unknown()),
            batches: 0,
            // 1 Gbit/s that waits for us, until something else is told.
            drain: Drain { backlog: 0.0, per_byte: 8e-9 },
            trial_seconds: 0.0,
        }
    }

    /// The link as it stands.
    pub fn hear(&mut self, drain: Drain) {
        self.drain = drain;
    }

    /// A batch begins.
    pub fn begin(&mut self) {
        self.batches += 1;
    }

    /// The candidate for `pages` pages of `kind`.
    pub fn best(&self, kind: usize, pages: usize) -> usize {
        let known = self.estimates[kind].iter().enumerate().filter_map(|(i, known)| Some((i, (*known)?)));
        let first = known.min_by(|(_, a), (_, b)| self.finish(a, pages).total_cmp(&self.finish(b, pages)));
        first.map_or(0, |(candidate, _)| candidate)
    }

    /// Seconds until `pages` pages are on the link.
    fn finish(&self, cost: &Estimate, pages: usize) -> f64 {
        let pages = pages as f64;
        self.drain.backlog.max(pages * cost.seconds) + pages * cost.bytes * self.drain.per_byte
    }

    /// Whether pages of `kind` are known to be best as they are, with a link that waits for the encoder: then even
    /// to copy them is too much.
    pub fn stands_aside(&self, kind: usize, pages: usize) -> bool {
        let known = &self.estimates[kind];
        self.drain.backlog <= pages as f64 * COPY
            && known[1..].iter().any(Option::is_some)
            && self.best(kind, pages) == 0
    }

    /// A candidate that is to be tried on pages of `kind` at time `now`, in seconds since the beginning; `fits` says
    /// which can take them.
    pub fn trial(&self, kind: usize, now: f64, fits: impl Fn(usize) -> bool) -> Option<usize> {
        let known = self.estimates[kind].iter().enumerate().skip(1).filter(|(index, _)| fits(*index));
        let (oldest, estimate) = known.min_by_key(|(_, known)| known.map_or(0, |known| known.seen + 1))?;
        let is_new = estimate.is_none();
        let is_free = self.trial_seconds <= TRIALS * now
            || estimate.is_some_and(|cost| cost.seconds * 8.0 < SPARE * self.drain.backlog);
        // An estimate of this batch is as good as a trial.
        let is_old = estimate.is_some_and(|cost| cost.seen + 16 < self.batches);
        (is_new || is_free && is_old).then_some(oldest)
    }

    /// `pages` pages of `kind` took `seconds` and `bytes` with `candidate`; `trial` where they were not sent.
    pub fn learn(
        &mut self,
        kind: usize,
        candidate: usize,
        pages: usize,
        seconds: f64,
        bytes: usize,
        trial: bool,
    ) {
        if trial {
            self.trial_seconds += seconds;
        }
        let new = Estimate {
            seconds: seconds / pages as f64,
            bytes: bytes as f64 / pages as f64,
            seen: self.batches,
        };
        let old = &mut self.estimates[kind][candidate];
        *old = Some(match old {
            None => new,
            Some(old) => Estimate {
                seconds: old.seconds * KEPT + new.seconds * (1.0 - KEPT),
                bytes: old.bytes * KEPT + new.bytes * (1.0 - KEPT),
                seen: new.seen,
            },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fast and slow candidates at 1 and at 10 us a page, halves and quarters.
    fn choice() -> Choice {
        let mut choice = Choice::new(2);
        choice.learn(0, 1, 1, 1e-6, 2048, false);
        choice.learn(0, 2, 1, 10e-6, 1024, false);
        choice
    }

    fn at(rate: f64, backlog: f64) -> Drain {
        Drain { backlog, per_byte: 1.0 / rate }
    }

    #[test]
    fn a_slow_link_gets_fewer_bytes_and_a_fast_one_less_work() {
        let mut choice = choice();
        for (rate, backlog, expected) in
            [(12.5e6, 0.0, 2), (125e6, 0.0, 1), (1.25e9, 0.0, 1), (50e9, 0.0, 0), (1.25e9, 1e-3, 2)]
        {
            choice.hear(at(rate, backlog));
            assert_eq!(choice.best(0, 64), expected, "{rate} bytes/s behind {backlog} s");
        }
    }

    /// Between two candidates' break-even links both get a share, and the link never waits for long.
    #[test]
    fn candidates_take_turns_where_neither_alone_keeps_link_and_encoder_busy() {
        let mut choice = choice();
        let (rate, mut backlog, mut took) = (300e6, 0.0f64, [0; 3]);
        for _ in 0..1000 {
            choice.hear(at(rate, backlog));
            let candidate = choice.best(0, 64);
            took[candidate] += 1;
            let (seconds, bytes) = [(COPY, 4096.0), (1e-6, 2048.0), (10e-6, 1024.0)][candidate];
            backlog = (backlog - 64.0 * seconds).max(0.0) + 64.0 * bytes / rate;
        }
        assert!(took[1] > 100 && took[2] > 100, "{took:?}");
    }

    #[test]
    fn everything_is_tried_once_and_then_within_its_share_of_the_time() {
        let mut choice = Choice::new(3);
        for expected in [1, 3] {
            choice.hear(at(125e6, 0.0));
            assert_eq!(choice.trial(2, 0.0, |candidate| candidate != 2), Some(expected));
            choice.learn(2, expected, 8, 1e-3, 8000, true);
        }
        assert_eq!(choice.trial(2, 1.0, |candidate| candidate != 2), None, "what is fresh is not tried");
        (0..20).for_each(|_| choice.begin());
        assert_eq!(choice.trial(2, 0.09, |candidate| candidate != 2), None, "2 ms in 90 are too much");
        assert_eq!(choice.trial(2, 0.11, |candidate| candidate != 2), Some(1));
        choice.hear(at(125e6, 0.1));
        assert_eq!(choice.trial(2, 0.0, |candidate| candidate != 2), Some(1), "the link is busy anyhow");
    }

    #[test]
    fn it_stands_aside_where_copies_alone_would_hold_the_link_up() {
        let mut choice = Choice::new(1);
        choice.hear(at(50e9, 0.0));
        assert!(!choice.stands_aside(0, 64), "nothing is known");
        choice.learn(0, 1, 8, 8e-5, 8 * 2048, true);
        assert!(choice.stands_aside(0, 64));
        choice.hear(at(50e9, 1e-3));
        assert!(
            !choice.stands_aside(0, 64),
            "the link is busy: a copy costs nothing, and is a base for later"
        );
    }

    #[test]
    fn estimates_follow_what_is_measured() {
        let mut choice = choice();
        choice.hear(at(1.25e9, 0.0));
        assert_eq!(choice.best(0, 64), 1);
        (0..20).for_each(|_| choice.learn(0, 1, 64, 64.0 * 50e-6, 64 * 4000, false));
        assert_ne!(choice.best(0, 64), 1);
    }
}
