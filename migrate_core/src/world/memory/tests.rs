//! Migrations of real memory, whole and broken.

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use super::{receive_in_thread, Arrived, Reception, Sending, Source};
use crate::error::Error;
use crate::error::Result;
use crate::guest::{restore_known, Guest, GuestSpec, Layout};
use crate::knobs::Spec;
use crate::link::{self, Stream, Transport};
use crate::policy::{self, Policy};
use crate::report::{Outcome, Report};
use crate::strategy;
use crate::track;
use crate::world::{Migration, Step};

struct Case {
    guest: GuestSpec,
    strategy: Spec,
    policy: Spec,
    tracker: &'static str,
    channels: usize,
    sending: Sending,
}

fn case() -> Case {
    let sending = Sending {
        verify: true,
        warm_up: Duration::from_millis(20),
        stall: Duration::from_secs(5),
        ..Sending::default()
    };
    Case {
        guest: GuestSpec::new(Layout::single(16 << 20), vec![Spec::new("sweep").with("rate", 5e7)], 7),
        strategy: Spec::new("pre-copy"),
        policy: Spec::new("max-rounds").with("rounds", 4),
        tracker: "software",
        channels: 1,
        sending,
    }
}

fn streams(channels: usize) -> (Vec<Stream>, Vec<Stream>) {
    (0..channels).map(|_| link::pair(Transport::Unix).unwrap()).unzip()
}

fn migration(case: &Case, near: Vec<Stream>) -> Migration<Source> {
    let guest = Guest::new(&case.guest).unwrap();
    let source = Source::new(guest, track::find(case.tracker).unwrap(), near, case.sending.clone()).unwrap();
    Migration::new(source, strategy::find(&case.strategy).unwrap())
}

fn run(case: &Case) -> (Report, Source, Result<Arrived>) {
    let (near, far) = streams(case.channels);
    let destination = receive_in_thread(far, Reception::default(), Box::new(restore_known)).unwrap();
    let mut migration = migration(case, near);
    migration.run(policy::find(&case.policy).unwrap().as_mut(), &mut [], |_, _| {});
    let (report, source) = migration.finish(Report::default());
    let arrived = destination.join().unwrap();
    (report, source, arrived)
}

fn assert_complete(case: &Case) -> Report {
    let (report, source, arrived) = run(case);
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Completed, ""));
    assert_eq!(report.verified, Some(true));
    let (_, let_go) = source.into_guest();
    assert!(let_go);
    let guest = arrived.unwrap().guest;
    let before = guest.progress().operations;
    while guest.progress().operations == before {
        std::thread::yield_now();
    }
    guest.check().unwrap();
    report
}

#[test]
fn every_discipline_moves_a_running_guest() {
    for clear in ["early", "skip", "late"] {
        let report =
            assert_complete(&Case { strategy: Spec::new("pre-copy").with("clear", clear), ..case() });
        assert_eq!(report.rounds.len(), 5, "{clear}");
        assert!(report.rounds[..4].iter().all(|round| round.live) && !report.rounds[4].live);
        assert_eq!(report.rounds[0].sent_pages, 4096, "{clear}");
        assert_eq!(report.sent_pages, report.rounds.iter().map(|round| round.sent_pages).sum::<u64>());
        assert_eq!(
            report.sent_bytes - report.rounds.iter().map(|round| round.sent_bytes).sum::<u64>() > 0,
            true
        );
        let gap = report.guest_gap.unwrap();
        assert!(gap > 0.0 && gap <= report.sender_pause.unwrap() + 0.05, "{gap}");
    }
}

#[test]
fn stop_and_copy_sends_every_page_once_in_the_blackout() {
    let report = assert_complete(&Case { strategy: Spec::new("stop-and-copy"), ..case() });
    assert_eq!((report.rounds.len(), report.rounds[0].live, report.sent_pages), (1, false, 4096));
}

#[test]
fn several_channels_deliver_one_image() {
    let report = assert_complete(&Case { channels: 4, ..case() });
    assert_eq!(report.rounds[0].sent_pages, 4096);
}

#[test]
fn a_policy_that_gives_up_leaves_the_guest_at_the_source() {
    let policy = Spec::new("max-rounds").with("rounds", 2).with("then", "abort");
    let (report, source, arrived) = run(&Case { policy, ..case() });
    assert_eq!(report.outcome, Outcome::Aborted);
    assert!(report.reason.contains("rounds"), "{}", report.reason);
    assert!(arrived.err().unwrap().to_string().contains("rounds"));
    assert_runs_at_source(source);
}

