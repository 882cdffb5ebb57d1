//! Simulated migrations against closed forms.

use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::{batch, hurried, scaled, Coding, Guests, Scenario, Sim, Trial};
use crate::bitmap::Run;
use crate::guest::{GuestSpec, Layout, PAGE};
use crate::knobs::Spec;
use crate::link::LinkSpec;
use crate::policy::{self, Act, Decision, Policy, Reason, Round};
use crate::report::{Happening, Outcome, Report};
use crate::trace::{generate, Replay, Trace, TraceBlock, Windows};
use crate::wire;
use crate::world::Migration;

/// A link that carries `pages` raw pages a second in chunks of `chunk`.
fn link(pages: f64, chunk: u64) -> LinkSpec {
    let bandwidth = pages * wire::pages_bytes(1, chunk) as f64 / chunk as f64;
    LinkSpec { bandwidth: Some(bandwidth), ..LinkSpec::default() }
}

fn workload(spec: Spec, pages: u64, seconds: f64, interval: f64) -> Arc<Trace> {
    let guest = GuestSpec::new(Layout::single(pages * PAGE as u64), vec![spec], 11);
    let times = [seconds, interval].map(Duration::from_secs_f64);
    Arc::new(generate(&guest, times[0], times[1]).unwrap())
}

fn still(pages: u64) -> Arc<Trace> {
    let mut trace =
        Trace::new(vec![TraceBlock { name: "ram".into(), pages }], Duration::from_secs(1)).unwrap();
    trace.push([]).unwrap();
    Arc::new(trace)
}

fn run(trace: &Arc<Trace>, strategy: &Spec, policy: &mut dyn Policy, scenario: Scenario) -> Report {
    sampled(trace, 1, strategy, policy, scenario)
}

fn sampled(
    trace: &Trace,
    weight: u64,
    strategy: &Spec,
    policy: &mut dyn Policy,
    scenario: Scenario,
) -> Report {
    let replay = Arc::new(Replay::sampled(trace, weight).unwrap());
    let strategy = scaled(strategy, &replay).unwrap();
    let mut migration = Migration::new(Sim::new(replay, scenario).unwrap(), strategy);
    migration.run(policy, &mut [], |_, _| {});
    migration.finish(Report::default()).0
}

/// Switches over after so many rounds.
struct After(u32);

impl Policy for After {
    fn decide(&mut self, round: &Round, _: &[Round]) -> crate::Result<Decision> {
        let done = round.index + 1 >= self.0;
        Ok(if done { Decision::switch_over(Reason::default()) } else { Decision::proceed() })
    }
}

fn downtime(seconds: f64) -> Box<dyn Policy> {
    policy::find(&Spec::new("downtime-limit").with("limit", seconds)).unwrap()
}

#[test]
fn a_guest_that_writes_nothing_takes_one_round_and_the_size_of_its_memory() {
    let (pages, rate) = (4096u64, 1000.0);
    let report = run(
        &still(pages),
        &Spec::new("pre-copy"),
        downtime(0.3).as_mut(),
        Scenario { link: link(rate, 256), ..Scenario::default() },
    );
    assert_eq!(
        (report.outcome, report.sent_pages, report.rounds.len()),
        (Outcome::Completed, pages, 2),
        "{}",
        report.reason
    );
    assert!((report.total_time - pages as f64 / rate).abs() < 1e-6, "{}", report.total_time);
    assert_eq!(report.blackout, Some(0.0));
}

#[test]
fn stop_and_copy_is_black_for_as_long_as_sending_takes() {
    let scenario = Scenario {
        link: LinkSpec { rtt: 0.1, ..link(1000.0, 256) },
        zero_share: 0.25,
        ..Scenario::default()
    };
    let report = run(&still(4096), &Spec::new("stop-and-copy"), &mut After(1), scenario);
    assert!((900..1150).contains(&report.zero_pages), "{}", report.zero_pages);
    let expected = (4096 - report.zero_pages) as f64 / 1000.0 + 0.15;
    assert!((report.blackout.unwrap() / expected - 1.0).abs() < 0.03, "{:?} {expected}", report.blackout);
}

