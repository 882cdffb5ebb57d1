use super::*;
use crate::knobs::Spec;
use crate::policy::{find, Round, Sample};

const MB: u64 = 1_000_000;

/// A round's end every 10 s over a link of 100 MB/s, of a guest of 4 GiB (600 s to complete).
fn round(index: u32, remaining_mb: u64) -> Round {
    Round {
        index,
        elapsed: f64::from(index + 1) * 10.0,
        remaining_bytes: remaining_mb * MB,
        bandwidth: 1e8,
        memory_bytes: 4 << 30,
        ..Round::default()
    }
}

/// When it does something after its opening, and what.
fn acts(spec: &Spec, remaining_mb: &[u64]) -> Vec<(u32, Act)> {
    let mut policy = find(spec).unwrap();
    assert!(policy.sample(&Sample { memory_bytes: 4 << 30, bandwidth: 1e8, ..Sample::default() }).is_ok());
    let acts = (0..).zip(remaining_mb).map(|(i, mb)| (i, policy.decide(&round(i, *mb), &[]).unwrap().act));
    acts.filter(|(_, act)| *act != Act::Proceed).collect()
}

fn spec() -> Spec {
    Spec::new("kubevirt-stall")
}

fn disruptive() -> Spec {
    spec().with("allow_disruption", true)
}

#[test]
fn candidates_are_new_minima_until_they_are_old() {
    let mut minima = Minima::default();
    let mut record = |t: f64, remaining| {
        minima.record(t, remaining, 60.0);
        (minima.young.iter().map(|(_, remaining)| *remaining).collect::<Vec<_>>(), minima.outside)
    };
    assert_eq!(record(0.0, 100), (vec![100], None));
    assert_eq!(record(10.0, 100), (vec![100], None), "as much is no new minimum");
    assert_eq!(record(20.0, 90), (vec![100, 90], None));
    assert_eq!(record(30.0, 95), (vec![100, 90], None));
    assert_eq!(record(59.9, 80), (vec![100, 90, 80], None));
    assert_eq!(record(60.0, 85), (vec![90, 80], Some(100)), "60 s old is old");
    assert_eq!(record(79.9, 70), (vec![90, 80, 70], Some(100)));
    assert_eq!(record(140.0, 99), (vec![], Some(70)), "above outside");
    assert_eq!(record(141.0, 70), (vec![70], Some(70)), "as outside");
}

#[test]
fn nothing_stalls_before_a_record_has_left_the_window() {
    // The plateau is seen at 10 s; the first record leaves at 70 s, at the end of round 6.
    let acts = acts(&disruptive(), &[500; 12]);
    assert_eq!(acts.first(), Some(&(6, Act::blackout(HARD))));
}

#[test]
fn progress_is_more_than_the_margin() {
    let shrinking = |share: f64| -> Vec<u64> { (0..20).map(|i| (5e5 * share.powi(i)) as u64).collect() };
    // In six rounds of 1 % remaining falls by 5.9 %, of 0.6 % by 3.5 %.
    let far = disruptive().with("completion_factor", 1000).with("completion_timeout", 1e6);
    assert_eq!(acts(&far, &shrinking(0.99)), []);
    assert_eq!(acts(&far, &shrinking(0.994))[0].0, 6);
    assert_eq!(acts(&far.with("margin", 0.02), &shrinking(0.994)), []);
}

#[test]
fn a_stall_waits_for_a_low() {
    // Stalled in round 6 at 700; the least is 400, and 416 is within 4 % of it.
    let remaining = [500, 400, 600, 700, 700, 700, 700, 417, 416];
    assert_eq!(acts(&disruptive(), &remaining), [(8, Act::blackout(HARD))]);
    let at_once = disruptive().with("search_local_minima", false);
    assert_eq!(acts(&at_once, &remaining), [(6, Act::blackout(HARD))]);
}

#[test]
fn patience_ends_and_halves() {
    let mut search = Search { best: 10, patience: 60.0, deadline: 160.0, seen: BinaryHeap::new() };
    let mut see = |t, remaining| {
        search.see(t, remaining, 0.5);
        (search.best, search.deadline)
    };
    assert_eq!([see(110.0, 50), see(159.0, 30), see(160.0, 40)], [(10, 160.0), (10, 160.0), (30, 190.0)]);
    assert_eq!([see(189.0, 70), see(191.0, 60)], [(30, 190.0), (40, 206.0)], "the next least");
}

