//! The dedup codec: a page that equals one sent lately is named, not sent.
//!
//! Both sides keep the last pages that went past, in the same order, in a window of slots; an encoding is a
//! slot's number. The source finds candidates by XXH3-128 and compares them byte by byte: a collision, made
//! or met, costs a comparison and never a wrong page. The destination never hashes.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_128;

use super::{equal, is_zero, Code, Codec, Encoded, Page, PAGE};
use crate::error::{Error, Result};

/// The slot of the page of zeros, which both sides know without keeping it.
const ZERO: u32 = u32::MAX;

/// Bytes that a slot costs at most: a page, its hash, and its part of an index that has just doubled.
const SLOT: usize = PAGE + 16 + 160;

crate::knobs! {
    /// Pages equal to one sent before are named by four bytes. Each side keeps a window of the last distinct pages.
    pub struct Dedup {
        /// Memory of the window on each side.
        window: u64 [Bytes, 65536.0..=17179869184.0] = 67108864,
    }
}

/// See [`Dedup`].
pub struct DedupCodec {
    slots: usize,
    /// The window; grows to `slots`, then the oldest is overwritten.
    pages: Vec<Page>,
    /// Pages taken in since the beginning; the next goes to slot `taken % slots`.
    taken: u64,
    index: Index,
}

/// Where pages are by content: the source's. It follows the window when it is asked, so a side that only
/// decodes never pays for it.
#[derive(Default)]
struct Index {
    slots: HashMap<u128, u32>,
    /// The hash of each slot's page, to forget it by.
    hashes: Vec<u128>,
    /// Pages of the window that are indexed, counted as `taken`.
    done: u64,
}

impl Code for Dedup {
    type Codec = DedupCodec;
    fn build(self) -> Result<DedupCodec> {
        let slots = self.window as usize / SLOT;
        let mut pages = Vec::new();
        // Address space at once, memory as pages come: growing would copy the window.
        pages
            .try_reserve_exact(slots)
            .map_err(|e| Error::usage(format!("Dedup: window of {} bytes: {e}", self.window)))?;
        Ok(DedupCodec { slots, pages, taken: 0, index: Index::default() })
    }
}

impl Index {
    fn add(&mut self, slot: usize, hash: u128) {
        let old = std::mem::replace(&mut self.hashes[slot], hash);
        // The old hash may name a later page of the same content.
        if self.slots.get(&old) == Some(&(slot as u32)) {
            self.slots.remove(&old);
        }
        self.slots.insert(hash, slot as u32);
        self.done += 1;
    }
}

impl DedupCodec {
    fn slot(&self, taken: u64) -> usize {
        (taken % self.slots as u64) as usize
    }

    /// Puts `page` in the next slot, which is the answer.
    fn take(&mut self, page: &Page) -> usize {
        let slot = self.slot(self.taken);
        match self.pages.get_mut(slot) {
            Some(place) => *place = *page,
            None => self.pages.push(*page),
        }
        self.taken += 1;
        slot
    }

    /// Indexes what passed while nobody asked, as far as it is still in the window.
    fn catch_up(&mut self) {
        self.index.hashes.resize(self.slots, 0);
        self.index.done = self.index.done.max(self.taken.saturating_sub(self.slots as u64));
        while self.index.done < self.taken {
            let slot = self.slot(self.index.done);
            self.index.add(slot, xxh3_128(&self.pages[slot]));
        }
    }

    /// The slot that holds `page`, byte for byte. A page that is not held is taken in.
    fn find_or_take(&mut self, page: &Page) -> Option<u32> {
        self.catch_up();
        let hash = xxh3_128(page);
        let slot = self.index.slots.get(&hash).copied();
        if slot.is_some_and(|slot| equal(&self.pages[slot as usize], page)) {
            return slot;
        }
        let slot = self.take(page);
        self.index.add(slot, hash);
        None
    }
}

impl Codec for DedupCodec {
    fn name(&self) -> &'static str {
        "dedup"
    }

    fn ordered(&self) -> bool {
        true
    }

    fn window(&self) -> u64 {
        self.slots as u64 * SLOT as u64
    }

    fn encode(&mut self, page: &Page, _base: Option<&Page>, out: &mut Vec<u8>) -> Encoded {
        match if is_zero(page) { Some(ZERO) } else { self.find_or_take(page) } {
            Some(slot) => {
                out.extend(slot.to_be_bytes());
                Encoded::Shorter
            }
            None => Encoded::Raw,
        }
    }

    fn decode(&mut self, data: &[u8], _base: Option<&Page>, page: &mut Page) -> Result<()> {
        let bytes = data.try_into().map_err(|_| {
            Error::stream(0, format!("an earlier page is named by 4 bytes, not {}", data.len()))
        })?;
        let slot = u32::from_be_bytes(bytes);
        if slot == ZERO {
            page.fill(0);
            return Ok(());
        }
        let held = self.pages.get(slot as usize).ok_or_else(|| {
            Error::stream(0, format!("earlier page {slot} is named; {} are held", self.pages.len()))
        })?;
        *page = *held;
        Ok(())
    }

    fn pass(&mut self, page: &Page) {
        if !is_zero(page) {
            self.take(page);
        }
    }

    fn reset(&mut self) {
        self.pages.clear();
        self.taken = 0;
        self.index = Index::default();
    }
}

#[cfg(test)]
mod tests;
