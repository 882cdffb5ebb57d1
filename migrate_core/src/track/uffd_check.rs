//! Whether this kernel's asynchronous write protection loses nothing: tried on scratch memory, once a
//! process. Kernels have had faults here, and a kernel's version does not tell which of them it has.
//!
//! * A write-protected transparent huge page that is dropped by `MADV_DONTNEED` and written again is
//!   neither reported nor protected again on some kernels. Where the trial shows that, or the kernel gives
//!   no huge page to try it on, blocks with transparent huge pages are cut into small ones while they are
//!   tracked, if the trial passes that way; otherwise they are refused. Little is lost: the first write to
//!   a protected huge page cuts it anyway.
//! * A page that is dropped and then read is mapped to the zero page. It must count as written, since its
//!   content changed.

use std::sync::{Arc, OnceLock};

use super::pagemap::{self, Pagemap};
use super::uffd_async::UffdAsyncTracker;
use super::{span, Tracker};
use crate::bitmap::Bitmap;
use crate::error::Result;
use crate::guest::{BlockSpec, GuestMemory, HugePages, Layout, PAGE};

/// What becomes of transparent huge pages while they are tracked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HugePolicy {
    /// They stay until they are written.
    Keep,
    /// They are cut, and no others are made.
    Split,
}

type Verdict<T> = std::result::Result<T, String>;

/// Whether the tracker works on 4 KiB pages; the error says what is missing.
pub(super) fn basics() -> Verdict<()> {
    static VERDICT: OnceLock<Verdict<()>> = OnceLock::new();
    VERDICT
        .get_or_init(|| {
            let trial = Trial::new(HugePages::Never).map_err(|e| e.to_string())?;
            trial.passes(HugePolicy::Keep)
        })
        .clone()
}

/// How transparent huge pages can be tracked.
pub(super) fn huge_pages() -> Verdict<HugePolicy> {
    static VERDICT: OnceLock<Verdict<HugePolicy>> = OnceLock::new();
    VERDICT.get_or_init(judge_huge_pages).clone()
}

fn judge_huge_pages() -> Verdict<HugePolicy> {
    let trial = Trial::new(HugePages::Transparent).map_err(|e| e.to_string())?;
    if trial.has_huge_page()? && trial.passes(HugePolicy::Keep).is_ok() {
        return Ok(HugePolicy::Keep);
    }
    trial.passes(HugePolicy::Split).map(|()| HugePolicy::Split).map_err(|e| {
        format!(
            "transparent huge pages are not tracked soundly by this kernel ({e}); use blocks of 4 KiB pages"
        )
    })
}

/// Scratch memory, and the 512 pages of it that can be one huge page.
struct Trial {
    memory: Arc<GuestMemory>,
    first: u64,
}

impl Trial {
    fn new(huge: HugePages) -> Result<Self> {
        // Room for one huge page wherever the mapping starts.
        let spec = BlockSpec { huge, ..BlockSpec::new("scratch", 4 << 20) };
        let memory = Arc::new(GuestMemory::new(&Layout { blocks: vec![spec] })?);
        let first = span::first_huge(&memory.blocks()[0]);
        Ok(Self { memory, first })
    }

    /// Fills the pages, and says whether a huge page holds them.
    fn has_huge_page(&self) -> Verdict<bool> {
        self.memory.populate().map_err(|e| e.to_string())?;
        let (mut huge, pages) = (0, self.first..self.first + span::HUGE);
        Pagemap::open()?
            .scan(&self.memory.blocks()[0], &pages, pagemap::HUGE, false, |run| huge += run.end - run.start)
            .map_err(|e| e.to_string())?;
        Ok(huge == span::HUGE)
    }

    fn passes(&self, policy: HugePolicy) -> Verdict<()> {
        let tried = self.run(policy).map_err(|e| e.to_string())?;
        match tried.iter().find(|(_, reported)| !reported) {
            None => Ok(()),
            Some((what, _)) => Err(format!("its self-check failed: {what} was not reported")),
        }
    }

    /// Each step in words, and whether the page that it wrote was reported.
    fn run(&self, policy: HugePolicy) -> Result<Vec<(&'static str, bool)>> {
        let mut tracker = UffdAsyncTracker::default();
        self.memory.populate()?;
        tracker.arm_with(&self.memory, policy)?;
        let mut tried = vec![
            ("a first write", self.written(&mut tracker)?),
            ("a write after a harvest", self.written(&mut tracker)?),
        ];
        self.refill(&mut tracker, policy)?;
        self.drop_pages()?;
        tried.push(("a write after MADV_DONTNEED", self.written(&mut tracker)?));
        tried.push(("a second write after MADV_DONTNEED", self.written(&mut tracker)?));
        self.refill(&mut tracker, policy)?;
        self.drop_pages()?;
        self.harvested(&mut tracker)?;
        tried.push(("a write after MADV_DONTNEED and a harvest", self.written(&mut tracker)?));
        self.refill(&mut tracker, policy)?;
        self.drop_pages()?;
        self.memory.read(self.offset(), &mut [0]);
        tried.push(("a page read back after MADV_DONTNEED", self.harvested(&mut tracker)?));
        tried.push(("a write to a page read back", self.written(&mut tracker)?));
        Ok(tried)
    }

    /// Armed afresh, on whole pages: writes to a protected huge page have cut it.
    fn refill(&self, tracker: &mut UffdAsyncTracker, policy: HugePolicy) -> Result<()> {
        tracker.disarm();
        self.drop_pages()?;
        self.memory.populate()?;
        tracker.arm_with(&self.memory, policy)
    }

    fn drop_pages(&self) -> Result<()> {
        span::discard(&self.memory.blocks()[0], &(self.first..self.first + span::HUGE))
    }

    fn page(&self) -> u64 {
        self.first + 7
    }

    fn offset(&self) -> u64 {
        self.page() * PAGE as u64
    }

    fn written(&self, tracker: &mut UffdAsyncTracker) -> Result<bool> {
        self.memory.write(self.offset(), &[1]);
        self.harvested(tracker)
    }

    fn harvested(&self, tracker: &mut UffdAsyncTracker) -> Result<bool> {
        let mut dirty = Bitmap::new(self.memory.pages());
        tracker.harvest(0..self.memory.pages(), &mut dirty)?;
        Ok(dirty.contains(self.page()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or a fault of ours would make the tracker unavailable, and all its tests skipped.
    #[test]
    fn small_pages_pass_where_the_kernel_has_the_features() {
        if super::super::uffd_async::open().is_ok() && Pagemap::open().is_ok() {
            assert_eq!(basics(), Ok(()));
        }
    }

    #[test]
    fn both_ways_of_tracking_huge_pages_pass_where_the_tracker_works() {
        if basics().is_err() {
            return;
        }
        let trial = Trial::new(HugePages::Transparent).unwrap();
        println!("a huge page here: {:?}, policy: {:?}", trial.has_huge_page(), huge_pages());
        assert_eq!(trial.passes(HugePolicy::Split), Ok(()));
        assert!(huge_pages().is_ok());
    }

    #[test]
    fn splitting_leaves_no_huge_page_and_disarming_allows_them_again() {
        let trial = Trial::new(HugePages::Transparent).unwrap();
        if basics().is_err() || trial.has_huge_page() != Ok(true) {
            return;
        }
        let mut tracker = UffdAsyncTracker::default();
        tracker.arm_with(&trial.memory, HugePolicy::Split).unwrap();
        assert_eq!(trial.has_huge_page(), Ok(false));
        tracker.disarm();
        trial.drop_pages().unwrap();
        assert_eq!(trial.has_huge_page(), Ok(true));
    }
}
