//! What every tracker must keep, as cases that any tracker can be put through: ours and a user's own.
//!
//! A case answers with remarks on what a tracker may do but need not (report pages that were only read,
//! say), or with the promise that was broken. All randomness comes from seeds that the error names.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::{span, Tracker};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::{Backing, BlockSpec, GuestMemory, HugePages, Layout, PAGE};

mod model;
mod oracle;

pub use model::{random_steps, replay, Step};
pub use oracle::{race, Race};

/// Makes unarmed trackers of the kind under test.
pub type Make<'a> = &'a (dyn Fn() -> Result<Box<dyn Tracker>> + Sync);

/// A case: its name, and what runs it. Remarks come back; a broken promise is an
/// [`Error::Verification`].
pub struct Case {
    /// What is promised.
    pub name: &'static str,
    /// Tries it.
    pub run: fn(Make<'_>) -> Result<Vec<String>>,
}

/// The cases.
pub static CASES: &[Case] = &[
    Case { name: "nothing is dirty after arming", run: clean_after_arm },
    Case { name: "written pages are reported, and none again", run: reported_once },
    Case { name: "a harvested page that is written again is reported again", run: rearmed },
    Case { name: "a harvest of a range leaves the others", run: ranges_are_apart },
    Case { name: "a peek clears nothing", run: peek_keeps },
    Case { name: "a page that a peek showed dirty stays so", run: peeked_stays },
    Case { name: "the first and the last page of each block", run: edges },
    Case { name: "pages that were never touched before", run: unpopulated },
    Case { name: "a read is not a write", run: reads },
    Case { name: "discarded pages that are written", run: discards },
    Case { name: "transparent huge pages", run: huge_pages },
    Case { name: "reserved huge pages", run: reserved_pages },
    Case { name: "arming again starts afresh, disarming ends it", run: arm_again },
    Case { name: "a random course agrees with a set", run: model::seeded },
    Case { name: "nothing is lost under concurrent writers", run: oracle::seeded },
];

/// Puts trackers made by `make` through all [`CASES`]; the remarks, each with its case's name.
pub fn check(make: Make<'_>) -> Result<Vec<String>> {
    let mut remarks = Vec::new();
    for case in CASES {
        let named = |e: Error| Error::Verification(format!("{}: {e}", case.name));
        let remarked = (case.run)(make).map_err(named)?;
        remarks.extend(remarked.into_iter().map(|remark| format!("{}: {remark}", case.name)));
    }
    Ok(remarks)
}

/// An armed tracker on memory of several blocks, used as a migration would use it.
pub(super) struct Bench {
    pub(super) memory: Arc<GuestMemory>,
    pub(super) tracker: Box<dyn Tracker>,
    stamp: u64,
}

/// Private and shared blocks, none a multiple of 64 pages, of about 2 MiB in all.
pub(super) fn blocks() -> Layout {
    let block =
        |name: &str, pages: u64, backing| BlockSpec { backing, ..BlockSpec::new(name, pages * PAGE as u64) };
    let private = block("private", 259, Backing::Anonymous);
    Layout {
        blocks: vec![private, block("shared", 131, Backing::Memfd), block("small", 1, Backing::Anonymous)],
    }
}

impl Bench {
    /// All pages present and, for trackers that compare, sent.
    pub(super) fn new(make: Make<'_>) -> Result<Self> {
        Self::on(make, &blocks(), true)
    }

    pub(super) fn on(make: Make<'_>, layout: &Layout, populate: bool) -> Result<Self> {
        let memory = Arc::new(GuestMemory::new(layout)?);
        if populate {
            memory.populate()?;
        }
        let mut tracker = make()?;
        tracker.arm(&memory)?;
        Ok(Self { memory, tracker, stamp: 0 })
    }

    pub(super) fn all(&self) -> Range<u64> {
        0..self.memory.pages()
    }

    /// Writes a value never written before to each page.
    pub(super) fn write(&mut self, pages: impl IntoIterator<Item = u64>) {
        for page in pages {
            self.stamp += 1;
            self.memory.write(page * PAGE as u64 + 8 * (page % 512), &self.stamp.to_le_bytes());
        }
    }

