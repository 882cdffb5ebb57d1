//! The shared bitmap.

use std::ops::Range;

#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::batch::Batch;
use super::geometry::{bits, groups_for, ones, place, words_for, Span, GROUP_WORDS, WORD};
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
pub(super) struct Group([AtomicU64; GROUP_WORDS]);

impl Group {
    /// The words at this moment.
    #[inline]
    pub fn read(&self) -> [u64; GROUP_WORDS] {
        std::array::from_fn(|at| self.0[at].load(SeqCst))
    }

    /// A word at this moment.
    #[inline]
    pub fn load(&self, word: usize) -> u64 {
        self.0[word].load(SeqCst)
    }

    /// Clears a word and returns what it was.
    #[inline]
    pub fn take(&self, word: usize) -> u64 {
        self.0[word].swap(0, SeqCst)
    }
}

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
        span.masks(|word, mask| {
            self.word(word).fetch_or(mask, SeqCst);
        });
        settle();
        span.groups().masks(|index, mask| self.raise(index, mask));
    }

    /// Whether a page is marked at this moment.
    pub fn is_set(&self, page: u64) -> bool {
        let (word, mask) = place(page);
        page < self.pages && self.word(word).load(SeqCst) & mask != 0
    }

    /// How many pages are marked. While others mark or harvest it is a snapshot of no single moment.
    pub fn count(&self) -> u64 {
        let mut count = 0;
        for (index, groups) in self.summary.iter().enumerate() {
            for bit in bits(groups.load(SeqCst)) {
                count += self.groups[index * WORD as usize + bit].read().into_iter().map(ones).sum::<u64>();
            }
        }
        count
    }

    /// Atomically reads and clears all marks, and adds them to `into`. Marks past the end of `into` stay.
    pub fn harvest(&self, into: &mut Bitmap) {
        self.harvest_range(0..self.pages, into);
    }

    /// The same for a range of pages. Marks outside it stay.
    pub fn harvest_range(&self, pages: Range<u64>, into: &mut Bitmap) {
        let [head, whole, tail] = Span::clip(pages, self.pages.min(into.pages())).cut(self.pages);
        self.harvest_part(head, into);
        self.visit(whole, into, |index, mask| self.lower(index, mask), Group::take);
        self.harvest_part(tail, into);
    }

    /// Adds the marks of a range of pages to `into` and leaves them where they are.
    pub fn peek_range(&self, pages: Range<u64>, into: &mut Bitmap) {
        let [head, whole, tail] = Span::clip(pages, self.pages.min(into.pages())).cut(self.pages);
        for part in [head, tail] {
            part.masks(|word, mask| into.merge(word, self.word(word).load(SeqCst) & mask));
        }
        self.visit(whole, into, |index, mask| self.summary[index].load(SeqCst) & mask, Group::load);
    }

    /// Adds the words of whole groups to `into`: `named` gives the groups of a summary word, `take` a group's words.
    fn visit(
        &self,
        whole: Span,
        into: &mut Bitmap,
        named: impl Fn(usize, u64) -> u64,
        take: impl Fn(&Group, usize) -> u64,
    ) {
        if whole.is_empty() {
            return;
        }
        let mut batch = Batch::new(&self.groups, into, take);
        whole.groups().masks(|index, mask| {
            bits(named(index, mask)).for_each(|bit| batch.push(index * WORD as usize + bit));
        });
        batch.flush();
    }

    /// Harvests a part of one group, and puts its summary bit back if marks are left in it.
    fn harvest_part(&self, part: Span, into: &mut Bitmap) {
        part.groups().masks(|index, mask| {
            if self.lower(index, mask) != 0 {
                part.masks(|word, mask| into.merge(word, take(self.word(word), mask) & mask));
                let group = index * WORD as usize + mask.trailing_zeros() as usize;
                if self.groups[group].read() != [0; GROUP_WORDS] {
                    self.raise(index, mask);
                }
            }
        });
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
        let named = take(&self.summary[index], mask) & mask;
        settle();
        named
    }

    #[inline]
    fn word(&self, word: usize) -> &AtomicU64 {
        &self.groups[word / GROUP_WORDS].0[word % GROUP_WORDS]
    }
}

/// Clears the bits of `mask` and returns the word as it was. A word without any is not written.
#[inline]
fn take(word: &AtomicU64, mask: u64) -> u64 {
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
