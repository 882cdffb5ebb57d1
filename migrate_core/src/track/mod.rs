//! Dirty trackers: who finds out which pages were written, and what that costs the writer.
//!
//! A tracker is one file here and one line of [`TRACKERS`]. It may report a page that was not written;
//! it never misses one that was.

use std::ops::Range;
use std::sync::Arc;

use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, PAGE};
use crate::knobs::{Entry, Given, Knobs, Registry};

mod held;
mod ioctl;
mod pagemap;
mod software;
mod span;
mod uffd;
mod uffd_async;
mod uffd_check;

pub use software::Software;
pub use uffd_async::UffdAsync;

/// The trackers there are, the best first: `auto` takes the first that works.
pub static TRACKERS: Registry<Make> =
    Registry { kind: "tracker", entries: &[entry::<UffdAsync>("uffd-async"), entry::<Software>("software")] };

/// One bit a page: written since it was last harvested. Ranges are guest-wide page numbers.
pub trait Tracker: Send {
    /// Name in [`TRACKERS`].
    fn name(&self) -> &'static str;

    /// Begins tracking `memory` with every page clean.
    fn arm(&mut self, memory: &Arc<GuestMemory>) -> Result<()>;

    /// Atomically reads and clears the dirty bits of `pages`, re-arming them, and adds what was dirty to
    /// `into`. A write before the call is in `into`; a write after it is in a later harvest; one meanwhile
    /// is in one of the two, and in the memory that is read after the call if it is in the first.
    fn harvest(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()>;

    /// Adds the dirty pages of `pages` to `into` without clearing them.
    fn peek(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()>;

    /// Ends tracking and leaves memory as it was found. Dropping does the same.
    fn disarm(&mut self);

    /// Whether writers must be paused during [`Tracker::harvest`], because it reads and clears in two steps.
    fn needs_pause(&self) -> bool {
        false
    }

    /// Whether [`Tracker::sent`] must be told of every page sent: a tracker that compares contents needs
    /// to know what the destination has, or a page that changes and changes back is lost.
    fn wants_sent(&self) -> bool {
        false
    }

    /// These bytes of `page` went to the destination.
    fn sent(&mut self, _page: u64, _bytes: &[u8; PAGE]) {}
}

/// The knobs of a tracker, able to make it.
pub trait Track: Knobs {
    /// The tracker.
    type Tracker: Tracker + 'static;

    /// Whether this machine has what it takes; [`Error::TrackerUnavailable`] says what is missing and what
    /// would provide it. Cheap, leaves nothing behind.
    fn probe() -> Result<()>;

    /// An unarmed tracker.
    fn build(self) -> Result<Self::Tracker>;
}

/// How a tracker comes to be.
pub struct Make {
    /// Whether it works on this machine.
    pub probe: fn() -> Result<()>,
    /// Builds it unarmed.
    pub build: fn(&Given) -> Result<Box<dyn Tracker>>,
}

/// The registry's line for a tracker.
pub const fn entry<T: Track>(name: &'static str) -> Entry<Make> {
    Entry::of::<T>(name, Make { probe: T::probe, build: build::<T> })
}

fn build<T: Track>(knobs: &Given) -> Result<Box<dyn Tracker>> {
    let knobs = T::from_knobs(knobs)?;
    T::probe()?;
    Ok(Box::new(knobs.build()?))
}

/// The tracker called `name`; `auto` is the first of [`TRACKERS`] that works here.
pub fn find(name: &str) -> Result<Box<dyn Tracker>> {
    let defaults = Given::new();
    if name != "auto" {
        return (TRACKERS.find(name)?.make.build)(&defaults);
    }
    let works = TRACKERS.entries.iter().find(|entry| (entry.make.probe)().is_ok());
    match works {
        Some(entry) => (entry.make.build)(&defaults),
        None => Err(Error::TrackerUnavailable { tracker: "auto", reason: "no tracker works here".into() }),
    }
}
