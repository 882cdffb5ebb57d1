//! Traces against brute force and closed forms.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::bitmap::Bitmap;
use crate::guest::{GuestSpec, Layout};
use crate::knobs::Spec;

fn block(pages: u64) -> Vec<TraceBlock> {
    vec![TraceBlock { name: "ram".into(), pages }]
}

/// A trace of page sets.
fn trace(pages: u64, intervals: &[BTreeSet<u64>]) -> Trace {
    let mut trace = Trace::new(block(pages), Duration::from_millis(100)).unwrap();
    for written in intervals {
        let mut dirty = Bitmap::new(pages);
        written.iter().for_each(|page| dirty.set(*page));
        trace.push(dirty.runs()).unwrap();
    }
    trace
}

fn distinct(intervals: &[BTreeSet<u64>]) -> u64 {
    intervals.iter().flatten().collect::<BTreeSet<_>>().len() as u64
}

fn page_sets() -> impl Strategy<Value = Vec<BTreeSet<u64>>> {
    prop::collection::vec(prop::collection::btree_set(0u64..90, 0..40), 1..20)
}

proptest! {
    #[test]
    fn the_index_counts_distinct_pages_in_any_window(sets in page_sets(), split in 0u64..90) {
        let trace = trace(90, &sets);
        let (low, high) = (WriteIndex::of(&trace, 0..split), WriteIndex::of(&trace, split..90));
        let turns = [sets.clone(), sets.clone()].concat();
        for from in 0..sets.len() {
            for to in from..=turns.len() {
                let counted = low.distinct(from as u32, to as u32) + high.distinct(from as u32, to as u32);
                prop_assert_eq!(counted, distinct(&turns[from..to]), "{}..{}", from, to);
            }
        }
    }

    #[test]
    fn windows_expect_what_moments_drawn_by_chance_have_on_average(sets in page_sets(), from in 0f64..30.0, length in 0f64..30.0) {
        // Intervals are of a tenth of a second.
        let windows = Windows::of(&trace(90, &sets)).unwrap();
        let counted: f64 = (0..windows.stripes().count()).map(|stripe| windows.distinct(stripe, from / 10.0, (from + length) / 10.0)).sum();
        // A page is not written in the window if none of its writes is: each of them by the chance of its interval.
        let missed = |page: u64| -> f64 {
            let within = |index: u64| (from + length).min(index as f64 + 1.0) - from.max(index as f64);
            let written = (0..64).filter(|index| sets[*index as usize % sets.len()].contains(&page));
            written.map(|index| 1.0 - within(index).clamp(0.0, 1.0)).product()
        };
        let expected: f64 = (0..90).map(|page| 1.0 - missed(page)).sum();
        prop_assert!((counted - expected).abs() < 1e-6, "{} {}", counted, expected);
    }

    #[test]
    fn the_curve_is_the_mean_over_all_windows(sets in page_sets()) {
        let curve = UniquePages::of(&trace(90, &sets));
        for length in 1..=sets.len() {
            let windows: Vec<u64> = sets.windows(length).map(distinct).collect();
            let mean = windows.iter().sum::<u64>() as f64 / windows.len() as f64;
            prop_assert!((curve.mean(length as u32) - mean).abs() < 1e-9, "{} {}", length, mean);
        }
        prop_assert_eq!(curve.distinct(), distinct(&sets));
    }

    #[test]
    fn rows_and_back(sets in page_sets(), edge in 1u64..89) {
        let one = trace(90, &sets);
        let blocks = vec![
            TraceBlock { name: "low".into(), pages: edge },
            TraceBlock { name: "high".into(), pages: 90 - edge },
        ];
        let mut two = Trace::new(blocks.clone(), one.interval()).unwrap();
        (0..one.intervals()).for_each(|i| two.push(one.written(i).iter().copied()).unwrap());
        let rows: Vec<Row> = two.rows().collect();
        prop_assert!(rows.iter().all(|row| row.first_page + u64::from(row.pages) <= blocks[row.block as usize].pages));
        prop_assert_eq!(Trace::from_rows(blocks, one.interval(), one.intervals(), rows).unwrap(), two);
    }

    #[test]
    fn any_rows_are_a_trace_or_an_error(rows in prop::collection::vec(
        (0u32..4, 0u32..3, prop_oneof![0u64..20, Just(u64::MAX)], 0u32..20), 0..12)) {
        let rows = rows.into_iter().map(|(interval, block, first_page, pages)| Row { interval, block, first_page, pages });
        if let Ok(trace) = Trace::from_rows(block(16), Duration::from_secs(1), 3, rows.collect::<Vec<_>>()) {
            for interval in 0..3 {
                let runs = trace.written(interval);
                prop_assert!(runs.windows(2).all(|pair| pair[0].end() < pair[1].first));
                prop_assert!(runs.iter().all(|run| run.pages > 0 && run.end() <= 16));
            }
        }
    }
}

