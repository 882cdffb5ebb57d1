//! The pages of a round on their way out, cut into chunks.

use crate::bitmap::{Bitmap, Run};

/// A set of pages that is handed out in ascending order, some pages at a time.
#[derive(Debug)]
pub struct Outgoing {
    pages: Bitmap,
    cursor: u64,
    chunk_pages: u64,
}

impl Outgoing {
    /// Hands out `pages`, at most `chunk_pages` at a time.
    pub fn new(pages: Bitmap, chunk_pages: u64) -> Self {
        Self { pages, cursor: 0, chunk_pages }
    }

    /// The next chunk's runs; empty when all were handed out. A chunk spans at most 64 times as many pages
    /// as it may hold: clearing the dirty bits of its span must stay close to its sending.
    pub fn next_runs(&mut self) -> Vec<Run> {
        let mut runs = Vec::new();
        let Some(start) = self.pages.first_from(self.cursor) else { return runs };
        let end = self.pages.pages().min(start.saturating_add(self.chunk_pages * 64));
        let mut room = self.chunk_pages;
        for run in self.pages.runs_in(start..end) {
            let taken = Run { first: run.first, pages: run.pages.min(room) };
            room -= taken.pages;
            self.cursor = taken.end();
            runs.push(taken);
            if room == 0 {
                break;
            }
        }
        runs
    }

    /// Adds pages that turned out to be dirty, and starts over from the first page.
    pub fn refill(&mut self, pages: &Bitmap) {
        self.pages.union_with(pages);
        self.cursor = 0;
    }

    /// Replaces all pages and starts over.
    pub fn replace(&mut self, pages: Bitmap) {
        self.pages = pages;
        self.cursor = 0;
    }

    /// The same, giving the old pages back: a bitmap that is used again costs no page faults.
    pub fn exchange(&mut self, pages: &mut Bitmap) {
        std::mem::swap(&mut self.pages, pages);
        self.cursor = 0;
    }

    /// The set, handed out or not.
    pub fn pages(&self) -> &Bitmap {
        &self.pages
    }

    /// Adds what was not handed out to `rest`, and hands out no more.
    pub fn leave(&mut self, rest: &mut Bitmap) {
        let end = self.pages.pages();
        self.pages.runs_in(self.cursor..end).for_each(|run| rest.set_range(run.range()));
        self.cursor = end;
    }

    /// How many pages the set has, handed out or not.
    pub fn count(&self) -> u64 {
        self.pages.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_page_is_handed_out_once_in_order(set in proptest::collection::btree_set(0u64..5000, 0..400), most in 1u64..64) {
            let mut pages = Bitmap::new(5000);
            set.iter().for_each(|page| pages.set(*page));
            let mut outgoing = Outgoing::new(pages, most);
            let mut seen = Vec::new();
            loop {
                let runs = outgoing.next_runs();
                if runs.is_empty() { break; }
                prop_assert!(runs.iter().map(|run| run.pages).sum::<u64>() <= most);
                prop_assert!(runs[runs.len() - 1].end() - runs[0].first <= most * 64);
                seen.extend(runs.iter().flat_map(|run| run.range()));
            }
            prop_assert_eq!(seen, set.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn what_is_left_is_what_was_not_handed_out(set in proptest::collection::btree_set(0u64..5000, 0..400), most in 1u64..64, chunks in 0usize..9) {
            let mut pages = Bitmap::new(5000);
            set.iter().for_each(|page| pages.set(*page));
            let (mut outgoing, mut seen) = (Outgoing::new(pages, most), Vec::new());
            (0..chunks).for_each(|_| seen.extend(outgoing.next_runs().iter().flat_map(|run| run.range())));
            let mut rest = Bitmap::new(5000);
            outgoing.leave(&mut rest);
            prop_assert!(outgoing.next_runs().is_empty());
            seen.extend(rest.runs().flat_map(|run| run.range()));
            prop_assert_eq!(seen, set.into_iter().collect::<Vec<_>>());
        }
    }
}
