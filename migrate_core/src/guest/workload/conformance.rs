//! What every workload must do, ours or made elsewhere: run it over a workload and it passes, or the error
//! says where not.

use std::sync::Arc;
use std::time::Duration;

use super::{Tick, Work, Workload, WORKLOADS};
use crate::error::{Error, Result};
use crate::guest::content;
use crate::guest::random::scramble;
use crate::guest::{GuestMemory, Layout, Region, Restore, PAGE};
use crate::knobs::Spec;

/// Starts a workload with a seed in a region.
pub type Start<'a> = &'a dyn Fn(u64, &Region) -> Result<Box<dyn Workload>>;

/// A workload under test, as its maker would start it.
pub struct Subject<'a> {
    /// Starts it with a seed in a region.
    pub boot: Start<'a>,
    /// Restores it out of its saved state.
    pub restore: Restore<'a>,
    /// Whether its check vouches for every byte that it has laid out.
    pub keeps_data: bool,
}

/// Memory of the tests: three parts, the workload has the middle one.
const BYTES: u64 = 2 << 20;
/// Ticks of a run; the guest time of all is more than a cycle of the schedule that phases have by default.
const TICKS: u64 = 120;
/// Bytes that an operation may write beyond its budget.
const SLACK: u64 = 32 * PAGE as u64;
/// Bytes that are flipped, one at a time.
const FLIPS: u64 = 60;

/// Runs all tests over the registry's workload that `spec` names.
pub fn conforms(spec: &Spec) -> Result<()> {
    let entry = WORKLOADS.find(&spec.name)?;
    let boot = |seed, ram: &Region| (entry.make.boot)(&spec.knobs, seed, ram);
    let subject =
        Subject { boot: &boot, restore: &crate::guest::restore_known, keeps_data: entry.make.keeps_data };
    subject.conforms()
}

/// A workload that was started in memory of its own.
struct Trial {
    memory: Arc<GuestMemory>,
    ram: Region,
    program: Box<dyn Workload>,
}

fn demand(holds: bool, what: impl FnOnce() -> String) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Verification(what()))
}

/// Tick number `i`: budgets and pauses of all sizes.
fn tick(i: u64) -> Tick {
    Tick { now: Duration::from_millis(i * 197), budget: (1 + scramble(i) % 64) * PAGE as u64 }
}

impl Trial {
    fn hash(&self, pages: std::ops::Range<u64>) -> u64 {
        pages.fold(0, |sum, page| scramble(sum ^ self.memory.hash_page(page)))
    }

    fn all(&self) -> u64 {
        self.hash(0..self.memory.pages())
    }

    fn neighbours(&self) -> [u64; 2] {
        let end = self.ram.first_page() + self.ram.pages();
        [self.hash(0..self.ram.first_page()), self.hash(end..self.memory.pages())]
    }

    fn run(&mut self, ticks: std::ops::Range<u64>) -> Result<Work> {
        let mut sum = Work::default();
        for i in ticks {
            let work = self.program.run(&self.ram, tick(i))?;
            let budget = tick(i).budget;
            demand(work.written <= budget + SLACK, || {
                format!("{} bytes were written of a budget of {budget}", work.written)
            })?;
            sum.written += work.written;
            sum.operations += work.operations;
        }
        Ok(sum)
    }

    fn flip(&self, at: u64) {
        let mut byte = [0];
        self.ram.read(at, &mut byte);
        self.ram.write(at, &[byte[0] ^ 0x10]);
    }

    /// Whether the check sees byte `at` flipped.
    fn sees_flip(&self, at: u64) -> bool {
        self.flip(at);
        let seen = self.program.check(&self.ram).is_err();
        self.flip(at);
        seen
    }
}

