//! Taking pages out of a memory that goes on changing: some of them, evenly spread, and their later versions.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::PageSet;
use crate::codec::{Page, BATCH};
use crate::error::{Error, Result};
use crate::guest::PAGE;

/// How long a wait may be before it is looked whether it is still wanted.
const LOOK: Duration = Duration::from_millis(20);

/// Most versions of a memory, and most bytes of one.
const MOST_ROUNDS: u32 = 64;
const MOST_BYTES: u64 = 8 << 30;

/// A memory that pages can be taken from, again and again.
pub trait Memory {
    /// The pages that hold data, in stretches of neighbours.
    ///
    /// # Errors
    /// The memory cannot be looked at.
    fn stretches(&mut self) -> Result<Vec<Range<u64>>>;

    /// Calls `each` with those of `pages` that are there.
    ///
    /// # Errors
    /// The memory cannot be read.
    fn read(&mut self, pages: &[u64], each: &mut dyn FnMut(u64, &Page)) -> Result<()>;

    /// Goes on to the next version; whether there is one.
    ///
    /// # Errors
    /// The next version cannot be had.
    fn advance(&mut self, cancel: &AtomicBool) -> Result<bool>;
}

/// What to take.
#[derive(Debug, Clone, Copy)]
pub struct Taking {
    /// Most bytes of different pages; where memory is larger, runs of 64 pages evenly spread over it.
    pub bytes: u64,
    /// Versions of each, the first included. A later one is taken where the page has changed since.
    pub rounds: u32,
}

impl Taking {
    /// Most pages.
    pub(super) fn check(self) -> Result<usize> {
        if !(1..=MOST_ROUNDS).contains(&self.rounds) {
            return Err(Error::usage(format!("from 1 to {MOST_ROUNDS} versions, not {}", self.rounds)));
        }
        if !(PAGE as u64..=MOST_BYTES).contains(&self.bytes) {
            let bytes = self.bytes;
            return Err(Error::usage(format!(
                "pages to take: from 4 KiB to {} GiB, not {bytes} bytes",
                MOST_BYTES >> 30
            )));
        }
        Ok((self.bytes / PAGE as u64) as usize)
    }

    /// Takes pages out of `memory`; `cancel` ends it early.
    ///
    /// # Errors
    /// [`Error::Usage`] if no page holds data; what `memory` says.
    pub fn from(self, memory: &mut dyn Memory, cancel: &AtomicBool) -> Result<PageSet> {
        let most = self.check()?;
        let stretches = memory.stretches()?;
        let pages = chosen(&stretches, most);
        let all = stretches.iter().map(|stretch| stretch.end - stretch.start).sum();
        let mut set = PageSet::new(pages.len() * self.rounds as usize, pages.len(), all);
        for round in 0..self.rounds {
            if round > 0 && !memory.advance(cancel)? || cancel.load(Ordering::Relaxed) {
                break;
            }
            memory.read(&pages, &mut |page, bytes| {
                if set.last(page).is_none_or(|last| last != bytes) {
                    set.push(round, page, bytes);
                }
            })?;
        }
        set.sealed()
    }
}

/// Which pages of a memory are taken, by their places in it: all of them, or runs of [`BATCH`] in even distances, so that
/// neighbours are encoded together as in a migration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Choice {
    all: u64,
    runs: u128,
    wanted: u128,
}

impl Choice {
    /// At most `most` of `all` pages, but never less than a run.
    pub fn new(all: u64, most: usize) -> Self {
        let runs = u128::from(all.div_ceil(BATCH as u64));
        Self { all, runs, wanted: runs.min((most / BATCH).max(1) as u128) }
    }

    /// The places in ascending order. (A file may claim to have 2^51 pages: only those taken are counted through.)
    fn places(self) -> impl Iterator<Item = u64> {
        let batch = BATCH as u64;
        let starts = (0..self.wanted).map(move |run| (run * self.runs / self.wanted) as u64 * batch);
        starts.flat_map(move |start| start..self.all.min(start + batch))
    }

    /// Whether the page at `place` is taken.
    pub fn takes(self, place: u64) -> bool {
        let run = u128::from(place / BATCH as u64);
        place < self.all && (run * self.wanted).div_ceil(self.runs) * self.runs / self.wanted == run
    }
}

/// At most `most` pages of `stretches`.
fn chosen(stretches: &[Range<u64>], most: usize) -> Vec<u64> {
    let all = stretches.iter().map(|stretch| stretch.end - stretch.start).sum();
    let (mut at, mut before) = (0, 0);
    let page = |place: u64| {
        while place - before >= stretches[at].end - stretches[at].start {
            before += stretches[at].end - stretches[at].start;
            at += 1;
        }
        stretches[at].start + place - before
    };
    Choice::new(all, most).places().take(most).map(page).collect()
}

/// Waits for `time` or until it is cancelled; whether it was not.
pub(super) fn wait(time: Duration, cancel: &AtomicBool) -> bool {
    let end = Instant::now() + time;
    loop {
        if cancel.load(Ordering::Relaxed) {
            return false;
        }
        match end.checked_duration_since(Instant::now()) {
            None | Some(Duration::ZERO) => return true,
            Some(left) => std::thread::sleep(left.min(LOOK)),
        }
    }
}

