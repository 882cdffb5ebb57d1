//! Writers that are held back, so that a guest that would never converge does.

use std::time::Duration;

use super::tests::{assert_running, case, migration, streams, Case};
use super::{receive_in_thread, Reception, Sending};
use crate::error::{Error, Result};
use crate::guest::{restore_known, GuestSpec, Layout};
use crate::knobs::Spec;
use crate::link::{LinkSpec, Shaper};
use crate::policy::{self, Act, Decision, Policy, Reason, Round, Sample};
use crate::report::{Happening, Outcome, Place, Report};

/// What the link carries, bytes per second: a sixth of what the writer asks for, so that it is too little also
/// where the machine lets the writer have a fifth of its time.
const LINK: f64 = 2e7;

/// A guest that writes more than its link carries, to all of its memory in a fraction of a round.
fn endless(workloads: Vec<Spec>) -> Case {
    let guest = GuestSpec::new(Layout::single(4 << 20), workloads, 7);
    let sending = Sending { cool_down: Duration::from_millis(30), ..case().sending };
    Case { guest, sending, ..case() }
}

fn writer() -> Spec {
    Spec::new("sweep").with("rate", 1.2e8)
}

/// Migrates over the shaped link; the guest goes on running, here or there.
fn run(case: &Case, link: f64, policy: &mut dyn Policy, watchers: &[&str]) -> Report {
    let shaper = Shaper::new(&LinkSpec { bandwidth: Some(link), ..LinkSpec::default() }).unwrap();
    let (near, far) = streams(1);
    let near = near.into_iter().map(|end| shaper.insert(end).unwrap()).collect();
    let destination = receive_in_thread(far, Reception::default(), Box::new(restore_known)).unwrap();
    let mut migration = migration(case, near);
    let named = |name: &&str| ((*name).to_owned(), policy::find(&Spec::new(name)).unwrap());
    let mut watchers: Vec<_> = watchers.iter().map(named).collect();
    migration.run(policy, &mut watchers, |_, _| {});
    let (report, source) = migration.finish(Report::default());
    let (guest, let_go) = source.into_guest();
    match destination.join().unwrap() {
        Ok(arrived) if let_go => {
            assert_running(&arrived.guest);
            assert_eq!(arrived.guest.progress().held_ns, guest.progress().held_ns, "it is held there, too");
        }
        _ => assert_running(&guest),
    }
    report
}

/// The policy, but for at most so many rounds.
fn capped(spec: Spec) -> Box<dyn Policy> {
    let cap = Spec::new("max-rounds").with("rounds", 60).with("then", "abort");
    policy::find(&Spec::new("any-of").with("policies", serde_json::json!([spec, cap]))).unwrap()
}

fn assert_converges(case: &Case, link: f64, spec: Spec) -> Report {
    let report = run(case, link, capped(spec).as_mut(), &["qemu"]);
    assert_eq!((report.outcome, report.verified), (Outcome::Completed, Some(true)), "{}", report.reason);
    assert!(report.guest_cost.held_time.unwrap() > 0.0);
    report
}

#[test]
fn unthrottled_it_never_converges() {
    let case = endless(vec![writer()]);
    let cap = Spec::new("max-rounds").with("rounds", 4).with("then", "abort");
    let both = serde_json::json!([Spec::new("qemu").with("limit", 0.05), cap]);
    let report =
        run(&case, LINK, policy::find(&Spec::new("any-of").with("policies", both)).unwrap().as_mut(), &[]);
    assert_eq!(report.outcome, Outcome::Aborted, "{:?}", report.rounds);
    assert_eq!(report.guest_cost.held_time, Some(0.0));
}

#[test]
fn auto_converge_makes_it_converge() {
    let spec = Spec::new("qemu-auto-converge").with("limit", 0.05).with("period", 0.05);
    let report =
        assert_converges(&endless(vec![writer()]), LINK, spec.with("initial", 0.5).with("increment", 0.4));
    assert!(report.rounds.iter().any(|round| round.throttle >= 50.0));
    assert!(report.progress.iter().any(|point| point.throttle >= 50.0));
    assert!(report.progress.iter().any(|point| point.place == Place::Destination));
    let (brownout, cost) = (report.brownout.unwrap(), report.guest_cost);
    assert!(brownout.loss > 0.0 && cost.after.unwrap() > 0.0 && brownout.at_destination.is_some());
    let effective = report.effective_downtime.unwrap();
    assert!((effective - brownout.loss - report.blackout.unwrap()).abs() < 1e-9);
}

