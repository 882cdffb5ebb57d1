//! QEMU's cache.

use super::{reserve, CacheStats, SentPages, KEPT};
use crate::codec::Page;
use crate::error::Result;

/// QEMU's cache; see the module.
pub struct DirectCache {
    /// The page of each slot and the round of its last use.
    slots: Vec<Option<(u64, u32)>>,
    pages: Vec<Page>,
    round: u32,
    stats: CacheStats,
}

impl DirectCache {
    /// The greatest power of two of slots that `budget` bytes of pages allow, as QEMU rounds `xbzrle-cache-size`;
    /// at least one. Unlike QEMU's, its tables are counted.
    pub fn new(budget: u64) -> Result<Self> {
        let slots = (budget as usize / (size_of::<Page>() + size_of::<Option<(u64, u32)>>())).max(1);
        let slots = 1 << slots.ilog2();
        let (mut ages, mut pages) = (reserve(slots, budget)?, reserve(slots, budget)?);
        ages.resize(slots, None);
        pages.resize(slots, [0; size_of::<Page>()]);
        Ok(Self { slots: ages, pages, round: 0, stats: CacheStats::default() })
    }

    fn slot(&self, page: u64) -> usize {
        (page & (self.slots.len() as u64 - 1)) as usize
    }
}

impl SentPages for DirectCache {
    fn get(&mut self, page: u64) -> Option<&Page> {
        let (slot, round) = (self.slot(page), self.round);
        let found = self.slots[slot].as_mut().filter(|(held, _)| *held == page);
        self.stats.asked(found.is_some());
        found?.1 = round;
        Some(&self.pages[slot])
    }

    fn peek(&self, page: u64) -> Option<&Page> {
        let slot = self.slot(page);
        self.slots[slot].filter(|(held, _)| *held == page).map(|_| &self.pages[slot])
    }

    fn put(&mut self, page: u64, bytes: &Page) -> bool {
        let slot = self.slot(page);
        match self.slots[slot] {
            Some((held, age)) if held != page && age + KEPT > self.round => {
                self.stats.refused += 1;
                return false;
            }
            Some((held, _)) if held != page => self.stats.replaced += 1,
            _ => {}
        }
        self.slots[slot] = Some((page, self.round));
        self.pages[slot] = *bytes;
        true
    }

    fn forget(&mut self, page: u64) {
        let slot = self.slot(page);
        self.slots[slot].take_if(|(held, _)| *held == page);
    }

    fn next_round(&mut self) {
        self.round += 1;
    }

    fn stats(&self) -> CacheStats {
        self.stats
    }

    fn bytes(&self) -> usize {
        self.pages.capacity() * size_of::<Page>() + self.slots.capacity() * size_of::<Option<(u64, u32)>>()
    }
}
