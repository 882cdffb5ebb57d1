//! Dirty traces: which pages a guest wrote in which interval, recorded or generated.
//!
//! A trace is what a dirty log harvested at a steady pace would have held: for each interval, the runs of
//! pages written in it, each page once. When within the interval, and how often, is not known.

mod curve;
mod generate;
mod index;
mod places;
mod record;
mod replay;
mod sample;
mod source;
#[cfg(test)]
mod tests;
mod windows;

use std::time::Duration;

pub use curve::UniquePages;
pub use generate::generate;
pub use index::WriteIndex;
pub use record::{Cost, Recorded, Recorder, Standing};
pub use replay::{Replay, Write};
pub use sample::Sample;
pub(crate) use sample::Stream;
pub use source::{GuestSource, Pause, ProcessSource, Source, Stretch};
pub use windows::Windows;

use crate::bitmap::Run;
use crate::error::{Error, Result};
use crate::guest::PAGE;

/// Intervals of one trace at most: two years of 100 ms.
const MOST_INTERVALS: u32 = 1 << 30;
/// Pages of one trace at most: 64 TiB.
const MOST_PAGES: u64 = 1 << 34;

/// A RAM block of the guest that was watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceBlock {
    /// Its name.
    pub name: String,
    /// Its size in pages.
    pub pages: u64,
}

/// A run of pages written in an interval: a row of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Number of the interval, from 0.
    pub interval: u32,
    /// Index of the RAM block.
    pub block: u32,
    /// First page, within the block.
    pub first_page: u64,
    /// How many pages, 1 or more.
    pub pages: u32,
}

/// Which pages were written when. Pages are numbered through all blocks, in the blocks' order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    blocks: Vec<TraceBlock>,
    interval: Duration,
    runs: Vec<Run>,
    /// Where each interval's runs begin in `runs`; one more than there are intervals.
    starts: Vec<usize>,
}

impl Trace {
    /// A trace of `blocks` without any interval yet, each of which will last `interval`.
    pub fn new(blocks: Vec<TraceBlock>, interval: Duration) -> Result<Self> {
        let pages = blocks.iter().try_fold(0u64, |sum, block| sum.checked_add(block.pages));
        if !pages.is_some_and(|pages| (1..=MOST_PAGES).contains(&pages)) {
            return Err(Error::usage(format!(
                "a trace's RAM blocks must have 1 to {MOST_PAGES} pages in all"
            )));
        }
        if interval.is_zero() {
            return Err(Error::usage("a trace's interval must be more than 0 s"));
        }
        Ok(Self { blocks, interval, runs: Vec::new(), starts: vec![0] })
    }

    /// A trace out of `rows`, which are in ascending order of interval, block and page and do not overlap;
    /// an error names the row.
    pub fn from_rows(
        blocks: Vec<TraceBlock>,
        interval: Duration,
        intervals: u32,
        rows: impl IntoIterator<Item = Row>,
    ) -> Result<Self> {
        if intervals > MOST_INTERVALS {
            return Err(Error::usage(format!("{intervals} intervals are more than {MOST_INTERVALS}")));
        }
        let (mut trace, mut rows) = (Self::new(blocks, interval)?, rows.into_iter().enumerate().peekable());
        let firsts = trace.first_pages();
        for interval in 0..intervals {
            let mut end = 0;
            while let Some((number, row)) = rows.next_if(|(_, row)| row.interval == interval) {
                let run = trace.place(&firsts, row).filter(|run| run.first >= end);
                let run = run.ok_or_else(|| bad_row(number, row))?;
                end = run.end();
                trace.append(run);
            }
            trace.starts.push(trace.runs.len());
        }
        match rows.next() {
            None => Ok(trace),
            Some((number, row)) => Err(bad_row(number, row)),
        }
    }

    fn first_pages(&self) -> Vec<u64> {
        let sum = |next: &mut u64, block: &TraceBlock| Some(std::mem::replace(next, *next + block.pages));
        self.blocks.iter().scan(0, sum).collect()
    }

    fn place(&self, firsts: &[u64], row: Row) -> Option<Run> {
        let (block, first) = (self.blocks.get(row.block as usize)?, firsts.get(row.block as usize)?);
        let end = row.first_page.checked_add(u64::from(row.pages))?;
        let fits = row.pages > 0 && end <= block.pages;
        fits.then(|| Run { first: first + row.first_page, pages: u64::from(row.pages) })
    }

    fn append(&mut self, run: Run) {
        let begun = self.starts.last().copied().unwrap_or(0);
        match self.runs[begun..].last_mut() {
            Some(last) if last.end() == run.first => last.pages += run.pages,
            _ => self.runs.push(run),
        }
    }

    /// Adds an interval in which `written` were written: ascending runs that do not overlap, within the
    /// trace's pages.
    pub fn push(&mut self, written: impl IntoIterator<Item = Run>) -> Result<()> {
        let (mut end, pages) = (0, self.pages());
        for run in written {
            if run.pages == 0 || run.first < end || run.end() > pages {
                self.runs.truncate(self.starts.last().copied().unwrap_or(0));
                return Err(Error::usage(format!(
                    "an interval's runs must ascend within {pages} pages; {run:?} does not"
                )));
            }
            end = run.end();
            self.append(run);
        }
        self.starts.push(self.runs.len());
        Ok(())
    }

    /// The guest's RAM blocks.
    pub fn blocks(&self) -> &[TraceBlock] {
        &self.blocks
    }

    /// Pages of all blocks.
    pub fn pages(&self) -> u64 {
        self.blocks.iter().map(|block| block.pages).sum()
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> u64 {
        self.pages() * PAGE as u64
    }

    /// The length of an interval.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// How many intervals there are.
    pub fn intervals(&self) -> u32 {
        (self.starts.len() - 1) as u32
    }

    /// The time that it covers.
    pub fn duration(&self) -> Duration {
        self.interval * self.intervals()
    }

    /// The runs written in interval `index`, ascending; none beyond the end.
    pub fn written(&self, index: u32) -> &[Run] {
        match self.starts.get(index as usize..index as usize + 2) {
            Some(&[from, to]) => &self.runs[from..to],
            _ => &[],
        }
    }

    /// Runs in all: rows of the file, if no run crosses blocks.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// Pages written in each interval.
    pub fn written_pages(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.intervals()).map(|index| self.written(index).iter().map(|run| run.pages).sum())
    }

    /// Its rows: runs are cut where a block ends.
    pub fn rows(&self) -> impl Iterator<Item = Row> + '_ {
        let firsts = self.first_pages();
        (0..self.intervals()).flat_map(move |interval| {
            let firsts = firsts.clone();
            self.written(interval).iter().flat_map(move |run| self.cut(&firsts, interval, *run))
        })
    }

    fn cut(&self, firsts: &[u64], interval: u32, run: Run) -> Vec<Row> {
        let blocks = (0u32..).zip(firsts.iter().zip(&self.blocks));
        let part = |(block, (first, spec)): (u32, (&u64, &TraceBlock))| {
            let (from, to) = (run.first.max(*first), run.end().min(first + spec.pages));
            (from < to).then(|| Row { interval, block, first_page: from - first, pages: (to - from) as u32 })
        };
        blocks.filter_map(part).collect()
    }
}

fn bad_row(number: usize, row: Row) -> Error {
    Error::usage(format!(
        "row {number} of the trace (interval {}, block {}, first page {}, {} pages) is out of order, overlaps \
         the one before, or lies outside its block",
        row.interval, row.block, row.first_page, row.pages
    ))
}
