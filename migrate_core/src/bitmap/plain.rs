//! The owned bitmap.

use std::ops::Range;

use super::geometry::{bits, groups_for, lowest, ones, place, words_for, Span, GROUP_WORDS, WORD};
use super::Runs;
use crate::{Error, Result};

/// A set of pages out of `0..pages`, owned: plain words, and an exact summary of which groups hold any.
///
/// No method panics. Pages past the end are not in the set and cannot be put in: single pages are ignored and ranges
/// clipped. In the algebra of two bitmaps of unequal length, pages that only one of them has are absent from
/// the other: a union ignores what lies past its own end, a subtraction leaves what the other does not reach, an
/// intersection clears it.
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
        let (wanted, found) = (words_for(pages), words.len());
        if found != wanted {
            let reason = format!("a bitmap of {pages} pages takes {wanted} words of 64 bits, not {found}");
            return Err(Error::usage(reason));
        }
        let past = match pages % WORD {
            0 => 0,
            used => !0 << used,
        };
        if words.last().is_some_and(|word| word & past != 0) {
            let reason = format!("the last word of a bitmap of {pages} pages has bits set past the end");
            return Err(Error::usage(reason));
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
        let mut count = 0;
        let [head, whole, tail] = self.clip(pages).cut(self.pages);
        head.masks(|word, mask| count += ones(self.words[word] & mask));
        self.each_group(whole, |group| count += self.group(group).iter().copied().map(ones).sum::<u64>());
        tail.masks(|word, mask| count += ones(self.words[word] & mask));
        count
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
        span.masks(|word, mask| self.words[word] |= mask);
        span.groups().masks(|word, mask| self.summary[word] |= mask);
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
        let [head, whole, tail] = self.clip(pages).cut(self.pages);
        self.clear_groups(whole);
        for part in [head, tail] {
            part.masks(|word, mask| self.words[word] &= !mask);
            part.groups()
                .masks(|index, groups| bits(groups).for_each(|bit| self.summarise(number(index, bit))));
        }
    }

    /// Clears all pages, touching only the groups that hold any.
    pub fn clear_all(&mut self) {
        self.clear_groups(self.clip(0..self.pages));
    }

    /// Adds the pages of `other`.
    pub fn union_with(&mut self, other: &Bitmap) {
        let [_, whole, tail] = self.clip(0..other.pages).cut(other.pages);
        other.each_group(whole, |group| self.merge_group(group, other.group(group)));
        tail.masks(|word, mask| self.merge(word, other.words[word] & mask));
    }

    /// Removes the pages of `other`.
    pub fn subtract(&mut self, other: &Bitmap) {
        self.change(other.pages, |word, theirs| *word &= !theirs, other);
    }

    /// Removes the pages that are not in `other`.
    pub fn intersect_with(&mut self, other: &Bitmap) {
        self.change(self.pages, |word, theirs| *word &= theirs, other);
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
        self.first_in(page..self.pages)
    }

    /// The first set page of a range. No word beyond the range is looked at: a chunk of a large guest must
    /// not cost a scan of its whole bitmap.
    pub(super) fn first_in(&self, pages: Range<u64>) -> Option<u64> {
        let word = (pages.start / WORD) as usize;
        let first = match self.words.get(word)? & !0 << (pages.start % WORD) {
            0 => self.first_in_words(word + 1..(word + 1).next_multiple_of(GROUP_WORDS)).or_else(|| {
                let end = words_for(groups_for(pages.end.min(self.pages)) as u64);
                let group = self.next_group(word / GROUP_WORDS + 1, end)?;
                self.first_in_words(group * GROUP_WORDS..(group + 1) * GROUP_WORDS)
            }),
            set => Some(lowest(word, set)),
        };
        first.filter(|first| *first < pages.end)
    }

    /// The first page of a range that is not set, or its end.
    pub(super) fn first_clear_in(&self, pages: Range<u64>) -> u64 {
        let word = (pages.start / WORD) as usize;
        match self.words.get(word).map_or(0, |set| !set & !0 << (pages.start % WORD)) {
            0 => {
                let words =
                    self.words.iter().enumerate().take(pages.end.div_ceil(WORD) as usize).skip(word + 1);
                words.map(|(word, set)| (word, !set)).find(|(_, clear)| *clear != 0)
            }
            clear => Some((word, clear)),
        }
        .map_or(pages.end, |(word, clear)| lowest(word, clear).min(pages.end))
    }

    /// The words of a group, fewer than eight only in the last.
    pub(super) fn group(&self, group: usize) -> &[u64] {
        let first = group * GROUP_WORDS;
        &self.words[first..(first + GROUP_WORDS).min(self.words.len())]
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

    /// Sets bits of one group, which must lie before the end.
    #[inline]
    pub(super) fn merge_group(&mut self, group: usize, set: &[u64]) {
        let first = group * GROUP_WORDS;
        let mut any = 0;
        for (word, set) in self.words[first..].iter_mut().zip(set) {
            *word |= set;
            any |= set;
        }
        let (index, mask) = place(group as u64);
        self.summary[index] |= if any == 0 { 0 } else { mask };
    }

    fn clear_groups(&mut self, whole: Span) {
        whole.groups().masks(|index, mask| {
            let groups = self.summary[index] & mask;
            self.summary[index] &= !mask;
            for first in bits(groups).map(|bit| number(index, bit) * GROUP_WORDS) {
                let end = (first + GROUP_WORDS).min(self.words.len());
                self.words[first..end].fill(0);
            }
        });
    }

    /// Changes the words of this bitmap's dirty groups, up to `pages`, by those of `other`, 0 where it has none.
    fn change(&mut self, pages: u64, by: impl Fn(&mut u64, u64), other: &Bitmap) {
        self.clip(0..pages).groups().masks(|index, mask| {
            for group in bits(self.summary[index] & mask).map(|bit| number(index, bit)) {
                let first = group * GROUP_WORDS;
                let theirs = other.words.get(first..).unwrap_or(&[]).iter().copied().chain([0; GROUP_WORDS]);
                let ours = self.words[first..].iter_mut().take(GROUP_WORDS);
                ours.zip(theirs).for_each(|(word, theirs)| by(word, theirs));
                self.summarise(group);
            }
        });
    }

    /// Makes the summary bit of `group` say what is there.
    fn summarise(&mut self, group: usize) {
        let any = self.group(group).iter().any(|word| *word != 0);
        let (index, mask) = place(group as u64);
        self.summary[index] &= !mask;
        self.summary[index] |= if any { mask } else { 0 };
    }

    /// Shows `see` the groups that hold any page, of those that the span touches.
    fn each_group(&self, span: Span, mut see: impl FnMut(usize)) {
        span.groups()
            .masks(|index, mask| bits(self.summary[index] & mask).for_each(|bit| see(number(index, bit))));
    }

    /// The first group from `group` on that holds any page, looked for before word `end` of the summary.
    fn next_group(&self, group: usize, end: usize) -> Option<usize> {
        let index = group / WORD as usize;
        match self.summary.get(index)? & !0 << (group % WORD as usize) {
            0 => {
                let rest = self.summary.iter().enumerate().take(end).skip(index + 1);
                rest.map(|(index, groups)| (index, *groups)).find(|(_, groups)| *groups != 0)
            }
            groups => Some((index, groups)),
        }
        .map(|(index, groups)| lowest(index, groups) as usize)
    }

    fn first_in_words(&self, words: Range<usize>) -> Option<u64> {
        let words = words.start..words.end.min(self.words.len());
        let first = words.start;
        let hit = self.words.get(words)?.iter().position(|set| *set != 0)? + first;
        Some(lowest(hit, self.words[hit]))
    }

    fn clip(&self, pages: Range<u64>) -> Span {
        Span::clip(pages, self.pages)
    }
}

/// The group of bit `bit` of summary word `index`.
fn number(index: usize, bit: usize) -> usize {
    index * WORD as usize + bit
}
