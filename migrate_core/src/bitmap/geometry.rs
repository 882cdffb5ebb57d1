//! Where a page's bit is: words, groups of words, and masks over ranges of either.

use std::ops::Range;

/// Bits in a word.
pub(super) const WORD: u64 = 64;
/// Words in a group, the unit that one summary bit stands for: a cache line.
pub(super) const GROUP_WORDS: usize = 8;
/// Pages in a group.
pub(super) const GROUP: u64 = WORD * GROUP_WORDS as u64;

/// Words that `bits` bits need.
pub(super) fn words_for(bits: u64) -> usize {
    bits.div_ceil(WORD) as usize
}

/// Groups that `pages` pages need.
pub(super) fn groups_for(pages: u64) -> usize {
    pages.div_ceil(GROUP) as usize
}

/// Where bit `index` is: its word, and the mask in it.
pub(super) fn place(index: u64) -> (usize, u64) {
    ((index / WORD) as usize, 1 << (index % WORD))
}

/// A range of bits, seen as masks of words.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u64,
    end: u64,
}

impl Span {
    /// `bits`, clipped to `0..limit`; a range that runs backwards is empty.
    pub fn clip(bits: Range<u64>, limit: u64) -> Self {
        let end = bits.end.min(limit);
        Self { start: bits.start.min(end), end }
    }

    /// The words that the range touches.
    pub fn words(&self) -> Range<usize> {
        let first = self.start / WORD;
        first as usize..(self.end.div_ceil(WORD).max(first)) as usize
    }

    /// The bits of `word`, one of [`Span::words`], that lie in the range.
    #[inline]
    pub fn mask(&self, word: usize) -> u64 {
        let base = word as u64 * WORD;
        let head = !0 << self.start.saturating_sub(base).min(WORD - 1);
        let tail = !0 >> (WORD - (self.end - base).min(WORD));
        head & tail
    }

    /// Each word that the range touches, with its mask.
    pub fn masks(self) -> impl Iterator<Item = (usize, u64)> {
        self.words().map(move |word| (word, self.mask(word)))
    }

    /// The groups that a range of pages touches: the range's image in the summary.
    pub fn groups(&self) -> Self {
        let start = self.start / GROUP;
        Self { start, end: if self.start == self.end { start } else { self.end.div_ceil(GROUP) } }
    }

    /// The words of `group` that the range touches.
    #[inline]
    pub fn words_of(&self, group: usize) -> Range<usize> {
        let words = self.words();
        let first = group * GROUP_WORDS;
        first.max(words.start)..(first + GROUP_WORDS).min(words.end)
    }
}

/// Positions of the set bits of `word`, in rising order.
#[inline]
pub(super) fn bits(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        let more = word != 0;
        word &= word.wrapping_sub(1);
        more.then_some(bit)
    })
}
