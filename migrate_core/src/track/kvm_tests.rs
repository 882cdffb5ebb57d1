//! The KVM trackers on real VMs, where there are any; each test says so when it is skipped.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::Arc;

use rand::{Rng, RngExt, SeedableRng};
use rand_pcg::Pcg64;

use super::kvm_log::KvmLog;
use super::kvm_ring::KvmRing;
use super::{find, Track, Tracker};
use crate::bitmap::Bitmap;
use crate::guest::kvm::{self, Registers, Vm};
use crate::guest::{
    restore_known, workload, Backing, BlockSpec, Guest, GuestMemory, GuestSpec, Layout, Region, PAGE,
};
use crate::knobs::Spec;
use crate::link::{self, Transport};
use crate::policy;
use crate::report::{Outcome, Report};
use crate::strategy;
use crate::world::memory::{receive_in_thread, Reception, Sending, Source};
use crate::world::Migration;

fn works() -> bool {
    let probe = kvm::probe();
    if !probe.works {
        println!("skipped: {}", probe.reason);
    }
    probe.works
}

/// A guest of three RAM blocks, none a multiple of 64 pages.
struct Bench {
    memory: Arc<GuestMemory>,
    vm: Arc<Vm>,
    registers: Registers,
}

fn bench(stride: u64) -> Bench {
    let block =
        |name: &str, pages: u64, backing| BlockSpec { backing, ..BlockSpec::new(name, pages * PAGE as u64) };
    let blocks = vec![
        block("private", 259, Backing::Anonymous),
        block("shared", 131, Backing::Memfd),
        block("small", 1, Backing::Anonymous),
    ];
    let memory = Arc::new(GuestMemory::new(&Layout { blocks }).unwrap());
    let vm = Vm::new(&Region::whole(&memory)).unwrap();
    Bench { registers: Registers::start(stride, memory.pages()), vm, memory }
}

impl Bench {
    /// Writes, and returns which pages.
    fn write(&mut self, writes: u64) -> Vec<u64> {
        let (page, stride, pages) = (self.registers.page, self.registers.stride, self.memory.pages());
        self.vm.run(&mut self.registers, writes).unwrap();
        (0..writes).map(|i| (page + i * stride) % pages).collect()
    }

    fn all(&self) -> Range<u64> {
        0..self.memory.pages()
    }
}

/// The smallest ring that this machine's KVM takes: it keeps more entries for itself where hardware logs.
fn least_ring() -> Option<u64> {
    let takes = |entries: &u64| bench(1).vm.start_ring(*entries as u32).is_ok();
    [256, 512, 1024, 2048].into_iter().find(takes)
}

/// The trackers in all their ways.
fn trackers() -> Vec<(String, Box<dyn Tracker>)> {
    let mut trackers: Vec<(String, Box<dyn Tracker>)> = Vec::new();
    for by_range in [true, false] {
        trackers.push((format!("log by range: {by_range}"), Box::new(KvmLog { by_range }.build().unwrap())));
    }
    for entries in least_ring().into_iter().chain([4096]).filter(|_| KvmRing::probe().is_ok()) {
        trackers.push((format!("ring of {entries}"), Box::new(KvmRing { entries }.build().unwrap())));
    }
    trackers
}

fn asked(tracker: &mut dyn Tracker, pages: Range<u64>, total: u64, clear: bool) -> BTreeSet<u64> {
    let mut into = Bitmap::new(total);
    match clear {
        true => tracker.harvest(pages, &mut into).unwrap(),
        false => tracker.peek(pages, &mut into).unwrap(),
    }
    into.runs().flat_map(|run| run.range()).collect()
}

#[test]
fn after_a_batch_the_log_holds_the_pages_written_and_no_others() {
    if !works() {
        return;
    }
    for (name, mut tracker) in trackers() {
        let mut bench = bench(7);
        bench.write(20);
        tracker.arm(&bench.memory).unwrap();
        let (all, total) = (bench.all(), bench.memory.pages());
        assert!(asked(&mut *tracker, all.clone(), total, false).is_empty(), "{name}: clean once armed");
        for writes in [1, 100, 300] {
            let written: BTreeSet<u64> = bench.write(writes).into_iter().collect();
            assert_eq!(asked(&mut *tracker, all.clone(), total, false), written, "{name}: peek");
            assert_eq!(asked(&mut *tracker, all.clone(), total, true), written, "{name}: harvest");
            assert!(asked(&mut *tracker, all.clone(), total, true).is_empty(), "{name}: harvested twice");
        }
        tracker.disarm();
        bench.write(10);
        tracker.arm(&bench.memory).unwrap();
        assert!(asked(&mut *tracker, all, total, true).is_empty(), "{name}: armed again");
    }
}