/// The geometric series: V_(i+1) = lambda V_i, for a sweep that never comes back to a page in a round.
#[test]
fn a_sweep_below_the_bandwidth_follows_the_geometric_series() {
    let (pages, rate) = (16_384u64, 4096.0);
    for lambda in [0.25, 0.5, 0.8] {
        let sweep = Spec::new("sweep").with("rate", lambda * rate * PAGE as f64);
        let trace = workload(sweep, pages, 40.0, 0.01);
        let early = Spec::new("pre-copy").with("clear", "early");
        let report =
            run(&trace, &early, &mut After(5), Scenario { link: link(rate, 256), ..Scenario::default() });
        let mut remaining = pages as f64;
        for round in &report.rounds[..5] {
            remaining *= lambda;
            let seen = round.remaining_pages as f64;
            assert!((seen - remaining).abs() < 0.02 * remaining + 8.0, "lambda {lambda}: {seen} {remaining}");
        }
    }
}

/// The three maps of the clear disciplines under uniform writes, from x = 1.
#[test]
fn the_three_clear_disciplines_follow_their_closed_forms() {
    type Form = fn(f64, f64) -> f64;
    let forms: [(&str, Form); 3] = [
        ("early", |rho, x| 1.0 - (-rho * x).exp()),
        ("skip", |rho, x| rho * x / (1.0 + rho * x)),
        ("late", |rho, x| x + (1.0 - (-rho * x).exp()) * (1.0 - x - 1.0 / rho)),
    ];
    let (pages, rate) = (20_000u64, 10_000.0);
    for rho in [0.8, 2.0] {
        let uniform = Spec::new("uniform").with("rate", rho * rate * PAGE as f64);
        let trace = workload(uniform, pages, 10.0, 0.002);
        for (clear, form) in forms {
            let strategy = Spec::new("pre-copy").with("clear", clear).with("chunk_pages", 8);
            let scenario = Scenario { link: link(rate, 8), ..Scenario::default() };
            let report = run(&trace, &strategy, &mut After(5), scenario);
            let mut x = 1.0;
            for round in &report.rounds[..5] {
                x = form(rho, x);
                let seen = round.remaining_pages as f64 / pages as f64;
                assert!((seen - x).abs() < 0.02, "{clear}, rho {rho}, round {}: {seen} {x}", round.index);
            }
        }
    }
}

/// Throttles or limits at the first round's end, then goes on for some rounds.
struct Once(Option<Act>, u32);

impl Policy for Once {
    fn decide(&mut self, round: &Round, history: &[Round]) -> crate::Result<Decision> {
        match self.0.take() {
            Some(act) => Ok(Decision::new(act, Reason::default())),
            None => After(self.1).decide(round, history),
        }
    }
}

#[test]
fn a_throttled_guest_writes_in_proportion_and_a_limited_one_under_its_limit() {
    let (pages, rate) = (20_000u64, 20_000.0);
    let trace = workload(Spec::new("sweep").with("rate", 10_000.0 * PAGE as f64), pages, 60.0, 0.01);
    let ratio = |act: Option<Act>| {
        let scenario = Scenario { link: link(rate, 256), ..Scenario::default() };
        let report = run(&trace, &Spec::new("pre-copy").with("clear", "early"), &mut Once(act, 3), scenario);
        let rounds = &report.rounds;
        (
            rounds[1].remaining_pages as f64 / rounds[0].remaining_pages as f64,
            report.guest_cost.slowdown.unwrap(),
        )
    };
    let (free, lost) = ratio(None);
    assert!((free - 0.5).abs() < 0.02 && lost < 1e-9, "{free} {lost}");
    let (held, lost) = ratio(Some(Act::Throttle { percent: 60.0 }));
    assert!((held - 0.2).abs() < 0.02 && lost > 0.1, "{held} {lost}");
    let (limited, lost) = ratio(Some(Act::dirty_rate(2000.0 * PAGE as f64)));
    assert!((limited - 0.1).abs() < 0.02 && lost > 0.1, "{limited} {lost}");
    // Each write of the sweep is a first write: 1 ms each beside 0.1 ms of its own.
    let (delayed, _) = ratio(Some(Act::write_delay(1e-3)));
    assert!((delayed - 1.0 / 22.0).abs() < 0.01, "{delayed}");
}

