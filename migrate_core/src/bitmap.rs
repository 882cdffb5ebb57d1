//! Dirty bitmaps.
#![allow(missing_docs)]
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Run {
    pub first: u64,
    pub pages: u64,
}
impl Run {
    pub fn end(&self) -> u64 {
        self.first + self.pages
    }
    pub fn range(&self) -> Range<u64> {
        self.first..self.end()
    }
}
#[derive(Debug)]
pub struct DirtyBitmap {
    pages: u64,
    words: Vec<AtomicU64>,
}
impl DirtyBitmap {
    pub fn new(pages: u64) -> Self {
        Self { pages, words: (0..pages.div_ceil(64)).map(|_| AtomicU64::new(0)).collect() }
    }
    pub fn pages(&self) -> u64 {
        self.pages
    }
    pub fn set(&self, page: u64) {
        if page < self.pages {
            self.words[(page / 64) as usize].fetch_or(1 << (page % 64), SeqCst);
        }
    }
    pub fn set_range(&self, pages: Range<u64>) {
        for p in pages {
            self.set(p);
        }
    }
    pub fn is_set(&self, page: u64) -> bool {
        self.words[(page / 64) as usize].load(SeqCst) >> (page % 64) & 1 == 1
    }
    pub fn count(&self) -> u64 {
        self.words.iter().map(|w| u64::from(w.load(SeqCst).count_ones())).sum()
    }
    pub fn harvest(&self, into: &mut Bitmap) {
        self.harvest_range(0..self.pages, into);
    }
    pub fn harvest_range(&self, pages: Range<u64>, into: &mut Bitmap) {
        for p in pages {
            let m = 1 << (p % 64);
            if self.words[(p / 64) as usize].fetch_and(!m, SeqCst) & m != 0 {
                into.set(p);
            }
        }
    }
    pub fn peek_range(&self, pages: Range<u64>, into: &mut Bitmap) {
        for p in pages {
            if self.is_set(p) {
                into.set(p);
            }
        }
    }
}
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    pages: u64,
    words: Vec<u64>,
}
impl Bitmap {
    pub fn new(pages: u64) -> Self {
        Self { pages, words: vec![0; pages.div_ceil(64) as usize] }
    }
    pub fn full(pages: u64) -> Self {
        let mut b = Self::new(pages);
        b.set_range(0..pages);
        b
    }
    pub fn pages(&self) -> u64 {
        self.pages
    }
    pub fn count(&self) -> u64 {
        self.words.iter().map(|w| u64::from(w.count_ones())).sum()
    }
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }
    pub fn contains(&self, page: u64) -> bool {
        page < self.pages && self.words[(page / 64) as usize] >> (page % 64) & 1 == 1
    }
    pub fn set(&mut self, page: u64) {
        if page < self.pages {
            self.words[(page / 64) as usize] |= 1 << (page % 64);
        }
    }
    pub fn set_range(&mut self, pages: Range<u64>) {
        for p in pages {
            self.set(p);
        }
    }
    pub fn clear(&mut self, page: u64) {
        self.words[(page / 64) as usize] &= !(1 << (page % 64));
    }
    pub fn clear_range(&mut self, pages: Range<u64>) {
        for p in pages {
            self.clear(p);
        }
    }
    pub fn clear_all(&mut self) {
        self.words.fill(0);
    }
    pub fn union_with(&mut self, o: &Bitmap) {
        for (a, b) in self.words.iter_mut().zip(&o.words) {
            *a |= b;
        }
    }
    pub fn subtract(&mut self, o: &Bitmap) {
        for (a, b) in self.words.iter_mut().zip(&o.words) {
            *a &= !b;
        }
    }
    pub fn runs_in(&self, range: Range<u64>) -> impl Iterator<Item = Run> + '_ {
        let end = range.end.min(self.pages);
        let mut at = range.start;
        std::iter::from_fn(move || {
            let first = self.first_from(at).filter(|f| *f < end)?;
            let mut e = first + 1;
            while e < end && self.contains(e) {
                e += 1;
            }
            at = e;
            Some(Run { first, pages: e - first })
        })
    }
    pub fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.runs_in(0..self.pages)
    }
    pub fn first_from(&self, page: u64) -> Option<u64> {
        (page..self.pages).find(|p| self.contains(*p))
    }
    pub fn count_in(&self, range: Range<u64>) -> u64 {
        range.filter(|p| self.contains(*p)).count() as u64
    }
    pub fn words(&self) -> &[u64] {
        &self.words
    }
}
