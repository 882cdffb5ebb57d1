//! Post-copy: latency of remote faults against its floor, throughput of the push against pre-copy, blackout
//! against the size of memory, and what one stream costs. Latencies are those that a guest thread sees: from
//! before it touches a page until it has read a byte of it.
//!
//! `cargo bench -p migrate_core --bench post_copy [-- MIB [REPEATS [LARGE_MIB]]]`
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout)]

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use migrate_core::guest::workload::{Tick, Work, Workload};
use migrate_core::guest::{restore_known, Guest, GuestMemory, GuestSpec, Layout, Region, PAGE};
use migrate_core::knobs::Spec;
use migrate_core::link::{pair, LinkSpec, Shaper, Transport};
use migrate_core::report::{Outcome, Report};
use migrate_core::track::Pager;
use migrate_core::world::memory::{receive_in_thread, Reception, SendRestore, Sending, Source};
use migrate_core::world::Migration;
use migrate_core::{policy, strategy, track, Result};
use rand::Rng;
use rand_pcg::rand_core::SeedableRng;
use rand_pcg::Pcg64Mcg;
use rustix::event::{poll, PollFd, PollFlags, Timespec};

/// Touches that are timed in a run.
const TOUCHES: usize = 4000;

type Times = Arc<Mutex<Vec<f64>>>;

/// A guest that touches pages at random, each once, and notes how long each touch took.
struct Toucher {
    times: Times,
    order: Vec<u64>,
    pause: Duration,
}

impl Toucher {
    fn new(pages: u64, times: &Times, pause: Duration) -> Self {
        let (mut order, mut random): (Vec<u64>, _) = ((0..pages).collect(), Pcg64Mcg::seed_from_u64(9));
        (1..order.len()).rev().for_each(|i| order.swap(i, random.next_u64() as usize % (i + 1)));
        order.truncate(TOUCHES);
        Self { times: Arc::clone(times), order, pause }
    }
}

impl Workload for Toucher {
    fn name(&self) -> &'static str {
        "toucher"
    }

    fn rate(&self, _: Duration) -> f64 {
        1e9
    }

    fn run(&mut self, ram: &Region, _: Tick) -> Result<Work> {
        if let Some(page) = self.order.pop() {
            let (began, mut byte) = (Instant::now(), [0]);
            ram.read(page * PAGE as u64, &mut byte);
            self.times.lock().unwrap().push(began.elapsed().as_secs_f64());
        }
        std::thread::sleep(self.pause);
        Ok(Work { written: 1, operations: 1 })
    }

    fn check(&self, _: &Region) -> Result<()> {
        Ok(())
    }

    fn save(&self) -> Result<serde_json::Value> {
        Ok(serde_json::Value::Null)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    quantile(&mut values, 0.5)
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() - 1) as f64 * share) as usize]
}

/// How long a guest thread does something else between two touches: the floor is taken at the same pace, for a
/// processor that has nothing to do falls asleep and takes its time to wake.
const PAUSE: Duration = Duration::from_micros(20);

/// A bare userfaultfd copy: a thread touches pages, another places them.
fn bare_copy() -> f64 {
    let memory = Arc::new(GuestMemory::new(&Layout::single((TOUCHES * PAGE) as u64)).unwrap());
    let pager = Pager::new(&memory).unwrap();
    let (over, mut faults, page) = (AtomicBool::new(false), Vec::new(), [7; PAGE]);
    let times = std::thread::scope(|scope| {
        let toucher = scope.spawn(|| {
            let touch = |page: u64| {
                let (began, mut byte) = (Instant::now(), [0]);
                memory.read(page * PAGE as u64, &mut byte);
                let took = began.elapsed().as_secs_f64();
                std::thread::sleep(PAUSE);
                took
            };
            let times: Vec<f64> = (0..memory.pages()).map(touch).collect();
            over.store(true, Ordering::Relaxed);
            times
        });
        let limit = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        while !over.load(Ordering::Relaxed) {
            poll(&mut [PollFd::new(&pager, PollFlags::IN)], Some(&limit)).unwrap();
            faults.clear();
            pager.read_faults(&mut faults).unwrap();
            faults.iter().for_each(|fault| pager.place(*fault, &page).unwrap());
        }
        toucher.join().unwrap()
    });
    median(times)
}

