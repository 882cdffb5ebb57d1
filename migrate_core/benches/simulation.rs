//! The simulator's targets: `cargo bench -p migrate_core --bench simulation`.
//!
//! * Making the index of a trace: at least 10 million writes a second.
//! * Following every page: at least 50 million page-sends a second.
//! * One evaluation of a 64 GiB guest with 10 million writes, following one page in 512: at most 1 ms.
//! * Evaluations a minute on all cores, following one page in 512: at least 100,000.
//!
//! Each row is repeated; printed are the median and the range.
// A benchmark's output is its purpose.
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::{Duration, Instant};

use migrate_core::guest::{GuestSpec, Layout};
use migrate_core::knobs::Spec;
use migrate_core::link::LinkSpec;
use migrate_core::trace::{generate, Replay, Trace, Windows, WriteIndex};
use migrate_core::world::sim::{batch, Guests, Scenario, Trial};

const REPETITIONS: usize = 7;
const SAMPLE: u64 = 512;
/// Evaluations in a batch.
const TRIALS: usize = 400;

fn main() {
    let trace = guest();
    let writes: u64 = trace.written_pages().sum();
    println!("a guest of {} GiB, {} intervals, {writes} writes", trace.bytes() >> 30, trace.intervals());
    row("index, writes a second", 1e7, || rate(writes, || drop(WriteIndex::of(&trace, 0..trace.pages()))));
    let began = Instant::now();
    let windows = Arc::new(Windows::of(&trace).unwrap());
    println!("made ready for counting in {:.1} s", began.elapsed().as_secs_f64());
    let (all, some) = (replay(&trace, 1), replay(&trace, SAMPLE));
    let (all, some) = (|| Ok(Arc::clone(&all)), || Ok(Arc::clone(&some)));
    let follow = |replay| Guests { windows: None, replay };
    let (all, some) = (follow(&all), follow(&some));
    let counted = Guests { windows: Some(windows), replay: some.replay };
    row("every page followed, page-sends a second", 5e7, || {
        let began = Instant::now();
        let sent = trial(0).run(&all, &AtomicBool::new(false)).unwrap().sent_pages;
        sent as f64 / began.elapsed().as_secs_f64()
    });
    row("one evaluation, one page in 512, a second", 1e3, || {
        rate(1, || drop(trial(1).run(&some, &AtomicBool::new(false)).unwrap()))
    });
    let trials: Vec<Trial> = (0..TRIALS).map(trial).collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    row("evaluations a minute, one page in 512", 1e5, || {
        60.0 * rate(TRIALS as u64, || drop(batch(&some, &trials, threads, &AtomicBool::new(false)).unwrap()))
    });
    row("evaluations a minute, pages counted", 1e5, || {
        60.0 * rate(TRIALS as u64, || {
            drop(batch(&counted, &trials, threads, &AtomicBool::new(false)).unwrap());
        })
    });
}

fn guest() -> Trace {
    let workload = Spec::new("zipf").with("rate", 5e8);
    let guest = GuestSpec::new(Layout::single(64 << 30), vec![workload], 7);
    generate(&guest, Duration::from_secs(130), Duration::from_millis(100)).unwrap()
}

fn replay(trace: &Trace, weight: u64) -> Arc<Replay> {
    Arc::new(Replay::sampled(trace, weight).unwrap())
}

fn trial(number: usize) -> Trial {
    let link = LinkSpec { bandwidth: Some(1.25e9), ..LinkSpec::default() };
    Trial {
        strategy: Spec::new("pre-copy"),
        policy: Spec::new("downtime-limit").with("limit", 0.05 + 0.001 * number as f64),
        scenario: Scenario { link, start: number as f64 * 0.1, longest: 600.0, ..Scenario::default() },
    }
}

fn rate(count: u64, work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    count as f64 / began.elapsed().as_secs_f64()
}

fn row(name: &str, target: f64, mut measure: impl FnMut() -> f64) {
    let mut rates: Vec<f64> = (0..REPETITIONS).map(|_| measure()).collect();
    rates.sort_by(f64::total_cmp);
    let [least, median, most] = [rates[0], rates[REPETITIONS / 2], rates[REPETITIONS - 1]];
    println!("{name:<44} {median:>12.0} ({least:.0} to {most:.0}); target {target:.0}");
}
