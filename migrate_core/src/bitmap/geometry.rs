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

/// The lowest set bit of word number `word`, which is `set` and not 0.
pub(super) fn lowest(word: usize, set: u64) -> u64 {
    word as u64 * WORD + u64::from(set.trailing_zeros())
}

/// How many bits of a word are set. Few words of a group are not 0, and without the instruction counting is long.
#[inline]
pub(super) fn ones(word: u64) -> u64 {
    match word {
        0 => 0,
        word => u64::from(word.count_ones()),
    }
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

    /// Whether it holds no bit.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Shows `see` each word that the range touches, with its mask.
    #[inline]
    pub fn masks(self, mut see: impl FnMut(usize, u64)) {
        let Some(last) = self.end.checked_sub(1).filter(|last| self.start <= *last) else { return };
        let (first, end) = ((self.start / WORD) as usize, (last / WORD) as usize);
        let (head, tail) = (!0 << (self.start % WORD), !0 >> (WORD - 1 - last % WORD));
        if first == end {
            return see(first, head & tail);
        }
        see(first, head);
        (first + 1..end).for_each(|word| see(word, !0));
        see(end, tail);
    }

    /// The groups that a range of pages touches: the range's image in the summary.
    pub fn groups(self) -> Self {
        let start = self.start / GROUP;
        Self { start, end: if self.is_empty() { start } else { self.end.div_ceil(GROUP) } }
    }

    /// Cuts a range of pages into what comes before the first whole group, whole groups, and what comes after the
    /// last. The group in which a bitmap of `pages` pages ends counts as whole.
    pub fn cut(self, pages: u64) -> [Self; 3] {
        let whole = if self.end == pages { self.end } else { self.end - self.end % GROUP };
        let first = self.start.next_multiple_of(GROUP).min(self.end);
        let whole = whole.max(first);
        let part = |start, end| Self { start, end };
        [part(self.start, first), part(first, whole), part(whole, self.end)]
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