/// Versions of a memory that are at hand as bytes.
#[derive(Debug)]
pub struct Bytes<'a> {
    versions: Vec<&'a [Page]>,
    at: usize,
}

impl<'a> Bytes<'a> {
    /// Of these versions, first to last.
    ///
    /// # Errors
    /// [`Error::Usage`] if there is none, or one has bytes beyond whole pages.
    pub fn new(versions: &[&'a [u8]]) -> Result<Self> {
        let whole = |(index, bytes): (usize, &&'a [u8])| match bytes.as_chunks::<PAGE>() {
            (pages, []) => Ok(pages),
            (_, rest) => {
                let rest = rest.len();
                Err(Error::usage(format!("version {index} has {rest} bytes beyond whole pages of {PAGE}")))
            }
        };
        let versions: Vec<_> = versions.iter().enumerate().map(whole).collect::<Result<_>>()?;
        match versions.is_empty() {
            true => Err(Error::usage("no version of a memory was given")),
            false => Ok(Self { versions, at: 0 }),
        }
    }
}

impl Memory for Bytes<'_> {
    fn stretches(&mut self) -> Result<Vec<Range<u64>>> {
        let most = self.versions.iter().map(|pages| pages.len()).max();
        Ok(std::iter::once(0..most.unwrap_or(0) as u64).collect())
    }

    fn read(&mut self, pages: &[u64], each: &mut dyn FnMut(u64, &Page)) -> Result<()> {
        let version = self.versions[self.at];
        let known = pages.iter().filter_map(|page| Some((*page, version.get(*page as usize)?)));
        known.for_each(|(page, bytes)| each(page, bytes));
        Ok(())
    }

    fn advance(&mut self, _cancel: &AtomicBool) -> Result<bool> {
        self.at += 1;
        Ok(self.at < self.versions.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_chosen_in_runs_all_over_memory() {
        let stretches = [10..20u64, 1000..5000];
        assert_eq!(chosen(&stretches, 5000).len(), 4010);
        let some = chosen(&stretches, 512);
        assert_eq!(some.len(), 512);
        assert_eq!(some[..10], (10..20).collect::<Vec<_>>()[..]);
        assert!(*some.last().unwrap() > 4400 && some.is_sorted(), "{some:?}");
        // Runs of 64, but for the last, which ends with memory.
        let gaps = some.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
        assert!((7..=9).contains(&gaps), "{gaps} gaps");
        assert_eq!(chosen(&stretches, 3), [10, 11, 12]);
        assert_eq!(chosen(&[], 3), [0u64; 0]);
        assert_eq!(chosen(&[0..1 << 50, 1 << 50..1 << 51], 128).len(), 128);
    }

    #[test]
    fn a_place_is_taken_if_it_is_among_the_places() {
        for (all, most) in
            [(1, 1), (64, 64), (1000, 128), (1000, 5000), (4010, 512), (6400, 3200), (777, 700)]
        {
            let choice = Choice::new(all, most);
            let places: Vec<u64> = choice.places().collect();
            let taken: Vec<u64> = (0..all + 200).filter(|place| choice.takes(*place)).collect();
            assert_eq!(places, taken, "{most} of {all}");
            assert!(places.len() <= most.max(BATCH) && !places.is_empty());
        }
    }

    #[test]
    fn later_versions_are_those_of_pages_that_changed() {
        let mut versions = vec![[1u8; 3 * PAGE]; 3];
        versions[1][PAGE] = 2;
        versions[2][PAGE] = 2;
        versions[2][0] = 9;
        let refs: Vec<&[u8]> = versions.iter().map(|version| &version[..]).collect();
        let none = AtomicBool::new(false);
        let taking = Taking { bytes: 1 << 20, rounds: 3 };
        let set = taking.from(&mut Bytes::new(&refs).unwrap(), &none).unwrap();
        let seen: Vec<_> = set.versions().iter().map(|v| (v.round, v.page, v.before)).collect();
        assert_eq!(seen, [(0, 0, None), (0, 1, None), (0, 2, None), (1, 1, Some(1)), (2, 0, Some(0))]);
    }

    #[test]
    fn what_cannot_be_taken_is_refused() {
        let refuse = |bytes, rounds, versions: &[&[u8]]| {
            let mut memory = Bytes::new(versions)?;
            Taking { bytes, rounds }.from(&mut memory, &AtomicBool::new(false))
        };
        let text = |done: Result<PageSet>| done.unwrap_err().to_string();
        assert!(text(refuse(1 << 20, 1, &[])).contains("no version"));
        assert!(text(refuse(1 << 20, 1, &[&[]])).contains("no page"));
        assert!(text(refuse(1 << 20, 1, &[&[0; 5000]])).contains("904 bytes beyond whole pages"));
        assert!(text(refuse(1 << 20, 0, &[&[0; PAGE]])).contains("from 1 to 64 versions, not 0"));
        assert!(text(refuse(10, 1, &[&[0; PAGE]])).contains("10 bytes"));
        assert!(text(refuse(u64::MAX, 1, &[&[0; PAGE]])).contains("8 GiB"));
    }

    #[test]
    fn a_wait_ends_when_it_is_cancelled() {
        assert!(wait(Duration::ZERO, &AtomicBool::new(false)));
        assert!(!wait(Duration::from_secs(3600), &AtomicBool::new(true)));
    }
}
