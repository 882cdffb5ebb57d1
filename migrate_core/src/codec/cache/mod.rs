//! Caches of sent pages: the versions that the destination has, within a budget of memory.
//!
//! A codec that sends differences needs the version sent before. Pages come back in rounds: those of the writable
//! working set every round, others rarely. When the set is larger than the cache, a cache that makes room for
//! every page it is given (least recently used, say) has replaced each page just before it comes back, and never
//! hits. The best is to hold on to as many as fit and let the others go: a share C/W of hits for C slots and W hot
//! pages.
//!
//! [`PageCache`] does that. Any page may be in any slot. A page is kept until it has stayed away for two rounds; one
//! that finds the cache full replaces the coldest of a few slots under a moving hand, or is turned away where none
//! of them is cold. (To give way sooner to pages that have come back costs more than it gains: newcomers then
//! replace each other before they can come back.) So a first pass over all memory is better not put, as QEMU does:
//! what it leaves stays for two rounds.
//!
//! [`DirectCache`] is QEMU's (`migration/page_cache.c`): a page has one slot, by its number, and replaces another
//! there only if that one's age plus 2 is at most the count of rounds. Hot pages at random numbers then collide:
//! the share of hits is at most (C/W)(1 - e^(-W/C)), 63 % where everything would fit. It is here to predict
//! what QEMU does, and to compare.

use super::Page;
use crate::error::{Error, Result};

mod direct;
mod page_cache;

pub use direct::DirectCache;
pub use page_cache::PageCache;

/// What a cache has done since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Pages asked for and found.
    pub hits: u64,
    /// Pages asked for and not found.
    pub misses: u64,
    /// Pages put that replaced another.
    pub replaced: u64,
    /// Pages put that found no room.
    pub refused: u64,
}

impl CacheStats {
    /// Hits among pages asked for; 0 before the first.
    pub fn hit_rate(&self) -> f64 {
        match self.hits + self.misses {
            0 => 0.0,
            asked => self.hits as f64 / asked as f64,
        }
    }

    fn asked(&mut self, found: bool) {
        *(if found { &mut self.hits } else { &mut self.misses }) += 1;
    }
}

/// Versions of sent pages, by the page's number.
pub trait SentPages: Send {
    /// What the destination has at `page`, if it is kept; counts as a use.
    fn get(&mut self, page: u64) -> Option<&Page>;

    /// The same without counting as a use.
    fn peek(&self, page: u64) -> Option<&Page>;

    /// `bytes` went to the destination for `page`; whether they are kept. A version that was kept never is after this.
    fn put(&mut self, page: u64, bytes: &Page) -> bool;

    /// `page` went to the destination in a way that leaves its version unknown.
    fn forget(&mut self, page: u64);

    /// A round ends: ages grow.
    fn next_round(&mut self);

    /// Hits and misses.
    fn stats(&self) -> CacheStats;

    /// Bytes of memory held at most, whatever is put.
    fn bytes(&self) -> usize;
}

/// Rounds for which a page is kept that may come back; QEMU's age rule.
const KEPT: u32 = 2;

/// Address space for all of a table at once, memory as it fills: growing would copy, and hold two tables meanwhile.
fn reserve<T>(most: usize, budget: u64) -> Result<Vec<T>> {
    let mut table = Vec::new();
    let refused = |e| Error::usage(format!("a cache of {budget} bytes: {e}"));
    table.try_reserve_exact(most).map_err(refused)?;
    Ok(table)
}

#[cfg(test)]
mod tests;
