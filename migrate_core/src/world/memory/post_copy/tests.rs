//! Post-copy and hybrid of a running guest, on real memory.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::{receive_from_thread, Arrived, Reception, Sending, Source};
use crate::error::Result;
use crate::guest::{restore_known, Backing, BlockSpec, Guest, GuestSpec, HugePages, Layout};
use crate::knobs::Spec;
use crate::link::{self, LinkSpec, Shaper, Stream, Transport};
use crate::report::{Happening, Outcome, Report};
use crate::strategy::Strategy;
use crate::world::{Migration, Step};
use crate::{policy, strategy, track};

pub(super) const PAGES: u64 = 4096;

pub(super) fn layout(backing: Backing) -> Layout {
    Layout { blocks: vec![BlockSpec { backing, ..BlockSpec::new("ram", PAGES << 12) }] }
}

pub(super) fn kv() -> Spec {
    Spec::new("kv").with("rate", 2e7)
}

pub(super) fn sending(strategy: &dyn Strategy) -> Sending {
    Sending {
        verify: true,
        warm_up: Duration::from_millis(20),
        stall: Duration::from_secs(5),
        departure: strategy.departure(),
        ..Sending::default()
    }
}

pub(super) fn reception() -> Reception {
    Reception { stall: Duration::from_secs(5), recovery: Duration::from_secs(20), ..Reception::default() }
}

type Destination = (JoinHandle<Result<Arrived>>, std::sync::mpsc::Sender<Stream>);

/// A migration of `guest` in two ends that are connected, over `channels` for pages and one for faults.
pub(super) fn start(
    guest: Guest,
    strategy: Box<dyn Strategy>,
    channels: usize,
    change: impl FnOnce(&mut Sending),
) -> (Migration<Source>, Destination) {
    let (near, far) = (0..=channels).map(|_| link::pair(Transport::Unix).unwrap()).unzip();
    let destination = receive_from_thread(far, reception(), Box::new(restore_known)).unwrap();
    let mut sending = sending(strategy.as_ref());
    change(&mut sending);
    let source = Source::new(guest, track::find("auto").unwrap(), near, sending).unwrap();
    (Migration::new(source, strategy), destination)
}

pub(super) fn assert_running(guest: &Guest) {
    let (before, began) = (guest.progress().operations, Instant::now());
    while guest.progress().operations == before {
        assert!(began.elapsed() < Duration::from_secs(20), "the guest does not run");
        std::thread::yield_now();
    }
    guest.check_alive().unwrap();
    guest.check().unwrap();
}

fn complete(spec: &Spec, backing: Backing, channels: usize) -> (Report, Guest) {
    let guest = Guest::new(&GuestSpec::new(layout(backing), vec![kv(), kv()], 7)).unwrap();
    let (mut migration, (thread, connect)) = start(guest, strategy::find(spec).unwrap(), channels, |_| ());
    let mut policy = policy::find(&Spec::new("max-rounds").with("rounds", 1000)).unwrap();
    migration.run(policy.as_mut(), &mut [], |_, _| {});
    let (report, source) = migration.finish(Report::default());
    drop(connect);
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Completed, ""), "{spec:?}");
    assert_eq!(report.verified, Some(true));
    assert!(source.into_guest().1, "the source let go");
    (report, thread.join().unwrap().unwrap().guest)
}

