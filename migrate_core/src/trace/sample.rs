//! Samples of content: how far the pages that were written could be shortened.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use crate::codec::{self, is_zero, Codec, Encoded, Page};
use crate::error::Result;
use crate::guest::PAGE;
use crate::knobs::Spec;

/// Versions that are kept for each page of a sample.
const KEPT: usize = 32;
/// Pages of a sample of a stream, by which versions are kept.
const STREAMED: usize = 256;

/// What a sample of the pages written in an interval looked like. Sizes are bytes in all; a page that a
/// codec cannot shorten counts whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Number of the interval.
    pub interval: u32,
    /// Pages that were read.
    pub pages: u32,
    /// Of them, zero pages. The other counts and sizes are about those that are not.
    pub zero: u32,
    /// Pages whose content another page of the sample, or of those sampled before, has.
    pub duplicates: u32,
    /// Their size by lz4,
    pub lz4: u64,
    /// and by zstd.
    pub zstd: u64,
    /// Pages of which an earlier version was there to compare with.
    pub based: u32,
    /// Their size by XBZRLE against that version,
    pub xbzrle: u64,
    /// and by zstd of the difference.
    pub delta: u64,
}

/// Takes samples of so many pages. Which pages are taken depends on their numbers alone: always those with
/// the least hashes among the pages written. That is a uniform sample, and yet meets the same pages again
/// and again, so that there are earlier versions to compare with.
pub(super) struct Sampler {
    most: usize,
    versions: BTreeMap<u64, (u64, Box<Page>)>,
    lz4: Box<dyn Codec>,
    zstd: Box<dyn Codec>,
    xbzrle: Box<dyn Codec>,
    delta: Box<dyn Codec>,
    out: Vec<u8>,
}

impl Sampler {
    /// Of at most so many pages an interval.
    pub(super) fn new(most: usize) -> Result<Self> {
        let find = |name| codec::find(&Spec::new(name));
        Ok(Self {
            most,
            versions: BTreeMap::new(),
            lz4: find("lz4")?,
            zstd: find("zstd")?,
            xbzrle: find("xbzrle")?,
            delta: find("delta-zstd")?,
            out: Vec::with_capacity(PAGE),
        })
    }

    /// Keeps versions of pages in use, before anything is written.
    pub(super) fn begin(&mut self, pages: impl Iterator<Item = u64>, read: impl Fn(u64, &mut Page) -> bool) {
        for key in least(pages, self.most * KEPT) {
            let mut page = Box::new([0; PAGE]);
            if read(number(key), &mut page) {
                self.keep(key, page);
            }
        }
    }

    /// A sample of the pages written in an interval.
    pub(super) fn take(
        &mut self,
        interval: u32,
        pages: impl Iterator<Item = u64>,
        read: impl Fn(u64, &mut Page) -> bool,
    ) -> Sample {
        let mut sample = Sample { interval, ..Sample::default() };
        let mut seen: HashSet<u64> = self.versions.values().map(|(content, _)| *content).collect();
        for key in least(pages, self.most) {
            let mut page = Box::new([0; PAGE]);
            if read(number(key), &mut page) {
                self.look(key, &page, &mut seen, &mut sample);
                self.keep(key, page);
            }
        }
        sample
    }

    fn look(&mut self, key: u64, page: &Page, seen: &mut HashSet<u64>, sample: &mut Sample) {
        sample.pages += 1;
        if is_zero(page) {
            sample.zero += 1;
            return;
        }
        let content = xxh3_64(page);
        let base = self.versions.get(&key);
        // That a page is what it was before is for XBZRLE to find.
        let own = base.is_some_and(|(before, _)| *before == content);
        sample.duplicates += u32::from(!seen.insert(content) && !own);
        sample.lz4 += size(self.lz4.as_mut(), page, None, &mut self.out);
        sample.zstd += size(self.zstd.as_mut(), page, None, &mut self.out);
        if let Some((_, base)) = base {
            sample.based += 1;
            sample.xbzrle += size(self.xbzrle.as_mut(), page, Some(base), &mut self.out);
            sample.delta += size(self.delta.as_mut(), page, Some(base), &mut self.out);
        }
    }

    fn keep(&mut self, key: u64, page: Box<Page>) {
        self.versions.insert(key, (xxh3_64(page.as_slice()), page));
        // Those with the greatest hashes are the least likely to be met again.
        if self.versions.len() > self.most * KEPT {
            self.versions.pop_last();
        }
    }
}

/// A sample of pages that come one after the other, with their contents.
pub(crate) struct Stream {
    sampler: Sampler,
    /// Contents of all pages that came.
    seen: HashSet<u64>,
}