#[test]
fn a_run_that_never_ends_is_ended_with_the_reason() {
    let trace = workload(Spec::new("uniform").with("rate", 1e7), 1000, 1.0, 0.1);
    let scenario = Scenario { link: link(100.0, 256), longest: 100.0, ..Scenario::default() };
    let report = run(&trace, &Spec::new("pre-copy"), downtime(1e-3).as_mut(), scenario);
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.reason.contains("100 simulated seconds"), "{}", report.reason);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Invariant 4 in one process, and: more bandwidth never lengthens a stop-and-copy.
    #[test]
    fn runs_repeat_and_bandwidth_helps_stop_and_copy(
        runs in prop::collection::vec((0u64..500, 1u64..12), 0..20), start in 0.0f64..3.0, rate in 50.0f64..5e3, clear in 0..3usize,
    ) {
        let mut trace = Trace::new(vec![TraceBlock { name: "ram".into(), pages: 512 }], Duration::from_millis(100)).unwrap();
        for (first, pages) in runs {
            trace.push([Run { first, pages }]).unwrap();
        }
        trace.push([]).unwrap();
        let trace = Arc::new(trace);
        let scenario = |rate| Scenario { link: link(rate, 256), start, ..Scenario::default() };
        let pre_copy = Spec::new("pre-copy").with("clear", ["early", "skip", "late"][clear]);
        let once = run(&trace, &pre_copy, &mut After(4), scenario(rate));
        prop_assert_eq!(once.to_json(), run(&trace, &pre_copy, &mut After(4), scenario(rate)).to_json());
        prop_assert!(once.outcome == Outcome::Completed && once.sent_pages >= 512);
        let stop = |rate| run(&trace, &Spec::new("stop-and-copy"), &mut After(1), scenario(rate)).total_time;
        prop_assert!(stop(rate * 1.5) <= stop(rate));
    }
}

/// Following one page in some: what is sent agrees within 1 %, the remainder within its sampling error.
#[test]
fn a_sample_of_pages_agrees_with_all() {
    let pages = 1u64 << 17;
    for name in ["zipf", "hot-cold", "uniform"] {
        let trace = workload(Spec::new(name).with("rate", 2e8), pages, 8.0, 0.05);
        for clear in ["early", "skip", "late"] {
            let strategy = Spec::new("pre-copy").with("clear", clear);
            let scenario = Scenario { link: link(1e5, 256), ..Scenario::default() };
            let all = run(&trace, &strategy, &mut After(4), scenario.clone());
            let some = sampled(&trace, 32, &strategy, &mut After(4), scenario);
            let ratio = |of: fn(&Report) -> f64| of(&some) / of(&all) - 1.0;
            let (sent, time) = (ratio(|r| r.sent_bytes as f64), ratio(|r| r.total_time));
            assert!(sent.abs() < 0.01 && time.abs() < 0.01, "{name} {clear}: {sent} {time}");
            // A sample's sum has a variance of at most its weight times the sum.
            let [whole, part] = [&all, &some].map(|r| r.rounds[2].remaining_pages as f64);
            assert!(
                (whole - part).abs() < 4.0 * (32.0 * whole).sqrt() + 32.0,
                "{name} {clear}: {whole} {part}"
            );
            assert_eq!(some.memory_bytes, all.memory_bytes);
        }
    }
}

fn coding(first: f64, again: f64, speed: f64) -> Option<Coding> {
    let bytes = |share| share * PAGE as f64;
    let seconds = PAGE as f64 / speed;
    Some(Coding { names_zeros: true, first_bytes: bytes(first), again_bytes: bytes(again), seconds })
}

/// An encoder before the link: pages pass at min(B / phi, C).
#[test]
fn an_encoder_and_the_link_work_at_the_same_time() {
    let (pages, bandwidth) = (16_384u64, 50e6);
    for (phi, speed) in [(0.5, 1e12), (0.5, 200e6), (0.5, 60e6), (0.25, 20e6)] {
        let link = LinkSpec { bandwidth: Some(bandwidth), ..LinkSpec::default() };
        let scenario = Scenario { link, coding: coding(phi, phi, speed), ..Scenario::default() };
        let report = run(&still(pages), &Spec::new("stop-and-copy"), &mut After(1), scenario);
        let expected = (pages * PAGE as u64) as f64 / f64::min(bandwidth / phi, speed);
        let ratio = report.blackout.unwrap() / expected;
        assert!((ratio - 1.0).abs() < 0.02, "phi {phi}, speed {speed}: {ratio}");
        assert_eq!(report.encoded_pages, pages);
    }
}

