//! Threads write while a stand-in for a migration harvests and copies. Whenever they pause and a harvest of
//! everything was copied, the copy must equal memory: often, since the next write to a page would make up
//! for one that was lost.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::{blocks, ensure, first, Bench, Make};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, PAGE};

/// Pages written between two looks at whether writers must pause or stop.
const BATCH: u64 = 16;
/// Harvests between two comparisons.
const COMPARED_EACH: u64 = 10;

/// What is raced.
#[derive(Debug, Clone, Copy)]
pub struct Race {
    /// Determines what is written and harvested; not how threads interleave.
    pub seed: u64,
    /// Writer threads; every other one toggles contents between two values, to change pages back.
    pub writers: u64,
    /// Harvests before the writers stop.
    pub harvests: u64,
}

/// The migration's side.
struct Copier {
    bench: Bench,
    /// What the destination would have.
    shadow: GuestMemory,
    random: Pcg64Mcg,
}

/// Runs a race; an [`Error::Verification`] names the pages that were lost.
pub fn race(make: Make<'_>, race: Race) -> Result<()> {
    let bench = Bench::on(make, &blocks(), race.seed % 2 == 0)?;
    let shadow = GuestMemory::new(&blocks())?;
    let mut copier = Copier { bench, shadow, random: Pcg64Mcg::seed_from_u64(race.seed) };
    let (memory, stop, gate) = (copier.bench.memory.clone(), AtomicBool::new(false), RwLock::new(()));
    let copied = std::thread::scope(|scope| {
        let _stopper = StopOnDrop(&stop);
        for writer in 0..race.writers {
            let (memory, stop, gate) = (&memory, &stop, &gate);
            scope.spawn(move || write_until(memory, race.seed ^ writer << 32, writer % 2 == 1, stop, gate));
        }
        copier.round_zero();
        (1..=race.harvests).try_for_each(|harvest| {
            copier.copy_some(&gate)?;
            match harvest % COMPARED_EACH {
                0 => copier.settle(&gate),
                _ => Ok(()),
            }
        })
    });
    copied?;
    copier.settle(&gate)
}

/// Writers must stop however the copier ends, or the scope waits for them for ever.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn write_until(memory: &GuestMemory, seed: u64, toggle: bool, stop: &AtomicBool, gate: &RwLock<()>) {
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    for stamp in 1u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let _open = gate.read().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..BATCH {
            // Half of the writes go to few pages, where they meet harvests.
            let pages = if random.random() { memory.pages() } else { 8 };
            let page = random.random_range(0..pages);
            let value = if toggle { stamp % 2 } else { stamp };
            // Each writer has its own half of the page, so that toggled pages do come back.
            let half = if toggle { 0 } else { PAGE as u64 / 2 };
            memory.write(page * PAGE as u64 + half, &value.to_le_bytes());
        }
    }
}

impl Copier {
    fn round_zero(&mut self) {
        self.bench.all().for_each(|page| self.send(page));
    }

    fn send(&mut self, page: u64) {
        let mut bytes = [0; PAGE];
        self.bench.memory.read_page(page, &mut bytes);
        self.shadow.place_page(page, &bytes);
        self.bench.tracker.sent(page, &bytes);
    }

    /// Harvests some range and copies what was dirty; sometimes a page that a peek shows dirty again is
    /// left to a later harvest, as a migration with the clear discipline `skip` does.
    fn copy_some(&mut self, gate: &RwLock<()>) -> Result<()> {
        let pages = self.some_pages();
        let mut dirty = Bitmap::new(self.bench.memory.pages());
        {
            let paused = self.bench.tracker.needs_pause().then(|| gate.write());
            self.bench.tracker.harvest(pages.clone(), &mut dirty)?;
            drop(paused);
        }
        if self.random.random() {
            let mut again = Bitmap::new(self.bench.memory.pages());
            self.bench.tracker.peek(pages, &mut again)?;
            dirty.subtract(&again);
        }
        self.send_all(&dirty);
        Ok(())
    }

    fn some_pages(&mut self) -> Range<u64> {
        let first = self.random.random_range(0..self.bench.memory.pages());
        match self.random.random_range(0..3) {
            0 => self.bench.all(),
            1 => 0..8,
            _ => first..self.random.random_range(first..self.bench.memory.pages()) + 1,
        }
    }

    /// Copies what is left while the writers pause, and compares.
    fn settle(&mut self, gate: &RwLock<()>) -> Result<()> {
        let _paused = gate.write();
        let mut dirty = Bitmap::new(self.bench.memory.pages());
        self.bench.tracker.harvest(self.bench.all(), &mut dirty)?;
        self.send_all(&dirty);
        self.verify()
    }

    fn send_all(&mut self, dirty: &Bitmap) {
        dirty.runs().flat_map(|run| run.range()).for_each(|page| self.send(page));
    }

    fn verify(&self) -> Result<()> {
        let content = |memory: &GuestMemory, page| {
            let mut bytes = [0; PAGE];
            memory.read_page(page, &mut bytes);
            bytes
        };
        let differs = |page: &u64| content(&self.bench.memory, *page) != content(&self.shadow, *page);
        let lost: Vec<u64> = self.bench.all().filter(differs).collect();
        ensure(lost.is_empty(), || format!("writes to {} pages were lost: {}", lost.len(), first(&lost)))
    }
}

pub(super) fn seeded(make: Make<'_>) -> Result<Vec<String>> {
    for seed in 0..4 {
        let run = race(make, Race { seed, writers: 2, harvests: 300 });
        run.map_err(|e| Error::Verification(format!("seed {seed}: {e}")))?;
    }
    Ok(vec![])
}