#[test]
fn post_copy_moves_a_running_guest_in_every_order_and_backing() {
    for (order, backing, channels) in [
        ("sequential", Backing::Anonymous, 1),
        ("bubbling", Backing::Anonymous, 3),
        ("bubbling:pivots=2", Backing::Memfd, 1),
        ("recency", Backing::Anonymous, 1),
        ("none:patience=5", Backing::Memfd, 2),
    ] {
        let (report, guest) = complete(&Spec::new("post-copy").with("prepaging", order), backing, channels);
        assert_running(&guest);
        let faults = report.faults.unwrap();
        assert!(report.rounds.is_empty());
        assert_eq!(faults.total.count, faults.asked_pages, "{order}");
        let placed = faults.asked_pages + faults.pushed_pages;
        assert_eq!(placed, PAGES, "{order}: {faults:?}");
        // What was still on its way when the last page was placed is not counted at the destination.
        assert!(report.sent_pages >= PAGES + faults.sent_twice, "{order}: {faults:?}");
        assert_eq!(faults.filled_pages, 0, "{order}");
        assert!(faults.asked_pages > 0, "{order}: a store that starts cold asks for something");
        assert!(report.blackout.unwrap() > 0.0 && report.blackout.unwrap() < report.total_time);
    }
}

#[test]
fn hybrid_moves_ahead_of_what_is_dirty() {
    for (clear, backing) in
        [("late", Backing::Anonymous), ("skip", Backing::Memfd), ("early", Backing::Anonymous)]
    {
        let spec = Spec::new("hybrid").with("rounds", 2).with("clear", clear);
        let (report, guest) = complete(&spec, backing, 2);
        assert_running(&guest);
        assert_eq!(report.rounds.len(), 2);
        assert!(report.rounds.iter().all(|round| round.live));
        let faults = report.faults.unwrap();
        let placed = faults.asked_pages + faults.pushed_pages;
        assert!(placed < PAGES, "{clear}: {placed} pages came after execution");
    }
}

#[test]
fn a_policy_sends_a_hybrid_either_way() {
    for (act, ahead) in [(policy::Act::PostCopy, true), (policy::Act::SwitchOver, false)] {
        let guest = Guest::new(&GuestSpec::new(layout(Backing::Anonymous), vec![kv()], 7)).unwrap();
        let (mut migration, (thread, _connect)) =
            start(guest, strategy::find(&Spec::new("hybrid")).unwrap(), 1, |_| ());
        assert!(matches!(migration.next_round(), Step::Decide(_)));
        migration.act(policy::Decision::new(act, policy::Reason::default()));
        assert_eq!(migration.next_round(), Step::Over);
        let (report, _) = migration.finish(Report::default());
        assert_eq!((report.outcome, report.verified), (Outcome::Completed, Some(true)), "{}", report.reason);
        assert_eq!(report.faults.is_some(), ahead);
        assert_running(&thread.join().unwrap().unwrap().guest);
    }
}

#[test]
fn waiting_for_memory_is_a_brownout() {
    let writer = Spec::new("uniform").with("rate", 1e9);
    let guest = Guest::new(&GuestSpec::new(layout(Backing::Anonymous), vec![writer], 7)).unwrap();
    let strategy = strategy::find(&Spec::new("post-copy")).unwrap();
    let shaper = Shaper::new(&LinkSpec { bandwidth: Some(4e7), ..LinkSpec::default() }).unwrap();
    let [(pages, here), (faults, there)] = [(), ()].map(|()| link::pair(Transport::Unix).unwrap());
    let near = vec![shaper.insert(pages).unwrap(), shaper.insert_ahead(faults).unwrap()];
    let far = vec![here, there];
    let destination = receive_from_thread(far, reception(), Box::new(restore_known)).unwrap();
    let cool_down = Duration::from_millis(200);
    let sending = Sending { cool_down, warm_up: cool_down, ..sending(strategy.as_ref()) };
    let source = Source::new(guest, track::find("auto").unwrap(), near, sending).unwrap();
    let mut migration = Migration::new(source, strategy);
    assert_eq!(migration.next_round(), Step::Over);
    let (report, _) = migration.finish(Report::default());
    assert_eq!(report.outcome, Outcome::Completed, "{}", report.reason);
    // The first pages that it touches are missing: it hardly gets on until they are all there.
    let (lost, waited) = (report.brownout.unwrap().at_destination.unwrap(), report.faults.unwrap().duration);
    assert!(lost > 0.3 * waited, "{lost} s of work lost in {waited} s");
    // The watch goes on once all memory is there.
    assert!(report.progress.last().unwrap().time > report.total_time + 0.1, "{:?}", report.progress);
    assert_running(&destination.0.join().unwrap().unwrap().guest);
}

