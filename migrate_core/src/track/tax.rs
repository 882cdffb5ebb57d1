//! What tracking costs a writer.

use std::sync::Arc;
use std::time::Instant;

use super::{find, Tracker};
use crate::bitmap::Bitmap;
use crate::error::Result;
use crate::guest::{GuestMemory, Layout, PAGE};

/// Scratch memory that is written: enough pages to make the clock's own cost small.
const BYTES: u64 = 4 << 20;
/// Passes, of which the quickest counts: what disturbs a pass only makes it slower.
const PASSES: usize = 5;

/// Nanoseconds that the first write to a page costs beyond an untracked one, with a fresh tracker called
/// `name` on scratch memory of a few MiB: pages of 4 KiB that are present. Takes some 10 ms.
pub fn first_write_ns(name: &str) -> Result<f64> {
    let memory = Arc::new(GuestMemory::new(&Layout::single(BYTES))?);
    memory.populate()?;
    let untracked = quickest(&memory, || Ok(()))?;
    let mut tracker: Box<dyn Tracker> = find(name)?;
    tracker.arm(&memory)?;
    let mut dirty = Bitmap::new(memory.pages());
    let tracked = quickest(&memory, || tracker.harvest(0..memory.pages(), &mut dirty))?;
    Ok((tracked - untracked).max(0.0))
}

/// Nanoseconds a page of the quickest pass; `before` each there is a call that counts for nothing.
fn quickest(memory: &GuestMemory, mut before: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut least = f64::INFINITY;
    for pass in 0..PASSES {
        before()?;
        let began = Instant::now();
        (0..memory.pages()).for_each(|page| memory.write(page * PAGE as u64, &[pass as u8]));
        least = least.min(began.elapsed().as_nanos() as f64 / memory.pages() as f64);
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
