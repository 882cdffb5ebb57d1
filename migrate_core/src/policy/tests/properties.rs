//! What holds for every policy on any history: its own limits, an end or a word that there is none, the
//! same answers to the same history.

use proptest::prelude::*;

use super::docs::ends;
use super::histories::{drive, rounds, Done, Leaves};
use crate::policy::{find, Act, Round};

fn history() -> impl Strategy<Value = Vec<Round>> {
    let left = prop_oneof![3 => 0u64..400, 1 => 0u64..10, 1 => Just(1024u64)];
    let link = prop_oneof![5 => Just(100u64), 1 => 1u64..1000];
    prop::collection::vec((left, link), 1..50).prop_map(|leaves: Vec<Leaves>| rounds(1024, leaves))
}

/// The greatest blackout that a policy allows itself with its defaults, seconds.
fn own_limit(name: &str) -> Option<f64> {
    Some(match name {
        "downtime-limit" | "qemu" | "qemu-avail-bandwidth" | "qemu-auto-converge" | "qemu-dirty-limit" => 0.3,
        "cloud-hypervisor" | "cloud-hypervisor-throttle" | "any-of" => 0.3,
        "kubevirt-legacy" | "libvirt-timeout" => 0.3,
        "simgrid" => 0.03,
        "ovirt-legacy" | "ovirt-minimal-downtime" | "nova" => 0.5,
        "ovirt-post-copy" => 0.2,
        "ovirt-suspend" | "ovirt-very-large" => 5.0,
        "kubevirt-downtime" => 1.05,
        "kubevirt-stall" => 0.9,
        "vmotion-sdps" => 1.0,
        "proxmox" => 2000.0,
        _ => return None,
    })
}

/// The bandwidth by QEMU's rule at the end of `rounds`, which came without samples: windows end at the
/// first round's end that is 100 ms or more after the last.
fn window_bandwidth(rounds: &[Round]) -> f64 {
    let (mut when, mut sent, mut bandwidth) = (0.0, 0, 0.0);
    for round in rounds.iter().filter(|round| round.duration > 0.0) {
        if round.elapsed - when > 0.0999999 {
            bandwidth = (round.total_sent_bytes - sent) as f64 / (round.elapsed - when);
            (when, sent) = (round.elapsed, round.total_sent_bytes);
        }
    }
    bandwidth
}

/// The blackout that a switchover at the end of the last of `rounds` would mean to the policy.
fn blackout(name: &str, rounds: &[Round]) -> f64 {
    let last = rounds.last().unwrap();
    if last.remaining_bytes > 0 && name.starts_with("qemu") {
        return last.remaining_bytes as f64 / window_bandwidth(rounds);
    }
    last.expected_blackout
}

fn throttles(done: &[Done]) -> Vec<f64> {
    let percent = |done: &Done| match done.decision.act {
        Act::Throttle { percent } => Some(percent),
        _ => None,
    };
    done.iter().filter_map(percent).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn no_policy_switches_over_above_its_own_limit(rounds in history()) {
        for spec in super::all() {
            let Some(limit) = own_limit(&spec.name) else { continue };
            let done = drive(&mut *find(&spec).unwrap(), &rounds, false);
            for Done { decision, .. } in &done {
                if let Act::Limit { blackout: Some(set), .. } = decision.act {
                    prop_assert!(set <= limit + 1e-12, "{} allows {set}", spec.name);
                }
            }
            if let Some(last) = done.last().filter(|last| last.decision.act == Act::SwitchOver) {
                let expected = blackout(&spec.name, &rounds[..=last.round as usize]);
                prop_assert!(expected <= limit * (1.0 + 1e-12), "{} at {expected}: {last:?}", spec.name);
            }
        }
    }

    #[test]
    fn the_same_history_has_the_same_answers(rounds in history(), sampled in any::<bool>()) {
        for spec in super::all() {
            let run = || drive(&mut *find(&spec).unwrap(), &rounds, sampled);
            prop_assert_eq!(run(), run(), "{}", spec.name);
        }
    }

    #[test]
    fn throttles_only_grow(rounds in history(), sampled in any::<bool>()) {
        for spec in super::all() {
            let steps = throttles(&drive(&mut *find(&spec).unwrap(), &rounds, sampled));
            prop_assert!(steps.is_sorted_by(|a, b| a < b), "{}: {steps:?}", spec.name);
        }
    }
}

/// A guest that writes so fast that every round takes about ten seconds, for an hour and a half.
fn endless() -> Vec<Round> {
    rounds(1024, (0..540).map(|n| (1000 + n * 7 % 24, 100)))
}

#[test]
fn each_policy_ends_or_its_page_says_that_it_may_not() {
    for sampled in [false, true] {
        for spec in super::all() {
            let done = drive(&mut *find(&spec).unwrap(), &endless(), sampled);
            let ended = done.last().is_some_and(|last| last.decision.act.ends());
            if let Some(ends) = ends(&spec.name) {
                assert_eq!(ended, ends, "{} (samples: {sampled})", spec.name);
            }
        }
    }
}
