//! From addresses to RAM blocks: which stretches of a process's memory a trace calls by which name.
//!
//! Memory is seen in **chunks** of 2 MiB. All chunks of one label that were ever in use and touch make a
//! block, from the first page in use to the last. So a block is about as large as what is in use, however
//! much address space was set aside around it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use super::TraceBlock;
use crate::bitmap::Run;

/// Pages in a chunk.
const CHUNK: u64 = 512;

/// Number of a label.
pub(super) type Label = u32;

/// Everything that was ever in use.
#[derive(Debug, Default)]
pub(super) struct Places {
    labels: Vec<(String, bool)>,
    numbers: HashMap<String, Label>,
    /// The first page in use and the one after the last, in a chunk.
    chunks: BTreeMap<(Label, u64), Range<u64>>,
}

/// A block before it has its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Its label.
    pub label: Label,
    /// Its pages, by address.
    pub pages: Range<u64>,
}

impl Places {
    /// The number of a label; `several` if blocks so called need their address to tell them apart.
    pub(super) fn label(&mut self, name: &str, several: bool) -> Label {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.labels.len() as Label;
        self.labels.push((name.to_owned(), several));
        self.numbers.insert(name.to_owned(), number);
        number
    }

    /// Notes that pages are in use.
    pub(super) fn add(&mut self, label: Label, pages: Range<u64>) {
        let mut from = pages.start;
        while from < pages.end {
            let chunk = from / CHUNK;
            let to = pages.end.min((chunk + 1) * CHUNK);
            let seen = self.chunks.entry((label, chunk)).or_insert(from..to);
            *seen = seen.start.min(from)..seen.end.max(to);
            from = to;
        }
    }

    /// The blocks, in the order of labels and addresses.
    pub(super) fn places(&self) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        let mut last = None;
        for (&(label, chunk), pages) in &self.chunks {
            match places.last_mut() {
                Some(place) if last == Some((label, chunk.wrapping_sub(1))) => place.pages.end = pages.end,
                _ => places.push(Place { label, pages: pages.clone() }),
            }
            last = Some((label, chunk));
        }
        places
    }

    /// Pages of all blocks together.
    pub(super) fn pages(&self) -> u64 {
        self.places().iter().map(|place| place.pages.end - place.pages.start).sum()
    }

    /// The blocks' names and sizes: the first of a label that needs no address bears the label alone.
    pub(super) fn blocks(&self, places: &[Place]) -> Vec<TraceBlock> {
        let mut last = None;
        let block = |place: &Place| {
            let (name, several) = &self.labels[place.label as usize];
            let first = last.replace(place.label) != Some(place.label);
            let name = match first && !several {
                true => name.clone(),
                false => format!("{name}@{:x}", place.pages.start * crate::guest::PAGE as u64),
            };
            TraceBlock { name, pages: place.pages.end - place.pages.start }
        };
        places.iter().map(block).collect()
    }
}

/// Where blocks are among a trace's pages.
#[derive(Debug)]
pub(super) struct Atlas {
    places: Vec<Place>,
    /// The trace's number of each place's first page.
    firsts: Vec<u64>,
}

impl Atlas {
    /// Of places in order.
    pub(super) fn new(places: Vec<Place>) -> Self {
        let next = |next: &mut u64, place: &Place| {
            Some(std::mem::replace(next, *next + (place.pages.end - place.pages.start)))
        };
        let firsts = places.iter().scan(0, next).collect();
        Self { places, firsts }
    }

    /// The trace's pages for pages by address, which lie in one place.
    pub(super) fn run(&self, label: Label, pages: &Range<u64>) -> Option<Run> {
        let after = |place: &Place| (place.label, place.pages.start) <= (label, pages.start);
        let index = self.places.partition_point(after).checked_sub(1)?;
        let (place, first) = (self.places.get(index)?, self.firsts.get(index)?);
        let inside = place.label == label && pages.end <= place.pages.end;
        inside.then(|| Run { first: first + pages.start - place.pages.start, pages: pages.end - pages.start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_that_touch_are_a_block_and_ends_are_trimmed() {
        let mut places = Places::default();
        let (heap, anon) = (places.label("heap", false), places.label("anon", true));
        assert_eq!(places.label("heap", false), heap);
        places.add(heap, 1000..1010);
        places.add(heap, 1030..1040);
        places.add(heap, 5000..5001);
        places.add(anon, 700..702);
        places.add(anon, 10..12);
        let found = places.places();
        let names: Vec<_> =
            places.blocks(&found).into_iter().map(|block| (block.name, block.pages)).collect();
        let wanted = [("heap", 40), ("heap@1388000", 1), ("anon@a000", 692)];
        assert_eq!(names, wanted.map(|(name, pages)| (name.to_owned(), pages)));
        assert_eq!(places.pages(), 733);
        let atlas = Atlas::new(found);
        assert_eq!(atlas.run(heap, &(1000..1002)), Some(Run { first: 0, pages: 2 }));
        assert_eq!(atlas.run(heap, &(5000..5001)), Some(Run { first: 40, pages: 1 }));
        assert_eq!(atlas.run(anon, &(700..702)), Some(Run { first: 41 + 690, pages: 2 }));
        assert_eq!(atlas.run(anon, &(700..703)), None);
        assert_eq!(atlas.run(heap, &(10..12)), None);
    }
}