#[test]
fn what_a_low_leads_to_depends_on_what_is_allowed() {
    let at_low = |spec: &Spec, mb: u64| acts(spec, &[mb; 7])[0].1;
    assert_eq!(at_low(&disruptive().with("allow_post_copy", true), 500), Act::PostCopy);
    let vfio = disruptive().with("allow_post_copy", true).with("vfio", true);
    assert_eq!(at_low(&vfio, 500), Act::blackout(HARD));
    assert_eq!(at_low(&spec().with("allow_post_copy", true), 500), Act::Abort, "post-copy disrupts");
    // The estimate is 10 ms for each MB: up to 900 ms it fits, up to 1350 ms it may.
    assert_eq!(at_low(&spec(), 90), Act::blackout(0.9));
    assert_eq!(at_low(&spec(), 135), Act::blackout(0.9));
    assert_eq!(at_low(&spec(), 136), Act::Abort);
}

#[test]
fn a_limit_that_leads_nowhere_is_given_up() {
    // Set in round 6; a minute is six rounds.
    let acts = acts(&spec(), &[100; 13]);
    assert_eq!(acts, [(6, Act::blackout(0.9)), (12, Act::Abort)]);
}

#[test]
fn an_estimate_that_cannot_complete_waits() {
    // 600 s to complete, times 2: what needs more than 1130 s at 70 s is a link that dropped.
    let at_once = disruptive().with("search_local_minima", false);
    assert_eq!(acts(&at_once, &[113_001; 7]), []);
    assert_eq!(acts(&at_once, &[113_000; 7]), [(6, Act::blackout(HARD))]);
}

#[test]
fn completion_takes_what_is_allowed() {
    let falling: Vec<u64> = (0..60).map(|i| (1_000_000.0 * 0.9f64.powi(i)) as u64).collect();
    let first = |spec: &Spec| acts(spec, &falling)[0];
    assert_eq!(first(&spec()), (59, Act::Abort));
    assert_eq!(first(&disruptive()), (59, Act::blackout(HARD)));
    let post_copy = disruptive().with("allow_post_copy", true);
    assert_eq!(first(&post_copy), (59, Act::PostCopy));
    let huge: Vec<u64> = falling.iter().map(|mb| mb * 100).collect();
    assert_eq!(acts(&post_copy, &huge)[0], (59, Act::blackout(HARD)), "it does not fit");
}

#[test]
fn completion_comes_in_the_middle_of_a_round() {
    let mut policy = find(&spec()).unwrap();
    let sample = |elapsed| Sample { elapsed, memory_bytes: 4 << 30, ..Sample::default() };
    let mut at = |elapsed| policy.sample(&sample(elapsed)).unwrap().map(|decision| decision.act);
    assert_eq!([0.0, 599.9, 600.0].map(&mut at), [Some(Act::blackout(0.3)), None, Some(Act::Abort)]);
}

#[test]
fn the_limit_to_begin_with_is_lowered_only() {
    let opening =
        |spec: &Spec| find(spec).unwrap().sample(&Sample { memory_bytes: 4 << 30, ..Sample::default() });
    let act = |spec: &Spec| opening(spec).unwrap().unwrap().act;
    assert_eq!(act(&spec()), Act::blackout(0.3));
    assert_eq!(act(&spec().with("max_downtime", 0.2)), Act::blackout(0.2));
}

#[test]
fn bandwidth_is_averaged_over_samples_400_ms_apart() {
    let mut average = Average { alpha: 0.4, last: None };
    assert_eq!(average.time(1), f64::INFINITY);
    average.feed(0.0, 0.0);
    let mut feed = |t, bandwidth| {
        average.feed(t, bandwidth);
        average.last.unwrap().1
    };
    assert_eq!([feed(0.1, 100.0), feed(0.4, 900.0), feed(0.5, 200.0)], [100.0, 100.0, 140.0]);
    assert!((feed(0.9, 0.0) - 84.0).abs() < 1e-9);
    assert_eq!((average.time(0), average.time(168)), (0.0, 2.0));
}