/// One round trip of a socket: a few bytes there, a page back.
fn round_trip() -> f64 {
    let (mut near, mut far) = pair(Transport::Tcp).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut question, answer) = ([0; 64], [7; PAGE]);
            while far.read_exact(&mut question).is_ok() {
                far.write_all(&answer).unwrap();
            }
        });
        let mut answer = [0; PAGE];
        let mut trip = || {
            let began = Instant::now();
            near.write_all(&[1; 64]).unwrap();
            near.read_exact(&mut answer).unwrap();
            let took = began.elapsed().as_secs_f64();
            std::thread::sleep(PAUSE);
            took
        };
        let times = (0..TOUCHES).map(|_| trip()).collect();
        drop(near);
        median(times)
    })
}

struct Run<'a> {
    bytes: u64,
    strategy: Spec,
    link: LinkSpec,
    one_stream: bool,
    fill: &'a str,
    touch: Option<(Times, Duration)>,
}

impl Run<'_> {
    fn new(mib: usize, strategy: Spec) -> Self {
        let link = LinkSpec::default();
        Self { bytes: (mib as u64) << 20, strategy, link, one_stream: false, fill: "random", touch: None }
    }

    fn go(self) -> Report {
        let workload = Spec::new("idle").with("rate", 4096.0);
        let fill = Spec::new(self.fill);
        let spec = GuestSpec { fill, ..GuestSpec::new(Layout::single(self.bytes), vec![workload], 1) };
        let guest = Guest::new(&spec).unwrap();
        let strategy = strategy::find(&self.strategy).unwrap();
        let departure = strategy.departure();
        let shaper = Shaper::new(&self.link).unwrap();
        let (mut near, mut far) = (Vec::new(), Vec::new());
        for index in 0..1 + usize::from(departure != strategy::Departure::Never) {
            let (one, other) = pair(Transport::Tcp).unwrap();
            near.push(if index == 0 { shaper.insert(one) } else { shaper.insert_ahead(one) }.unwrap());
            far.push(other);
        }
        let pages = self.bytes / PAGE as u64;
        let touch = self.touch.clone();
        let restore: SendRestore = Box::new(move |name, state| match &touch {
            Some((times, pause)) => Ok(Box::new(Toucher::new(pages, times, *pause)) as Box<dyn Workload>),
            None => restore_known(name, state),
        });
        let destination = receive_in_thread(far, Reception::default(), restore).unwrap();
        let sending = Sending {
            warm_up: Duration::from_millis(10),
            departure,
            one_stream: self.one_stream,
            ..Sending::default()
        };
        let source = Source::new(guest, track::find("auto").unwrap(), near, sending).unwrap();
        let mut migration = Migration::new(source, strategy);
        migration.run(policy::find(&Spec::new("downtime-limit")).unwrap().as_mut(), &mut [], |_, _| {});
        let (report, _) = migration.finish(Report::default());
        assert_eq!(report.outcome, Outcome::Completed, "{}", report.reason);
        drop(destination.join().unwrap().unwrap());
        report
    }
}

/// Latencies that a guest thread met, of touches that had to wait: those of pages that were there are left out.
fn touches(mib: usize, prepaging: &str, link: &LinkSpec, one_stream: bool, pause: Duration) -> Vec<f64> {
    let times = Times::default();
    let strategy = Spec::new("post-copy").with("prepaging", prepaging);
    let run = Run::new(mib, strategy);
    Run { link: link.clone(), one_stream, touch: Some((Arc::clone(&times), pause)), ..run }.go();
    let mut times = std::mem::take(&mut *times.lock().unwrap());
    times.retain(|time| *time > 5e-6);
    times
}

fn spread(what: &str, mut values: Vec<f64>, unit: &str) {
    values.sort_by(f64::total_cmp);
    let (least, median, most) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    println!("{what}: {median:.2}{unit} ({least:.2} to {most:.2})");
}