    /// Gives pages back to the system.
    pub(super) fn discard(&self, pages: Range<u64>) -> Result<()> {
        self.memory.split(pages).try_for_each(|(block, pages)| span::discard(block, &pages))
    }

    /// The harvested pages, which count as sent: [`Tracker::sent`] is told of them.
    pub(super) fn harvest(&mut self, pages: Range<u64>) -> Result<BTreeSet<u64>> {
        let mut dirty = Bitmap::new(self.memory.pages());
        self.tracker.harvest(pages.clone(), &mut dirty)?;
        let dirty = inside(&dirty, &pages)?;
        for page in &dirty {
            let mut bytes = [0; PAGE];
            self.memory.read_page(*page, &mut bytes);
            self.tracker.sent(*page, &bytes);
        }
        Ok(dirty)
    }

    pub(super) fn peek(&mut self, pages: Range<u64>) -> Result<BTreeSet<u64>> {
        let mut dirty = Bitmap::new(self.memory.pages());
        self.tracker.peek(pages.clone(), &mut dirty)?;
        inside(&dirty, &pages)
    }

    fn nothing_dirty(&mut self, when: &str) -> Result<()> {
        let dirty = self.harvest(self.all())?;
        ensure(dirty.is_empty(), || {
            format!("{when} {} pages are dirty, {:?} first", dirty.len(), dirty.first())
        })
    }
}

fn inside(dirty: &Bitmap, asked: &Range<u64>) -> Result<BTreeSet<u64>> {
    let dirty: BTreeSet<u64> = dirty.runs().flat_map(|run| run.range()).collect();
    let stray = dirty.iter().find(|page| !asked.contains(page));
    ensure(stray.is_none(), || format!("asked for {asked:?}, page {stray:?} was reported"))?;
    Ok(dirty)
}

pub(super) fn ensure(kept: bool, broken: impl FnOnce() -> String) -> Result<()> {
    if kept {
        return Ok(());
    }
    Err(Error::Verification(broken()))
}

/// An error if a written page is not among the reported; a remark if others are.
fn superset(reported: &BTreeSet<u64>, written: impl IntoIterator<Item = u64>) -> Result<Vec<String>> {
    let written: BTreeSet<u64> = written.into_iter().collect();
    let missing: Vec<u64> = written.difference(reported).copied().collect();
    ensure(missing.is_empty(), || {
        format!("{} written pages were missed: {}", missing.len(), first(&missing))
    })?;
    let extra = reported.len() - written.len();
    Ok(if extra > 0 { vec![format!("{extra} pages beside the {} written", written.len())] } else { vec![] })
}

/// The first few of `pages`, for a message.
pub(super) fn first(pages: &[u64]) -> String {
    let more = if pages.len() > 8 { ", …" } else { "" };
    let pages: Vec<String> = pages.iter().take(8).map(u64::to_string).collect();
    pages.join(", ") + more
}

fn clean_after_arm(make: Make<'_>) -> Result<Vec<String>> {
    let mut bench = Bench::new(make)?;
    let peeked = bench.peek(bench.all())?;
    ensure(peeked.is_empty(), || format!("a peek shows {} dirty pages", peeked.len()))?;
    bench.nothing_dirty("right after arming")?;
    Ok(vec![])
}

fn reported_once(make: Make<'_>) -> Result<Vec<String>> {
    let mut bench = Bench::new(make)?;
    let written: Vec<u64> = (0..bench.memory.pages()).step_by(2).collect();
    bench.write(written.clone());
    let remarks = superset(&bench.harvest(bench.all())?, written)?;
    bench.nothing_dirty("after a harvest and no write")?;
    Ok(remarks)
}

fn rearmed(make: Make<'_>) -> Result<Vec<String>> {
    let mut bench = Bench::new(make)?;
    for pages in [0..bench.memory.pages(), 3..4, 3..4, 258..260] {
        bench.write(pages.clone());
        superset(&bench.harvest(bench.all())?, pages)?;
    }
    Ok(vec![])
}

fn ranges_are_apart(make: Make<'_>) -> Result<Vec<String>> {
    let mut bench = Bench::new(make)?;
    bench.write(bench.all());
    // Across the meeting of two blocks, then the two sides of it.
    superset(&bench.harvest(200..300)?, 200..300)?;
    bench.write([250]);
    superset(&bench.harvest(0..200)?, 0..200)?;
    let rest = (300..bench.memory.pages()).chain([250]);
    superset(&bench.harvest(bench.all())?, rest)?;
    bench.nothing_dirty("after all ranges were harvested")?;
    Ok(vec![])
}

fn peek_keeps(make: Make<'_>) -> Result<Vec<String>> {
    let mut bench = Bench::new(make)?;
    bench.write([5, 6, 300]);
    for _ in 0..2 {
        superset(&bench.peek(0..100)?, [5, 6])?;
        superset(&bench.peek(bench.all())?, [5, 6, 300])?;
    }
    superset(&bench.harvest(bench.all())?, [5, 6, 300])?;
    let peeked = bench.peek(bench.all())?;
    ensure(peeked.is_empty(), || format!("{} pages peeked after a harvest", peeked.len()))?;
    Ok(vec![])
}

/// With the clear discipline `skip` a page that is dirty again is left unsent: the next harvest must report
/// it, even to a tracker that compares and finds it as it was at the last one.
fn peeked_stays(make: Make<'_>) -> Result<Vec<String>> {
    let mut bench = Bench::new(make)?;
    let (at, mut unsent) = (9 * PAGE as u64, Bitmap::new(bench.memory.pages()));
    bench.memory.write(at, &[1]);
    bench.tracker.harvest(bench.all(), &mut unsent)?;
    bench.memory.write(at, &[2]);
    superset(&bench.peek(bench.all())?, [9])?;
    bench.memory.write(at, &[1]);
    superset(&bench.harvest(bench.all())?, [9])
}

fn edges(make: Make<'_>) -> Result<Vec<String>> {
    let mut bench = Bench::new(make)?;
    let ends = |block: &crate::guest::RamBlock| [block.first_page(), block.first_page() + block.pages() - 1];
    let edges: BTreeSet<u64> = bench.memory.blocks().iter().flat_map(ends).collect();
    for page in edges.iter().copied() {
        bench.write([page]);
        superset(&bench.harvest(page..page + 1)?, [page])?;
    }
    bench.write(edges.iter().copied());
    superset(&bench.harvest(bench.all())?, edges)?;
    // A write across the meeting of two blocks touches both.
    bench.memory.write(259 * PAGE as u64 - 4, &[0xff; 8]);
    superset(&bench.harvest(bench.all())?, [258, 259])
}

fn unpopulated(make: Make<'_>) -> Result<Vec<String>> {
    let mut bench = Bench::on(make, &blocks(), false)?;
    bench.nothing_dirty("right after arming untouched memory")?;
    let written: Vec<u64> = (0..bench.memory.pages()).step_by(3).collect();
    bench.write(written.clone());
    superset(&bench.harvest(bench.all())?, written.clone())?;
    bench.write(written.clone());
    let remarks = superset(&bench.harvest(bench.all())?, written)?;
    bench.write([1]);
    superset(&bench.harvest(bench.all())?, [1])?;
    Ok(remarks)
}

fn reads(make: Make<'_>) -> Result<Vec<String>> {
    let mut remarks = Vec::new();
    for (populate, what) in [(true, "read"), (false, "untouched pages that were read")] {
        let mut bench = Bench::on(make, &blocks(), populate)?;
        bench.all().for_each(|page| bench.memory.read(page * PAGE as u64, &mut [0]));
        let extra = bench.harvest(bench.all())?.len();
        if extra > 0 {
            remarks.push(format!("{extra} {what} are reported"));
        }
        bench.write([7, 300]);
        superset(&bench.harvest(bench.all())?, [7, 300])?;
    }
    Ok(remarks)
}

fn discards(make: Make<'_>) -> Result<Vec<String>> {
    let mut bench = Bench::new(make)?;
    bench.write(bench.all());
    bench.harvest(bench.all())?;
    let mut remarks = Vec::new();
    for read_back in [false, true] {
        bench.discard(10..20)?;
        if read_back {
            bench.memory.read(10 * PAGE as u64, &mut [0; 10 * PAGE]);
        }
        if superset(&bench.harvest(bench.all())?, 10..20).is_err() {
            let what = if read_back { "that are read back" } else { "alone" };
            remarks.push(format!("discarded pages {what} are not reported"));
        }
        for _ in 0..2 {
            bench.write([12, 13]);
            superset(&bench.harvest(bench.all())?, [12, 13])?;
        }
        bench.discard(10..20)?;
        bench.write([14]);
        superset(&bench.harvest(bench.all())?, [14])?;
        bench.write(10..20);
        superset(&bench.harvest(bench.all())?, 10..20)?;
    }
    Ok(remarks)
}

fn huge_pages(make: Make<'_>) -> Result<Vec<String>> {
    let spec = BlockSpec { huge: HugePages::Transparent, ..BlockSpec::new("huge", 6 << 20) };
    let mut bench = Bench::on(make, &Layout { blocks: vec![spec] }, true)?;
    let first = span::first_huge(&bench.memory.blocks()[0]);
    let huge = first..first + span::HUGE;
    bench.nothing_dirty("right after arming")?;
    bench.write([first + 5]);
    superset(&bench.harvest(first + 5..first + 6)?, [first + 5])?;
    bench.write(huge.clone());
    let remarks = superset(&bench.harvest(bench.all())?, huge.clone())?;
    for harvest_between in [false, true] {
        bench.discard(huge.clone())?;
        if harvest_between {
            bench.harvest(bench.all())?;
        }
        for _ in 0..2 {
            bench.write([first + 7]);
            superset(&bench.harvest(bench.all())?, [first + 7])?;
        }
    }
    Ok(remarks)
}

fn reserved_pages(make: Make<'_>) -> Result<Vec<String>> {
    let block = |name: &str, backing| BlockSpec {
        backing,
        huge: HugePages::Explicit,
        ..BlockSpec::new(name, 4 << 20)
    };
    let layout =
        Layout { blocks: vec![block("private", Backing::Anonymous), block("shared", Backing::Memfd)] };
    if let Err(none) = GuestMemory::new(&layout).and_then(|memory| memory.populate()) {
        return Ok(vec![format!("not tried: {none}")]);
    }
    let mut bench = Bench::on(make, &layout, true)?;
    let (edge, end) = (bench.memory.blocks()[1].first_page(), bench.memory.pages());
    bench.nothing_dirty("right after arming")?;
    bench.write([3, span::HUGE + 1, edge, end - 1]);
    superset(&bench.harvest(2..4)?, [3])?;
    superset(&bench.harvest(edge..edge + 1)?, [edge])?;
    bench.write([3]);
    let rest = [3, span::HUGE + 1, end - 1];
    superset(&bench.peek(bench.all())?, rest)?;
    let remarks = superset(&bench.harvest(bench.all())?, rest)?;
    bench.nothing_dirty("after everything was harvested")?;
    Ok(remarks)
}

fn arm_again(make: Make<'_>) -> Result<Vec<String>> {
    let mut bench = Bench::new(make)?;
    bench.write([1, 2]);
    bench.tracker.disarm();
    let unarmed = bench.tracker.harvest(0..1, &mut Bitmap::new(bench.memory.pages()));
    ensure(unarmed.is_err(), || "a disarmed tracker harvests".into())?;
    bench.write([3]);
    for _ in 0..2 {
        bench.tracker.arm(&Arc::clone(&bench.memory))?;
        bench.nothing_dirty("after arming again")?;
        bench.write([4]);
        superset(&bench.harvest(bench.all())?, [4])?;
        bench.write([5]);
    }
    Ok(vec![])
}

#[cfg(test)]
mod tests;
