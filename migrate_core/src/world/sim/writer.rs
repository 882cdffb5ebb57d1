//! The guest: it writes what the trace says, as fast as it is let.

use std::sync::Arc;

use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::{scramble, PAGE};
use crate::trace::Trace;

/// Replays a trace. Within its interval a page is written at one moment, spread evenly over the interval
/// by the page's number, since the trace does not know it.
#[derive(Debug)]
pub(super) struct Writer {
    trace: Arc<Trace>,
    interval: f64,
    /// Intervals entered so far, the one under way included; beyond the end the trace starts over.
    entered: u64,
    /// Guest time of the end of the interval under way.
    until: f64,
    /// Writes of the interval under way: guest time and page, the latest first.
    due: Vec<(f64, u64)>,
    guest_time: f64,
    wall_time: f64,
    throttle: f64,
    /// Seconds lost at each first write.
    delay: f64,
    /// Seconds between first writes at least.
    spacing: f64,
    next_first_write: f64,
    /// Wall time before which the guest does not go on.
    held_until: f64,
    written: Bitmap,
}

impl Writer {
    /// Enters `trace` at `start` seconds.
    pub(super) fn new(trace: Arc<Trace>, start: f64) -> Result<Self> {
        if trace.intervals() == 0 {
            return Err(Error::usage("the trace has no interval"));
        }
        if !(start >= 0.0 && start.is_finite()) {
            return Err(Error::usage(format!("start must be 0 s or more, not {start}")));
        }
        let (interval, written) = (trace.interval().as_secs_f64(), Bitmap::new(trace.pages()));
        let (skipped, offset) = ((start / interval) as u64, start % interval);
        let mut writer = Self {
            trace,
            interval,
            entered: skipped,
            until: -offset,
            due: Vec::new(),
            guest_time: 0.0,
            wall_time: 0.0,
            throttle: 0.0,
            delay: 0.0,
            spacing: 0.0,
            next_first_write: 0.0,
            held_until: 0.0,
            written,
        };
        writer.enter();
        writer.due.retain(|(time, _)| *time >= 0.0);
        Ok(writer)
    }

    /// Holds the guest back for `percent` of its time.
    pub(super) fn throttle(&mut self, percent: f64) {
        self.throttle = (percent / 100.0).clamp(0.0, 0.99);
    }

    /// Lets it dirty `rate` bytes per second; 0 lifts the limit.
    pub(super) fn limit(&mut self, rate: f64) {
        self.spacing = if rate > 0.0 { PAGE as f64 / rate } else { 0.0 };
    }

    /// Holds it for `seconds` at each first write.
    pub(super) fn delay(&mut self, seconds: f64) {
        self.delay = seconds.max(0.0);
    }

    /// Pages written since the migration's start.
    pub(super) fn written(&self) -> &Bitmap {
        &self.written
    }

    /// Share of its time that the guest lost while it ran.
    pub(super) fn slowdown(&self) -> Option<f64> {
        (self.wall_time > 0.0).then(|| (1.0 - self.guest_time / self.wall_time).max(0.0))
    }

    fn enter(&mut self) {
        let index = (self.entered % u64::from(self.trace.intervals())) as u32;
        let (from, spread) = (self.until, self.interval / (1u64 << 32) as f64);
        let salt = scramble(self.entered);
        let pages = self.trace.written(index).iter().flat_map(|run| run.range());
        let due = pages.map(|page| (from + (scramble(page ^ salt) >> 32) as f64 * spread, page));
        self.due.clear();
        self.due.extend(due);
        self.due.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        self.entered += 1;
        self.until += self.interval;
    }

    /// Runs from wall time `from` to `to`, noting what it writes in `dirty`.
    pub(super) fn run(&mut self, from: f64, to: f64, dirty: &mut Bitmap) {
        let (speed, mut wall) = (1.0 - self.throttle, from);
        self.wall_time += (to - from).max(0.0);
        loop {
            wall = wall.max(self.held_until);
            let next = self.due.last().map_or(self.until, |(time, _)| *time);
            let reached = wall + (next - self.guest_time).max(0.0) / speed;
            if reached > to {
                self.guest_time += (to - wall).max(0.0) * speed;
                return;
            }
            (wall, self.guest_time) = (reached, self.guest_time.max(next));
            match self.due.last() {
                None => self.enter(),
                Some((_, page)) => self.write(*page, wall, dirty),
            }
        }
    }

    /// Writes `page`, which is due, at `wall`, or holds the guest until it may.
    fn write(&mut self, page: u64, wall: f64, dirty: &mut Bitmap) {
        if !dirty.contains(page) {
            if wall < self.next_first_write {
                self.held_until = self.next_first_write;
                return;
            }
            dirty.set(page);
            self.next_first_write = wall + self.spacing;
            self.held_until = wall + self.delay;
        }
        self.written.set(page);
        self.due.pop();
    }
}
