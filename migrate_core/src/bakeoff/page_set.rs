//! The pages that codecs are tried on: what a migration would have sent, round by round.

use std::collections::HashMap;
use std::ops::Range;

use crate::codec::{is_zero, Page, BATCH};
use crate::error::{Error, Result};
use crate::guest::PAGE;

/// A page as it was at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Its number; numbers are the source's own.
    pub page: u64,
    /// The round in which it is sent.
    pub round: u32,
    /// Which version of the set came before this one, if the page has been sent before.
    pub before: Option<usize>,
}

/// Versions of pages in the order in which they are sent: by rounds, and within a round those that have not been sent
/// before first.
#[derive(Default)]
pub struct PageSet {
    versions: Vec<Version>,
    contents: Vec<Page>,
    last: HashMap<u64, usize>,
    /// Most versions, and most different pages.
    most: (usize, usize),
    /// Pages of the memory that these were chosen from.
    memory_pages: u64,
}

impl std::fmt::Debug for PageSet {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "PageSet({} versions of {} pages)", self.versions.len(), self.last.len())
    }
}

impl PageSet {
    /// An empty set that takes at most so many versions of so many different pages, out of a memory of `memory_pages`.
    pub fn new(versions: usize, pages: usize, memory_pages: u64) -> Self {
        Self { most: (versions, pages), memory_pages, ..Self::default() }
    }

    /// Takes a page in as it is sent in `round`; whether there was room for it. A round before that of the page taken
    /// last counts as that one.
    pub fn push(&mut self, round: u32, page: u64, bytes: &Page) -> bool {
        let before = self.last.get(&page).copied();
        let full = self.versions.len() >= self.most.0 || before.is_none() && self.last.len() >= self.most.1;
        if full {
            return false;
        }
        let round = self.versions.last().map_or(round, |last| last.round.max(round));
        self.last.insert(page, self.versions.len());
        self.versions.push(Version { page, round, before });
        self.contents.push(*bytes);
        true
    }

    /// The last version of a page.
    pub fn last(&self, page: u64) -> Option<&Page> {
        self.last.get(&page).map(|index| &self.contents[*index])
    }

    /// The round in which a page was sent last.
    pub fn last_round(&self, page: u64) -> Option<u32> {
        self.last.get(&page).map(|index| self.versions[*index].round)
    }

    /// The versions in the order of sending, once all are in: in each round pages that are new come first, so that
    /// what they cost can be told from what versions cost.
    ///
    /// # Errors
    /// [`Error::Usage`] if the set is empty.
    pub fn sealed(mut self) -> Result<Self> {
        if self.versions.is_empty() {
            return Err(Error::usage("there is no page to try codecs on"));
        }
        let mut order: Vec<usize> = (0..self.versions.len()).collect();
        order.sort_by_key(|index| (self.versions[*index].round, self.versions[*index].before.is_some()));
        self.contents = order.iter().map(|index| self.contents[*index]).collect();
        self.versions = order.iter().map(|index| self.versions[*index]).collect();
        self.last.clear();
        for (index, version) in self.versions.iter_mut().enumerate() {
            version.before = self.last.insert(version.page, index);
        }
        Ok(self)
    }

    /// The versions, and what is in them.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// The content of each version.
    pub fn contents(&self) -> &[Page] {
        &self.contents
    }

    /// Different pages.
    pub fn pages(&self) -> usize {
        self.last.len()
    }

    /// Pages of the memory that these were chosen from.
    pub fn memory_pages(&self) -> u64 {
        self.memory_pages
    }

    /// Versions that are zero pages.
    pub fn zero_pages(&self) -> usize {
        self.contents.iter().filter(|page| is_zero(page)).count()
    }

    /// Bytes of all versions.
    pub fn bytes(&self) -> u64 {
        (self.contents.len() * PAGE) as u64
    }

    /// The set cut into batches: versions of one round of which all or none were sent before.
    pub fn batches(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        let alike = |a: &Version, b: &Version| (a.round, a.before.is_some()) == (b.round, b.before.is_some());
        let mut from = 0;
        self.versions.chunk_by(alike).flat_map(move |chunk| {
            let (start, end) = (from, from + chunk.len());
            from = end;
            (start..end).step_by(BATCH).map(move |first| first..end.min(first + BATCH))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(byte: u8) -> Page {
        [byte; PAGE]
    }

    #[test]
    fn versions_are_linked_and_new_pages_go_first() {
        let mut set = PageSet::new(10, 10, 10);
        for (round, page) in [(0, 5), (0, 6), (1, 5), (1, 7), (0, 6)] {
            assert!(set.push(round, page, &filled(page as u8)));
        }
        let set = set.sealed().unwrap();
        let seen: Vec<_> = set.versions().iter().map(|v| (v.round, v.page, v.before)).collect();
        assert_eq!(seen, [(0, 5, None), (0, 6, None), (1, 7, None), (1, 5, Some(0)), (1, 6, Some(1))]);
        assert_eq!(set.batches().collect::<Vec<_>>(), [0..2, 2..3, 3..5]);
        assert!(set.contents().iter().zip(set.versions()).all(|(page, v)| page[0] == v.page as u8));
        assert_eq!((set.pages(), set.bytes()), (3, 5 * 4096));
    }

    #[test]
    fn there_is_room_for_so_many_pages_and_versions() {
        let mut set = PageSet::new(3, 2, 100);
        let taken: Vec<bool> = [1, 2, 3, 2, 1].map(|page| set.push(0, page, &filled(1))).to_vec();
        assert_eq!(taken, [true, true, false, true, false]);
        assert!(PageSet::new(3, 2, 100).sealed().unwrap_err().to_string().contains("no page"));
    }

    #[test]
    fn batches_cover_the_set_once() {
        let mut set = PageSet::new(1000, 1000, 1000);
        (0..300).for_each(|page| assert!(set.push(0, page, &filled(0))));
        (0..100).for_each(|page| assert!(set.push(1, page, &filled(1))));
        let set = set.sealed().unwrap();
        let batches: Vec<_> = set.batches().collect();
        assert_eq!(
            batches.iter().map(ExactSizeIterator::len).collect::<Vec<_>>(),
            [64, 64, 64, 64, 44, 64, 36]
        );
        assert!(batches.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(set.zero_pages(), 300);
    }
}
