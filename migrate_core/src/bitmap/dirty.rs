//! The shared bitmap.

use std::ops::Range;

#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::geometry::{bits, groups_for, place, words_for, Span, GROUP_WORDS, WORD};
use super::Bitmap;

/// Which pages were written since the last harvest: many writers mark, one owner harvests, nobody waits.
///
/// No method panics: a page past the end is not set and cannot be, ranges are clipped. The module's
/// description says why no mark is lost.
#[derive(Debug)]
pub struct DirtyBitmap {
    pages: u64,
    groups: Vec<Group>,
    summary: Vec<AtomicU64>,
}

/// The words that one summary bit stands for, on a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Group([AtomicU64; GROUP_WORDS]);

impl DirtyBitmap {
    /// Nothing dirty. Aborts if the memory (`pages / 8` bytes) cannot be had: bound a peer's number before.
    pub fn new(pages: u64) -> Self {
        let groups = groups_for(pages);
        let summary = (0..words_for(groups as u64)).map(|_| AtomicU64::default()).collect();
        Self { pages, groups: (0..groups).map(|_| Group::default()).collect(), summary }
    }

    /// Its length in pages, dirty or not.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Marks a page.
    #[inline]
    pub fn set(&self, page: u64) {
        if page < self.pages {
            let (word, mask) = place(page);
            self.word(word).fetch_or(mask, SeqCst);
            settle();
            let (index, mask) = place((word / GROUP_WORDS) as u64);
            self.raise(index, mask);
        }
    }

    /// Marks a range of pages, whole words at a time.
    pub fn set_range(&self, pages: Range<u64>) {
        let span = Span::clip(pages, self.pages);
        for (word, mask) in span.masks() {
            self.word(word).fetch_or(mask, SeqCst);
        }
        settle();
        span.groups().masks().for_each(|(index, mask)| self.raise(index, mask));
    }

    /// Whether a page is marked at this moment.
    pub fn is_set(&self, page: u64) -> bool {
        let (word, mask) = place(page);
        page < self.pages && self.word(word).load(SeqCst) & mask != 0
    }

    /// How many pages are marked. While others mark or harvest it is a snapshot of no single moment.
    pub fn count(&self) -> u64 {
        let mut count = 0;
        self.look(Span::clip(0..self.pages, self.pages), |_, set| count += u64::from(set.count_ones()));
        count
    }

    /// Atomically reads and clears all marks, and adds them to `into`. Marks past the end of `into` stay.
    pub fn harvest(&self, into: &mut Bitmap) {
        self.harvest_range(0..self.pages, into);
    }

    /// The same for a range of pages. Marks outside it stay.
    pub fn harvest_range(&self, pages: Range<u64>, into: &mut Bitmap) {
        let span = Span::clip(pages, self.pages.min(into.pages()));
        for (index, mask) in span.groups().masks() {
            for bit in bits(self.lower(index, mask)) {
                if !self.take(index * WORD as usize + bit, &span, into) {
                    self.raise(index, 1 << bit);
                }
            }
        }
    }

    /// Adds the marks of a range of pages to `into` and leaves them where they are.
    pub fn peek_range(&self, pages: Range<u64>, into: &mut Bitmap) {
        self.look(Span::clip(pages, self.pages.min(into.pages())), |word, set| into.merge(word, set));
    }

    /// Moves the marks of a group that lie in the span; returns whether none is left outside it.
    fn take(&self, group: usize, span: &Span, into: &mut Bitmap) -> bool {
        let inside = span.words_of(group);
        let mut left = 0;
        for (at, word) in self.groups[group].0.iter().enumerate() {
            let index = group * GROUP_WORDS + at;
            let mask = if inside.contains(&index) { span.mask(index) } else { 0 };
            let old = take_word(word, mask);
            into.merge(index, old & mask);
            left |= old & !mask;
        }
        left == 0
    }

    /// Shows `see` the words of the span that are not zero, less what is outside.
    fn look(&self, span: Span, mut see: impl FnMut(usize, u64)) {
        for (index, mask) in span.groups().masks() {
            for bit in bits(self.summary[index].load(SeqCst) & mask) {
                for word in span.words_of(index * WORD as usize + bit) {
                    see(word, self.word(word).load(SeqCst) & span.mask(word));
                }
            }
        }
    }

    /// Sets summary bits. Groups that are dirty already cost a load, which many writers can share.
    #[inline]
    fn raise(&self, index: usize, mask: u64) {
        let summary = &self.summary[index];
        if summary.load(SeqCst) & mask != mask {
            summary.fetch_or(mask, SeqCst);
        }
    }

    /// Clears summary bits and returns those that were set.
    fn lower(&self, index: usize, mask: u64) -> u64 {
        let named = take_word(&self.summary[index], mask) & mask;
        settle();
        named
    }

    #[inline]
    fn word(&self, word: usize) -> &AtomicU64 {
        &self.groups[word / GROUP_WORDS].0[word % GROUP_WORDS]
    }
}

/// Clears the bits of `mask` and returns the word as it was. A word without any is not written.
fn take_word(word: &AtomicU64, mask: u64) -> u64 {
    match word.load(SeqCst) {
        old if old & mask == 0 => old,
        _ if mask == !0 => word.swap(0, SeqCst),
        _ => word.fetch_and(!mask, SeqCst),
    }
}

/// Where a thread turns from one level to the other. The accesses themselves are sequentially consistent, which is
/// all that is needed; loom takes such accesses for acquire and release only, but knows the fence.
#[inline]
fn settle() {
    #[cfg(loom)]
    loom::sync::atomic::fence(SeqCst);
}
