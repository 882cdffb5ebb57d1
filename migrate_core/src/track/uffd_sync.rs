//! The synchronous userfaultfd tracker: a writer that meets a protected page waits until a thread of ours
//! lifts the protection.
//!
//! The protection bits in the page tables are the dirty bitmap: a page is dirty when it is not protected.
//! A bitmap of our own beside them would have to be kept in step under a lock, or writes are lost. If the
//! thread marks a page and then lifts its protection, a harvest in between clears the mark and protects
//! the page, and the thread then leaves it clean and writable: nothing reports later writes. If it lifts
//! first and marks later, a harvest in between misses a write that came before it. And a page discarded by
//! `MADV_DONTNEED` loses its protection without any fault that could mark it.
//!
//! With the page tables as the only truth there is nothing to keep in step. A harvest protects the pages
//! that it finds unprotected, and then reports them. A page that the thread frees meanwhile was either
//! seen unprotected, so that its content is read later, or it is left unprotected and the next harvest
//! finds it. A late answer to a fault frees a page that is clean: too much reported, never too little.

use std::ops::Range;
use std::sync::Arc;

use super::held::Held;
use super::pagemap::{Pagemap, ENTRY_PROTECTED};
use super::uffd::{Faults, Uffd, FAULT_FLAG_WP, WP_HUGETLBFS_SHMEM, WP_UNPOPULATED};
use super::uffd_handler::Handler;
use super::{span, Track, Tracker};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, Layout, RamBlock, PAGE};

const NAME: &str = "uffd-sync";
const FEATURES: u64 = FAULT_FLAG_WP | WP_UNPOPULATED | WP_HUGETLBFS_SHMEM;

crate::knobs! {
    /// A thread of ours answers each first write to a page (userfaultfd, synchronous): dear for writers,
    /// but needs only Linux 6.4. Without privilege (CAP_SYS_PTRACE, or vm.unprivileged_userfaultfd = 1)
    /// system calls that write guest memory fail with EFAULT while it is tracked.
    pub struct UffdSync {}
}

/// An armed or unarmed synchronous userfaultfd tracker.
#[derive(Debug, Default)]
pub struct UffdSyncTracker {
    armed: Option<Armed>,
}

#[derive(Debug)]
struct Armed {
    memory: Arc<GuestMemory>,
    handler: Handler,
    pagemap: Pagemap,
    /// Of reserved huge pages, which are protected as a whole whatever part is asked for.
    held: Held,
}

impl Track for UffdSync {
    type Tracker = UffdSyncTracker;

    fn probe() -> Result<()> {
        let memory = Arc::new(GuestMemory::new(&Layout::single(1 << 20))?);
        let (mut tracker, mut dirty) = (UffdSyncTracker::default(), Bitmap::new(memory.pages()));
        tracker.arm(&memory)?;
        memory.write(PAGE as u64, &[1]);
        tracker.harvest(0..memory.pages(), &mut dirty)?;
        match dirty.contains(1) && dirty.count() == 1 {
            true => Ok(()),
            false => Err(unavailable("its self-check failed: the page map does not show protection")),
        }
    }

    fn build(self) -> Result<UffdSyncTracker> {
        Ok(UffdSyncTracker::default())
    }
}

fn unavailable(reason: impl Into<String>) -> Error {
    Error::TrackerUnavailable { tracker: NAME, reason: reason.into() }
}

impl UffdSyncTracker {
    fn armed(&mut self) -> Result<&mut Armed> {
        self.armed.as_mut().ok_or_else(|| Error::usage(format!("the tracker `{NAME}` is not armed")))
    }
}

impl Armed {
    /// Stretches of the block's pages that are not protected.
    fn unprotected(&self, block: &RamBlock, pages: &Range<u64>) -> Result<Vec<Range<u64>>> {
        let mut runs: Vec<Range<u64>> = Vec::new();
        self.pagemap.entries(block, pages, |page, entry| {
            if entry & ENTRY_PROTECTED == 0 {
                match runs.last_mut() {
                    Some(run) if run.end == page => run.end += 1,
                    _ => runs.push(page..page + 1),
                }
            }
        })?;
        Ok(runs)
    }