/// With hit ratio h and differences of relative size c a page costs s = h c + (1 - h) once it was sent, and
/// rounds shrink by lambda s.
#[test]
fn rounds_of_differences_shrink_by_lambda_s() {
    let (pages, rate, lambda) = (16_384u64, 4096.0, 0.75);
    let trace = workload(Spec::new("sweep").with("rate", lambda * rate * PAGE as f64), pages, 40.0, 0.01);
    for (hits, size) in [(0.9, 0.05), (0.5, 0.2), (0.0, 1.0)] {
        let share = hits * size + (1.0 - hits);
        let early = Spec::new("pre-copy").with("clear", "early");
        let link = link(rate, 256);
        let scenario = Scenario { link, coding: coding(1.0, share, 1e12), ..Scenario::default() };
        let report = run(&trace, &early, &mut After(4), scenario);
        let mut remaining = pages as f64 * lambda;
        for round in &report.rounds[1..4] {
            remaining *= lambda * share;
            let seen = round.remaining_pages as f64;
            assert!((seen - remaining).abs() < 0.03 * remaining + 12.0, "s {share}: {seen} {remaining}");
        }
    }
}

/// A codec that names no zeros sends them, at what others cost.
#[test]
fn zero_pages_go_as_others_where_they_are_not_named() {
    let scenario = |names_zeros| {
        let coding = coding(1.0, 1.0, 1e12).map(|coding| Coding { names_zeros, ..coding });
        Scenario { link: link(1e4, 256), zero_share: 0.5, coding, ..Scenario::default() }
    };
    let sent = |names| run(&still(4096), &Spec::new("stop-and-copy"), &mut After(1), scenario(names));
    let (named, raw) = (sent(true), sent(false));
    assert!((1900..2200).contains(&named.zero_pages), "{}", named.zero_pages);
    assert_eq!((raw.zero_pages, raw.sent_pages, named.sent_pages), (0, 4096, 4096));
    assert!(raw.sent_bytes > 4096 * 4096 && named.sent_bytes < raw.sent_bytes * 6 / 10);
}

/// Counting pages must come to what following them comes to.
#[test]
fn counted_pages_agree_with_followed_ones() {
    let (pages, seconds) = (32_768u64, 12.0);
    let workloads = [
        Spec::new("uniform").with("rate", 60e6),
        Spec::new("zipf").with("rate", 120e6),
        Spec::new("hot-cold").with("rate", 90e6),
        Spec::new("sliding").with("rate", 40e6),
        Spec::new("phases"),
    ];
    for (spec, clear) in
        workloads.iter().flat_map(|spec| ["early", "skip", "late"].map(|clear| (spec, clear)))
    {
        let trace = workload(spec.clone(), pages, seconds, 0.02);
        let windows = Arc::new(Windows::of(&trace).unwrap());
        for (start, throttle) in [(0.5, 0.0), (7.3, 40.0), (11.9, 0.0)] {
            let strategy = Spec::new("pre-copy").with("clear", clear);
            let link = link(16_384.0, 256);
            let scenario = Scenario { link, start, zero_share: 0.2, ..Scenario::default() };
            let mut policy = Throttled(throttle, After(6));
            let exact = run(&trace, &strategy, &mut policy, scenario.clone());
            let made = hurried(&strategy, &windows, &scenario.link).unwrap();
            let counted = Sim::counted(Arc::clone(&windows), scenario, &strategy).unwrap();
            let mut migration = Migration::new(counted, made);
            migration.run(&mut Throttled(throttle, After(6)), &mut [], |_, _| {});
            let fast = migration.finish(Report::default()).0;
            let near = |what: &str, fast: f64, exact: f64, share: f64, slack: f64| {
                let told = format!("{} {clear} from {start}: {what} {fast}, followed {exact}", spec.name);
                assert!((fast - exact).abs() < share * exact + slack, "{told}");
            };
            near("pages", fast.sent_pages as f64, exact.sent_pages as f64, 0.01, 0.0);
            near("bytes", fast.sent_bytes as f64, exact.sent_bytes as f64, 0.01, 0.0);
            near("time", fast.total_time, exact.total_time, 0.01, 0.0);
            let slowdowns = [&fast, &exact].map(|report| report.guest_cost.slowdown.unwrap());
            near("slowdown", slowdowns[0], slowdowns[1], 0.0, 0.004);
            // What `late` keeps of a round before is estimated.
            let share = if clear == "late" { 0.08 } else { 0.01 };
            near("blackout", fast.blackout.unwrap(), exact.blackout.unwrap(), share, 0.004);
            for (fast, exact) in fast.rounds.iter().zip(&exact.rounds) {
                near("remaining", fast.remaining_pages as f64, exact.remaining_pages as f64, share, 60.0);
            }
        }
    }
}