#[test]
fn a_random_course_agrees_with_a_set() {
    if !works() {
        return;
    }
    for (seed, (name, mut tracker)) in (1..).zip(trackers()) {
        let mut random = Pcg64::seed_from_u64(seed);
        let mut bench = bench(random.random_range(1..300));
        let (total, mut model) = (bench.memory.pages(), BTreeSet::new());
        tracker.arm(&bench.memory).unwrap();
        for step in 0..60 {
            model.extend(bench.write(random.random_range(1..90)));
            let first = random.random_range(0..total);
            let pages = first..(first + random.random_range(0..200)).min(total);
            let clear = random.next_u32() % 3 > 0;
            let expected: BTreeSet<u64> = model.range(pages.clone()).copied().collect();
            let found = asked(&mut *tracker, pages.clone(), total, clear);
            assert_eq!(found, expected, "{name}, seed {seed}, step {step}, {pages:?}, clear {clear}");
            if clear {
                model.retain(|page| !pages.contains(page));
            }
        }
    }
}

/// A destination that is sent what each harvest reports, while the vCPU runs.
fn race(name: &str, tracker: &mut dyn Tracker, seed: u64) -> Bench {
    let mut bench = bench(7);
    let (memory, total) = (Arc::clone(&bench.memory), bench.memory.pages());
    let copy = GuestMemory::new(&memory.layout()).unwrap();
    let send = |pages: BTreeSet<u64>| {
        let mut bytes = [0; PAGE];
        for page in pages {
            memory.read_page(page, &mut bytes);
            copy.place_page(page, &bytes);
        }
    };
    let mut random = Pcg64::seed_from_u64(seed);
    tracker.arm(&memory).unwrap();
    send((0..total).collect());
    let done = AtomicBool::new(false);
    let writer = || {
        (0..250).for_each(|_| drop(bench.write(60)));
        done.store(true, Relaxed);
    };
    std::thread::scope(|threads| {
        let running = threads.spawn(writer);
        while !done.load(Relaxed) && !running.is_finished() {
            let first = random.random_range(0..total);
            let pages = first..(first + random.random_range(1..150)).min(total);
            send(asked(tracker, pages, total, true));
        }
    });
    send(asked(tracker, 0..total, total, true));
    let lost: Vec<u64> = (0..total).filter(|page| copy.hash_page(*page) != memory.hash_page(*page)).collect();
    assert!(lost.is_empty(), "{name}, seed {seed}: lost writes to {lost:?}");
    bench
}

#[test]
fn nothing_is_lost_while_the_vcpu_runs() {
    if !works() {
        return;
    }
    for (seed, (name, mut tracker)) in (1..).zip(trackers()) {
        race(&name, &mut *tracker, seed);
    }
}

#[test]
fn other_trackers_see_a_vcpu_as_well() {
    if !works() {
        return;
    }
    race("software", &mut *find("software").unwrap(), 1);
    match find("uffd-async") {
        Ok(mut tracker) => drop(race("uffd-async", &mut *tracker, 2)),
        Err(reason) => println!("skipped: {reason}"),
    }
}

#[test]
fn a_full_ring_stops_the_vcpu_and_loses_nothing() {
    if !works() {
        return;
    }
    let Some(entries) = least_ring() else { return println!("skipped: KVM has no dirty ring") };
    let mut tracker = KvmRing { entries }.build().unwrap();
    let mut bench = bench(1);
    tracker.arm(&bench.memory).unwrap();
    let (mut written, total) = (BTreeSet::new(), bench.memory.pages());
    // Small batches, so that the kernel's limit is met before ours.
    for _ in 0..entries / 16 {
        written.extend(bench.write(32));
    }
    assert!(bench.vm.ring_fulls() > 0);
    assert_eq!(asked(&mut tracker, 0..total, total, true), written);
    kvm_stamps(&bench);
}

