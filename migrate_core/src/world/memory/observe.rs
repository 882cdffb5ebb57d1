//! Watching the guest at its destination for a moment: what it does there per second.

use std::time::{Duration, Instant};

use super::Source;
use crate::error::Result;
use crate::guest::{monotonic_ns, Guest};
use crate::link::Stream;
use crate::report::{Place, Point};
use crate::wire::{Message, Milestone, Writer};

/// How often the guest's progress is told.
const INTERVAL: Duration = Duration::from_millis(100);
/// The longest that a source may have its guest watched.
const LONGEST: Duration = Duration::from_secs(60);

/// Tells the progress of a guest that runs here, for `time`; the last word says so. Ends early, without an error,
/// where nobody listens any more.
pub(super) fn watch_for(guest: &Guest, time: Duration, output: &mut Writer<Stream>) {
    let (began, time) = (Instant::now(), time.min(LONGEST));
    while !time.is_zero() {
        let passed = began.elapsed();
        let last = passed >= time;
        let guest = Milestone { clock_ns: monotonic_ns(), operations: guest.progress().operations };
        if output.message(&Message::Progress { guest, last }).is_err() || last {
            return;
        }
        std::thread::sleep(INTERVAL.min(time - passed));
    }
}

impl Source {
    /// Asks the destination to watch the guest once it runs there.
    pub(super) fn ask_to_watch(&mut self) -> Result<()> {
        match self.sending.cool_down.min(LONGEST) {
            Duration::ZERO => Ok(()),
            time => self.tell(Message::Observe { for_ns: time.as_nanos() as u64 }),
        }
    }

    /// What it saw while the guest waited for its memory, and then until it ends, or says something else, or the
    /// run is cancelled.
    pub(super) fn seen_there(&mut self) -> Vec<Point> {
        let mut points: Vec<_> = self.counters.milestones().drain(..).collect();
        if !self.sending.cool_down.is_zero() {
            while let Ok(Message::Progress { guest, last }) = self.replies.message() {
                points.push(guest);
                if last || self.is_cancelled() {
                    break;
                }
            }
        }
        points.into_iter().map(|guest| self.point(guest)).collect()
    }

    fn point(&self, guest: Milestone) -> Point {
        let here = i128::from(guest.clock_ns) - self.clock.ahead_ns - i128::from(self.started_ns);
        let (time, operations) = (here as f64 / 1e9, guest.operations);
        Point { time, operations, throttle: 0.0, place: Place::Destination }
    }
}
