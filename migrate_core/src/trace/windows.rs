//! A trace as counts: how many distinct pages of each stripe of memory are written between two moments.

use super::{Trace, WriteIndex};
use crate::error::{Error, Result};

/// Stripes of memory: how finely the order of sending is told apart.
const STRIPES: u64 = 16;
/// Pages of larger guests are counted in so many equal parts of memory.
const MOST_PAGES: u64 = 1 << 18;

/// Answers how many distinct pages are written between any two moments, in microseconds however large the
/// guest. Within its interval a page's write has an equal chance at every moment: counts are expectations.
/// They are in units of [`Windows::weight`] pages, so that sets of pages stay small: one for up to 1 GiB.
#[derive(Debug)]
pub struct Windows {
    weight: u64,
    pages: u64,
    stripe_pages: u64,
    interval: f64,
    intervals: u32,
    runs: f64,
    stripes: Vec<WriteIndex>,
}

impl Windows {
    /// Of `trace`; its stripes are indexed on all cores.
    pub fn of(trace: &Trace) -> Result<Self> {
        if trace.intervals() == 0 {
            return Err(Error::usage("the trace has no interval"));
        }
        // A stripe's writes are numbered in 32 bits; none has more of them than the whole.
        let writes: u64 = trace.written_pages().sum();
        if u32::try_from(writes).is_err() {
            return Err(Error::usage(format!(
                "a trace of {writes} writes is too long to be counted: cut it, or follow its pages"
            )));
        }
        let weight = trace.pages().div_ceil(MOST_PAGES);
        let pages = trace.pages().div_ceil(weight);
        let stripe_pages = pages.div_ceil(STRIPES);
        let end = |stripe: u64| (stripe * stripe_pages * weight).min(trace.pages());
        let ranges: Vec<_> =
            (0..pages.div_ceil(stripe_pages)).map(|stripe| end(stripe)..end(stripe + 1)).collect();
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let stripes = std::thread::scope(|scope| {
            let share =
                |ranges: &[_]| ranges.iter().cloned().map(|range| WriteIndex::of(trace, range)).collect();
            let workers: Vec<_> = ranges
                .chunks(ranges.len().div_ceil(threads))
                .map(|ranges| scope.spawn(move || -> Vec<WriteIndex> { share(ranges) }))
                .collect();
            workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect::<Vec<_>>()
        });
        if stripes.len() != ranges.len() {
            return Err(Error::usage("an index of the trace could not be made: is there memory for it?"));
        }
        let runs = (0..trace.intervals()).map(|interval| trace.written(interval).len()).sum::<usize>() as f64;
        let (interval, intervals) = (trace.interval().as_secs_f64(), trace.intervals());
        Ok(Self {
            weight,
            pages,
            stripe_pages,
            interval,
            intervals,
            runs: runs / writes.max(1) as f64,
            stripes,
        })
    }

    /// Pages of the guest that one stands for here.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// The guest's memory.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The stripes, each the pages that it has.
    pub fn stripes(&self) -> impl Iterator<Item = std::ops::Range<u64>> + '_ {
        let ends = move |stripe: u64| (stripe * self.stripe_pages).min(self.pages);
        (0..self.stripes.len() as u64).map(move |stripe| ends(stripe)..ends(stripe + 1))
    }

    /// The stripe that a page is in.
    pub fn stripe_of(&self, page: u64) -> usize {
        (page / self.stripe_pages) as usize
    }

    /// Runs for each page written, as the trace has them: 1 where no two neighbours are written.
    pub fn runs_per_page(&self) -> f64 {
        self.runs
    }

    /// Distinct pages of a stripe that are written between two moments in seconds from the trace's beginning;
    /// beyond its end it is entered again.
    pub fn distinct(&self, stripe: usize, from: f64, to: f64) -> f64 {
        if to <= from {
            return 0.0;
        }
        let (from, to) = (from.max(0.0) / self.interval, to / self.interval);
        let (first, last) = (from.floor(), to.floor());
        let (late, early) = (from - first, to - last);
        let base = (first as u64 % u64::from(self.intervals)) as u32;
        let count = |skipped: u32, length: f64| {
            let end = f64::from(base) + length;
            let past = base + skipped == self.intervals;
            let (from, to) = if past { (0, end - f64::from(self.intervals)) } else { (base + skipped, end) };
            let pages = self.stripes[stripe].distinct(from, (to as u32).min(from + self.intervals));
            pages as f64 / self.weight as f64
        };
        let length = last - first;
        if length == 0.0 {
            return count(0, 1.0) * (early - late);
        }
        // A page of the first interval is written in the window with the chance that is left of it, one of
        // the last with the chance of what has passed of it.
        let corner =
            |weight: f64, skipped, length| if weight > 0.0 { weight * count(skipped, length) } else { 0.0 };
        corner((1.0 - late) * (1.0 - early), 0, length)
            + corner((1.0 - late) * early, 0, length + 1.0)
            + corner(late * (1.0 - early), 1, length)
            + corner(late * early, 1, length + 1.0)
    }
}