fn assert_runs_at_source(source: Source) {
    let (guest, let_go) = source.into_guest();
    assert!(!let_go);
    let before = guest.progress().operations;
    while guest.progress().operations == before {
        std::thread::yield_now();
    }
    guest.check().unwrap();
}

#[test]
fn cancelling_is_an_abort() {
    let (near, far) = streams(1);
    let destination = receive_in_thread(far, Reception::default(), Box::new(restore_known)).unwrap();
    let mut migration = migration(&case(), near);
    let switch = migration.canceller();
    assert!(matches!(migration.next_round(), Step::Decide(_)));
    switch.store(true, Ordering::Relaxed);
    assert_eq!(migration.next_round(), Step::Over);
    let (report, source) = migration.finish(Report::default());
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Aborted, "cancelled"));
    assert!(destination.join().unwrap().is_err());
    assert_runs_at_source(source);
}

#[test]
fn a_destination_that_cannot_restore_leaves_the_guest_at_the_source() {
    let (near, far) = streams(1);
    let refuse = |name: &str, _| Err(Error::usage(format!("no {name} here")));
    let destination = receive_in_thread(far, Reception::default(), Box::new(refuse)).unwrap();
    let mut migration = migration(&case(), near);
    migration.run(policy::find(&case().policy).unwrap().as_mut(), &mut [], |_, _| {});
    let (report, source) = migration.finish(Report::default());
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.reason.contains("gave up: no sweep here"), "{}", report.reason);
    assert!(destination.join().unwrap().is_err());
    assert_runs_at_source(source);
}

#[test]
fn a_peer_that_closes_or_talks_rubbish_is_a_failure_with_its_reason() {
    use std::io::{Read, Write};
    let talk: [(&str, fn(Stream)); 4] = [
        ("closed the connection", drop),
        ("is no section", |mut far| {
            let _ = far.write_all(&[b'x'; 64]);
            let _ = far.read(&mut [0; 4096]);
        }),
        ("speaks version 9", |mut far| {
            let _ = far.write_all(&[b"SW\x09\x01".as_slice(), &[0; 20]].concat());
            let _ = far.read(&mut [0; 4096]);
        }),
        ("stalled", |mut far| {
            let _ = far.read(&mut [0; 4096]);
            std::thread::sleep(Duration::from_millis(600));
        }),
    ];
    for (expected, peer) in talk {
        let (mut near, mut far) = streams(1);
        let thread = std::thread::spawn(move || peer(far.remove(0)));
        let sending = Sending { stall: Duration::from_millis(300), ..case().sending };
        let mut migration = migration(&Case { sending, ..case() }, vec![near.remove(0)]);
        migration.run(policy::find(&case().policy).unwrap().as_mut(), &mut [], |_, _| {});
        let (report, source) = migration.finish(Report::default());
        assert_eq!(report.outcome, Outcome::Failed);
        assert!(report.reason.contains(expected), "{expected}: {}", report.reason);
        assert_runs_at_source(source);
        thread.join().unwrap();
    }
}

#[test]
fn nothing_is_left_of_a_destination_whose_source_vanishes() {
    let (near, far) = streams(1);
    let destination = receive_in_thread(far, Reception::default(), Box::new(restore_known)).unwrap();
    drop(near);
    let error = destination.join().unwrap().err().unwrap();
    assert!(error.to_string().contains("closed the connection at byte 0"), "{error}");
}

#[test]
fn a_policy_that_errs_fails_the_run_with_the_guest_at_the_source() {
    struct Broken;
    impl Policy for Broken {
        fn decide(&mut self, _: &policy::Round, _: &[policy::Round]) -> Result<policy::Decision> {
            Err(Error::Policy { reason: "it raised".into(), source: None })
        }
    }
    let (near, far) = streams(1);
    let destination = receive_in_thread(far, Reception::default(), Box::new(restore_known)).unwrap();
    let mut migration = migration(&case(), near);
    migration.run(&mut Broken, &mut [], |_, _| {});
    let (report, source) = migration.finish(Report::default());
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Failed, "policy: it raised"));
    assert!(destination.join().unwrap().is_err());
    assert_runs_at_source(source);
    assert_eq!(Arc::strong_count(&Arc::new(())), 1);
}
