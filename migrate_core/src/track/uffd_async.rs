//! The asynchronous userfaultfd tracker: the kernel write-protects pages, lifts the protection itself at
//! the first write, and `PAGEMAP_SCAN` finds the pages that are no longer protected.
//!
//! No thread of ours takes part, so a writer pays one short fault a page and harvest. A harvest finds and
//! protects in one step under the page-table lock, and returns after the translations that CPUs may still
//! hold are gone: a write before it is found, a write after it faults, and one meanwhile does either.
//!
//! Pages that were discarded (`MADV_DONTNEED`) count as written, as far as the kernel shows it. Writes
//! that go round this mapping (another process that maps the same memfd, `write` to the memfd) are not seen.

use std::ops::Range;
use std::sync::Arc;

use super::held::Held;
use super::pagemap::{Pagemap, WRITTEN};
use super::uffd::{Faults, Uffd, FAULT_FLAG_WP, WP_ASYNC, WP_HUGETLBFS_SHMEM, WP_UNPOPULATED};
use super::uffd_check::{self, HugePolicy};
use super::{span, Track, Tracker};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, HugePages, RamBlock};

const NAME: &str = "uffd-async";
pub(super) const FEATURES: u64 = FAULT_FLAG_WP | WP_ASYNC | WP_UNPOPULATED | WP_HUGETLBFS_SHMEM;

crate::knobs! {
    /// The kernel write-protects pages and notes first writes by itself (userfaultfd, asynchronous), and
    /// finds them by PAGEMAP_SCAN. Needs Linux 6.7 and no privilege.
    pub struct UffdAsync {}
}

/// An armed or unarmed asynchronous userfaultfd tracker.
#[derive(Debug, Default)]
pub struct UffdAsyncTracker {
    armed: Option<Armed>,
}

#[derive(Debug)]
struct Armed {
    memory: Arc<GuestMemory>,
    uffd: Uffd,
    pagemap: Pagemap,
    /// Of reserved huge pages, which are protected as a whole whatever part is asked for.
    held: Held,
    huge: HugePolicy,
}

impl Track for UffdAsync {
    type Tracker = UffdAsyncTracker;

    fn probe() -> Result<()> {
        uffd_check::basics().map_err(unavailable)
    }

    fn build(self) -> Result<UffdAsyncTracker> {
        Ok(UffdAsyncTracker::default())
    }
}

/// A descriptor with the features that the tracker needs.
pub(super) fn open() -> std::result::Result<Uffd, String> {
    Uffd::open(FEATURES, Faults::User)
}

fn unavailable(reason: impl Into<String>) -> Error {
    Error::TrackerUnavailable { tracker: NAME, reason: reason.into() }
}

fn is_transparent(block: &RamBlock) -> bool {
    block.spec().huge == HugePages::Transparent
}

impl UffdAsyncTracker {
    /// Arms with what is to become of transparent huge pages given.
    pub(super) fn arm_with(&mut self, memory: &Arc<GuestMemory>, huge: HugePolicy) -> Result<()> {
        self.disarm();
        let armed = Armed {
            memory: Arc::clone(memory),
            uffd: open().map_err(unavailable)?,
            pagemap: Pagemap::open().map_err(unavailable)?,
            held: Held::new(memory.pages()),
            huge,
        };
        memory.blocks().iter().try_for_each(|block| armed.protect(block))?;
        self.armed = Some(armed);
        Ok(())
    }

    fn armed(&mut self) -> Result<&mut Armed> {
        self.armed.as_mut().ok_or_else(|| Error::usage(format!("the tracker `{NAME}` is not armed")))
    }
}

impl Armed {
    fn protect(&self, block: &RamBlock) -> Result<()> {
        self.uffd.register(block)?;
        if self.huge == HugePolicy::Split && is_transparent(block) {
            self.split(block)?;
        }
        self.uffd.protect(block, &(0..block.pages()), true)
    }

    /// Cuts the block's huge pages: protecting a part of one does that.
    fn split(&self, block: &RamBlock) -> Result<()> {
        span::allow_huge(block, false)?;
        let firsts = (span::first_huge(block)..block.pages()).step_by(span::HUGE as usize);
        firsts.into_iter().try_for_each(|first| self.uffd.protect(block, &(first..first + 1), true))
    }

    fn scan(&mut self, asked: Range<u64>, clear: bool, into: &mut Bitmap) -> Result<()> {
        let Self { memory, pagemap, held, .. } = self;
        for (block, pages) in memory.split(asked.clone()) {
            let (first, pages) = (block.first_page(), span::whole(block, pages));
            pagemap.scan(block, &pages, WRITTEN, clear, |found| {
                let found = found.start + first..found.end + first;
                match clear {
                    true => held.put(found, &asked, into),
                    false => into.set_range(found.start.max(asked.start)..found.end.min(asked.end)),
                }
            })?;
        }
        Ok(())
    }
}

impl Tracker for UffdAsyncTracker {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arm(&mut self, memory: &Arc<GuestMemory>) -> Result<()> {
        let huge = match memory.blocks().iter().any(is_transparent) {
            true => uffd_check::huge_pages().map_err(unavailable)?,
            false => HugePolicy::Keep,
        };
        self.arm_with(memory, huge)
    }

    fn harvest(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let armed = self.armed()?;
        let pages = pages.start..pages.end.min(armed.memory.pages());
        armed.held.take(&pages, into);
        armed.scan(pages, true, into)
    }

    fn peek(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let armed = self.armed()?;
        let pages = pages.start..pages.end.min(armed.memory.pages());
        armed.held.peek(&pages, into);
        armed.scan(pages, false, into)
    }

    fn disarm(&mut self) {
        self.armed = None;
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        for block in self.memory.blocks() {
            // Not left to the descriptor's closing: a forked child may hold it open. Nothing can be done
            // about a refusal here, and a block that was not registered yet refuses.
            let _ = self.uffd.unregister(block);
            if self.huge == HugePolicy::Split && is_transparent(block) {
                let _ = span::allow_huge(block, true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{Layout, PAGE};

    #[test]
    fn more_stretches_than_one_scan_returns_are_all_found() {
        if UffdAsync::probe().is_err() {
            return;
        }
        let memory = Arc::new(GuestMemory::new(&Layout::single(32 << 20)).unwrap());
        let mut tracker = UffdAsync {}.build().unwrap();
        tracker.arm(&memory).unwrap();
        let written: Vec<u64> = (0..memory.pages()).step_by(2).collect();
        written.iter().for_each(|page| memory.write(page * PAGE as u64, &[1]));
        let mut dirty = Bitmap::new(memory.pages());
        tracker.harvest(0..memory.pages(), &mut dirty).unwrap();
        assert_eq!(dirty.runs().map(|run| run.first).collect::<Vec<_>>(), written);
        dirty.clear_all();
        tracker.harvest(0..memory.pages(), &mut dirty).unwrap();
        assert!(dirty.is_empty());
    }
}