    fn harvest(&mut self, asked: &Range<u64>, into: &mut Bitmap) -> Result<()> {
        self.handler.check()?;
        let memory = Arc::clone(&self.memory);
        for (block, pages) in memory.split(asked.clone()) {
            let first = block.first_page();
            for run in self.unprotected(block, &span::whole(block, pages))? {
                self.handler.uffd().protect(block, &run, true)?;
                self.held.put(run.start + first..run.end + first, asked, into);
            }
        }
        // Had the handler failed meanwhile, protection would be gone, and with it what was not yet read.
        self.handler.check()
    }
}

impl Tracker for UffdSyncTracker {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arm(&mut self, memory: &Arc<GuestMemory>) -> Result<()> {
        self.disarm();
        let uffd = Uffd::open(FEATURES, Faults::UserAndKernel).map_err(unavailable)?;
        self.armed = Some(Armed {
            pagemap: Pagemap::open().map_err(unavailable)?,
            held: Held::new(memory.pages()),
            handler: Handler::start(uffd, memory)?,
            memory: Arc::clone(memory),
        });
        Ok(())
    }

    fn harvest(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let armed = self.armed()?;
        let pages = pages.start..pages.end.min(armed.memory.pages());
        armed.held.take(&pages, into);
        armed.harvest(&pages, into)
    }

    fn peek(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let armed = self.armed()?;
        let pages = pages.start..pages.end.min(armed.memory.pages());
        armed.held.peek(&pages, into);
        for (block, pages) in armed.memory.split(pages) {
            let first = block.first_page();
            for run in armed.unprotected(block, &pages)? {
                into.set_range(run.start + first..run.end + first);
            }
        }
        armed.handler.check()
    }

    fn disarm(&mut self) {
        self.armed = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn memory() -> Arc<GuestMemory> {
        Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap())
    }

    #[test]
    fn writers_that_wait_are_released_by_disarming() {
        if UffdSync::probe().is_err() {
            return;
        }
        for _ in 0..20 {
            let (memory, mut tracker) = (memory(), UffdSyncTracker::default());
            tracker.arm(&memory).unwrap();
            let writer = {
                let memory = Arc::clone(&memory);
                std::thread::spawn(move || {
                    (0..memory.pages()).for_each(|p| memory.write(p * PAGE as u64, &[1]));
                })
            };
            std::thread::sleep(Duration::from_micros(200));
            drop(tracker);
            writer.join().unwrap();
        }
    }

    #[test]
    fn disarming_lifts_protection_although_a_forked_child_may_hold_the_descriptor() {
        use std::os::fd::AsFd;
        if UffdSync::probe().is_err() {
            return;
        }
        let (memory, mut tracker) = (memory(), UffdSyncTracker::default());
        tracker.arm(&memory).unwrap();
        let _held = tracker.armed().unwrap().handler.uffd().as_fd().try_clone_to_owned().unwrap();
        tracker.disarm();
        let mut is_protected = true;
        let look = |_, entry| is_protected = entry & ENTRY_PROTECTED != 0;
        Pagemap::open().unwrap().entries(&memory.blocks()[0], &(5..6), look).unwrap();
        assert!(!is_protected);
    }

    #[test]
    fn writers_go_on_and_harvests_fail_once_the_handler_has_failed() {
        if UffdSync::probe().is_err() {
            return;
        }
        let (memory, mut tracker) = (memory(), UffdSyncTracker::default());
        tracker.arm(&memory).unwrap();
        tracker.armed().unwrap().handler.fail_for_test();
        memory.write(0, &[1]);
        let error = tracker.harvest(0..1, &mut Bitmap::new(memory.pages())).unwrap_err();
        assert!(error.to_string().contains("write faults"), "{error}");
    }
}
