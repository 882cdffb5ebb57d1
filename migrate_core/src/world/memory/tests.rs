//! Migrations of real memory, whole and broken.

use std::sync::atomic::Ordering;

use std::time::{Duration, Instant};

use std::io::{Read, Write};

use super::destination::boot_id;
use super::{receive_in_thread, Arrived, Reception, Sending, Source};
use crate::bitmap::Run;
use crate::error::{Error, Result};
use crate::guest::{restore_known, ExecutionState, Guest, GuestMemory, GuestSpec, Layout, PAGE};
use crate::knobs::Spec;
use crate::link::{self, Stream, Transport};
use crate::policy::{self, Policy};
use crate::report::{Outcome, Report};
use crate::strategy;
use crate::track;
use crate::wire::{Message, Reader, Section, Writer};
use crate::world::{Migration, Step};

pub(super) struct Case {
    pub(super) guest: GuestSpec,
    pub(super) strategy: Spec,
    pub(super) policy: Spec,
    pub(super) tracker: &'static str,
    pub(super) channels: usize,
    pub(super) sending: Sending,
}

pub(super) fn case() -> Case {
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
        tracker: "auto",
        channels: 1,
        sending,
    }
}

pub(super) fn streams(channels: usize) -> (Vec<Stream>, Vec<Stream>) {
    (0..channels).map(|_| link::pair(Transport::Unix).unwrap()).unzip()
}

pub(super) fn migration(case: &Case, near: Vec<Stream>) -> Migration<Source> {
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

pub(super) fn assert_running(guest: &Guest) {
    let (before, began) = (guest.progress().operations, Instant::now());
    while guest.progress().operations == before {
        assert!(began.elapsed() < Duration::from_secs(20), "the guest does not run");
        std::thread::yield_now();
    }
    guest.check().unwrap();
}

pub(super) fn assert_complete(case: &Case) -> Report {
    let (report, source, arrived) = run(case);
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Completed, ""));
    assert_eq!(report.verified, Some(true));
    let (_, let_go) = source.into_guest();
    assert!(let_go);
    let guest = arrived.unwrap().guest;
    assert_running(&guest);
    report
}

