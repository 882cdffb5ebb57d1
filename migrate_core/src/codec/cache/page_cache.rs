//! The cache that holds on to pages which come back.

use super::{reserve, CacheStats, SentPages, KEPT};
use crate::codec::Page;
use crate::error::Result;

/// Slots looked at for a cold one.
const LOOKS: usize = 16;
/// No slot.
const NONE: u32 = u32::MAX;

/// A slot of [`PageCache`].
#[derive(Debug, Clone, Copy)]
struct Slot {
    page: u64,
    /// The last round in which it was asked for or put.
    round: u32,
    /// The next slot of the same bucket.
    next: u32,
}

/// The cache that suits pages dirtied again and again; see the module.
pub struct PageCache {
    slots: Vec<Slot>,
    pages: Vec<Page>,
    /// The first slot of each bucket; a power of two of them.
    buckets: Vec<u32>,
    most: usize,
    hand: usize,
    round: u32,
    stats: CacheStats,
}

/// Bytes of a slot with its page and at most two buckets.
const SLOT_BYTES: usize = size_of::<Page>() + size_of::<Slot>() + 2 * size_of::<u32>();

impl PageCache {
    /// A cache that takes at most `budget` bytes, its own tables included; less than a page's worth keeps nothing.
    /// A budget beyond the address space is a usage error.
    pub fn new(budget: u64) -> Result<Self> {
        let most = (budget / SLOT_BYTES as u64).min(u64::from(NONE)) as usize;
        Ok(Self {
            slots: reserve(most, budget)?,
            pages: reserve(most, budget)?,
            buckets: if most == 0 { Vec::new() } else { vec![NONE; most.next_power_of_two()] },
            most,
            hand: 0,
            round: 0,
            stats: CacheStats::default(),
        })
    }

    /// Pages that fit.
    pub fn capacity(&self) -> usize {
        self.most
    }

    fn bucket(&self, page: u64) -> usize {
        // Neighbouring pages in different buckets: the high bits of a product by 2^64 / golden ratio.
        (page.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize & (self.buckets.len() - 1)
    }

    fn find(&self, page: u64) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut slot = self.buckets[self.bucket(page)];
        while slot != NONE && self.slots[slot as usize].page != page {
            slot = self.slots[slot as usize].next;
        }
        (slot != NONE).then_some(slot as usize)
    }

    fn link(&mut self, slot: usize) {
        let bucket = self.bucket(self.slots[slot].page);
        self.slots[slot].next = std::mem::replace(&mut self.buckets[bucket], slot as u32);
    }

    fn unlink(&mut self, slot: usize) {
        let (bucket, next) = (self.bucket(self.slots[slot].page), self.slots[slot].next);
        if self.buckets[bucket] == slot as u32 {
            self.buckets[bucket] = next;
            return;
        }
        let mut before = self.buckets[bucket] as usize;
        while self.slots[before].next != slot as u32 {
            before = self.slots[before].next as usize;
        }
        self.slots[before].next = next;
    }

    /// The coldest of the slots under the hand, if it may go.
    fn victim(&mut self) -> Option<usize> {
        let (from, slots) = (self.hand, self.slots.len());
        self.hand = (from + LOOKS) % slots.max(1);
        let coldest = (from..from + LOOKS.min(slots))
            .map(|slot| slot % slots)
            .min_by_key(|slot| self.slots[*slot].round);
        coldest.filter(|slot| self.slots[*slot].round + KEPT <= self.round)
    }

    /// A slot for a page that has none: a fresh one, or another page's.
    fn make_room(&mut self, page: u64) -> Option<usize> {
        let fresh = Slot { page, round: self.round, next: NONE };
        if self.slots.len() < self.most {
            self.slots.push(fresh);
            self.pages.push([0; size_of::<Page>()]);
            return Some(self.slots.len() - 1);
        }
        let Some(slot) = self.victim() else {
            self.stats.refused += 1;
            return None;
        };
        self.stats.replaced += 1;
        self.unlink(slot);
        self.slots[slot] = fresh;
        Some(slot)
    }
}

impl SentPages for PageCache {
    fn get(&mut self, page: u64) -> Option<&Page> {
        let found = self.find(page);
        self.stats.asked(found.is_some());
        let slot = found?;
        self.slots[slot].round = self.round;
        Some(&self.pages[slot])
    }

    fn peek(&self, page: u64) -> Option<&Page> {
        self.find(page).map(|slot| &self.pages[slot])
    }

    fn put(&mut self, page: u64, bytes: &Page) -> bool {
        let slot = match self.find(page) {
            Some(slot) => slot,
            None => {
                let Some(slot) = self.make_room(page) else { return false };
                self.link(slot);
                slot
            }
        };
        self.slots[slot].round = self.round;
        self.pages[slot] = *bytes;
        true
    }

    fn forget(&mut self, page: u64) {
        let Some(slot) = self.find(page) else { return };
        self.unlink(slot);
        // The last slot moves here, so that the used ones stay together.
        let last = self.slots.len() - 1;
        if slot != last {
            self.unlink(last);
            self.slots[slot] = self.slots[last];
            self.pages[slot] = self.pages[last];
            self.link(slot);
        }
        self.slots.pop();
        self.pages.pop();
    }

    fn next_round(&mut self) {
        self.round += 1;
    }

    fn stats(&self) -> CacheStats {
        self.stats
    }

    fn bytes(&self) -> usize {
        self.pages.capacity() * size_of::<Page>()
            + self.slots.capacity() * size_of::<Slot>()
            + self.buckets.capacity() * size_of::<u32>()
    }
}
