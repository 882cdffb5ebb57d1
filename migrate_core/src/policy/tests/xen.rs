//! Xen's decisions on 10,000 random histories, against the rule written down once more.

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::knobs::Spec;
use crate::policy::{find, Act, Round};

/// A build of Xen's tools.
#[derive(Debug, Clone, Copy)]
struct Variant {
    max_iters: usize,
    adaptive: bool,
}

/// One iteration: pages sent and skipped, and the dirty rate in Mbit/s.
#[derive(Debug, Clone, Copy)]
struct Iteration {
    sent: u64,
    skip: u64,
    dirty: f64,
}

/// Which clauses of the rule make iteration `i` (from 0) the last, over the whole history.
fn clauses(variant: Variant, memory: u64, all: &[Iteration], i: usize) -> [bool; 4] {
    let rate = |i: usize| if i == 0 { 100.0 } else { f64::min(500.0, all[i - 1].dirty + 50.0) };
    let grew = i > 0 && all[i].sent > all[i - 1].sent;
    let total: u64 = all[..=i].iter().map(|iteration| iteration.sent).sum();
    [
        variant.adaptive && grew && rate(i) == 500.0,
        i + 1 >= variant.max_iters,
        all[i].sent + all[i].skip < 50,
        total > 3 * memory,
    ]
}

fn rounds(memory: u64, all: &[Iteration]) -> Vec<Round> {
    let mut total = 0;
    let round = |(index, iteration): (u32, &Iteration)| {
        total += iteration.sent;
        Round {
            index,
            sent_pages: iteration.sent,
            skipped_pages: iteration.skip,
            total_sent_pages: total,
            dirty_rate: iteration.dirty * 125_000.0,
            memory_bytes: memory * 4096,
            remaining_pages: iteration.sent,
            ..Round::default()
        }
    };
    (0..).zip(all).map(round).collect()
}

/// Replays one history up to its last round; counts which clauses ended it.
fn replay(
    variant: Variant,
    memory: u64,
    all: &[Iteration],
    hits: &mut [u32; 4],
) -> Result<(), TestCaseError> {
    let spec = Spec::new("xen").with("rounds", variant.max_iters).with("adaptive", variant.adaptive);
    let mut policy = find(&spec).unwrap();
    let mut rate = 100.0;
    for (i, round) in rounds(memory, all).iter().enumerate() {
        let act = policy.decide(round, &[]).unwrap().act;
        let clauses = clauses(variant, memory, all, i);
        prop_assert_eq!(act == Act::SwitchOver, clauses.contains(&true), "round {}: {:?}", i, clauses);
        if act == Act::SwitchOver {
            hits.iter_mut().zip(clauses).for_each(|(hit, clause)| *hit += u32::from(clause));
            return Ok(());
        }
        if let Act::Limit { bandwidth: Some(bytes), .. } = act {
            rate = bytes / 125_000.0;
        }
        if variant.adaptive {
            prop_assert_eq!(rate, f64::min(500.0, all[i].dirty + 50.0), "rate after round {}", i);
        } else {
            prop_assert_eq!(act, Act::Proceed);
        }
    }
    Ok(())
}

#[test]
fn ten_thousand_random_histories() {
    // Dirty rates are whole Mbit/s: exact in a float in either unit.
    let dirty = prop_oneof![0u32..=449, 450u32..900].prop_map(f64::from);
    let iteration = (prop_oneof![4 => 0u64..=1000, 1 => 0u64..60], 0u64..40, dirty)
        .prop_map(|(sent, skip, dirty)| Iteration { sent, skip, dirty });
    let variant = (prop_oneof![Just(3usize), Just(29)], any::<bool>())
        .prop_map(|(max_iters, adaptive)| Variant { max_iters, adaptive });
    let history = (variant, 300u64..10_000, prop::collection::vec(iteration, 1..40));

    let config = Config { cases: 10_000, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let hits = std::cell::Cell::new([0; 4]);
    let outcome = runner.run(&history, |(variant, memory, all)| {
        let mut counted = hits.get();
        let outcome = replay(variant, memory, &all, &mut counted);
        hits.set(counted);
        outcome
    });
    outcome.unwrap();
    assert!(hits.get().iter().all(|hit| *hit > 100), "each clause ends many: {:?}", hits.get());
}