#[test]
fn every_discipline_moves_a_running_guest() {
    for clear in ["early", "skip", "late"] {
        let report =
            assert_complete(&Case { strategy: Spec::new("pre-copy").with("clear", clear), ..case() });
        assert_eq!(report.rounds.len(), 5, "{clear}");
        assert!(report.rounds[..4].iter().all(|round| round.live) && !report.rounds[4].live);
        let round = &report.rounds[0];
        assert_eq!(round.sent_pages + round.skipped_pages, 4096, "{clear}");
        assert!(clear == "skip" || round.skipped_pages == 0, "{clear}");
        assert_eq!(report.sent_pages, report.rounds.iter().map(|round| round.sent_pages).sum::<u64>());
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

pub(super) fn assert_runs_at_source(source: Source) {
    let (guest, let_go) = source.into_guest();
    assert!(!let_go);
    assert_running(&guest);
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
    type Peer = fn(Stream);
    let talk: [(&str, Peer); 4] = [
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
}

/// A source played by hand, up to its first pages.
fn greeted(near: &Stream, pages: u64) -> (Writer<Stream>, Reader<Stream>) {
    let mut output = Writer::new(near.try_clone().unwrap());
    let mut input = Reader::new(near.try_clone().unwrap(), pages);
    let layout = Layout::single(pages * PAGE as u64);
    let (codec, post_copy) = (None, None);
    output
        .message(&Message::Hello { session: 1, channel: 0, channels: 1, layout, codec, post_copy })
        .unwrap();
    assert!(matches!(input.message().unwrap(), Message::Welcome { .. }));
    (output, input)
}

/// An execution state that can be restored.
pub(super) fn some_state() -> ExecutionState {
    Guest::new(&GuestSpec { layout: Layout::single(1 << 20), ..case().guest }).unwrap().save().unwrap()
}

/// The bytes of a page section whose last page changed after it was hashed.
fn torn_section(memory: &GuestMemory, run: Run) -> Vec<u8> {
    let (near, mut far) = link::pair(Transport::Unix).unwrap();
    Writer::new(near).pages(memory, &[run]).unwrap();
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    bytes
}

#[test]
fn a_torn_page_that_does_not_come_again_is_asked_for_before_the_acknowledgement() {
    let (mut near, far) = streams(1);
    let destination = receive_in_thread(far, Reception::default(), Box::new(restore_known)).unwrap();
    let memory = GuestMemory::new(&Layout::single(1 << 20)).unwrap();
    memory.write(0, &[7; 2 * PAGE]);
    let (mut output, mut input) = greeted(&near[0], memory.pages());
    near[0].write_all(&torn_section(&memory, Run { first: 0, pages: 2 })).unwrap();
    output.message(&Message::State { state: some_state() }).unwrap();
    output.message(&Message::Flush).unwrap();
    assert_eq!(input.message().unwrap(), Message::Resend { runs: vec![(1, 1)] });
    output.pages(&memory, &[Run { first: 1, pages: 1 }]).unwrap();
    output.message(&Message::Flush).unwrap();
    assert_eq!(input.message().unwrap(), Message::Loaded);
    // The source is lost before it lets go: the guest must not run there.
    drop((near, output, input));
    assert!(destination.join().unwrap().is_err());
}

#[test]
fn a_torn_page_that_comes_again_whole_is_forgotten() {
    let (mut near, far) = streams(1);
    let destination = receive_in_thread(far, Reception::default(), Box::new(restore_known)).unwrap();
    let memory = GuestMemory::new(&Layout::single(1 << 20)).unwrap();
    let (mut output, mut input) = greeted(&near[0], memory.pages());
    near[0].write_all(&torn_section(&memory, Run { first: 5, pages: 1 })).unwrap();
    output.zeros(&[Run { first: 4, pages: 3 }]).unwrap();
    output.message(&Message::State { state: some_state() }).unwrap();
    output.message(&Message::Flush).unwrap();
    assert_eq!(input.message().unwrap(), Message::Loaded);
    output.message(&Message::Failed { reason: "enough".into() }).unwrap();
    assert!(destination.join().unwrap().err().unwrap().to_string().contains("enough"));
}

#[test]
fn a_destination_refuses_absurd_guests_with_the_reason() {
    for (bytes, expected) in
        [(u64::MAX, "multiple of 4096"), (1 << 60, "more than this machine has"), (0, "too small")]
    {
        let (near, far) = streams(1);
        let destination = receive_in_thread(far, Reception::default(), Box::new(restore_known)).unwrap();
        let (mut output, mut input) =
            (Writer::new(near[0].try_clone().unwrap()), Reader::new(near[0].try_clone().unwrap(), 0));
        let hello = Message::Hello {
            session: 1,
            channel: 0,
            channels: 1,
            layout: Layout::single(bytes),
            post_copy: None,
            codec: None,
        };
        output.message(&hello).unwrap();
        let told = input.message().unwrap_err().to_string();
        assert!(destination.join().unwrap().is_err());
        assert!(
            told.contains("gave up") && (told.contains(expected) || told.contains("more than this machine")),
            "{told}"
        );
    }
}

#[test]
fn a_source_that_lost_its_destination_after_letting_go_keeps_its_guest_stopped() {
    let (mut near, mut far) = streams(1);
    let peer = far.remove(0);
    // A destination that acknowledges, is told to go, and vanishes.
    let vanishing = std::thread::spawn(move || {
        let (mut input, mut output) = (Reader::new(peer.try_clone().unwrap(), 4096), Writer::new(peer));
        let memory = GuestMemory::new(&Layout::single(16 << 20)).unwrap();
        loop {
            match input.section().unwrap() {
                Section::Message(Message::Hello { .. }) => {
                    output.message(&Message::Welcome { boot_id: boot_id() }).unwrap();
                }
                Section::Message(Message::Flush) => output.message(&Message::Loaded).unwrap(),
                Section::Message(Message::Go) => return,
                Section::Pages { runs, hashes } => drop(input.read_pages(&memory, &runs, &hashes).unwrap()),
                _ => {}
            }
        }
    });
    let sending = Sending { verify: false, ..case().sending };
    let mut migration = migration(&Case { sending, ..case() }, vec![near.remove(0)]);
    migration.run(policy::find(&case().policy).unwrap().as_mut(), &mut [], |_, _| {});
    vanishing.join().unwrap();
    let (report, source) = migration.finish(Report::default());
    assert_eq!(report.outcome, Outcome::Failed);
    assert!(report.reason.contains("stays stopped at the source"), "{}", report.reason);
    let (guest, let_go) = source.into_guest();
    assert!(let_go);
    let before = guest.progress();
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(guest.progress(), before, "two copies of a guest must never run");
}

#[test]
fn a_difference_found_by_verification_keeps_the_guest_at_the_source() {
    let (mut near, mut far) = streams(1);
    let (peer, spoilt) = (far.remove(0), link::pair(Transport::Unix).unwrap());
    // A destination behind a relay that changes the checksums it tells.
    let destination =
        receive_in_thread(vec![spoilt.1], Reception::default(), Box::new(restore_known)).unwrap();
    let (mut up, mut down) = (peer.try_clone().unwrap(), peer);
    let (mut to, mut from) = (spoilt.0.try_clone().unwrap(), spoilt.0);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut up, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
    std::thread::spawn(move || {
        let (mut buffer, mut hashes) = (vec![0; 1 << 20], 0u64);
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            hashes += count as u64;
            // Handshake and acknowledgement are shorter than this, the checksums of 16 MiB longer.
            if hashes > 4096 {
                buffer[count - 1] ^= 0xff;
            }
            if down.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
    });
    let mut migration = migration(&case(), vec![near.remove(0)]);
    migration.run(policy::find(&case().policy).unwrap().as_mut(), &mut [], |_, _| {});
    let (report, source) = migration.finish(Report::default());
    assert_eq!((report.outcome, report.verified), (Outcome::Failed, Some(false)), "{}", report.reason);
    assert!(report.reason.contains("differ"), "{}", report.reason);
    assert!(destination.join().unwrap().is_err());
    assert_runs_at_source(source);
}
