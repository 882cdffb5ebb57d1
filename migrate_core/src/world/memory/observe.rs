//! Watching the guest at its destination for a moment: what it does there per second.

use std::time::{Duration, Instant};

use super::Source;
use crate::error::Result;
use crate::guest::{monotonic_ns, Guest};
use crate::report::{Place, Point};
use crate::wire::Message;

/// How often the guest's progress is told.
const INTERVAL: Duration = Duration::from_millis(100);
/// The longest that a source may have its guest watched.
pub(super) const LONGEST: Duration = Duration::from_secs(60);

/// Tells the progress of a guest that runs here, for `time`, by calls of `tell`; the last says so. Ends early,
/// without an error, where nobody listens any more.
pub(super) fn tell_progress(guest: &Guest, time: Duration, mut tell: impl FnMut(&Message) -> Result<()>) {
    let began = Instant::now();
    loop {
        let passed = began.elapsed();
        let (last, clock_ns) = (passed >= time, monotonic_ns());
        let operations = guest.progress().operations;
        if tell(&Message::Progress { clock_ns, operations, last }).is_err() || last {
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

    /// What it saw, until it ends, or says something else, or the run is cancelled.
    pub(super) fn seen_there(&mut self) -> Vec<Point> {
        let mut points = Vec::new();
        if self.sending.cool_down.is_zero() {
            return points;
        }
        while let Ok(Message::Progress { clock_ns, operations, last }) = self.replies.message() {
            let here = i128::from(clock_ns) - self.clock.ahead_ns - i128::from(self.started_ns);
            let time = here as f64 / 1e9;
            points.push(Point { time, operations, throttle: 0.0, place: Place::Destination });
            if last || self.is_cancelled() {
                break;
            }
        }
        points
    }
}
