//! What each workload reaches unpaced on this machine, and how long it takes to start and to check.
//!
//! `cargo run --release -p migrate_core --example workload_speeds [-- MIB [SECONDS]]`
#![allow(missing_docs, clippy::print_stdout)]

use std::time::{Duration, Instant};

use migrate_core::guest::workload::WORKLOADS;
use migrate_core::guest::{content, Guest, GuestMemory, GuestSpec, Layout};
use migrate_core::knobs::Spec;
use migrate_core::Result;

fn unpaced(name: &str) -> Spec {
    if name == "phases" {
        let phase = serde_json::json!({"seconds": 1, "workload": {"name": "zipf", "rate": 0}});
        return Spec::new(name).with("phases", serde_json::json!([phase]));
    }
    Spec::new(name).with("rate", 0)
}

fn run(name: &str, bytes: u64, seconds: f64) -> Result<()> {
    let began = Instant::now();
    // Zeros cost no time to fill with: what is left is the workload's own start.
    let spec = GuestSpec {
        fill: Spec::new("zero"),
        ..GuestSpec::new(Layout::single(bytes), vec![unpaced(name)], 1)
    };
    let mut guest = Guest::new(&spec)?;
    let boot = began.elapsed();
    guest.resume()?;
    // The first writes find pages missing: not the workload's cost.
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let before = guest.progress();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    guest.pause();
    let after = guest.progress();
    let began = Instant::now();
    guest.check()?;
    let (check, ran) = (began.elapsed(), (after.running_ns - before.running_ns) as f64 / 1e9);
    println!(
        "{name:<10} {:>8.0} MB/s {:>9.2} M operations/s   start {:>6.3} s   check {:>6.3} s",
        (after.written - before.written) as f64 / ran / 1e6,
        (after.operations - before.operations) as f64 / ran / 1e6,
        boot.as_secs_f64(),
        check.as_secs_f64()
    );
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse::<f64>().ok());
    let (mib, seconds) = (arguments.next().unwrap_or(1024.0), arguments.next().unwrap_or(1.0));
    let bytes = (mib as u64) << 20;
    for entry in content::CONTENTS.entries {
        let memory = GuestMemory::new(&Layout::single(bytes))?;
        let began = Instant::now();
        content::fill(&memory, &Spec::new(entry.name), 1)?;
        println!("fill {mib} MiB with {:<8} {:.3} s", entry.name, began.elapsed().as_secs_f64());
    }
    WORKLOADS.entries.iter().try_for_each(|entry| run(entry.name, bytes, seconds))
}
