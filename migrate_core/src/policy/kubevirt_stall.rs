//! KubeVirt's stall detection (VEP 248).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::watch::{due, gib, Moment, Opening, Together, Watch};
use super::{Act, Decision, Policy, Reason, Rule};
use crate::error::Result;

crate::knobs! {
    /// Finds out that remaining no longer falls, waits for a low, and then does what is allowed.
    ///
    /// **Stall.** Each round's end is a record of time and remaining. Records that are new minima wait in a
    /// queue; `progress_timeout` later they leave it, and the least of those that left is what remaining is
    /// held against: it has stalled when it is no more than `margin` below. Nothing has stalled before a
    /// record has left.
    ///
    /// **Patience.** From the stall on the best remaining is sought: at first the least known, after
    /// `progress_timeout` the least seen since the stall, then the next least after each `decay` of that
    /// patience. A round within `margin` of the best acts; any round does if lows are not searched for.
    ///
    /// **Act.** The estimate is remaining over an average of bandwidth, which is sampled every 400 ms and
    /// weighs its newest sample by `alpha`. If it does not fit before `completion_factor` x the completion
    /// time-out, wait: the link may have dropped. Post-copy if allowed; else, if disruption is allowed, stop
    /// hard, by a limit of 2000 s; else, if the estimate is at most `precopy_possible_factor` x
    /// `max_downtime`, set the limit to `max_downtime`, and abort if that does not lead to a switchover
    /// within `switchover_timeout`; else abort.
    ///
    /// **Completion.** After `completion_timeout` x GiB: post-copy if allowed and it fits, a hard stop if
    /// allowed, else abort. So it always ends. Until then the limit is QEMU's 300 ms, or `max_downtime` if
    /// that is less.
    ///
    /// Origin: KubeVirt, VEP 248, with its knobs and defaults; post-copy counts as a disruption there.
    pub struct KubevirtStall {
        /// Share by which remaining must fall to be progress, and near the best (4 %; 2 to 12 % argued for).
        margin: f64 [Ratio, 0.0..=0.5] = 0.04,
        /// Age at which a record leaves the queue, and the first patience (60 s).
        progress_timeout: f64 [Seconds, 0.001..=1e9] = 60,
        /// Weight of the newest sample in the average of bandwidth (0.4).
        alpha: f64 [Ratio, 0.001..=1.0] = 0.4,
        /// How far the estimate may be above `max_downtime` for pre-copy to be tried, as a factor (1.5).
        precopy_possible_factor: f64 [Ratio, 1.0..=1000.0] = 1.5,
        /// What patience is multiplied by each time it ends (0.5).
        decay: f64 [Ratio, 0.0..=1.0] = 0.5,
        /// Whether to wait for a low.
        search_local_minima: bool [Flag] = true,
        /// Longest blackout to accept where the workload may not be disrupted (900 ms).
        max_downtime: f64 [Seconds, 0.0..=2000.0] = 0.9,
        /// Time that a limit is given to lead to a switchover (60 s).
        switchover_timeout: f64 [Seconds, 0.0..=1e9] = 60,
        /// Time-out, for each GiB of memory (150 s).
        completion_timeout: f64 [Seconds, 0.0..=1e6] = 150,
        /// By how much the estimate may overrun the completion time-out, as a factor (2).
        completion_factor: f64 [Ratio, 1.0..=1000.0] = 2.0,
        /// Whether the workload may be disrupted, by post-copy or a long stop.
        allow_disruption: bool [Flag] = false,
        /// Whether post-copy is among the disruptions.
        allow_post_copy: bool [Flag] = false,
        /// Whether the guest has VFIO devices, which rules post-copy out.
        vfio: bool [Flag] = false,
    }
}

/// Time between two samples of bandwidth.
const POLL: f64 = 0.4;
/// The limit of a hard stop.
const HARD: f64 = 2000.0;

/// An exponentially weighted average, seeded with the first sample.
struct Average {
    alpha: f64,
    /// When the last sample was taken, and the average since.
    last: Option<(f64, f64)>,
}

impl Average {
    fn feed(&mut self, elapsed: f64, bandwidth: f64) {
        self.last = match self.last {
            // Nothing has been sent yet: that is no sample.
            None if bandwidth <= 0.0 => None,
            None => Some((elapsed, bandwidth)),
            Some((when, mean)) if due(elapsed, when, POLL) => {
                Some((elapsed, self.alpha * bandwidth + (1.0 - self.alpha) * mean))
            }
            same => same,
        };
    }

    /// Seconds to send `bytes`.
    fn time(&self, bytes: u64) -> f64 {
        match (bytes, self.last) {
            (0, _) => 0.0,
            (bytes, Some((_, mean))) => bytes as f64 / mean,
            (_, None) => f64::INFINITY,
        }
    }
}

/// Least remaining of the past: candidates that are young, and the least of those that are not.
#[derive(Default)]
struct Minima {
    /// Time and remaining; both grow strictly, one up and one down.
    young: VecDeque<(f64, u64)>,
    outside: Option<u64>,
}

impl Minima {
    fn record(&mut self, elapsed: f64, remaining: u64, age: f64) {
        while let Some((_, old)) = self.young.front().copied().filter(|(when, _)| due(elapsed, *when, age)) {
            self.young.pop_front();
            self.outside = Some(self.outside.map_or(old, |outside| outside.min(old)));
        }
        let above = self.outside.is_some_and(|outside| remaining > outside);
        let no_less = self.young.back().is_some_and(|(_, last)| remaining >= *last);
        if !above && !no_less {
            self.young.push_back((elapsed, remaining));
        }
    }

