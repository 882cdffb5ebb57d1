//! Random courses of writes, harvests and peeks, against a set of pages.

use std::collections::BTreeSet;
use std::ops::Range;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{blocks, ensure, first, Bench, Make};
use crate::error::{Error, Result};

/// A step of a course. Ranges are guest pages; what of them lies past the end is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Each page is written.
    Write(Range<u64>),
    /// Each page is read.
    Read(Range<u64>),
    /// The pages are given back to the system.
    Discard(Range<u64>),
    /// The range is harvested.
    Harvest(Range<u64>),
    /// The range is looked at.
    Peek(Range<u64>),
}

/// Pages of the memory that courses run on.
pub(super) fn pages() -> u64 {
    blocks().blocks.iter().map(|block| block.bytes).sum::<u64>() / crate::guest::PAGE as u64
}

/// Runs a course. Every page written since its last harvest must be in a harvest or a peek of its range;
/// more may be. At the end a harvest of everything must leave nothing dirty.
pub fn replay(make: Make<'_>, populate: bool, steps: &[Step]) -> Result<()> {
    let mut bench = Bench::on(make, &blocks(), populate)?;
    let mut written = BTreeSet::new();
    let last = [Step::Harvest(bench.all())];
    for (i, step) in steps.iter().chain(&last).enumerate() {
        let missing = take(&mut bench, &mut written, step)?;
        ensure(missing.is_empty(), || format!("step {i}, {step:?}: missed {}", first(&missing)))?;
    }
    let again = bench.harvest(bench.all())?;
    ensure(again.is_empty(), || format!("{} pages dirty after everything was harvested", again.len()))
}

/// Takes a step; returns the pages that should have been reported and were not.
fn take(bench: &mut Bench, written: &mut BTreeSet<u64>, step: &Step) -> Result<Vec<u64>> {
    let end = bench.memory.pages();
    let cut = |pages: &Range<u64>| pages.start.min(end)..pages.end.min(end);
    let missing = |reported: &BTreeSet<u64>, written: &BTreeSet<u64>, pages: Range<u64>| {
        written.range(pages).filter(|page| !reported.contains(page)).copied().collect()
    };
    match step {
        Step::Write(pages) => {
            bench.write(cut(pages));
            written.extend(cut(pages));
        }
        Step::Read(pages) => {
            let offset = |page| page * crate::guest::PAGE as u64;
            cut(pages).for_each(|page| bench.memory.read(offset(page), &mut [0]));
        }
        Step::Discard(pages) => {
            bench.discard(cut(pages))?;
            // What a tracker that compares was told may be back: then nothing is to be sent.
            written.retain(|page| !(bench.tracker.wants_sent() && cut(pages).contains(page)));
        }
        Step::Peek(pages) => return Ok(missing(&bench.peek(cut(pages))?, written, cut(pages))),
        Step::Harvest(pages) => {
            let missing = missing(&bench.harvest(cut(pages))?, written, cut(pages));
            written.retain(|page| !cut(pages).contains(page));
            return Ok(missing);
        }
    }
    Ok(vec![])
}

/// A course of `steps` steps that `seed` determines.
pub fn random_steps(seed: u64, steps: usize) -> Vec<Step> {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let pages = pages();
    let mut step = || {
        let first = random.random_range(0..pages);
        // Short ones mostly, so that courses are not all of everything.
        let most = 1u64 << random.random_range(0..9);
        let range = first..first + random.random_range(1..=most);
        match random.random_range(0..10) {
            0..=4 => Step::Write(range),
            5 => Step::Read(range),
            6 => Step::Discard(range),
            7 => Step::Peek(range),
            _ => Step::Harvest(range),
        }
    };
    (0..steps).map(|_| step()).collect()
}

pub(super) fn seeded(make: Make<'_>) -> Result<Vec<String>> {
    for seed in 0..8 {
        let run = replay(make, seed % 2 == 0, &random_steps(seed, 60));
        run.map_err(|e| Error::Verification(format!("seed {seed}: {e}")))?;
    }
    Ok(vec![])
}
