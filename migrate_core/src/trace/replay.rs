//! A trace made ready to be replayed: every write at its moment, in order.

use super::Trace;
use crate::error::{Error, Result};
use crate::guest::scramble;

/// A write: when within its interval, in units of 2^-32 of the interval, and which page.
pub type Write = (u32, u32);

/// The writes of a trace in order of time. Within its interval a page is written at one moment that is
/// drawn by the page's and the interval's number, since the trace does not know it.
#[derive(Debug)]
pub struct Replay {
    pages: u64,
    weight: u64,
    interval: f64,
    writes: Vec<Write>,
    /// Where each interval's writes begin; one more than there are intervals.
    starts: Vec<usize>,
}

impl Replay {
    /// Of `trace`, every page of which is followed.
    pub fn of(trace: &Trace) -> Result<Self> {
        Self::sampled(trace, 1)
    }

    /// Of one page in `weight`, drawn out of each `weight` neighbours by its number; it stands for them all.
    pub fn sampled(trace: &Trace, weight: u64) -> Result<Self> {
        if trace.intervals() == 0 {
            return Err(Error::usage("the trace has no interval"));
        }
        let pages = trace.pages().div_ceil(weight.max(1));
        if weight == 0 || u32::try_from(pages).is_err() {
            return Err(Error::usage(format!(
                "one page in {weight} of {} cannot be followed",
                trace.pages()
            )));
        }
        let (mut writes, mut starts) = (Vec::new(), vec![0]);
        for index in 0..trace.intervals() {
            let (salt, begun) = (scramble(u64::from(index)), writes.len());
            let written = trace.written(index).iter().flat_map(|run| run.range());
            let drawn =
                written.filter(|page| weight == 1 || page % weight == scramble(page / weight) % weight);
            writes.extend(drawn.map(|page| ((scramble(page ^ salt) >> 32) as u32, (page / weight) as u32)));
            writes[begun..].sort_unstable();
            starts.push(writes.len());
        }
        Ok(Self { pages, weight, interval: trace.interval().as_secs_f64(), writes, starts })
    }

    /// Pages that are followed.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Pages of the guest that each of them stands for.
    pub fn weight(&self) -> u64 {
        self.weight
    }

    /// The length of an interval in seconds.
    pub fn interval(&self) -> f64 {
        self.interval
    }

    /// The writes of the `number`th interval, in order of time; after the last the first follows.
    pub fn writes(&self, number: u64) -> &[Write] {
        let index = (number % (self.starts.len() as u64 - 1)) as usize;
        &self.writes[self.starts[index]..self.starts[index + 1]]
    }
}