    fn least(&self) -> Option<u64> {
        self.young.iter().map(|(_, remaining)| *remaining).chain(self.outside).min()
    }
}

/// What is sought once remaining has stalled.
struct Search {
    best: u64,
    patience: f64,
    deadline: f64,
    seen: BinaryHeap<Reverse<u64>>,
}

impl Search {
    fn see(&mut self, elapsed: f64, remaining: u64, decay: f64) {
        self.seen.push(Reverse(remaining));
        if due(elapsed, self.deadline, 0.0) {
            self.best = self.seen.pop().map_or(self.best, |Reverse(least)| least);
            self.patience *= decay;
            self.deadline = elapsed + self.patience;
        }
    }
}

struct Stall {
    knobs: KubevirtStall,
    bandwidth: Average,
    minima: Minima,
    search: Option<Search>,
    /// When a limit was set for the switchover.
    limited: Option<f64>,
}

impl Rule for KubevirtStall {
    fn build(self) -> Result<Box<dyn Policy>> {
        let opening = Opening::at(Opening::QEMU.min(self.max_downtime));
        let bandwidth = Average { alpha: self.alpha, last: None };
        let stall = Stall { knobs: self, bandwidth, minima: Minima::default(), search: None, limited: None };
        Ok(Together::policy(vec![opening, Box::new(stall)]))
    }
}

impl Stall {
    fn post_copy(&self) -> bool {
        self.knobs.allow_disruption && self.knobs.allow_post_copy && !self.knobs.vfio
    }

    /// The completion time-out for the guest's memory.
    fn completion(&self, now: &Moment) -> f64 {
        self.knobs.completion_timeout * gib(now.memory)
    }

    /// Whether what remains can be sent before the time-out is overrun too far.
    fn fits(&self, now: &Moment) -> bool {
        let end = now.elapsed + self.bandwidth.time(now.remaining);
        end <= self.completion(now) * self.knobs.completion_factor
    }

    /// Takes a record in; whether remaining has stalled, at this record or before.
    fn stalled(&mut self, now: &Moment) -> bool {
        let knobs = &self.knobs;
        if let Some(search) = &mut self.search {
            search.see(now.elapsed, now.remaining, knobs.decay);
            return true;
        }
        self.minima.record(now.elapsed, now.remaining, knobs.progress_timeout);
        let enough = |outside: u64| outside as f64 * (1.0 - knobs.margin);
        let stalled = self.minima.outside.is_some_and(|outside| now.remaining as f64 >= enough(outside));
        if stalled {
            self.search = Some(Search {
                best: self.minima.least().unwrap_or(now.remaining),
                patience: knobs.progress_timeout,
                deadline: now.elapsed + knobs.progress_timeout,
                seen: BinaryHeap::new(),
            });
        }
        stalled
    }

    /// Whether a round that has stalled is one to act at.
    fn low(&self, now: &Moment) -> bool {
        let near = |search: &Search| now.remaining as f64 <= search.best as f64 * (1.0 + self.knobs.margin);
        !self.knobs.search_local_minima || self.search.as_ref().is_some_and(near)
    }

    fn limit(&mut self, now: &Moment, limit: f64, reason: Reason) -> Decision {
        self.limited = Some(now.elapsed);
        Decision::new(Act::blackout(limit), reason)
    }

    fn act(&mut self, now: &Moment) -> Option<Decision> {
        if !self.fits(now) {
            return None;
        }
        let estimate = self.bandwidth.time(now.remaining);
        let most = self.knobs.max_downtime * self.knobs.precopy_possible_factor;
        let reason = Reason::met("expected_blackout", estimate, most);
        Some(if self.post_copy() {
            Decision::new(Act::PostCopy, reason)
        } else if self.knobs.allow_disruption {
            self.limit(now, HARD, reason)
        } else if estimate <= most {
            self.limit(now, self.knobs.max_downtime, reason)
        } else {
            Decision::new(Act::Abort, reason)
        })
    }

    fn complete(&mut self, now: &Moment) -> Decision {
        let reason = Reason::met("elapsed", now.elapsed, self.completion(now));
        match (self.post_copy() && self.fits(now), self.knobs.allow_disruption) {
            (true, _) => Decision::new(Act::PostCopy, reason),
            (_, true) => self.limit(now, HARD, reason),
            _ => Decision::new(Act::Abort, reason),
        }
    }
}

impl Watch for Stall {
    fn watch(&mut self, now: &Moment) -> Option<Decision> {
        self.bandwidth.feed(now.elapsed, now.bandwidth);
        if let Some(since) = self.limited {
            let (waited, most) = (now.elapsed - since, self.knobs.switchover_timeout);
            let late = || Decision::new(Act::Abort, Reason::met("time_to_switchover", waited, most));
            return due(now.elapsed, since, most).then(late);
        }
        if due(now.elapsed, 0.0, self.completion(now)) {
            return Some(self.complete(now));
        }
        if now.round.is_some() && self.stalled(now) && self.low(now) {
            return self.act(now);
        }
        None
    }
}

#[cfg(test)]
mod tests;