/// Beyond a GiB, each count stands for some pages.
#[test]
fn a_large_guest_is_counted_in_parts() {
    let pages = 1u64 << 20;
    let trace = workload(Spec::new("hot-cold").with("rate", 4e8), pages, 6.0, 0.1);
    let windows = Arc::new(Windows::of(&trace).unwrap());
    assert_eq!((windows.weight(), windows.pages()), (4, pages / 4));
    let scenario = Scenario { link: link(5e5, 256), start: 5.0, ..Scenario::default() };
    let strategy = Spec::new("pre-copy");
    let exact = sampled(&trace, 16, &strategy, &mut After(4), scenario.clone());
    let made = hurried(&strategy, &windows, &scenario.link).unwrap();
    let mut migration = Migration::new(Sim::counted(windows, scenario, &strategy).unwrap(), made);
    migration.run(&mut After(4), &mut [], |_, _| {});
    let fast = migration.finish(Report::default()).0;
    assert_eq!((fast.memory_bytes, fast.rounds.len()), (exact.memory_bytes, exact.rounds.len()));
    let ratios = [fast.sent_bytes as f64 / exact.sent_bytes as f64, fast.total_time / exact.total_time];
    assert!(ratios.iter().all(|ratio| (ratio - 1.0).abs() < 0.02), "{ratios:?}");
}

/// Throttles from the first round on.
struct Throttled(f64, After);

impl Policy for Throttled {
    fn decide(&mut self, round: &Round, before: &[Round]) -> crate::Result<Decision> {
        match round.index {
            0 if self.0 > 0.0 => {
                Ok(Decision { act: Act::Throttle { percent: self.0 }, ..Decision::proceed() })
            }
            _ => self.1.decide(round, before),
        }
    }
}

#[test]
fn what_cannot_be_counted_is_followed() {
    let trace = workload(Spec::new("uniform").with("rate", 20e6), 4096, 5.0, 0.05);
    let windows = Some(Arc::new(Windows::of(&trace).unwrap()));
    let replay = Arc::new(Replay::of(&trace).unwrap());
    let scenario = Scenario { link: link(16_384.0, 256), longest: 60.0, ..Scenario::default() };
    let trial = |strategy: &str, policy: Spec| Trial {
        strategy: Spec::new(strategy),
        policy,
        scenario: scenario.clone(),
    };
    let trials = [
        trial("post-copy", Spec::new("max-rounds")),
        trial("pre-copy", Spec::new("qemu-dirty-limit")),
        trial("pre-copy", Spec::new("max-rounds")),
    ];
    let running = AtomicBool::new(false);
    let follow = || Ok(Arc::clone(&replay));
    let counted = batch(&Guests { windows, replay: &follow }, &trials, 2, &running).unwrap();
    let followed = batch(&Guests { windows: None, replay: &follow }, &trials, 2, &running).unwrap();
    assert!(counted.iter().all(|verdict| verdict.outcome == Outcome::Completed), "{counted:?}");
    assert_eq!(counted[0], followed[0]);
    assert_ne!(counted[2], followed[2]);
}