#[test]
fn a_batch_for_which_the_ring_has_no_room_loses_nothing() {
    if !works() {
        return;
    }
    let Some(entries) = least_ring() else { return println!("skipped: KVM has no dirty ring") };
    let mut tracker = KvmRing { entries }.build().unwrap();
    let mut bench = bench(1);
    tracker.arm(&bench.memory).unwrap();
    let total = bench.memory.pages();
    // The first batch stays under the kernel's limit; the second, which a kernel that emulates may run for
    // long without a look at the limit, would overwrite entries of the first.
    let mut written: BTreeSet<u64> = bench.write(150).into_iter().collect();
    written.extend(bench.write(kvm::MOST_BATCH));
    assert_eq!(asked(&mut tracker, 0..total, total, true), written);
}

/// A guest's stamps, checked the way that the workload does it.
fn kvm_stamps(bench: &Bench) {
    let knobs = serde_json::json!({"rate": 0.0, "stride": 1});
    let state = serde_json::json!({"knobs": knobs, "registers": bench.registers});
    restore_known("kvm", state).unwrap().check(&Region::whole(&bench.memory)).unwrap();
}

#[test]
fn trackers_take_turns_on_a_guest_that_goes_on() {
    if !works() {
        return;
    }
    let mut bench = bench(3);
    for turn in 0..2 {
        for (name, mut tracker) in trackers() {
            tracker.arm(&bench.memory).unwrap();
            let written: BTreeSet<u64> = bench.write(50).into_iter().collect();
            let total = bench.memory.pages();
            assert_eq!(asked(&mut *tracker, 0..total, total, true), written, "{name}, turn {turn}");
            let second = find("kvm-log").unwrap().arm(&bench.memory).unwrap_err().to_string();
            assert!(second.contains("tracked already"), "{second}");
        }
    }
    kvm_stamps(&bench);
}

#[test]
fn memory_that_threads_write_is_refused() {
    if !works() {
        return;
    }
    let memory = Arc::new(GuestMemory::new(&Layout::single(2 << 20)).unwrap());
    let refused = |name: &str| find(name).unwrap().arm(&memory).unwrap_err().to_string();
    for name in ["kvm-log", "kvm-ring"] {
        if find(name).is_ok() {
            assert!(refused(name).contains("threads, not vCPUs of KVM"), "{}", refused(name));
        }
    }
    let half = workload::start(&Spec::new("kvm"), 1, &Region::part(&memory, 0, 2)).unwrap();
    assert!(refused("kvm-log").contains("256 of this guest's 512 pages"), "{}", refused("kvm-log"));
    let again = Vm::new(&Region::whole(&memory)).unwrap_err().to_string();
    assert!(again.contains("belong to another VM"), "{again}");
    drop(half);
    assert!(Vm::new(&Region::whole(&memory)).is_ok());
}

fn migrate(tracker: &str, clear: &str) {
    let vcpu = |rate: f64, stride: u64| Spec::new("kvm").with("rate", rate).with("stride", stride);
    let spec = GuestSpec::new(Layout::single(4 << 20), vec![vcpu(1e7, 5), vcpu(5e6, 1)], 7);
    let (near, far) = link::pair(Transport::Unix).unwrap();
    let destination = receive_in_thread(vec![far], Reception::default(), Box::new(restore_known)).unwrap();
    let sending =
        Sending { verify: true, warm_up: std::time::Duration::from_millis(20), ..Sending::default() };
    let guest = Guest::new(&spec).unwrap();
    let source = Source::new(guest, find(tracker).unwrap(), vec![near], sending).unwrap();
    let strategy = strategy::find(&Spec::new("pre-copy").with("clear", clear)).unwrap();
    let mut migration = Migration::new(source, strategy);
    let policy = Spec::new("max-rounds").with("rounds", 4);
    migration.run(policy::find(&policy).unwrap().as_mut(), &mut [], |_, _| {});
    let (report, _source) = migration.finish(Report::default());
    assert_eq!((report.outcome, report.reason.as_str()), (Outcome::Completed, ""), "{tracker}, {clear}");
    assert_eq!(report.verified, Some(true));
    let guest = destination.join().unwrap().unwrap().guest;
    let before = guest.progress().operations;
    while guest.progress().operations == before {
        guest.check_alive().unwrap();
        std::thread::yield_now();
    }
    guest.pause();
    guest.check().unwrap();
}

#[test]
fn a_guest_of_two_vms_moves_and_goes_on() {
    if !works() {
        return;
    }
    for (tracker, clear) in [("kvm-log", "early"), ("kvm-log", "late"), ("kvm-ring", "late")] {
        match find(tracker) {
            Ok(_) => migrate(tracker, clear),
            Err(reason) => println!("skipped: {reason}"),
        }
    }
}
