//! Links that are cut: at every stage, in every way; nothing is lost.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::super::{receive_from_thread, Reception, Source};
use super::tests::{assert_running, kv, layout, sending};
use crate::guest::{restore_known, Backing, Guest, GuestSpec, Layout};
use crate::knobs::Spec;
use crate::link::{self, Stream, Transport};
use crate::report::{Happening, Outcome, Report};
use crate::world::{Migration, Step};
use crate::{policy, strategy, track};

/// How a link ends.
#[derive(Debug, Clone, Copy)]
enum Cut {
    /// Both directions are closed.
    Drop,
    /// Both directions are reset: what was under way is lost with it.
    Reset,
    /// Nothing comes any more, and nobody is told.
    Silence,
}

/// Carries `from` to `to` until the link's bytes are used up.
fn carry(mut from: Stream, mut to: Stream, left: &AtomicI64, cut: Cut) {
    let mut buffer = vec![0; 8 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let before = left.fetch_sub(count as i64, Ordering::SeqCst);
        let through = before.clamp(0, count as i64) as usize;
        if through > 0 && to.write_all(&buffer[..through]).is_err() {
            break;
        }
        if before < count as i64 {
            match cut {
                Cut::Drop => {}
                // To disconnect a TCP socket is to reset its connection.
                Cut::Reset => {
                    [&from, &to].into_iter().for_each(|end| rustix::net::connect_unspec(end).unwrap());
                }
                // Swallows what comes, until somebody gives up.
                Cut::Silence => while matches!(from.read(&mut buffer), Ok(1..)) {},
            }
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// The near and far ends of channels through relays that carry `bytes` in all before they cut.
fn link(channels: usize, bytes: i64, cut: Cut) -> (Vec<Stream>, Vec<Stream>) {
    let left = Arc::new(AtomicI64::new(bytes));
    let transport = if let Cut::Reset = cut { Transport::Tcp } else { Transport::Unix };
    let channel = || {
        let ((near, a), (b, far)) = (link::pair(transport).unwrap(), link::pair(transport).unwrap());
        for (from, to) in [(a.try_clone().unwrap(), b.try_clone().unwrap()), (b, a)] {
            let left = Arc::clone(&left);
            std::thread::spawn(move || carry(from, to, &left, cut));
        }
        (near, far)
    };
    (0..channels).map(|_| channel()).unzip()
}

/// What came of a run whose links were cut.
#[derive(Debug, PartialEq)]
enum End {
    /// It completed after so many cuts.
    Completed { cuts: usize },
    /// It failed before execution moved: the guest runs at the source.
    AtSource,
}

const SMALL: u64 = 1 << 20;

/// Migrates a small guest over links that carry `bytes` each, the later ones `growth` more, and checks that
/// nothing is lost.
fn migrate(strategy: &str, bytes: i64, growth: i64, cut: Cut) -> (End, Report) {
    let spec = Spec::new(strategy);
    let strategy = strategy::find(&if strategy == "hybrid" { spec.with("rounds", 1) } else { spec }).unwrap();
    let stall = match cut {
        Cut::Drop | Cut::Reset => Duration::from_secs(5),
        Cut::Silence => Duration::from_millis(400),
    };
    let reception = Reception { stall, recovery: Duration::from_secs(20), populate: true };
    let (near, far) = link(2, bytes, cut);
    let (thread, connect) = receive_from_thread(far, reception, Box::new(restore_known)).unwrap();
    let mut sending = sending(strategy.as_ref());
    (sending.stall, sending.warm_up) = (stall, Duration::from_millis(1));
    let guest = Guest::new(&GuestSpec::new(Layout::single(SMALL), vec![kv()], 7)).unwrap();
    let source = Source::new(guest, track::find("software").unwrap(), near, sending).unwrap();
    let mut migration = Migration::new(source, strategy);
    let (mut cuts, mut carried) = (0, bytes);
    loop {
        match migration.next_round() {
            Step::Decide(_) => migration.act(policy::Decision::proceed()),
            Step::Over => break,
            Step::Paused(_) => {
                cuts += 1;
                assert!(cuts < 200, "it does not come to an end");
                carried = carried.saturating_add(growth);
                let (near, far) = link(2, carried, cut);
                far.into_iter().for_each(|end| connect.send(end).unwrap());
                // It may be cut again at once, which leaves it paused.
                let _ = migration.resume(|source, missing| source.reconnect(near, missing));
            }
        }
    }
    let (report, source) = migration.finish(Report::default());
    drop(connect);
    let arrived = thread.join().unwrap();
    let (here, let_go) = source.into_guest();
    if report.outcome == Outcome::Completed {
        assert!(let_go && report.verified == Some(true));
        let mut guest = arrived.map_err(|e| e.to_string()).unwrap().guest;
        guest.resume().unwrap();
        assert_running(&guest);
        return (End::Completed { cuts }, report);
    }
    assert!(!let_go && cuts == 0, "{}", report.reason);
    assert!(arrived.is_err());
    assert_running(&here);
    (End::AtSource, report)
}

/// Bytes that a run takes that is not cut.
fn whole(strategy: &str) -> i64 {
    let (end, report) = migrate(strategy, i64::MAX / 2, 0, Cut::Drop);
    assert_eq!(end, End::Completed { cuts: 0 });
    report.sent_bytes as i64
}

/// The link is cut once, at evenly spaced points and at random ones; the one after carries all.
fn cut_everywhere(strategy: &str, points: i64, seed: u64) -> (usize, usize) {
    let all = whole(strategy) + 20_000;
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let even = (0..points).map(|point| all * point / points);
    let drawn: Vec<i64> = (0..points).map(|_| (random.next_u64() % all as u64) as i64).collect();
    let (mut resumed, mut stayed) = (0, 0);
    for bytes in even.chain(drawn) {
        println!("{strategy}: cut after {bytes} bytes (seed {seed})");
        match migrate(strategy, bytes, i64::MAX / 4, Cut::Drop).0 {
            End::Completed { cuts } => resumed += cuts,
            End::AtSource => stayed += 1,
        }
    }
    (resumed, stayed)
}

#[test]
fn post_copy_cut_anywhere_loses_nothing() {
    let (resumed, stayed) = cut_everywhere("post-copy", 50, 0x5eed);
    assert!(resumed >= 60 && stayed >= 1, "{resumed} resumed, {stayed} at the source");
}

#[test]
fn hybrid_cut_anywhere_loses_nothing() {
    let (_, stayed) = cut_everywhere("hybrid", 50, 0xbeef);
    assert!(stayed >= 50, "{stayed} at the source");
}

/// The first bytes hold the hand-over: each step of it is cut, to the byte in places.
#[test]
fn a_hand_over_cut_at_any_step_loses_nothing() {
    let (mut resumed, mut stayed) = (0, 0);
    for bytes in (0..4000).step_by(61) {
        match migrate("post-copy", bytes, i64::MAX / 4, Cut::Drop).0 {
            End::Completed { cuts } => resumed += cuts,
            End::AtSource => stayed += 1,
        }
    }
    assert!(resumed > 0 && stayed > 0, "{resumed} resumed, {stayed} at the source");
}

#[test]
fn a_reset_loses_nothing() {
    let (mut resumed, mut stayed) = (0, 0);
    for bytes in (0..30).map(|step| step * 35_000) {
        match migrate("post-copy", bytes, i64::MAX / 4, Cut::Reset).0 {
            End::Completed { cuts } => resumed += cuts,
            End::AtSource => stayed += 1,
        }
    }
    assert!(resumed >= 15 && stayed >= 1, "{resumed} resumed, {stayed} at the source");
}

#[test]
fn silence_is_noticed_on_both_sides() {
    for bytes in [1000, 200_000, 600_000] {
        let (end, report) = migrate("post-copy", bytes, i64::MAX / 4, Cut::Silence);
        match end {
            End::AtSource => assert_eq!(bytes, 1000, "{}", report.reason),
            End::Completed { cuts } => {
                // A busy machine may be silent for long enough by itself.
                assert!(cuts >= 1);
                let faults = report.faults.unwrap();
                assert!(faults.lost_links >= 1 && faults.lost_time > 0.0, "{faults:?}");
                assert!(report.events.iter().any(|e| matches!(e.what, Happening::LinkLost { .. })));
                assert!(report.events.iter().any(|e| matches!(e.what, Happening::LinkBack { .. })));
            }
        }
    }
}

#[test]
fn a_link_that_is_lost_again_and_again_still_ends() {
    let (end, _) = migrate("post-copy", 200_000, 20_000, Cut::Drop);
    assert!(matches!(end, End::Completed { cuts: 3.. }), "{end:?}");
}

#[test]
fn a_migration_that_is_not_resumed_says_where_the_guest_is() {
    let (near, far) = link(2, 200_000, Cut::Drop);
    let (thread, connect) =
        receive_from_thread(far, super::tests::reception(), Box::new(restore_known)).unwrap();
    let strategy = strategy::find(&Spec::new("post-copy")).unwrap();
    let guest = Guest::new(&GuestSpec::new(layout(Backing::Anonymous), vec![kv()], 7)).unwrap();
    let sending = sending(strategy.as_ref());
    let source = Source::new(guest, track::find("auto").unwrap(), near, sending).unwrap();
    let mut migration = Migration::new(source, strategy);
    assert!(matches!(migration.next_round(), Step::Paused(_)));
    assert!(matches!(migration.next_round(), Step::Paused(_)));
    let refused = migration.resume(|source, missing| {
        source.reconnect(vec![link::pair(Transport::Unix)?.0, link::pair(Transport::Unix)?.0], missing)
    });
    assert!(refused.is_err() && matches!(migration.next_round(), Step::Paused(_)));
    let (report, source) = migration.finish(Report::default());
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.reason.contains("waits at the destination"), "{}", report.reason);
    let (guest, let_go) = source.into_guest();
    assert!(let_go);
    let before = guest.progress();
    drop(connect);
    let error = thread.join().unwrap().err().unwrap().to_string();
    assert!(error.contains("is lost"), "{error}");
    assert_eq!(guest.progress(), before, "two copies of a guest must never run");
}