#[test]
fn a_quota_makes_it_converge_and_spares_who_does_not_dirty() {
    // A quota is kept within 25 MiB/s: the link must carry more than that.
    let hot = Spec::new("uniform").with("rate", 2e7).with("share", 0.002);
    let case = endless(vec![Spec::new("sweep").with("rate", 5e8), hot]);
    let case = Case { guest: GuestSpec { layout: Layout::single(24 << 20), ..case.guest }, ..case };
    let spec = Spec::new("qemu-dirty-limit").with("limit", 0.03).with("period", 0.05);
    let report = assert_converges(&case, 6e7, spec);
    let set = |what: &Happening| matches!(what, Happening::Decided { decision, .. } if matches!(decision.act, Act::Limit { dirty_rate: Some(_), .. }));
    assert_eq!(report.events.iter().filter(|event| set(&event.what)).count(), 1);
}

#[test]
fn delays_of_first_writes_make_it_converge() {
    assert_converges(
        &endless(vec![writer()]),
        LINK,
        Spec::new("vmotion-sdps").with("limit", 0.05).with("share", 0.3),
    );
}

/// Holds the guest for days from the first look on, then ends the run by `end`.
struct Freeze(Result<Act>);

impl Policy for Freeze {
    fn decide(&mut self, _: &Round, _: &[Round]) -> Result<Decision> {
        match &self.0 {
            Ok(act) => Ok(Decision::new(*act, Reason::text("enough"))),
            Err(_) => Err(Error::Policy { reason: "it broke".into(), source: None }),
        }
    }

    fn sample(&mut self, _: &Sample) -> Result<Option<Decision>> {
        Ok(Some(Decision::new(Act::write_delay(1e6), Reason::text("freeze"))))
    }
}

#[test]
fn the_brake_is_lifted_however_the_run_ends() {
    let case =
        Case { sending: Sending { cool_down: Duration::ZERO, ..case().sending }, ..endless(vec![writer()]) };
    for (end, outcome) in [
        (Ok(Act::Abort), Outcome::Aborted),
        (Err(Error::usage("")), Outcome::Failed),
        (Ok(Act::PostCopy), Outcome::Failed),
        (Ok(Act::SwitchOver), Outcome::Completed),
    ] {
        // run() waits for the guest to go on.
        assert_eq!(run(&case, LINK, &mut Freeze(end), &[]).outcome, outcome);
    }
}

#[test]
fn the_brake_is_lifted_when_the_peer_is_lost() {
    let (near, mut far) = streams(1);
    let mut far = Some(far.remove(0));
    let receiver = far.as_ref().unwrap().try_clone().unwrap();
    let destination =
        receive_in_thread(vec![receiver], Reception::default(), Box::new(restore_known)).unwrap();
    let mut migration = migration(&endless(vec![writer()]), near);
    // A guest that stands still gives nothing to send: the loss is noticed when it is handed over.
    migration.run(&mut Freeze(Ok(Act::SwitchOver)), &mut [], |_, _| {
        far.take().into_iter().for_each(|far| far.shutdown(std::net::Shutdown::Both).unwrap());
    });
    let (report, source) = migration.finish(Report::default());
    assert_eq!(report.outcome, Outcome::Failed, "{}", report.reason);
    assert!(destination.join().unwrap().is_err());
    assert_running(&source.into_guest().0);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for act in [
        Act::Throttle { percent: f64::NAN },
        Act::Throttle { percent: -1.0 },
        Act::dirty_rate(-5.0),
        Act::write_delay(f64::INFINITY),
    ] {
        let report = run(&endless(vec![writer()]), LINK, &mut Freeze(Ok(act)), &[]);
        assert_eq!(report.outcome, Outcome::Failed, "{act:?}");
        assert!(report.reason.contains("0 or more"), "{}", report.reason);
    }
}
