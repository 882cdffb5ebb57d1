//! The owned bitmap.

use std::ops::Range;

use super::geometry::{bits, groups_for, place, words_for, Span, GROUP_WORDS, WORD};
use super::Runs;
use crate::{Error, Result};

/// A set of pages out of `0..pages`, owned: plain words, and an exact summary of which groups hold any.
///
/// No method panics. Pages past the end are not in the set and cannot be put in: single pages are ignored and ranges
/// clipped. In the algebra of two bitmaps of unequal length, what one has beyond the other's end is compared
/// with nothing: a union ignores it, a subtraction leaves it, an intersection clears it.
///
/// It costs one bit a page and one for 512 pages; untouched parts of a large one take no memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    pages: u64,
    words: Vec<u64>,
    summary: Vec<u64>,
}

impl Bitmap {
    /// The empty set. Aborts if the memory (`pages / 8` bytes) cannot be had: bound a peer's number before.
    pub fn new(pages: u64) -> Self {
        Self {
            pages,
            words: vec![0; words_for(pages)],
            summary: vec![0; words_for(groups_for(pages) as u64)],
        }
    }

    /// The set of all pages.
    pub fn full(pages: u64) -> Self {
        let mut all = Self::new(pages);
        all.set_range(0..pages);
        all
    }

    /// A bitmap out of its [`words`](Bitmap::words).
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the number of words is not `pages / 64` rounded up, or a bit past the end is set.
    pub fn from_words(pages: u64, words: Vec<u64>) -> Result<Self> {
        let wanted = words_for(pages);
        if words.len() != wanted {
            let found = words.len();
            return Err(Error::usage(format!(
                "a bitmap of {pages} pages takes {wanted} words of 64 bits, not {found}"
            )));
        }
        let last = wanted.saturating_sub(1);
        if words.last().is_some_and(|word| word & !Span::clip(0..pages, pages).mask(last) != 0) {
            return Err(Error::usage(format!(
                "word {last} of a bitmap of {pages} pages has bits set past the end"
            )));
        }
        let mut bitmap = Self { pages, words, summary: vec![0; words_for(groups_for(pages) as u64)] };
        (0..groups_for(pages)).for_each(|group| bitmap.summarise(group));
        Ok(bitmap)
    }

    /// The words: bit `p % 64` of word `p / 64` is page `p`; bits past the end are 0.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// The words, given away.
    pub fn into_words(self) -> Vec<u64> {
        self.words
    }

    /// Its length in pages, set or not.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// How many pages are set.
    pub fn count(&self) -> u64 {
        self.count_in(0..self.pages)
    }

    /// How many pages of a range are set.
    pub fn count_in(&self, pages: Range<u64>) -> u64 {
        let span = self.clip(pages);
        let ones = |word: usize| u64::from((self.words[word] & span.mask(word)).count_ones());
        self.groups(span).map(|group| span.words_of(group).map(ones).sum::<u64>()).sum()
    }

    /// Whether no page is set.
    pub fn is_empty(&self) -> bool {
        self.summary.iter().all(|groups| *groups == 0)
    }

    /// Whether a page is set.
    pub fn contains(&self, page: u64) -> bool {
        let (word, mask) = place(page);
        page < self.pages && self.words[word] & mask != 0
    }

    /// Sets a page.
    pub fn set(&mut self, page: u64) {
        if page < self.pages {
            let (word, mask) = place(page);
            self.merge(word, mask);
        }
    }

    /// Sets a range of pages, whole words at a time.
    pub fn set_range(&mut self, pages: Range<u64>) {
        let span = self.clip(pages);
        span.masks().for_each(|(word, mask)| self.words[word] |= mask);
        span.groups().masks().for_each(|(word, mask)| self.summary[word] |= mask);
    }

    /// Clears a page.
    pub fn clear(&mut self, page: u64) {
        if self.contains(page) {
            let (word, mask) = place(page);
            self.words[word] &= !mask;
            self.summarise(word / GROUP_WORDS);
        }
    }

    /// Clears a range of pages.
    pub fn clear_range(&mut self, pages: Range<u64>) {
        let span = self.clip(pages);
        self.change(span, |word, old| old & !span.mask(word));
    }