#[test]
fn one_stream_delivers_the_same() {
    let guest = Guest::new(&GuestSpec::new(layout(Backing::Anonymous), vec![kv()], 7)).unwrap();
    let strategy = strategy::find(&Spec::new("post-copy")).unwrap();
    let (mut migration, (thread, _connect)) = start(guest, strategy, 1, |sending| sending.one_stream = true);
    assert_eq!(migration.next_round(), Step::Over);
    let (report, _) = migration.finish(Report::default());
    assert_eq!((report.outcome, report.verified), (Outcome::Completed, Some(true)), "{}", report.reason);
    assert_running(&thread.join().unwrap().unwrap().guest);
}

#[test]
fn pages_that_were_zero_and_never_touched_are_filled_in_without_asking() {
    let idle = Spec::new("sweep").with("rate", 1e6).with("share", 0.01);
    let spec =
        GuestSpec { fill: Spec::new("zero"), ..GuestSpec::new(layout(Backing::Anonymous), vec![idle], 7) };
    let guest = Guest::new(&spec).unwrap();
    let strategy = strategy::find(&Spec::new("hybrid").with("rounds", 1)).unwrap();
    let (mut migration, (thread, _connect)) = start(guest, strategy, 1, |_| ());
    let mut policy = policy::find(&Spec::new("max-rounds").with("rounds", 9)).unwrap();
    migration.run(policy.as_mut(), &mut [], |_, _| {});
    let (report, _) = migration.finish(Report::default());
    assert_eq!(report.outcome, Outcome::Completed, "{}", report.reason);
    let guest = thread.join().unwrap().unwrap().guest;
    assert!((0..PAGES).rev().take(100).all(|page| guest.memory().is_zero(page)));
    assert_running(&guest);
}

#[test]
fn what_cannot_be_done_is_refused_before_anything_is_sent() {
    let reserved = BlockSpec { huge: HugePages::Explicit, ..BlockSpec::new("big", 2 << 20) };
    let error = track::check_layout(&Layout { blocks: vec![reserved] }).unwrap_err();
    assert!(error.to_string().contains("reserved huge pages"), "{error}");
    // A strategy that was not announced has no channel for faults.
    let guest = Guest::new(&GuestSpec::new(layout(Backing::Anonymous), vec![kv()], 7)).unwrap();
    let strategy = strategy::find(&Spec::new("post-copy")).unwrap();
    let (mut migration, (thread, _connect)) =
        start(guest, strategy, 0, |sending| sending.departure = strategy::Departure::Never);
    assert_eq!(migration.next_round(), Step::Over);
    let (report, source) = migration.finish(Report::default());
    assert!(report.reason.contains("no channel for remote faults"), "{}", report.reason);
    assert!(thread.join().unwrap().is_err());
    let (guest, let_go) = source.into_guest();
    assert!(!let_go);
    assert_running(&guest);
}

#[test]
fn a_guest_that_has_departed_cannot_be_cancelled() {
    let guest = Guest::new(&GuestSpec::new(layout(Backing::Anonymous), vec![kv()], 7)).unwrap();
    let strategy = strategy::find(&Spec::new("post-copy").with("prepaging", "none:patience=200")).unwrap();
    let (mut migration, (thread, _connect)) = start(guest, strategy, 1, |_| ());
    let (switch, gauge) = (migration.canceller(), migration.world().gauge());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Pages are asked for only of a guest that has departed.
            while gauge.faults().faults == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
            switch.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        assert_eq!(migration.next_round(), Step::Over);
    });
    let (report, _) = migration.finish(Report::default());
    assert_eq!(report.outcome, Outcome::Completed, "{}", report.reason);
    assert!(report.events.iter().any(|event| event.what == Happening::Completed));
    assert_running(&thread.join().unwrap().unwrap().guest);
}
