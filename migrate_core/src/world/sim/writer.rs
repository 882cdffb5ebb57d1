//! The guest: it writes what the trace says, as fast as it is let.

use std::sync::Arc;

use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::PAGE;
use crate::trace::Replay;

/// A trace being replayed.
#[derive(Debug)]
pub(super) struct Writer {
    replay: Arc<Replay>,
    /// The interval under way; beyond the end the trace starts over.
    number: u64,
    /// Writes of it that are done.
    done: usize,
    /// Guest time at which it began.
    began: f64,
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
    /// Enters the trace at `start` seconds.
    pub(super) fn new(replay: Arc<Replay>, start: f64) -> Result<Self> {
        if !(0.0..=1e9).contains(&start) {
            return Err(Error::usage(format!("start must be from 0 to 1000000000 s, not {start}")));
        }
        let (number, written) = ((start / replay.interval()) as u64, Bitmap::new(replay.pages()));
        let mut writer = Self {
            number,
            done: 0,
            began: number as f64 * replay.interval() - start,
            replay,
            guest_time: 0.0,
            wall_time: 0.0,
            throttle: 0.0,
            delay: 0.0,
            spacing: 0.0,
            next_first_write: 0.0,
            held_until: 0.0,
            written,
        };
        while writer.next().is_some_and(|(time, _)| time < 0.0) {
            writer.done += 1;
        }
        Ok(writer)
    }

    /// Holds the guest back for `percent` of its time.
    pub(super) fn throttle(&mut self, percent: f64) {
        self.throttle = (percent / 100.0).clamp(0.0, 0.99);
    }

    /// Lets it dirty `rate` bytes per second; 0 lifts the limit.
    pub(super) fn limit(&mut self, rate: f64) {
        self.spacing = if rate > 0.0 { (PAGE as u64 * self.replay.weight()) as f64 / rate } else { 0.0 };
    }

    /// Holds it for `seconds` at each first write.
    pub(super) fn delay(&mut self, seconds: f64) {
        self.delay = seconds.max(0.0) * self.replay.weight() as f64;
    }

    /// Pages written since the migration's start.
    pub(super) fn written(&self) -> &Bitmap {
        &self.written
    }

    /// Share of its time that the guest lost while it ran.
    pub(super) fn slowdown(&self) -> Option<f64> {
        (self.wall_time > 0.0).then(|| (1.0 - self.guest_time / self.wall_time).max(0.0))
    }

    /// The next write of the interval under way: guest time and page.
    fn next(&self) -> Option<(f64, u64)> {
        let (moment, page) = self.replay.writes(self.number).get(self.done)?;
        Some((
            self.began + f64::from(*moment) * (self.replay.interval() / (1u64 << 32) as f64),
            u64::from(*page),
        ))
    }

    /// Runs from wall time `from` to `to`, noting what it writes in `dirty`.
    pub(super) fn run(&mut self, from: f64, to: f64, dirty: &mut Bitmap) {
        let (speed, mut wall) = (1.0 - self.throttle, from);
        self.wall_time += (to - from).max(0.0);
        loop {
            wall = wall.max(self.held_until);
            let next = self.next();
            let time = next.map_or(self.began + self.replay.interval(), |(time, _)| time);
            let reached = wall + (time - self.guest_time).max(0.0) / speed;
            if reached > to {
                self.guest_time += (to - wall).max(0.0) * speed;
                return;
            }
            (wall, self.guest_time) = (reached, self.guest_time.max(time));
            match next {
                None => (self.number, self.done, self.began) = (self.number + 1, 0, time),
                Some((_, page)) => self.write(page, wall, dirty),
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
        self.done += 1;
    }
}
