//! A codec at the sending end, with the versions that the other end has.

use super::cache::{CacheStats, PageCache, SentPages};
use super::{find, Codec, Encoded, Page, PAGE};
use crate::error::Result;
use crate::knobs::Spec;

/// Pages encoded together: enough to share context, few enough to stay in a core's cache.
pub const BATCH: usize = 64;

static ZEROS: Page = [0; PAGE];

/// The sending end of a channel: a codec, and the versions sent last as far as the budget holds them.
pub struct Coder {
    codec: Box<dyn Codec>,
    cache: Option<PageCache>,
    /// Whether the first pass over memory is worth keeping: it is where everything fits.
    keeps_all: bool,
    round: usize,
}

/// What became of pages that were encoded together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coded {
    /// How many are raw in the encoding.
    pub raw_pages: u64,
    /// For each page, whether its last version is needed to decode it.
    pub based: Vec<bool>,
}

impl Coder {
    /// The codec that `spec` names, for a channel that carries `pages` different pages and is one of `channels`, which
    /// share the codec's budget for versions.
    pub fn new(spec: &Spec, channels: usize, pages: usize) -> Result<Self> {
        let codec = find(spec)?;
        let budget = if codec.needs_base() { codec.cache() / channels as u64 } else { 0 };
        let cache = (budget > 0).then(|| PageCache::new(budget)).transpose()?;
        let keeps_all = cache.as_ref().is_some_and(|cache| cache.capacity() >= pages);
        Ok(Self { codec, cache, keeps_all, round: 0 })
    }

    /// The codec itself.
    pub fn codec(&mut self) -> &mut dyn Codec {
        self.codec.as_mut()
    }

    /// Bytes held for versions, at most.
    pub fn cache_bytes(&self) -> u64 {
        self.cache.as_ref().map_or(0, |cache| cache.bytes() as u64)
    }

    /// What the cache of versions has done so far.
    pub fn stats(&self) -> CacheStats {
        self.cache.as_ref().map(SentPages::stats).unwrap_or_default()
    }

    /// Appends the encoding of `pages`, whose numbers are `numbers`, to `out`.
    pub fn encode(&mut self, numbers: &[u64], pages: &[Page], out: &mut Vec<u8>) -> Coded {
        numbers.iter().for_each(|page| self.ask(*page));
        let cache = self.cache.as_ref();
        let bases: Vec<Option<&Page>> = numbers.iter().map(|page| cache?.peek(*page)).collect();
        let raw_pages = self.codec.encode_batch(pages, &bases, out) as u64;
        let based = bases.iter().map(Option::is_some).collect();
        numbers.iter().zip(pages).for_each(|(page, bytes)| self.keep(*page, bytes));
        Coded { raw_pages, based }
    }

    /// The same for a page by itself, without a batch's framing. Also whether its last version is needed.
    pub fn encode_alone(&mut self, number: u64, page: &Page, out: &mut Vec<u8>) -> (Encoded, bool) {
        self.ask(number);
        let base = self.cache.as_ref().and_then(|cache| cache.peek(number));
        let based = base.is_some();
        let encoded = self.codec.encode(page, base, out);
        self.keep(number, page);
        (encoded, based)
    }

    fn ask(&mut self, page: u64) {
        self.cache.iter_mut().for_each(|cache| {
            cache.get(page);
        });
    }

    /// Keeps what the destination will have.
    fn keep(&mut self, number: u64, page: &Page) {
        if self.round == 0 && !self.keeps_all {
            return;
        }
        self.cache.iter_mut().for_each(|cache| {
            cache.put(number, page);
        });
    }

    /// A page goes as zeros: a version that is known without being kept.
    pub fn pass_zero(&mut self, number: u64) {
        self.codec.pass(&ZEROS);
        self.forget(number);
    }

    /// A page goes another way, and what the destination will have of it is not known here.
    pub fn forget(&mut self, number: u64) {
        self.cache.iter_mut().for_each(|cache| cache.forget(number));
    }

    /// A round ends: what was not met again ages.
    pub fn next_round(&mut self) {
        self.round += 1;
        self.cache.iter_mut().for_each(SentPages::next_round);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::conformance::Numbers;

    #[test]
    fn the_first_pass_is_kept_only_where_everything_fits() {
        for (pages, hits) in [(8, 8), (100_000, 0)] {
            let mut coder = Coder::new(&Spec::new("xbzrle").with("cache", 65536), 1, pages).unwrap();
            let contents: Vec<Page> = (0..8).map(|seed| Numbers(seed).page()).collect();
            let numbers: Vec<u64> = (0..8).collect();
            let mut out = Vec::new();
            let first = coder.encode(&numbers, &contents, &mut out);
            assert_eq!((first.raw_pages, first.based), (8, vec![false; 8]));
            coder.next_round();
            out.clear();
            let again = coder.encode(&numbers, &contents, &mut out);
            assert_eq!(again.based.iter().filter(|based| **based).count(), hits, "{pages} pages");
            assert_eq!(coder.stats().hits, hits as u64);
            coder.next_round();
            assert!(coder.encode(&numbers, &contents, &mut out).based.iter().all(|based| *based));
            assert!(coder.cache_bytes() <= 65536);
        }
    }

    #[test]
    fn what_went_another_way_is_no_base() {
        let mut coder = Coder::new(&Spec::new("xbzrle"), 1, 8).unwrap();
        let page = Numbers(1).page();
        let mut out = Vec::new();
        assert_eq!(coder.encode_alone(3, &page, &mut out), (Encoded::Raw, false));
        assert_eq!(coder.encode_alone(3, &page, &mut out), (Encoded::Shorter, true));
        coder.pass_zero(3);
        assert_eq!(coder.encode_alone(3, &page, &mut out), (Encoded::Raw, false));
        coder.forget(3);
        assert_eq!(coder.encode_alone(3, &page, &mut out), (Encoded::Raw, false));
    }
}
