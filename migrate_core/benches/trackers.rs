//! What each tracker that works here costs: a writer for its first write to a page, and a harvest for
//! 1 GiB of memory, of which all pages or none were written.
//!
//! `cargo bench -p migrate_core --bench trackers [-- MIB]`
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use migrate_core::bitmap::Bitmap;
use migrate_core::guest::{GuestMemory, Layout, PAGE};
use migrate_core::track::{find, first_write_ns, TRACKERS};

const PASSES: usize = 3;

fn main() {
    let given = std::env::args().find_map(|word| word.parse().ok());
    let mib: u64 = given.unwrap_or(1024);
    println!(
        "{:<12} {:>12} {:>16} {:>16} {:>16}",
        "tracker", "ns/first w.", "ms all dirty", "ms clean", "ms 256 pages"
    );
    for entry in TRACKERS.entries {
        match (entry.make.probe)() {
            Ok(()) if entry.make.only_vcpus => {
                println!("{:<12} {:>12.0}", entry.name, first_write_ns(entry.name).unwrap());
            }
            Ok(()) => measure(entry.name, mib << 20),
            Err(error) => println!("{:<12} {error}", entry.name),
        }
    }
}

fn measure(name: &str, bytes: u64) {
    let memory = Arc::new(GuestMemory::new(&Layout::single(bytes)).unwrap());
    memory.populate().unwrap();
    let mut tracker = find(name).unwrap();
    tracker.arm(&memory).unwrap();
    let mut best = [f64::INFINITY; 3];
    let mut dirty = Bitmap::new(memory.pages());
    for pass in 0..PASSES {
        (0..memory.pages()).for_each(|page| memory.write(page * PAGE as u64, &[pass as u8 + 1]));
        for (best, end) in best.iter_mut().zip([memory.pages(), memory.pages(), 256]) {
            dirty.clear_all();
            let began = Instant::now();
            tracker.harvest(0..end, &mut dirty).unwrap();
            *best = best.min(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    let [written, clean, chunk] = best;
    let tax = first_write_ns(name).unwrap();
    println!("{name:<12} {tax:>12.0} {written:>16.2} {clean:>16.2} {chunk:>16.4}");
}
