//! The soft-dirty tracker: a bit of each page-table entry that the kernel sets at the first write after
//! the bits were cleared (kernel documentation, `admin-guide/mm/soft-dirty.rst`).
//!
//! Reading (`/proc/self/pagemap`) and clearing (`/proc/self/clear_refs`) are two steps, so writers must be
//! paused in between. Clearing is for the whole process: dirty pages outside the range that a harvest
//! asks for are held for later ones, and only one such tracker may be armed in a process. Each harvest
//! therefore costs a look at all of memory, however small its range.
//!
//! Memory that is discarded (`MADV_DONTNEED`) and then only read is not reported.

use std::fs::File;
use std::io::Write;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use super::held::Held;
use super::pagemap::{Pagemap, ENTRY_SOFT_DIRTY};
use super::{Track, Tracker};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, Layout};

const NAME: &str = "soft-dirty";
const CLEAR_REFS: &str = "/proc/self/clear_refs";
/// What clears soft-dirty bits, and nothing else, when written to [`CLEAR_REFS`].
const CLEAR_SOFT_DIRTY: &[u8] = b"4";

static IN_USE: AtomicBool = AtomicBool::new(false);

crate::knobs! {
    /// The kernel's soft-dirty bits. Writers are paused at each harvest, which looks at all of memory: use
    /// it where userfaultfd is not to be had. Needs a kernel built with CONFIG_MEM_SOFT_DIRTY.
    pub struct SoftDirty {}
}

/// An armed or unarmed soft-dirty tracker.
#[derive(Debug, Default)]
pub struct SoftDirtyTracker {
    armed: Option<Armed>,
}

#[derive(Debug)]
struct Armed {
    memory: Arc<GuestMemory>,
    pagemap: Pagemap,
    clear_refs: File,
    held: Held,
    _claim: Claim,
}

/// The process's soft-dirty bits, for as long as it lives.
#[derive(Debug)]
struct Claim;

impl Claim {
    fn take() -> Result<Self> {
        match IN_USE.swap(true, Ordering::AcqRel) {
            false => Ok(Self),
            true => {
                Err(unavailable("another guest of this process uses it, and its bits are the process's own"))
            }
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        IN_USE.store(false, Ordering::Release);
    }
}

impl Track for SoftDirty {
    type Tracker = SoftDirtyTracker;

    /// A page that was just written has the bit on any kernel that keeps it; nothing is cleared, since
    /// that would take the bits away from whoever uses them.
    fn probe() -> Result<()> {
        let memory = GuestMemory::new(&Layout::single(1 << 20))?;
        memory.write(0, &[1]);
        let mut seen = false;
        let pagemap = Pagemap::open().map_err(unavailable)?;
        pagemap.entries(&memory.blocks()[0], &(0..1), |_, entry| seen = entry & ENTRY_SOFT_DIRTY != 0)?;
        match seen {
            true => clear_refs().map(drop),
            false => Err(unavailable(
                "a page that was just written is not marked; it needs a kernel built with \
                 CONFIG_MEM_SOFT_DIRTY=y",
            )),
        }
    }

    fn build(self) -> Result<SoftDirtyTracker> {
        Ok(SoftDirtyTracker::default())
    }
}

fn unavailable(reason: impl Into<String>) -> Error {
    Error::TrackerUnavailable { tracker: NAME, reason: reason.into() }
}

fn clear_refs() -> Result<File> {
    let open = File::options().write(true).open(CLEAR_REFS);
    open.map_err(|e| unavailable(format!("{CLEAR_REFS} cannot be opened ({e}): mount /proc writable")))
}

impl SoftDirtyTracker {
    fn armed(&mut self) -> Result<&mut Armed> {
        self.armed.as_mut().ok_or_else(|| Error::usage(format!("the tracker `{NAME}` is not armed")))
    }
}

impl Armed {
    /// Calls `each` with every dirty page of `pages`.
    fn dirty(&self, pages: Range<u64>, mut each: impl FnMut(u64)) -> Result<()> {
        for (block, pages) in self.memory.split(pages) {
            self.pagemap.entries(block, &pages, |page, entry| {
                if entry & ENTRY_SOFT_DIRTY != 0 {
                    each(block.first_page() + page);
                }
            })?;
        }
        Ok(())
    }

    fn clear(&self) -> Result<()> {
        let cleared = (&self.clear_refs).write_all(CLEAR_SOFT_DIRTY);
        cleared.map_err(|source| Error::System { what: format!("writing {CLEAR_REFS}"), source })
    }
}

impl Tracker for SoftDirtyTracker {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arm(&mut self, memory: &Arc<GuestMemory>) -> Result<()> {
        self.disarm();
        let armed = Armed {
            memory: Arc::clone(memory),
            pagemap: Pagemap::open().map_err(unavailable)?,
            clear_refs: clear_refs()?,
            held: Held::new(memory.pages()),
            _claim: Claim::take()?,
        };
        armed.clear()?;
        self.armed = Some(armed);
        Ok(())
    }

    fn harvest(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let armed = self.armed()?;
        let asked = pages.start..pages.end.min(armed.memory.pages());
        let mut held = std::mem::replace(&mut armed.held, Held::new(0));
        held.take(&asked, into);
        let looked = armed.dirty(0..armed.memory.pages(), |page| held.put(page..page + 1, &asked, into));
        armed.held = held;
        looked.and_then(|()| armed.clear())
    }

    fn peek(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let armed = self.armed()?;
        let asked = pages.start..pages.end.min(armed.memory.pages());
        armed.held.peek(&asked, into);
        armed.dirty(asked, |page| into.set(page))
    }

    fn disarm(&mut self) {
        self.armed = None;
    }

    fn needs_pause(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_the_bit_is_told_what_to_build_in() {
        if let Err(error) = SoftDirty::probe() {
            assert!(error.to_string().contains("CONFIG_MEM_SOFT_DIRTY"), "{error}");
        }
    }

    #[test]
    fn one_guest_a_process() {
        let Ok(first) = Claim::take() else { return };
        assert!(Claim::take().unwrap_err().to_string().contains("another guest"));
        drop(first);
    }
}
