//! How many of the pages differ from each other: exact for small captures, a fair sample for large ones.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use xxhash_rust::xxh3::xxh3_64;

/// Most contents that are remembered; a sample of half of them is kept when they are more.
const MOST: usize = 1 << 18;
/// Words of a page that decide whether it is in the sample.
const PROBES: usize = 8;

/// Counts contents.
#[derive(Debug, Clone, Default)]
pub(super) struct Distinct {
    seen: HashSet<u64, BuildHasherDefault<Already>>,
    /// Pages of the sample.
    pages: u64,
    /// One page in 2 to this power is in the sample.
    shift: u32,
}

impl Distinct {
    /// Takes a page in.
    pub(super) fn add(&mut self, page: &[u8]) {
        let key = key(page);
        if key & self.mask() != 0 {
            return;
        }
        self.pages += 1;
        // The key of the sample stays part of the hash, so that the sample can be halved.
        self.seen.insert(xxh3_64(page) << 32 | key & 0xffff_ffff);
        if self.seen.len() > MOST {
            self.halve();
        }
    }

    fn mask(&self) -> u64 {
        (1 << self.shift) - 1
    }

    fn halve(&mut self) {
        let before = self.seen.len() as u64;
        self.shift += 1;
        let mask = self.mask();
        self.seen.retain(|hash| hash & mask == 0);
        // How often each content came is not kept: the share of copies is taken to be the same in both halves.
        self.pages = (self.pages * self.seen.len() as u64).div_ceil(before);
    }

    /// The share of pages whose content came before, 0 to 1; `None` without pages.
    pub(super) fn duplicate_share(&self) -> Option<f64> {
        (self.pages > 0).then(|| 1.0 - self.seen.len() as f64 / self.pages as f64)
    }
}

/// Equal pages have equal keys; the key looks at a few words only, all over the page.
fn key(page: &[u8]) -> u64 {
    let step = page.len() / PROBES;
    let words = (0..PROBES).map(|probe| {
        let at = probe * step + probe * 8 % step.max(1);
        page.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    });
    let mixed = words.fold(0x9e37_79b9_7f4a_7c15, |hash: u64, word| {
        (hash ^ word).wrapping_mul(0xff51_afd7_ed55_8ccd).rotate_left(31)
    });
    mixed ^ mixed >> 29
}

/// What is hashed is a hash already.
#[derive(Debug, Clone, Default)]
struct Already(u64);

impl Hasher for Already {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64(bytes);
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number.rotate_left(32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_counted() {
        let page = |number: u64| -> Vec<u8> { number.to_le_bytes().repeat(512) };
        let mut distinct = Distinct::default();
        assert_eq!(distinct.duplicate_share(), None);
        (0..100).for_each(|number| distinct.add(&page(number)));
        assert_eq!(distinct.duplicate_share(), Some(0.0));
        (0..100).for_each(|number| distinct.add(&page(number)));
        assert_eq!(distinct.duplicate_share(), Some(0.5));
    }

    #[test]
    fn a_large_capture_is_sampled() {
        let mut distinct = Distinct::default();
        let mut page = vec![7; 4096];
        for number in 0..3 * MOST as u64 {
            page[..8].copy_from_slice(&(number / 2).to_le_bytes());
            distinct.add(&page);
        }
        assert!(distinct.shift > 0 && distinct.seen.len() <= MOST);
        let share = distinct.duplicate_share().unwrap();
        assert!((share - 0.5).abs() < 0.01, "{share}");
    }
}