#[test]
fn the_page_map_has_every_page_of_every_round() {
    let trace = workload(Spec::new("uniform").with("rate", 8e6).with("share", 0.5), 3000, 3.0, 0.05);
    let mapped = |strategy: &Spec| {
        let replay = Arc::new(Replay::of(&trace).unwrap());
        let scenario = Scenario { link: link(4096.0, 64), ..Scenario::default() };
        let plan = scaled(strategy, &replay).unwrap();
        let mut migration = Migration::new(Sim::new(replay, scenario).unwrap(), plan).mapped();
        migration.run(&mut After(4), &mut [], |_, _| {});
        migration.finish(Report::default()).0
    };
    for clear in ["early", "skip", "late"] {
        let report = mapped(&Spec::new("pre-copy").with("clear", clear));
        let map = report.page_map.unwrap();
        assert_eq!((map.region_pages, map.rows.len()), (47, report.rounds.len()));
        for (row, round) in map.rows.iter().zip(&report.rounds) {
            let pages: u64 = row.first.iter().chain(&row.again).sum();
            assert_eq!(pages, round.sent_pages + round.skipped_pages, "{clear} {}", round.index);
            assert!((row.end - round.elapsed).abs() < 1e-9 || !round.live);
        }
        assert_eq!(map.rows[0].first.iter().sum::<u64>(), 3000);
        assert!(map.rows[1].again.iter().sum::<u64>() > 0);
    }
    // What follows execution is a row of its own.
    for (strategy, first) in [("post-copy", 3000), ("hybrid", 0)] {
        let report = mapped(&Spec::new(strategy));
        let (map, missing, rounds) = (report.page_map.unwrap(), report.faults.unwrap(), report.rounds.len());
        let last = &map.rows[rounds];
        assert_eq!((map.rows.len(), last.first.iter().sum::<u64>()), (rounds + 1, first), "{strategy}");
        let sent: u64 = last.first.iter().chain(&last.again).sum();
        assert!(0 < sent && sent <= missing.asked_pages + missing.pushed_pages, "{strategy}");
    }
}

#[test]
fn a_decision_that_takes_its_time_finds_the_copy_further_on() {
    let trace = workload(Spec::new("uniform").with("rate", 2e6).with("share", 0.1), 4096, 3.0, 0.05);
    let slow = |reaction| {
        let costs = super::Costs { reaction, ..super::Costs::default() };
        let scenario = Scenario { link: link(4096.0, 64), costs, ..Scenario::default() };
        run(&trace, &Spec::new("pre-copy"), &mut After(2), scenario)
    };
    let times = |report: &Report, wanted: fn(&Happening) -> bool| -> Vec<f64> {
        report.events.iter().filter(|event| wanted(&event.what)).map(|event| event.time).collect()
    };
    for (reaction, rounds) in [(0.0, 3), (0.4, 5)] {
        let report = slow(reaction);
        let decided = times(&report, |what| matches!(what, Happening::Decided { .. }));
        let paused = times(&report, |what| matches!(what, Happening::Paused));
        assert_eq!((decided.len(), paused.len(), report.outcome), (1, 1, Outcome::Completed));
        // The chunk that is on its way is finished first, and of nothing there is no chunk.
        let late = paused[0] - decided[0] - reaction;
        assert!((0.0..=64.0 / 4096.0 + 0.01).contains(&late), "{late}");
        assert!(report.rounds.len() >= rounds, "{}", report.rounds.len());
        assert_eq!(report.rounds.iter().filter(|round| !round.live).count(), 1);
    }
}

#[test]
fn a_scenario_that_cannot_be_is_refused() {
    let refused =
        |scenario| Sim::new(Arc::new(Replay::of(&still(8)).unwrap()), scenario).err().unwrap().to_string();
    let base = Scenario { link: link(100.0, 1), ..Scenario::default() };
    assert!(refused(Scenario::default()).contains("bandwidth"));
    assert!(refused(Scenario { start: -1.0, ..base.clone() }).contains("start"));
    assert!(refused(Scenario { zero_share: 2.0, ..base.clone() }).contains("zero_share"));
    let costs = super::Costs { stop: f64::NAN, ..super::Costs::default() };
    assert!(refused(Scenario { costs, ..base }).contains("costs"));
}

#[test]
fn a_batch_gives_what_its_trials_give_one_by_one() {
    let trace = workload(Spec::new("zipf").with("rate", 5e7), 4096, 3.0, 0.05);
    let replay = Arc::new(Replay::of(&trace).unwrap());
    let trial = |index: u64| Trial {
        strategy: Spec::new("pre-copy"),
        policy: Spec::new("downtime-limit").with("limit", 0.01 * (index + 1) as f64),
        scenario: Scenario { link: link(2e4, 256), start: 0.1 * index as f64, ..Scenario::default() },
    };
    let (trials, running): (Vec<Trial>, _) = ((0..40).map(trial).collect(), AtomicBool::new(false));
    let followed = Guests { windows: None, replay: &|| Ok(Arc::clone(&replay)) };
    let verdicts = batch(&followed, &trials, 3, &running).unwrap();
    for (trial, verdict) in trials.iter().zip(&verdicts) {
        assert_eq!(*verdict, trial.run(&followed, &running).unwrap().into());
    }
    assert!(verdicts.windows(2).any(|pair| pair[0].blackout != pair[1].blackout));
    let mut wrong = trials;
    wrong[7].policy = Spec::new("downtime-limitt");
    assert!(batch(&followed, &wrong, 2, &running).unwrap_err().to_string().contains("trial 7"));
    assert!(batch(&followed, &wrong[..3], 2, &AtomicBool::new(true)).is_err());
}

