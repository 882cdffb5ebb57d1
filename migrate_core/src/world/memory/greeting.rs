//! How a source greets its destination, and compares clocks with it.

use super::destination::boot_id;
use super::lane::Job;
use super::Source;
use crate::error::{Error, Result};
use crate::guest::monotonic_ns;
use crate::strategy::Departure;
use crate::wire::{Message, PostCopy, Writer};

/// Pings by which two machines' clocks are compared.
const PINGS: usize = 8;

/// The destination's clock as seen from here.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Clock {
    /// Its nanoseconds less ours.
    pub(super) ahead_ns: i128,
    /// How far off that may be, in seconds.
    pub(super) error: f64,
}

impl Source {
    pub(super) fn greet(&mut self) -> Result<()> {
        self.session = monotonic_ns() ^ u64::from(std::process::id()) << 40;
        self.say_hello(false)?;
        match self.replies.message()? {
            Message::Welcome { boot_id: theirs } if theirs == boot_id() && !theirs.is_empty() => {}
            Message::Welcome { .. } => self.compare_clocks()?,
            other => return Err(Error::link(format!("the destination answered {} to hello", other.name()))),
        }
        self.teach()
    }

    /// The first word on each channel; `resume` where they replace others that were lost.
    pub(super) fn say_hello(&mut self, resume: bool) -> Result<()> {
        let (layout, session) = (self.guest.memory().layout(), self.session);
        let channels = (self.lanes.len() + usize::from(self.fault_channel.is_some())) as u32;
        let first = self.sending.departure == Departure::First;
        let post_copy = self.fault_channel.is_some().then_some(PostCopy { first, resume });
        let codec = self.sending.codec();
        let hello = |channel| {
            let (layout, codec) = (layout.clone(), codec.cloned());
            Message::Hello { session, channel, channels, layout, codec, post_copy }
        };
        for (channel, lane) in (0..).zip(&mut self.lanes) {
            lane.send(Job::Message(hello(channel)))?;
        }
        match &self.fault_channel {
            Some(stream) => Writer::new(stream.try_clone()?).message(&hello(channels - 1)),
            None => Ok(()),
        }
    }

    /// Takes the shortest of some round trips: half of it bounds the error.
    pub(super) fn compare_clocks(&mut self) -> Result<()> {
        let mut best: Option<(u64, i128)> = None;
        for _ in 0..PINGS {
            let sent = monotonic_ns();
            self.tell(Message::Ping)?;
            let Message::Pong { clock_ns } = self.replies.message()? else {
                return Err(Error::link("the destination did not answer a ping with a pong"));
            };
            let trip = monotonic_ns() - sent;
            let ahead = i128::from(clock_ns) - i128::from(sent + trip / 2);
            best = best.filter(|(shortest, _)| *shortest <= trip).or(Some((trip, ahead)));
        }
        if let Some((trip, ahead_ns)) = best {
            self.clock = Clock { ahead_ns, error: trip as f64 / 2e9 };
        }
        Ok(())
    }
}
