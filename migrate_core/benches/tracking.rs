//! What being tracked costs a guest: processor time of this process (the guest's writes, their faults, and
//! a harvest each 100 ms) over that of the same guest untracked, in turns.
//!
//! `cargo bench -p migrate_core --bench tracking [-- REPEATS]`
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::time::{Duration, Instant};

use migrate_core::bitmap::Bitmap;
use migrate_core::guest::{Guest, GuestSpec, Layout};
use migrate_core::knobs::Spec;
use migrate_core::track;

const MEMORY: u64 = 1 << 30;
const SPAN: Duration = Duration::from_millis(1000);
const INTERVAL: Duration = Duration::from_millis(100);

/// User and system time of this process, in seconds.
fn processor_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Processor seconds for each second, and bytes written a second.
fn cost(guest: &Guest, tracker: Option<&str>) -> (f64, f64) {
    let mut tracker = tracker.map(|name| track::find(name).unwrap());
    tracker.iter_mut().for_each(|tracker| tracker.arm(guest.memory()).unwrap());
    let mut dirty = Bitmap::new(guest.memory().pages());
    let (began, before, written) = (Instant::now(), processor_seconds(), guest.progress().written);
    while began.elapsed() < SPAN {
        std::thread::sleep(INTERVAL);
        dirty.clear_all();
        tracker.iter_mut().for_each(|tracker| tracker.harvest(0..dirty.pages(), &mut dirty).unwrap());
    }
    let seconds = began.elapsed().as_secs_f64();
    ((processor_seconds() - before) / seconds, (guest.progress().written - written) as f64 / seconds)
}

fn spread(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    format!("{:.2} ({:.2} to {:.2})", values[values.len() / 2], values[0], values[values.len() - 1])
}

fn main() {
    let repeats: usize = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(5);
    println!("processor time of a 1 GiB guest tracked by `auto`, harvested each 100 ms, against untracked; {repeats} pairs");
    for (name, rate) in [("idle guest (100 pages/s)", 409_600.0), ("guest that writes 500 MB/s", 5e8)] {
        let workload = Spec::new("uniform").with("rate", rate);
        let spec = GuestSpec::new(Layout::single(MEMORY), vec![workload], 1);
        let mut guest = Guest::new(&spec).unwrap();
        guest.resume().unwrap();
        cost(&guest, None);
        let pairs: Vec<_> = (0..repeats).map(|_| (cost(&guest, Some("auto")), cost(&guest, None))).collect();
        let ratios = pairs.iter().map(|((a, _), (b, _))| a / b).collect();
        let shares = pairs.iter().map(|((a, _), (b, _))| (a - b) * 100.0).collect();
        let reached = pairs.iter().map(|((_, a), (_, b))| a / b).collect();
        println!("{name}: processor time x {}", spread(ratios));
        println!("{name}: {} % of a core more; write rate x {}", spread(shares), spread(reached));
    }
}
