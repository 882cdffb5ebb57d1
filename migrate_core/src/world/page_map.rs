//! Which part of memory was sent when, for the report: counted by region, in time and space that do not grow with memory.

use std::time::Duration;

use crate::bitmap::{Bitmap, Run};
use crate::report::{MapRow, PageMap};

/// Equal parts of memory that are told apart.
const REGIONS: u64 = 64;
/// Rows at most: beyond, neighbours are one.
const ROWS: usize = 32;

/// A map that is being drawn.
#[derive(Debug)]
pub(super) struct Mapper {
    seen: Bitmap,
    region: u64,
    rows: Vec<MapRow>,
    open: MapRow,
}

impl Mapper {
    /// Of so many pages.
    pub(super) fn new(pages: u64) -> Self {
        let region = pages.div_ceil(REGIONS).max(1);
        let mut mapper = Self { seen: Bitmap::new(pages), region, rows: Vec::new(), open: MapRow::default() };
        mapper.open = mapper.row(0.0);
        mapper
    }

    fn row(&self, start: f64) -> MapRow {
        let regions = self.seen.pages().div_ceil(self.region) as usize;
        MapRow { start, end: start, first: vec![0; regions], again: vec![0; regions] }
    }

    /// These pages are sent.
    pub(super) fn note(&mut self, runs: impl IntoIterator<Item = Run>) {
        for run in runs {
            let mut first = run.first;
            while first < run.end() {
                let region = first / self.region;
                let end = run.end().min((region + 1) * self.region);
                let again = self.seen.count_in(first..end);
                self.open.again[region as usize] += again;
                self.open.first[region as usize] += end - first - again;
                self.seen.set_range(first..end);
                first = end;
            }
        }
    }

    /// A round is over.
    pub(super) fn end_row(&mut self, now: Duration) {
        let now = now.as_secs_f64();
        let next = self.row(now);
        let mut ended = std::mem::replace(&mut self.open, next);
        ended.end = now;
        self.rows.push(ended);
        if self.rows.len() > ROWS {
            self.rows = self.rows.chunks(2).map(joined).collect();
        }
    }

    /// The map, where each page stands for `weight`.
    pub(super) fn finish(mut self, now: Duration, weight: u64) -> PageMap {
        if self.open.first.iter().chain(&self.open.again).any(|count| *count > 0) {
            self.end_row(now);
        }
        for row in &mut self.rows {
            row.first.iter_mut().chain(&mut row.again).for_each(|count| *count *= weight);
        }
        PageMap { region_pages: self.region * weight, rows: self.rows }
    }
}

fn joined(rows: &[MapRow]) -> MapRow {
    let mut whole = rows[0].clone();
    for row in &rows[1..] {
        whole.end = row.end;
        whole.first.iter_mut().zip(&row.first).for_each(|(sum, count)| *sum += count);
        whole.again.iter_mut().zip(&row.again).for_each(|(sum, count)| *sum += count);
    }
    whole
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_page_is_first_once_and_again_after_that(
            pages in 1u64..2000,
            sent in proptest::collection::vec(proptest::collection::vec((0.0..1.0f64, 1u64..300), 0..6), 1..80),
        ) {
            let mut mapper = Mapper::new(pages);
            let (mut counts, mut firsts) = (vec![0u64; pages as usize], 0);
            for (number, round) in sent.iter().enumerate() {
                for (place, length) in round {
                    let first = (place * pages as f64) as u64;
                    let run = Run { first, pages: (*length).min(pages - first) };
                    for page in run.first..run.end() {
                        firsts += u64::from(counts[page as usize] == 0);
                        counts[page as usize] += 1;
                    }
                    mapper.note([run]);
                }
                mapper.end_row(Duration::from_secs(number as u64 + 1));
            }
            let map = mapper.finish(Duration::from_secs(100), 3);
            prop_assert!(map.rows.len() <= ROWS);
            let sum = |of: fn(&MapRow) -> &Vec<u64>| map.rows.iter().flat_map(of).sum::<u64>();
            prop_assert_eq!(sum(|row| &row.first), 3 * firsts);
            prop_assert_eq!(sum(|row| &row.again), 3 * (counts.iter().sum::<u64>() - firsts));
            for (region, part) in counts.chunks((map.region_pages / 3) as usize).enumerate() {
                let here: u64 = map.rows.iter().map(|row| row.first[region] + row.again[region]).sum();
                prop_assert_eq!(here, 3 * part.iter().sum::<u64>());
            }
            prop_assert!(map.rows.windows(2).all(|pair| pair[0].end == pair[1].start));
        }
    }
}
