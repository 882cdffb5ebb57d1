//! Dirty trackers: who finds out which pages were written, and what that costs the writer.
//!
//! A tracker is one file here and one line of [`TRACKERS`]. It may report a page that was not written;
//! it never misses one that was.

use std::ops::Range;
use std::sync::Arc;

use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, PAGE};
use crate::knobs::{refuse_unknown, Entry, Given, Knobs, Registry, Spec};

mod compare;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod held;
mod ioctl;
#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
mod kvm_log;
#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
mod kvm_ring;
#[cfg(test)]
#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
mod kvm_tests;
mod pagemap;
mod pager;
pub mod remote;
mod soft_dirty;
mod software;
mod span;
mod tax;
mod uffd;
mod uffd_async;
mod uffd_check;
mod uffd_handler;
mod uffd_sync;
mod urgent;

pub use compare::Compare;
#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
pub use kvm_log::KvmLog;
#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
pub use kvm_ring::KvmRing;
pub use pager::{check_layout, Pager};
pub use soft_dirty::SoftDirty;
pub use software::Software;
pub use tax::first_write_ns;
pub use uffd_async::UffdAsync;
pub use uffd_sync::UffdSync;
pub use urgent::run_soon;

/// The trackers there are, the best first: `auto` takes the first that works.
pub static TRACKERS: Registry<Make> = Registry {
    kind: "tracker",
    entries: &[
        entry::<UffdAsync>("uffd-async"),
        entry::<SoftDirty>("soft-dirty"),
        entry::<UffdSync>("uffd-sync"),
        entry::<Software>("software"),
        entry::<Compare>("compare"),
        #[cfg(all(feature = "kvm", target_arch = "x86_64"))]
        entry::<KvmLog>("kvm-log"),
        #[cfg(all(feature = "kvm", target_arch = "x86_64"))]
        entry::<KvmRing>("kvm-ring"),
    ],
};

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

    /// Whether it sees writes by any code of this process, not only those of workloads that write through
    /// the guest's own interface.
    const SEES_ALL_WRITERS: bool = true;

    /// Whether it sees writes by vCPUs of KVM and no others: `auto`, which knows nothing of the guest,
    /// leaves it out.
    const ONLY_VCPUS: bool = false;

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
    /// See [`Track::SEES_ALL_WRITERS`].
    pub sees_all_writers: bool,
    /// See [`Track::ONLY_VCPUS`].
    pub only_vcpus: bool,
    /// Builds it unarmed.
    pub build: fn(&Given) -> Result<Box<dyn Tracker>>,
}

/// The registry's line for a tracker.
pub const fn entry<T: Track>(name: &'static str) -> Entry<Make> {
    let (sees_all_writers, only_vcpus) = (T::SEES_ALL_WRITERS, T::ONLY_VCPUS);
    Entry::of::<T>(name, Make { probe: T::probe, sees_all_writers, only_vcpus, build: build::<T> })
}

fn build<T: Track>(knobs: &Given) -> Result<Box<dyn Tracker>> {
    let knobs = T::from_knobs(knobs)?;
    T::probe()?;
    Ok(Box::new(knobs.build()?))
}

/// Who writes to the memory that is to be tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Workloads that write through the guest's own interface.
    Workloads,
    /// Also code that was given memory's address: a Python callable, say.
    Foreign,
}

/// The tracker called `name` with its defaults, for a guest of workloads; see [`find_for`].
pub fn find(name: &str) -> Result<Box<dyn Tracker>> {
    find_for(&Spec::new(name), Writers::Workloads)
}

/// The tracker that `spec` names. `auto`, which has no knobs, is the first of [`TRACKERS`] that works
/// here and sees all `writers`; a tracker that would not see them is refused.
pub fn find_for(spec: &Spec, writers: Writers) -> Result<Box<dyn Tracker>> {
    let sees = |entry: &Entry<Make>| entry.make.sees_all_writers || writers == Writers::Workloads;
    if spec.name == "auto" {
        refuse_unknown("the tracker `auto`", &[], &spec.knobs)?;
        let fits =
            |entry: &&Entry<Make>| sees(entry) && !entry.make.only_vcpus && (entry.make.probe)().is_ok();
        let works = TRACKERS.entries.iter().find(fits);
        let none = Error::TrackerUnavailable { tracker: "auto", reason: "no tracker works here".into() };
        return works.ok_or(none).and_then(|entry| (entry.make.build)(&spec.knobs));
    }
    let entry = TRACKERS.find(&spec.name)?;
    if !sees(entry) {
        return Err(Error::TrackerUnavailable {
            tracker: entry.name,
            reason: "it sees only writes through the guest's own interface, and this guest has others".into(),
        });
    }
    (entry.make.build)(&spec.knobs)
}

/// An error where `tracker` would miss writes to `memory`, whose guest is there: before anything is done with it.
pub fn refuse_blind(tracker: &dyn Tracker, memory: &GuestMemory) -> Result<()> {
    #[cfg(all(feature = "kvm", target_arch = "x86_64"))]
    if let Some(entry) = TRACKERS.find(tracker.name()).ok().filter(|entry| entry.make.only_vcpus) {
        kvm_log::vms_of(memory, entry.name)?;
    }
    // Other trackers see all that they are asked about, or are refused when they are made.
    let _ = (tracker, memory);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_is_the_best_that_works_and_sees_all_writers() {
        let works = |entry: &&Entry<Make>| (entry.make.probe)().is_ok();
        let best = TRACKERS.entries.iter().find(works).unwrap().name;
        assert_eq!(find("auto").unwrap().name(), best);
        let foreign = find_for(&Spec::new("auto"), Writers::Foreign).unwrap();
        assert_ne!(foreign.name(), "software");
    }

    #[test]
    fn software_is_refused_to_foreign_writers() {
        let refused = find_for(&Spec::new("software"), Writers::Foreign).map(|_| ()).unwrap_err();
        assert!(refused.to_string().contains("guest's own interface"), "{refused}");
    }

    #[test]
    fn names_and_knobs_are_checked() {
        let refused = |spec: Spec| find_for(&spec, Writers::Workloads).map(|_| ()).unwrap_err().to_string();
        assert!(refused(Spec::new("uffd-asinc")).contains("did you mean `uffd-async`?"));
        assert!(refused(Spec::new("auto").with("keep", "copy")).contains("no knob `keep`"));
        assert!(find_for(&Spec::new("compare").with("keep", "copy"), Writers::Foreign).is_ok());
    }

    #[test]
    fn an_unarmed_tracker_says_so() {
        for entry in TRACKERS.entries.iter().filter(|entry| (entry.make.probe)().is_ok()) {
            let mut tracker = find(entry.name).unwrap();
            assert_eq!(tracker.name(), entry.name);
            let harvest = tracker.harvest(0..1, &mut Bitmap::new(1)).unwrap_err().to_string();
            assert!(harvest.contains("is not armed") && harvest.contains(entry.name), "{harvest}");
            assert!(tracker.peek(0..1, &mut Bitmap::new(1)).is_err());
            tracker.disarm();
        }
    }
}
