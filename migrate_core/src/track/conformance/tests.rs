//! Our trackers, those that work on this machine, through the kit; and trackers that are broken on
//! purpose, which the kit must find out.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::knobs::Spec;
use crate::track::{find_for, Writers, TRACKERS};

/// Whether `name` works here; says why not, so that a skipped test is seen.
fn works(name: &str) -> bool {
    match (TRACKERS.find(name).unwrap().make.probe)() {
        Ok(()) => true,
        Err(error) => {
            println!("skipped: {error}");
            false
        }
    }
}

fn conforms(spec: &Spec) {
    if works(&spec.name) {
        let remarks = check(&|| find_for(spec, Writers::Workloads)).unwrap();
        println!("{}: {remarks:#?}", spec.name);
    }
}

#[test]
fn uffd_async_conforms() {
    conforms(&Spec::new("uffd-async"));
}

#[test]
fn soft_dirty_conforms() {
    conforms(&Spec::new("soft-dirty"));
}

#[test]
fn uffd_sync_conforms() {
    conforms(&Spec::new("uffd-sync"));
}

#[test]
fn software_conforms() {
    conforms(&Spec::new("software"));
}

#[test]
fn compare_conforms_with_hashes_and_with_copies() {
    conforms(&Spec::new("compare"));
    conforms(&Spec::new("compare").with("keep", "copy"));
}

fn step() -> impl Strategy<Value = Step> {
    let range = || (0..model::pages(), 1..80u64).prop_map(|(first, pages)| first..first + pages);
    prop_oneof![
        3 => range().prop_map(Step::Write),
        1 => range().prop_map(Step::Read),
        1 => range().prop_map(Step::Discard),
        1 => range().prop_map(Step::Peek),
        2 => range().prop_map(Step::Harvest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn any_course_agrees_with_a_set(
        populate in any::<bool>(),
        steps in proptest::collection::vec(step(), 0..30),
    ) {
        // Not soft-dirty: it is the process's own, and tests run side by side.
        for name in ["uffd-async", "uffd-sync", "software", "compare"].into_iter().filter(|name| works(name)) {
            let run = replay(&|| find_for(&Spec::new(name), Writers::Workloads), populate, &steps);
            prop_assert!(run.is_ok(), "{name}: {}", run.unwrap_err());
        }
    }
}

/// How a tracker is broken.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    None,
    MissesLastPage,
    ReportsAll,
    PeekClears,
    ForgetsOthers,
    HarvestKeeps,
    StaysArmed,
    ClearsTwice,
    BlindPeek,
}

/// A software tracker with a fault.
struct Broken {
    memory: Option<Arc<GuestMemory>>,
    fault: Fault,
}

impl Tracker for Broken {
    fn name(&self) -> &'static str {
        "broken"
    }

    fn arm(&mut self, memory: &Arc<GuestMemory>) -> Result<()> {
        memory.write_log().harvest(&mut Bitmap::new(memory.pages()));
        self.memory = Some(Arc::clone(memory));
        Ok(())
    }

    fn harvest(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let memory = self.memory.as_ref().ok_or_else(|| Error::usage("not armed"))?;
        let (log, all) = (memory.write_log(), 0..memory.pages());
        match self.fault {
            Fault::MissesLastPage => log.harvest_range(pages.start..pages.end.min(all.end - 1), into),
            Fault::ReportsAll => into.set_range(pages),
            Fault::HarvestKeeps => log.peek_range(pages, into),
            Fault::ForgetsOthers => {
                log.peek_range(pages, into);
                log.harvest(&mut Bitmap::new(all.end));
            }
            // Reading and clearing in two steps, without asking for a pause.
            Fault::ClearsTwice => {
                log.peek_range(pages.clone(), into);
                std::thread::sleep(std::time::Duration::from_micros(100));
                log.harvest_range(pages, &mut Bitmap::new(all.end));
            }
            _ => log.harvest_range(pages, into),
        }
        Ok(())
    }

    fn peek(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let memory = self.memory.as_ref().ok_or_else(|| Error::usage("not armed"))?;
        match self.fault {
            Fault::PeekClears => memory.write_log().harvest_range(pages, into),
            Fault::BlindPeek => {}
            _ => memory.write_log().peek_range(pages, into),
        }
        Ok(())
    }

    fn disarm(&mut self) {
        if self.fault != Fault::StaysArmed {
            self.memory = None;
        }
    }
}

#[test]
fn the_kit_finds_broken_trackers_out() {
    let run = |fault| check(&move || Ok(Box::new(Broken { memory: None, fault })));
    run(Fault::None).unwrap();
    let faults = [
        Fault::MissesLastPage,
        Fault::ReportsAll,
        Fault::PeekClears,
        Fault::ForgetsOthers,
        Fault::HarvestKeeps,
        Fault::StaysArmed,
        Fault::ClearsTwice,
        Fault::BlindPeek,
    ];
    for fault in faults {
        let error = run(fault).expect_err(&format!("{fault:?} went unnoticed"));
        println!("{fault:?}: {error}");
    }
}
