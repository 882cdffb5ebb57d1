//! Dirty-limit against auto-converge on one guest: a vCPU that writes and one that only looks after a few
//! pages. Total times as a ratio for rising loads, and what each left the reader, in the manner of the cover
//! letter of QEMU's dirty-limit (total time's ratio rises with the load; the reader is unharmed by the quota).
//!
//! `cargo bench -p migrate_core --bench throttle [-- REPEATS]`
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::time::Duration;

use migrate_core::guest::{restore_known, Guest, GuestSpec, Layout};
use migrate_core::knobs::Spec;
use migrate_core::link::{pair, LinkSpec, Shaper, Transport};
use migrate_core::report::{Outcome, Report};
use migrate_core::world::memory::{receive_in_thread, Reception, Sending, Source};
use migrate_core::world::{Migration, Step};
use migrate_core::{policy, strategy, track};

/// What the link carries, bytes per second.
const LINK: f64 = 1e8;
/// Rounds after which a run counts as one without an end.
const MOST_ROUNDS: u64 = 80;

/// Operations of the reader per second of the guest's time.
fn reader_rate(from: (u64, u64), to: (u64, u64)) -> f64 {
    (to.0 - from.0) as f64 / (to.1 - from.1) as f64 * 1e9
}

fn reader(guest: &Guest) -> (u64, u64) {
    let progress = guest.vcpus()[1].progress();
    (progress.operations, progress.running_ns)
}

/// Total time, infinite without an end, and the reader's speed during as a share of that before.
fn run(rule: &Spec, load: f64) -> (f64, f64) {
    let writer = Spec::new("sweep").with("rate", load * LINK);
    let reading = Spec::new("uniform").with("rate", 2e6).with("share", 0.001);
    let mut guest = Guest::new(&GuestSpec::new(Layout::single(64 << 20), vec![writer, reading], 7)).unwrap();
    guest.resume().unwrap();
    let began = reader(&guest);
    std::thread::sleep(Duration::from_millis(300));
    let before = reader_rate(began, reader(&guest));

    let shaper = Shaper::new(&LinkSpec { bandwidth: Some(LINK), ..LinkSpec::default() }).unwrap();
    let (near, far) = pair(Transport::Unix).unwrap();
    let destination = receive_in_thread(vec![far], Reception::default(), Box::new(restore_known)).unwrap();
    let sending = Sending { warm_up: Duration::from_millis(50), ..Sending::default() };
    let near = vec![shaper.insert(near).unwrap()];
    let source = Source::new(guest, track::find("auto").unwrap(), near, sending).unwrap();
    let mut migration = Migration::new(source, strategy::find(&Spec::new("pre-copy")).unwrap());
    let cap = Spec::new("max-rounds").with("rounds", MOST_ROUNDS).with("then", "abort");
    let both = Spec::new("any-of").with("policies", serde_json::json!([rule, cap]));
    let mut policy = policy::find(&both).unwrap();
    let (mut from, mut to) = (began, began);
    while let Step::Decide(round) = migration.next_sampled(Some(policy.as_mut()), &mut []) {
        if round.index == 0 {
            from = reader(migration.world().guest());
        }
        to = reader(migration.world().guest());
        migration.judge(&round, policy.as_mut(), &mut []);
    }
    let (report, source) = migration.finish(Report::default());
    drop((source, destination.join().unwrap()));
    let time = if report.outcome == Outcome::Completed { report.total_time } else { f64::INFINITY };
    (time, if to.1 > from.1 { reader_rate(from, to) / before } else { 1.0 })
}

fn median(mut values: Vec<f64>) -> (f64, f64, f64) {
    values.sort_by(f64::total_cmp);
    (values[0], values[values.len() / 2], values[values.len() - 1])
}

fn main() {
    let repeats: usize = std::env::args().filter_map(|a| a.parse().ok()).next().unwrap_or(3);
    // Periods of 0.2 s and rounds of half a second: QEMU's second and its rounds, shortened together.
    let rule = |name: &str| Spec::new(name).with("limit", 0.1).with("period", 0.2);
    println!("64 MiB over a link of {} MB/s, limit 100 ms; {repeats} runs each", LINK / 1e6);
    for load in [0.6, 0.9, 1.5, 2.5] {
        let rules = [rule("qemu-auto-converge"), rule("qemu-dirty-limit")];
        let (mut times, mut kept, mut ratios) = ([vec![], vec![]], [vec![], vec![]], Vec::new());
        for _ in 0..repeats {
            let [a, b] = [0, 1].map(|which| run(&rules[which], load));
            ratios.push(a.0 / b.0);
            for (which, (time, share)) in [a, b].into_iter().enumerate() {
                times[which].push(time);
                kept[which].push(share * 100.0);
            }
        }
        let ([slow, quick], [all, few]) =
            (times.map(|times| median(times).1), kept.map(|kept| median(kept).1));
        let (least, ratio, most) = median(ratios);
        println!(
            "load {load:.1} x link: auto-converge {slow:.2} s, dirty-limit {quick:.2} s, ratio {ratio:.2} \
             ({least:.2} to {most:.2}); the reader kept {all:.0} % and {few:.0} % of its speed"
        );
    }
}
