//! The guest: it writes what the trace says, as fast as it is let.

use std::sync::Arc;

use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
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
    brake: Brake,
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
            brake: Brake::default(),
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

    /// What holds it at its writes.
    pub(super) fn brake(&mut self) -> &mut Brake {
        &mut self.brake
    }

    /// Seconds that the guest has run by its own clock, since the migration's start.
    pub(super) fn guest_time(&self) -> f64 {
        self.guest_time
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

    /// Runs from wall time `from` to `to`. Each write is shown to `write`, with its moment, which either lets
    /// it happen or holds the guest and says false: then it is shown again when the guest goes on.
    pub(super) fn run(&mut self, from: f64, to: f64, mut write: impl FnMut(&mut Brake, u64, f64) -> bool) {
        let (speed, mut wall) = (1.0 - self.throttle, from);
        self.wall_time += (to - from).max(0.0);
        loop {
            wall = wall.max(self.brake.held_until);
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
                Some((_, page)) if write(&mut self.brake, page, wall) => {
                    self.written.set(page);
                    self.done += 1;
                }
                Some(_) => {}
            }
        }
    }
}

/// Holds the guest at its writes.
#[derive(Debug, Default)]
pub(super) struct Brake {
    /// Seconds lost at each first write.
    delay: f64,
    /// Seconds between first writes at least.
    spacing: f64,
    next_first_write: f64,
    /// Wall time before which the guest does not go on.
    held_until: f64,
}

impl Brake {
    /// Lets the guest make a first write every `seconds`.
    pub(super) fn space(&mut self, seconds: f64) {
        self.spacing = seconds;
    }

    /// Holds it for `seconds` at each first write.
    pub(super) fn delay(&mut self, seconds: f64) {
        self.delay = seconds;
    }

    /// Does not let it go on before `wall`.
    pub(super) fn hold(&mut self, wall: f64) {
        self.held_until = self.held_until.max(wall);
    }

    /// A write at `wall` while the dirty log is `dirty`; false if it has to wait.
    pub(super) fn log(&mut self, dirty: &mut Bitmap, page: u64, wall: f64) -> bool {
        if dirty.contains(page) {
            return true;
        }
        if wall < self.next_first_write {
            self.hold(self.next_first_write);
            return false;
        }
        dirty.set(page);
        self.next_first_write = wall + self.spacing;
        self.hold(wall + self.delay);
        true
    }
}
