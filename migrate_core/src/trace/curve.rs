//! The unique-pages function U(t): how many distinct pages a guest writes in a window of time.

use super::Trace;

/// Distinct pages against window length: the mean over all windows of a trace, by the footprint formula of
/// Xiang et al. ("HOTL: a higher order theory of locality", ASPLOS 2013), which needs one pass over the
/// trace whatever the lengths.
#[derive(Debug, Clone)]
pub struct UniquePages {
    intervals: u32,
    distinct: u64,
    /// For each gap in which a page is not written, counted by its length in intervals.
    gaps: Vec<u64>,
}

impl UniquePages {
    /// Of `trace`.
    pub fn of(trace: &Trace) -> Self {
        let intervals = trace.intervals();
        // The interval after the one in which a page was last written; 0 for never.
        let mut after = vec![0u32; trace.pages() as usize];
        let (mut gaps, mut distinct) = (vec![0u64; intervals as usize + 1], 0);
        for index in 0..intervals {
            for page in trace.written(index).iter().flat_map(|run| run.range()) {
                let after = &mut after[page as usize];
                gaps[(index - *after) as usize] += 1;
                distinct += u64::from(*after == 0);
                *after = index + 1;
            }
        }
        for after in after.into_iter().filter(|after| *after > 0) {
            gaps[(intervals - after) as usize] += 1;
        }
        Self { intervals, distinct, gaps }
    }

    /// Pages written at all.
    pub fn distinct(&self) -> u64 {
        self.distinct
    }

    /// The mean number of distinct pages written in a window of `length` intervals; for the whole trace
    /// from its length on.
    pub fn mean(&self, length: u32) -> f64 {
        if length == 0 || length >= self.intervals {
            return if length == 0 { 0.0 } else { self.distinct as f64 };
        }
        let windows = self.intervals - length + 1;
        // A page is missing from each window that fits into a gap between its writes.
        let fits = |(gap, count): (u32, &u64)| f64::from((gap + 1).saturating_sub(length)) * *count as f64;
        let missing: f64 = (0..).zip(&self.gaps).map(fits).sum();
        self.distinct as f64 - missing / f64::from(windows)
    }
}
