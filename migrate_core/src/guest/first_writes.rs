//! Which pages were written since the last harvest, and by whom: what a quota of dirty bytes counts.

use std::cell::Cell;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::bitmap::{Bitmap, DirtyBitmap};

thread_local! {
    /// First writes by this thread, in whatever memory.
    static BY_THIS_THREAD: Cell<u64> = const { Cell::new(0) };
}

/// First writes by this thread since it began.
pub(super) fn by_this_thread() -> u64 {
    BY_THIS_THREAD.get()
}

/// Tells first writes to a page since its last harvest from later ones, while somebody wants to know.
///
/// Its own log, since trackers show what was written and not who wrote it. It need not be exact: a page
/// that is harvested while it is written may count twice or not at all.
#[derive(Debug, Default)]
pub(super) struct FirstWrites {
    wanted: AtomicBool,
    seen: OnceLock<DirtyBitmap>,
    /// Takes what is forgotten.
    bin: Mutex<Option<Bitmap>>,
}

impl FirstWrites {
    /// Begins to count in memory of `pages`, with all pages unwritten, or ends it.
    pub(super) fn want(&self, wanted: bool, pages: u64) {
        if wanted {
            self.seen.get_or_init(|| DirtyBitmap::new(pages));
            self.harvested(0..pages);
        }
        self.wanted.store(wanted, Relaxed);
    }

    /// Takes note of a write by this thread.
    #[inline]
    pub(super) fn written(&self, pages: Range<u64>) {
        if self.wanted.load(Relaxed) {
            self.count(pages);
        }
    }

    fn count(&self, pages: Range<u64>) {
        let Some(seen) = self.seen.get() else { return };
        let mut first = 0;
        for page in pages {
            if !seen.is_set(page) {
                seen.set(page);
                first += 1;
            }
        }
        BY_THIS_THREAD.set(BY_THIS_THREAD.get() + first);
    }

    /// Takes note that `pages` were harvested: their next write is a first one.
    pub(super) fn harvested(&self, pages: Range<u64>) {
        let Some(seen) = self.seen.get() else { return };
        // Nothing panics while it is held.
        let mut bin = self.bin.lock().unwrap_or_else(PoisonError::into_inner);
        seen.harvest_range(pages, bin.get_or_insert_with(|| Bitmap::new(seen.pages())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_counts_once_between_harvests_and_only_for_its_writer() {
        let writes = FirstWrites::default();
        let before = by_this_thread();
        let counted = || by_this_thread() - before;
        writes.written(0..9);
        assert_eq!(counted(), 0, "nobody wants to know");
        writes.want(true, 100);
        writes.written(10..20);
        writes.written(15..25);
        assert_eq!(counted(), 15);
        std::thread::scope(|scope| scope.spawn(|| writes.written(50..60)).join().unwrap());
        writes.written(50..60);
        assert_eq!(counted(), 15, "another thread was there before");
        writes.harvested(10..12);
        writes.written(10..20);
        assert_eq!(counted(), 17);
        writes.want(false, 100);
        writes.written(80..90);
        assert_eq!(counted(), 17);
        writes.want(true, 100);
        writes.written(10..12);
        assert_eq!(counted(), 19, "it begins with nothing written");
    }
}
