//! Runs that are cancelled while they wait, guests that crash at the destination, trackers that see nothing.
//! Waits are of an hour: a test that had to sit one out would not end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;

use super::tests::{assert_runs_at_source, case, migration, streams, Case};
use super::{receive_in_thread, Reception, Sending, Source};
use crate::error::{Error, Result};
use crate::guest::workload::{Tick, Work};
use crate::guest::{restore_known, Guest, Region, Workload};
use crate::policy;
use crate::report::{Outcome, Report};
use crate::track;
use crate::world::Step;

const HOUR: Duration = Duration::from_secs(3600);

/// Runs `case` towards a peer that says nothing, and cancels it when `cancel` says so.
fn cancelled(case: &Case) {
    let (near, silent) = streams(1);
    let mut migration = migration(case, near);
    let (switch, cutter) = (migration.canceller(), migration.world().cutter());
    let cancelling = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        switch.store(true, Ordering::Relaxed);
        cutter.cut_soon().unwrap();
    });
    assert_eq!(migration.next_round(), Step::Over);
    cancelling.join().unwrap();
    let (report, source) = migration.finish(Report::default());
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Aborted, "cancelled"));
    assert_runs_at_source(source);
    drop(silent);
}

#[test]
fn a_run_is_cancelled_within_its_warm_up() {
    cancelled(&Case { sending: Sending { warm_up: HOUR, stall: HOUR, ..case().sending }, ..case() });
}

#[test]
fn a_run_is_cancelled_while_its_peer_is_silent() {
    let warm_up = Duration::from_millis(1);
    cancelled(&Case { sending: Sending { warm_up, stall: HOUR, ..case().sending }, ..case() });
}

#[test]
fn a_run_is_cancelled_while_a_policy_holds_the_link() {
    let (near, far) = streams(1);
    let destination = receive_in_thread(far, Reception::default(), Box::new(restore_known)).unwrap();
    let mut migration = migration(&case(), near);
    let (switch, cutter) = (migration.canceller(), migration.world().cutter());
    assert!(matches!(migration.next_round(), Step::Decide(_)));
    migration.act(policy::Decision::new(policy::Act::bandwidth(1e-3), policy::Reason::default()));
    let cancelling = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(30));
        switch.store(true, Ordering::Relaxed);
        cutter.cut_soon().unwrap();
    });
    while migration.next_round() != Step::Over {}
    cancelling.join().unwrap();
    let (report, source) = migration.finish(Report::default());
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Aborted, "cancelled"));
    assert!(destination.join().unwrap().is_err());
    assert_runs_at_source(source);
}

/// A program that cannot go on.
struct Crashes;

impl Workload for Crashes {
    fn name(&self) -> &'static str {
        "crashes"
    }
    fn rate(&self, _now: Duration) -> f64 {
        f64::INFINITY
    }
    fn run(&mut self, _: &Region, _: Tick) -> Result<Work> {
        Err(Error::Verification("it lost its mind".into()))
    }
    fn check(&self, _: &Region) -> Result<()> {
        Ok(())
    }
    fn save(&self) -> Result<Value> {
        Ok(Value::Null)
    }
}

#[test]
fn a_guest_that_crashes_at_its_first_tick_is_told_of_at_once() {
    let (near, far) = streams(1);
    let crash = |_: &str, _: Value| Ok(Box::new(Crashes) as Box<dyn Workload>);
    let reception = Reception { stall: HOUR, ..Reception::default() };
    let destination = receive_in_thread(far, reception, Box::new(crash)).unwrap();
    let mut migration = migration(&case(), near);
    migration.run(policy::find(&case().policy).unwrap().as_mut(), &mut [], |_, _| {});
    let (report, source) = migration.finish(Report::default());
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.reason.contains("it lost its mind"), "{}", report.reason);
    assert!(destination.join().unwrap().is_err());
    assert!(source.into_guest().1, "it was let go");
}

#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
#[test]
fn a_tracker_of_vcpus_is_refused_to_threads_before_the_run() {
    if !crate::guest::kvm::probe().works {
        return;
    }
    for name in ["kvm-log", "kvm-ring"] {
        let (guest, tracker) = (Guest::new(&case().guest).unwrap(), track::find(name).unwrap());
        let refused = Source::new(guest, tracker, streams(1).0, case().sending).map(drop).unwrap_err();
        assert!(refused.to_string().contains("threads"), "{refused}");
    }
}