    /// Clears all pages, touching only the groups that hold any.
    pub fn clear_all(&mut self) {
        for (index, groups) in self.summary.iter_mut().enumerate() {
            for bit in bits(std::mem::take(groups)) {
                let first = (index * WORD as usize + bit) * GROUP_WORDS;
                let end = (first + GROUP_WORDS).min(self.words.len());
                self.words[first..end].fill(0);
            }
        }
    }

    /// Adds the pages of `other`.
    pub fn union_with(&mut self, other: &Bitmap) {
        let span = self.clip(0..other.pages);
        for group in other.groups(span) {
            span.words_of(group).for_each(|word| self.merge(word, other.words[word] & span.mask(word)));
        }
    }

    /// Removes the pages of `other`.
    pub fn subtract(&mut self, other: &Bitmap) {
        self.change(self.clip(0..other.pages), |word, old| old & !other.words[word]);
    }

    /// Removes the pages that are not in `other`.
    pub fn intersect_with(&mut self, other: &Bitmap) {
        let theirs = |word| other.words.get(word).copied().unwrap_or(0);
        self.change(self.clip(0..self.pages), |word, old| old & theirs(word));
    }

    /// The runs of set pages, each as long as can be, in rising order.
    pub fn runs(&self) -> Runs<'_> {
        self.runs_in(0..self.pages)
    }

    /// The runs of set pages inside a range: runs that cross its ends are cut there.
    pub fn runs_in(&self, pages: Range<u64>) -> Runs<'_> {
        Runs::new(self, pages.start, pages.end.min(self.pages))
    }

    /// The first set page at or after `page`.
    pub fn first_from(&self, page: u64) -> Option<u64> {
        let span = self.clip(page..self.pages);
        let group = self
            .groups(span)
            .find(|group| span.words_of(*group).any(|word| self.words[word] & span.mask(word) != 0))?;
        let mut words = span.words_of(group).map(|word| (word, self.words[word] & span.mask(word)));
        words
            .find(|(_, set)| *set != 0)
            .map(|(word, set)| word as u64 * WORD + u64::from(set.trailing_zeros()))
    }

    /// The first page at or after `page` that is not set; the end if there is none.
    pub(super) fn first_clear_from(&self, page: u64) -> u64 {
        let span = self.clip(page..self.pages);
        let mut words = span.masks().map(|(word, mask)| (word, !self.words[word] & mask));
        let hit = words.find(|(_, clear)| *clear != 0);
        hit.map_or(self.pages, |(word, clear)| word as u64 * WORD + u64::from(clear.trailing_zeros()))
    }

    /// Sets bits of one word, which must lie before the end.
    #[inline]
    pub(super) fn merge(&mut self, word: usize, set: u64) {
        if set != 0 {
            self.words[word] |= set;
            let (index, mask) = place((word / GROUP_WORDS) as u64);
            self.summary[index] |= mask;
        }
    }

    /// Replaces the words that the span touches, of groups that hold any page.
    fn change(&mut self, span: Span, to: impl Fn(usize, u64) -> u64) {
        for (index, mask) in span.groups().masks() {
            for bit in bits(self.summary[index] & mask) {
                let group = index * WORD as usize + bit;
                span.words_of(group).for_each(|word| self.words[word] = to(word, self.words[word]));
                self.summarise(group);
            }
        }
    }

    /// Makes the summary bit of `group` say what is there.
    fn summarise(&mut self, group: usize) {
        let first = group * GROUP_WORDS;
        let end = (first + GROUP_WORDS).min(self.words.len());
        let (index, mask) = place(group as u64);
        match self.words[first..end].iter().any(|word| *word != 0) {
            true => self.summary[index] |= mask,
            false => self.summary[index] &= !mask,
        }
    }

    /// The groups that hold any page and are touched by the span.
    fn groups(&self, span: Span) -> impl Iterator<Item = usize> + '_ {
        let named = move |(index, mask): (usize, u64)| {
            bits(self.summary[index] & mask).map(move |bit| index * WORD as usize + bit)
        };
        span.groups().masks().flat_map(named)
    }

    fn clip(&self, pages: Range<u64>) -> Span {
        Span::clip(pages, self.pages)
    }
}
