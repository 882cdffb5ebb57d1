//! Dirty pages that were read off the kernel, and thereby cleared there, before anybody asked for them.

use std::ops::Range;

use crate::bitmap::Bitmap;

/// Kept until a harvest asks for them. A kernel that clears more than was asked for (a whole process, a
/// whole huge page) would lose them otherwise.
#[derive(Debug)]
pub(super) struct Held {
    pages: Bitmap,
}

impl Held {
    /// None of `pages` pages.
    pub(super) fn new(pages: u64) -> Self {
        Self { pages: Bitmap::new(pages) }
    }

    /// `found` was dirty: what of it was `asked` for goes to `into`, the rest is kept.
    pub(super) fn put(&mut self, found: Range<u64>, asked: &Range<u64>, into: &mut Bitmap) {
        let (from, to) = (found.start.max(asked.start), found.end.min(asked.end));
        if from >= to {
            return self.pages.set_range(found);
        }
        into.set_range(from..to);
        self.pages.set_range(found.start..from);
        self.pages.set_range(to..found.end);
    }

    /// Keeps `page`.
    pub(super) fn keep(&mut self, page: u64) {
        self.pages.set(page);
    }

    /// Moves what is kept of `asked` to `into`.
    pub(super) fn take(&mut self, asked: &Range<u64>, into: &mut Bitmap) {
        self.peek(asked, into);
        self.pages.clear_range(asked.clone());
    }

    /// Adds what is kept of `asked` to `into`.
    pub(super) fn peek(&self, asked: &Range<u64>, into: &mut Bitmap) {
        self.pages.runs_in(asked.clone()).for_each(|run| into.set_range(run.range()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(bitmap: &Bitmap) -> Vec<u64> {
        bitmap.runs().flat_map(|run| run.range()).collect()
    }

    #[test]
    fn what_was_not_asked_for_is_kept_until_it_is() {
        let (mut held, mut into) = (Held::new(100), Bitmap::new(100));
        held.put(10..20, &(12..15), &mut into);
        held.put(40..42, &(12..15), &mut into);
        assert_eq!(pages(&into), [12, 13, 14]);
        into.clear_all();
        held.peek(&(0..12), &mut into);
        held.take(&(0..12), &mut into);
        assert_eq!(pages(&into), [10, 11]);
        into.clear_all();
        held.take(&(0..100), &mut into);
        assert_eq!(pages(&into), [15, 16, 17, 18, 19, 40, 41]);
    }
}