/// A vCPU that waits L for a page and touches at rate a in between stalls for 1 - ln(1 + aL) / (aL) of the time in
/// which memory follows; the faults are that share of it, over L.
#[test]
fn the_stall_share_of_post_copy_follows_its_closed_form() {
    let (pages, rate) = (20_000u64, 20_000.0);
    for (kappa, rtt) in [(0.1, 1e-5), (1.0, 1e-4), (10.0, 1e-3)] {
        let (latency, touches) = (rtt + 1.0 / rate, kappa / (rtt + 1.0 / rate));
        let uniform = Spec::new("uniform").with("rate", touches * PAGE as f64);
        let trace = workload(uniform, pages, 4.0, 0.001);
        let scenario = Scenario { link: LinkSpec { rtt, ..link(rate, 1) }, ..Scenario::default() };
        let strategy = Spec::new("post-copy").with("prepaging", "sequential").with("chunk_pages", 8);
        let report = run(&trace, &strategy, &mut After(1), scenario);
        let faults = report.faults.unwrap();
        let (expected, share) =
            (1.0 - (1.0 + kappa).ln() / kappa, faults.total.count as f64 * latency / faults.duration);
        assert!((share / expected - 1.0).abs() < 0.06, "kappa {kappa}: {share} {expected}");
        assert_eq!((report.outcome, report.sent_pages), (Outcome::Completed, pages), "{}", report.reason);
        // A loss under 5 % is no brownout.
        if expected > 0.1 {
            let lost = report.brownout.unwrap().loss / faults.duration;
            assert!((lost / expected - 1.0).abs() < 0.15, "kappa {kappa}: brownout {lost} {expected}");
        }
    }
}

#[test]
fn reads_that_are_assumed_are_waited_for_as_writes_are() {
    let trace = workload(Spec::new("uniform").with("rate", 4e6), 8192, 4.0, 0.01);
    let stalled = |per_write, share| {
        let reads = super::Reads { per_write, share };
        let link = LinkSpec { rtt: 5e-4, ..link(8192.0, 16) };
        let scenario = Scenario { link, reads, ..Scenario::default() };
        let report = run(&trace, &Spec::new("post-copy"), &mut After(1), scenario);
        assert_eq!((report.outcome, report.sent_pages >= 8192), (Outcome::Completed, true));
        let faults = report.faults.unwrap();
        faults.total.count as f64 * (5e-4 + 1.0 / 8192.0) / faults.duration
    };
    // The closed form knows touches, whatever they are: k = touches a second x latency.
    for per_write in [0.0, 1.0, 4.0] {
        let kappa = 4e6 / PAGE as f64 * (1.0 + per_write) * (5e-4 + 1.0 / 8192.0);
        let (found, expected) = (stalled(per_write, 1.0), 1.0 - (1.0f64 + kappa).ln() / kappa);
        assert!((found / expected - 1.0).abs() < 0.2, "{per_write}: {found} {expected}");
    }
    assert!(stalled(4.0, 0.05) < 0.8 * stalled(4.0, 1.0));
}

#[test]
fn a_hybrid_ends_what_pre_copy_does_not() {
    let trace = workload(Spec::new("uniform").with("rate", 20_000.0 * PAGE as f64), 20_000, 5.0, 0.01);
    let scenario = Scenario { link: link(10_000.0, 256), ..Scenario::default() };
    let report = run(&trace, &Spec::new("hybrid").with("rounds", 2), downtime(0.01).as_mut(), scenario);
    assert_eq!(report.outcome, Outcome::Completed, "{}", report.reason);
    assert!(report.faults.unwrap().asked_pages > 100 && report.blackout.unwrap() < 0.01);
}
