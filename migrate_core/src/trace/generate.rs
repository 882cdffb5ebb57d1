//! Traces of workloads that run in no time: under a virtual clock.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::{Trace, TraceBlock};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::workload::{self, Tick, Work, WORKLOADS};
use crate::guest::{content, GuestMemory, GuestSpec, Layout, Pacing, Region, Workload, PAGE};
use crate::knobs::Spec;

/// Time between two looks at what is due to a workload.
const STEP: Duration = Duration::from_millis(1);
/// Bytes of the memory that a pattern is started in.
const SCRATCH: u64 = 1 << 20;

/// The trace that `guest` would leave, run for `duration` and harvested each `interval`. A pattern needs
/// no memory, so that its guest may have any size; a program that keeps data is run in memory of that size.
/// What workloads at an unlimited rate write depends on the machine, so a rate is needed.
pub fn generate(guest: &GuestSpec, duration: Duration, interval: Duration) -> Result<Trace> {
    if interval < STEP || duration < interval {
        return Err(Error::usage(
            "a trace needs an interval of 1 ms or more and a duration of one or more intervals",
        ));
    }
    let blocks = guest.layout.blocks.iter();
    let blocks =
        blocks.map(|block| TraceBlock { name: block.name.clone(), pages: block.bytes / PAGE as u64 });
    let mut trace = Trace::new(blocks.collect(), interval)?;
    let mut writers = writers(guest, trace.pages())?;
    let mut dirty = Bitmap::new(trace.pages());
    for index in 1..=(duration.as_nanos() / interval.as_nanos()) as u32 {
        dirty.clear_all();
        writers.iter_mut().try_for_each(|writer| writer.run_until(interval * index, &mut dirty))?;
        trace.push(dirty.runs())?;
    }
    Ok(trace)
}

fn writers(guest: &GuestSpec, pages: u64) -> Result<Vec<Writer>> {
    let parts = guest.workloads.len() as u64;
    if !(1..=pages).contains(&parts) {
        return Err(Error::usage("a guest needs a workload or more, and a page for each"));
    }
    let memory = memory(guest)?;
    let writer = |(index, spec)| {
        let edge = |index| pages * index / parts;
        // A pattern asks its region for nothing when it starts, so that any will do.
        let scratch = || Ok(Region::whole(&Arc::new(GuestMemory::new(&Layout::single(SCRATCH))?)));
        let ram =
            memory.as_ref().map(|memory| Ok(Region::part(memory, index, parts))).unwrap_or_else(scratch)?;
        let program = workload::start(spec, guest.vcpu_seed(index), &ram)?;
        let ram = memory.is_some().then_some(ram);
        Ok(Writer {
            program,
            pages: edge(index)..edge(index + 1),
            ram,
            pacing: Pacing::default(),
            now: Duration::ZERO,
        })
    };
    (0..).zip(&guest.workloads).map(writer).collect()
}

/// Memory for programs whose writes depend on what it holds; none where there are only patterns.
fn memory(guest: &GuestSpec) -> Result<Option<Arc<GuestMemory>>> {
    let keeps_data = |spec: &Spec| Ok(WORKLOADS.find(&spec.name)?.make.keeps_data);
    if !guest.workloads.iter().map(keeps_data).collect::<Result<Vec<bool>>>()?.contains(&true) {
        return Ok(None);
    }
    let memory = Arc::new(GuestMemory::new(&guest.layout)?);
    content::fill(&memory, &guest.fill, guest.seed)?;
    Ok(Some(memory))
}

/// A workload with its share of pages, and how far it has run.
struct Writer {
    program: Box<dyn Workload>,
    pages: Range<u64>,
    ram: Option<Region>,
    pacing: Pacing,
    now: Duration,
}

impl Writer {
    fn run_until(&mut self, end: Duration, dirty: &mut Bitmap) -> Result<()> {
        while self.now < end {
            let rate = self.program.rate(self.now);
            if rate.is_infinite() {
                let name = self.program.name();
                return Err(Error::usage(format!(
                    "{name}: a generated trace needs a rate; 0 means as fast as a machine can"
                )));
            }
            let budget = self.pacing.budget(rate, self.now);
            let wrote = if budget == 0 { 0 } else { self.write(budget, dirty)? };
            self.pacing.wrote(wrote);
            self.now += self.pacing.wait(Work { written: wrote, ..Work::default() }).min(end - self.now);
        }
        Ok(())
    }

    fn write(&mut self, budget: u64, dirty: &mut Bitmap) -> Result<u64> {
        let (tick, first) = (Tick { now: self.now, budget }, self.pages.start);
        let size = self.pages.end - first;
        if let Some(work) = self.program.foresee(size, tick, &mut |page| dirty.set(first + page)) {
            return Ok(work?.written);
        }
        let Some(ram) = &self.ram else {
            let name = self.program.name();
            return Err(Error::usage(format!("{name} cannot be generated: record it while it runs")));
        };
        let log = ram.memory().write_log();
        let work = self.program.run(ram, tick)?;
        log.harvest_range(self.pages.clone(), dirty);
        Ok(work.written)
    }
}