impl Stream {
    /// Of pages of which versions are kept for so many.
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { sampler: Sampler::new(STREAMED)?, seen: HashSet::new() })
    }

    /// Whether one page in `share` that is to be looked at is this one.
    pub(crate) fn picks(page: u64, share: u64) -> bool {
        key(page) <= u64::MAX / share
    }

    /// It came.
    pub(crate) fn look(&mut self, page: u64, content: &Page, sample: &mut Sample) {
        let key = key(page);
        self.sampler.look(key, content, &mut self.seen, sample);
        self.sampler.keep(key, Box::new(*content));
    }
}

fn size(codec: &mut dyn Codec, page: &Page, base: Option<&Page>, out: &mut Vec<u8>) -> u64 {
    out.clear();
    match codec.encode(page, base, out) {
        Encoded::Shorter => out.len() as u64,
        Encoded::Raw => PAGE as u64,
    }
}

/// The `most` least keys of `pages`.
fn least(pages: impl Iterator<Item = u64>, most: usize) -> Vec<u64> {
    let mut heap = BinaryHeap::with_capacity(most + 1);
    for key in pages.map(key) {
        if heap.len() < most || heap.peek().is_some_and(|greatest| key < *greatest) {
            heap.push(key);
        }
        if heap.len() > most {
            heap.pop();
        }
    }
    heap.into_iter().map(Reverse).collect::<BinaryHeap<_>>().into_iter().map(|Reverse(key)| key).collect()
}

/// Shuffles page numbers: each of these steps can be undone, so that no two pages share a key (the mixing
/// function of splitmix64).
fn key(page: u64) -> u64 {
    let page = page.wrapping_add(STEP);
    let mixed = (page ^ page >> 30).wrapping_mul(FIRST);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(SECOND);
    mixed ^ mixed >> 31
}

/// The page that has the key.
fn number(key: u64) -> u64 {
    let mixed = unshift(key, 31).wrapping_mul(inverse(SECOND));
    let mixed = unshift(mixed, 27).wrapping_mul(inverse(FIRST));
    unshift(mixed, 30).wrapping_sub(STEP)
}

const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
const FIRST: u64 = 0xBF58_476D_1CE4_E5B9;
const SECOND: u64 = 0x94D0_49BB_1331_11EB;

/// Undoes `x ^ x >> by`.
fn unshift(mixed: u64, by: u32) -> u64 {
    let mut value = mixed;
    for _ in 0..64 / by {
        value = mixed ^ value >> by;
    }
    value
}

/// The number that multiplies with an odd one to 1, by Newton's method.
fn inverse(odd: u64) -> u64 {
    let step = |guess: u64| guess.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(guess)));
    (0..5).fold(odd, |guess, _| step(guess))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_lead_back_to_pages() {
        for page in (0..1000).chain([0x7f12_a400_0000 >> 12, u64::MAX >> 12]) {
            assert_eq!(number(key(page)), page);
        }
    }

    #[test]
    fn the_same_pages_are_taken_again_and_are_spread_evenly() {
        let taken = |pages: std::ops::Range<u64>| {
            let mut numbers: Vec<_> = least(pages, 64).into_iter().map(number).collect();
            numbers.sort_unstable();
            numbers
        };
        assert_eq!(taken(0..100_000), taken(0..100_000));
        assert_eq!(taken(0..10), (0..10).collect::<Vec<_>>());
        let all = taken(0..100_000);
        let low = all.iter().filter(|page| **page < 50_000).count();
        assert!((16..48).contains(&low), "{low} of 64 in the lower half");
        // What is written of them later is met again.
        let again = taken(0..50_000);
        assert!(all.iter().filter(|page| **page < 50_000).all(|page| again.contains(page)));
    }

    #[test]
    fn shares_and_sizes_are_those_of_the_pages() {
        let mut sampler = Sampler::new(8).unwrap();
        let fill = |page: u64, into: &mut Page| {
            match page {
                0 => into.fill(0),
                1 | 2 => into.fill(7),
                3 => (0..)
                    .zip(into.iter_mut())
                    .for_each(|(at, byte)| *byte = xxh3_64(&[at as u8, (at >> 8) as u8]) as u8),
                _ => return false,
            }
            true
        };
        sampler.begin(0..4, fill);
        let sample = sampler.take(5, 0..5, fill);
        assert_eq!((sample.interval, sample.pages, sample.zero, sample.based), (5, 4, 1, 3));
        // One of the two equal pages was there before; unchanged pages are not duplicates of themselves.
        assert_eq!(sample.duplicates, 0);
        assert!(sample.lz4 > PAGE as u64 && sample.lz4 < PAGE as u64 + 200, "{}", sample.lz4);
        assert!(sample.zstd > PAGE as u64 && sample.zstd < PAGE as u64 + 200, "{}", sample.zstd);
        assert!(sample.xbzrle < 16 && sample.delta < 200, "{sample:?}");
        let copied = sampler.take(6, 3..5, |page, into| fill(page - 2, into));
        assert_eq!((copied.pages, copied.duplicates), (2, 2));
    }
}