fn latency(mib: usize, repeats: usize) {
    let (mut ratios, mut tails, mut pushed) = (Vec::new(), Vec::new(), Vec::new());
    let (mut floors, mut medians) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let floor = bare_copy() + round_trip();
        let mut alone = touches(mib, "none:patience=1000", &LinkSpec::default(), false, PAUSE);
        let mut busy = touches(mib, "sequential", &LinkSpec::default(), false, PAUSE);
        let middle = quantile(&mut alone, 0.5);
        floors.push(floor * 1e6);
        medians.push(middle * 1e6);
        ratios.push(middle / floor);
        pushed.push(quantile(&mut busy, 0.5) / middle);
        tails.push(quantile(&mut busy, 0.99) / quantile(&mut busy, 0.5));
    }
    spread("floor: a bare userfaultfd copy and a round trip of a page", floors, " us");
    spread("remote fault, median, nothing pushed", medians, " us");
    spread("  against the floor", ratios, "");
    spread("under full push: median against the median with nothing pushed", pushed, "");
    spread("under full push: 99th percentile against the median", tails, "");
}

/// Touches as much memory as a run needs and gives it back, so that none pays for what a hypervisor had taken
/// from the machine meanwhile.
fn claim_memory(mib: usize) {
    let mut memory = vec![0u8; mib << 21];
    memory.iter_mut().step_by(PAGE).for_each(|byte| *byte = 1);
    std::hint::black_box(&memory);
}

/// Pages that are pushed land in memory that is made as they come; pre-copy has its memory made before, in its
/// setup. Both ways to see it are printed: with the setup, and without.
fn throughput(mib: usize, repeats: usize) {
    let (mut whole, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        claim_memory(mib);
        let pushed = Run::new(mib, Spec::new("post-copy").with("prepaging", "sequential")).go();
        claim_memory(mib);
        let copied = Run::new(mib, Spec::new("pre-copy")).go();
        whole.push(copied.total_time / pushed.total_time);
        bare.push((copied.total_time - copied.setup_time) / (pushed.total_time - pushed.setup_time));
    }
    spread(&format!("push of {mib} MiB against pre-copy, throughput with the making of memory"), whole, "");
    spread("  against pre-copy into memory that was made before", bare, "");
}

fn blackout(small: usize, large: usize, repeats: usize) {
    let mut gaps = [Vec::new(), Vec::new()];
    for _ in 0..repeats {
        for (gaps, mib) in gaps.iter_mut().zip([small, large]) {
            let report = Run { fill: "zero", ..Run::new(mib, Spec::new("post-copy")) }.go();
            gaps.push(report.guest_gap.unwrap() * 1e3);
        }
    }
    for (gaps, mib) in gaps.into_iter().zip([small, large]) {
        spread(&format!("blackout of post-copy at {mib} MiB"), gaps, " ms");
    }
}

/// A shaped link: faults over a channel of their own, and behind pushed pages over one stream.
fn one_stream(repeats: usize) {
    let link = LinkSpec { bandwidth: Some(125e6), rtt: 200e-6, ..LinkSpec::default() };
    let mut ratios = Vec::new();
    let (mut own, mut one) = (Vec::new(), Vec::new());
    for _ in 0..repeats {
        let pause = Duration::from_micros(200);
        let (a, b) = (
            median(touches(64, "sequential", &link, false, pause)),
            median(touches(64, "sequential", &link, true, pause)),
        );
        own.push(a * 1e6);
        one.push(b * 1e6);
        ratios.push(b / a);
    }
    println!("random faults over 1 Gbit/s, 0.2 ms, while 64 MiB are pushed:");
    spread("  a channel of their own, median", own, " us");
    spread("  one stream, median", one, " us");
    spread("  ratio", ratios, "");
}

fn main() {
    let arguments: Vec<usize> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let argument = |index: usize, default| arguments.get(index).copied().unwrap_or(default);
    let (mib, repeats, large) = (argument(0, 1024), argument(1, 7), argument(2, 4096));
    println!("medians over {repeats} repetitions, least and greatest in parentheses");
    latency(mib.min(256), repeats);
    throughput(mib, repeats);
    blackout(64, large, repeats);
    one_stream(repeats.min(5));
}