impl Subject<'_> {
    /// Runs all tests.
    pub fn conforms(&self) -> Result<()> {
        self.keeps_inside_and_to_its_budget()?;
        self.follows_its_seed()?;
        self.goes_on_after_saving()?;
        self.goes_on_in_another_memory()?;
        self.starts_small_or_refuses()?;
        if self.keeps_data {
            self.finds_damage()?;
            self.finds_stale_pages()?;
        }
        Ok(())
    }

    fn start(&self, seed: u64, fill: u64) -> Result<Trial> {
        let memory = Arc::new(GuestMemory::new(&Layout::single(BYTES))?);
        content::fill(&memory, &Spec::new("random"), fill)?;
        let ram = Region::part(&memory, 1, 3);
        let program = (self.boot)(seed, &ram)?;
        Ok(Trial { memory, ram, program })
    }

    fn restored(&self, program: &dyn Workload) -> Result<Box<dyn Workload>> {
        // Through text, as over the wire.
        let text = program.save()?.to_string();
        let state = serde_json::from_str(&text).map_err(|e| Error::Verification(e.to_string()))?;
        (self.restore)(program.name(), state)
    }

    /// Pages beside the region stay as they are; the check passes after any number of ticks; what is said
    /// to be written is near what was asked for.
    pub fn keeps_inside_and_to_its_budget(&self) -> Result<()> {
        let mut trial = self.start(1, 1)?;
        let (before, was) = (trial.neighbours(), trial.all());
        trial.program.check(&trial.ram)?;
        let mut sum = Work::default();
        for i in 0..TICKS {
            let work = trial.run(i..i + 1)?;
            sum.written += work.written;
            sum.operations += work.operations;
            trial.program.check(&trial.ram)?;
        }
        demand(sum.written > 0 && sum.operations > 0, || "nothing was written or counted".into())?;
        demand(trial.all() != was, || "memory is as it was".into())?;
        demand(trial.neighbours() == before, || "pages outside its region were written".into())
    }

    /// Equal seeds give equal memory under equal ticks.
    pub fn follows_its_seed(&self) -> Result<()> {
        let (mut a, mut b) = (self.start(5, 1)?, self.start(5, 1)?);
        demand(a.all() == b.all(), || "two starts with one seed differ".into())?;
        a.run(0..TICKS)?;
        b.run(0..TICKS)?;
        demand(a.all() == b.all(), || "two runs with one seed differ".into())
    }

    /// Saved and restored, it does what it would have done.
    pub fn goes_on_after_saving(&self) -> Result<()> {
        let (mut a, mut b) = (self.start(6, 1)?, self.start(6, 1)?);
        a.run(0..TICKS)?;
        for i in 0..TICKS {
            if i % 7 == 3 {
                b.program = self.restored(b.program.as_ref())?;
            }
            b.run(i..i + 1)?;
        }
        demand(a.all() == b.all(), || "a run that was saved and restored differs".into())
    }

    /// Moved to a copy of its memory it checks and goes on as it would have.
    pub fn goes_on_in_another_memory(&self) -> Result<()> {
        let (mut a, half) = (self.start(7, 1)?, TICKS / 2 + 1);
        a.run(0..half)?;
        let memory = Arc::new(GuestMemory::new(&a.memory.layout())?);
        let mut bytes = [0; PAGE];
        for page in 0..memory.pages() {
            a.memory.read_page(page, &mut bytes);
            memory.place_page(page, &bytes);
        }
        let ram = Region::part(&memory, 1, 3);
        let mut b = Trial { memory, ram, program: self.restored(a.program.as_ref())? };
        b.program.check(&b.ram)?;
        a.run(half..TICKS)?;
        b.run(half..TICKS)?;
        b.program.check(&b.ram)?;
        demand(a.all() == b.all(), || "it went on otherwise in another memory".into())
    }

    /// In any region it starts and runs, or refuses it as too small with a usage error.
    pub fn starts_small_or_refuses(&self) -> Result<()> {
        for parts in [512, 256, 170, 100, 64, 50, 30, 20, 10] {
            let memory = Arc::new(GuestMemory::new(&Layout::single(BYTES))?);
            content::fill(&memory, &Spec::new("random"), parts)?;
            let ram = Region::part(&memory, 1, parts);
            match (self.boot)(1, &ram) {
                Ok(program) => {
                    let mut trial = Trial { memory, ram, program };
                    trial.run(0..TICKS / 4)?;
                    trial.program.check(&trial.ram)?;
                }
                Err(Error::Usage(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }

    /// Any byte that it has laid out is vouched for: flipped, it fails the check; flipped back, it passes.
    pub fn finds_damage(&self) -> Result<()> {
        let (a, b) = (self.start(8, 1)?, self.start(8, 2)?);
        let own = own_bytes(&a, &b);
        demand(!own.is_empty(), || "it keeps no data".into())?;
        for i in 0..FLIPS {
            let at = own[scramble(i) as usize % own.len()];
            demand(a.sees_flip(at), || format!("byte {at} was flipped, and the check passes"))?;
        }
        a.program.check(&a.ram)
    }

    /// A page as it was some time ago, whole in itself, is damage too: what a lost write would leave. Pages
    /// without live data may be stale (a heap is mostly garbage); a tenth of those that changed must not be.
    pub fn finds_stale_pages(&self) -> Result<()> {
        let (mut old, mut young) = (self.start(9, 1)?, self.start(9, 1)?);
        old.run(0..TICKS / 2)?;
        young.run(0..TICKS)?;
        let (mut changed, mut found) = (0, 0);
        let first = young.ram.first_page();
        for page in first..first + young.ram.pages() {
            let (mut stale, mut fresh) = ([0; PAGE], [0; PAGE]);
            old.memory.read_page(page, &mut stale);
            young.memory.read_page(page, &mut fresh);
            if stale != fresh {
                changed += 1;
                young.memory.place_page(page, &stale);
                found += u64::from(young.program.check(&young.ram).is_err());
                young.memory.place_page(page, &fresh);
            }
        }
        demand(changed > 0 && found * 10 >= changed, || {
            format!("of {changed} stale pages the check found {found}")
        })
    }
}

/// Offsets of bytes that are the same after two starts over different memory: what the workload wrote, and
/// some that are equal by chance, which sampling a whole word of equal bytes leaves out.
fn own_bytes(a: &Trial, b: &Trial) -> Vec<u64> {
    let words = (0..a.ram.bytes() / 8).map(|word| word * 8);
    words.filter(|at| a.ram.read_u64(*at) == b.ram.read_u64(*at)).flat_map(|at| at..at + 8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::content::CONTENTS;
    use crate::knobs::{Given, Knob};

    /// Why this machine cannot run the workload, if it cannot.
    fn missing(name: &str) -> Option<String> {
        #[cfg(feature = "kvm")]
        if name == "kvm" && !crate::guest::kvm::probe().works {
            return Some(crate::guest::kvm::probe().reason.to_string());
        }
        let _ = name;
        None
    }

    #[test]
    fn every_workload_conforms() {
        std::thread::scope(|scope| {
            for entry in WORKLOADS.entries {
                if let Some(reason) = missing(entry.name) {
                    println!("workload {} is not tried: {reason}", entry.name);
                    continue;
                }
                let conforms =
                    || conforms(&Spec::new(entry.name)).unwrap_or_else(|e| panic!("{}: {e}", entry.name));
                scope.spawn(conforms);
            }
        });
    }

    #[test]
    fn every_content_and_mix_conforms() {
        for entry in CONTENTS.entries {
            let spec = Spec::new("sweep").with("content", serde_json::json!({"name": entry.name}));
            conforms(&spec).unwrap_or_else(|e| panic!("sweep of {}: {e}", entry.name));
        }
        for workload in ["kv", "gc"] {
            let spec = Spec::new(workload).with("content", serde_json::json!({"name": "counter"}));
            conforms(&spec).unwrap_or_else(|e| panic!("{workload} of counters: {e}"));
        }
        for mix in ["b", "f"] {
            conforms(&Spec::new("kv").with("mix", mix).with("value_bytes", 77)).unwrap();
        }
    }

    #[test]
    fn knobs_out_of_range_are_usage_errors() {
        let memory = Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap());
        let ram = Region::whole(&memory);
        let wrong = |knob: &Knob| {
            let (least, most) = knob.range.unwrap_or((0.0, 0.0));
            let numbers = [least - 1.0, most * 2.0 + 1.0].map(serde_json::Value::from);
            let none = knob.range.is_none();
            if none {
                vec![serde_json::json!(true), serde_json::json!({"name": "?"})]
            } else {
                numbers.into()
            }
        };
        for entry in WORKLOADS.entries {
            for knob in entry.knobs {
                for value in wrong(knob) {
                    let given: Given = [(knob.name.to_owned(), value.clone())].into_iter().collect();
                    let refused = (entry.make.boot)(&given, 1, &ram);
                    assert!(matches!(refused, Err(Error::Usage(_))), "{} {}={value}", entry.name, knob.name);
                }
            }
            let unknown: Given = [("nonsense".to_owned(), 1.into())].into_iter().collect();
            assert!((entry.make.boot)(&unknown, 1, &ram).is_err());
        }
    }

    #[test]
    fn the_page_of_workloads_names_every_part() {
        let page = include_str!("../../../../docs/workloads.md");
        let names = WORKLOADS.entries.iter().map(|e| e.name).chain(CONTENTS.entries.iter().map(|e| e.name));
        for name in names {
            assert!(page.contains(&format!("| `{name}` |")), "docs/workloads.md does not tell of `{name}`");
        }
    }
}
