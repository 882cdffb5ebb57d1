//! What tracking costs a writer.

use std::sync::Arc;
use std::time::Instant;

use super::{find, Tracker};
use crate::bitmap::Bitmap;
use crate::error::Result;
use crate::guest::{GuestMemory, Layout, PAGE};
#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
use crate::{
    guest::{kvm, Region},
    track::TRACKERS,
};

/// Scratch memory that is written: enough pages to make the clock's own cost small.
const BYTES: u64 = 4 << 20;
/// Passes, of which the quickest counts: what disturbs a pass only makes it slower.
const PASSES: usize = 5;

/// Writes to all pages of scratch memory.
type Writer = Box<dyn FnMut() -> Result<()>>;

/// Nanoseconds that the first write to a page costs beyond an untracked one, with a fresh tracker called
/// `name` on scratch memory of a few MiB: pages of 4 KiB that are present. Takes some 10 ms; where KVM
/// emulates, some 100 ms for its trackers, of which little may be the tracker's doing.
pub fn first_write_ns(name: &str) -> Result<f64> {
    let memory = Arc::new(GuestMemory::new(&Layout::single(BYTES))?);
    memory.populate()?;
    let mut tracker: Box<dyn Tracker> = find(name)?;
    let mut write = thread(&memory);
    #[cfg(all(feature = "kvm", target_arch = "x86_64"))]
    if TRACKERS.find(name).is_ok_and(|entry| entry.make.only_vcpus) {
        write = vcpu(&memory)?;
    }
    let untracked = quickest(memory.pages(), &mut write, || Ok(()))?;
    tracker.arm(&memory)?;
    let mut dirty = Bitmap::new(memory.pages());
    let tracked = quickest(memory.pages(), &mut write, || tracker.harvest(0..memory.pages(), &mut dirty))?;
    Ok((tracked - untracked).max(0.0))
}

fn thread(memory: &Arc<GuestMemory>) -> Writer {
    let memory = Arc::clone(memory);
    Box::new(move || {
        (0..memory.pages()).for_each(|page| memory.write(page * PAGE as u64, &[1]));
        Ok(())
    })
}

#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
fn vcpu(memory: &Arc<GuestMemory>) -> Result<Writer> {
    let region = Region::whole(memory);
    let (vm, mut registers) = (kvm::Vm::new(&region)?, kvm::Registers::start(1, region.pages()));
    Ok(Box::new(move || vm.run(&mut registers, region.pages())))
}

/// Nanoseconds a page of the quickest pass over so many; `before` each there is a call that counts for
/// nothing.
fn quickest(pages: u64, write: &mut Writer, mut before: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut least = f64::INFINITY;
    for _ in 0..PASSES {
        before()?;
        let began = Instant::now();
        write()?;
        least = least.min(began.elapsed().as_nanos() as f64 / pages as f64);
    }
    Ok(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tax_of_a_tracker_that_works_is_a_finite_number() {
        for entry in crate::track::TRACKERS.entries.iter().filter(|entry| (entry.make.probe)().is_ok()) {
            let ns = first_write_ns(entry.name).unwrap();
            println!("{}: {ns:.0} ns a first write", entry.name);
            assert!(ns.is_finite() && ns >= 0.0);
        }
        assert!(first_write_ns("no-such").is_err());
    }
}