fn generated(name: &str, knobs: &[(&str, f64)], pages: u64, seconds: u64, interval_ms: u64) -> Trace {
    let spec = knobs.iter().fold(Spec::new(name), |spec, (knob, value)| spec.with(knob, *value));
    let guest = GuestSpec::new(Layout::single(pages * PAGE as u64), vec![spec], 7);
    generate(&guest, Duration::from_secs(seconds), Duration::from_millis(interval_ms)).unwrap()
}

/// Within 4 sigma of the expectation `mean`, out of `most`: sigma^2 <= U (1 - U / N).
fn close(measured: f64, mean: f64, most: f64, windows: f64) -> bool {
    (measured - mean).abs() <= 4.0 * (mean * (1.0 - mean / most) / windows).sqrt() + mean * 0.002
}

#[test]
fn uniform_writes_follow_their_closed_form() {
    let (pages, rate) = (20_000u64, 5_000.0);
    let trace = generated("uniform", &[("rate", rate * PAGE as f64)], pages, 20, 100);
    let curve = UniquePages::of(&trace);
    for seconds in [0.1, 1.0, 4.0] {
        let expected = pages as f64 * (1.0 - (-rate * seconds / pages as f64).exp());
        let measured = curve.mean((seconds * 10.0) as u32);
        assert!(close(measured, expected, pages as f64, 20.0 / seconds), "{seconds}: {measured} {expected}");
    }
}

#[test]
fn a_sweep_writes_min_of_vt_and_w() {
    let trace = generated("sweep", &[("rate", 1000.0 * PAGE as f64), ("share", 0.25)], 8000, 10, 500);
    let curve = UniquePages::of(&trace);
    for (length, expected) in [(1, 500.0), (2, 1000.0), (4, 2000.0), (8, 2000.0)] {
        let measured = curve.mean(length);
        assert!((measured - expected).abs() <= 4.0, "{length}: {measured}");
    }
}

#[test]
fn a_pattern_of_any_size_needs_no_memory_and_a_program_is_run() {
    // A TiB, which this machine does not have.
    let large = generated("hot-cold", &[("rate", 1e8), ("hot_share", 1e-5)], 1 << 28, 1, 100);
    assert!(large.written_pages().all(|pages| (1500..2500).contains(&pages)));
    let program = generated("kv", &[("rate", 1e6)], 2048, 1, 100);
    assert!(
        program.written_pages().all(|pages| pages > 0),
        "{:?}",
        program.written_pages().collect::<Vec<_>>()
    );
    assert_eq!(program, generated("kv", &[("rate", 1e6)], 2048, 1, 100));
}

#[test]
fn what_cannot_be_generated_says_why() {
    let refused = |knobs: Spec| {
        let guest = GuestSpec::new(Layout::single(1 << 20), vec![knobs], 7);
        generate(&guest, Duration::from_secs(1), Duration::from_millis(100)).unwrap_err().to_string()
    };
    assert!(refused(Spec::new("sweep").with("rate", 0)).contains("needs a rate"));
    assert!(refused(Spec::new("swep")).contains("sweep"));
}
