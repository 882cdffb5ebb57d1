//! Against real processes: what they know they wrote must be found, and they must not notice.
#![allow(unsafe_code)]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::OnceLock;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_pcg::Pcg64Mcg;

use super::*;

/// What a [`Puppet`] can be told to do, by a system call or without one.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Order {
    /// Writes a word at an address.
    Write = 1,
    /// Reads one.
    Read,
    /// Has the kernel write there.
    KernelWrite,
    /// Makes a system call: its number and four arguments.
    Call,
    /// Forks a child that writes at an address and ends.
    Fork,
    /// Executes `sleep 100`.
    Exec,
}

/// Shared with a puppet.
#[repr(C)]
struct Strings {
    order: AtomicU64,
    arguments: [AtomicU64; 5],
    answer: AtomicU64,
    beats: AtomicU64,
}

/// A child process that does as it is told.
struct Puppet {
    pid: i32,
    strings: &'static Strings,
}

fn map(bytes: usize, flags: i32) -> *mut u8 {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: fresh memory where the kernel likes.
    let memory =
        unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags | libc::MAP_ANONYMOUS, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    memory.cast()
}

impl Puppet {
    fn new() -> Self {
        // SAFETY: a page of zeros is valid `Strings`, and stays mapped for good.
        let strings: &'static Strings = unsafe { &*map(PAGE, libc::MAP_SHARED).cast::<Strings>() };
        // SAFETY: the child only makes system calls and touches memory that it was given.
        match unsafe { libc::fork() } {
            0 => dance(strings),
            pid => Self { pid, strings },
        }
    }

    fn tell(&self, order: Order, arguments: &[u64]) -> i64 {
        for (place, argument) in self.strings.arguments.iter().zip(arguments) {
            place.store(*argument, Ordering::Relaxed);
        }
        self.strings.order.store(order as u64, Ordering::Release);
        while self.strings.order.load(Ordering::Acquire) != 0 {
            std::thread::yield_now();
        }
        self.strings.answer.load(Ordering::Relaxed) as i64
    }

    fn call(&self, number: i64, arguments: &[u64]) -> i64 {
        let all: Vec<u64> = std::iter::once(number as u64).chain(arguments.iter().copied()).collect();
        self.tell(Order::Call, &all)
    }

    fn mmap(&self, at: u64, pages: u64) -> u64 {
        // A puppet adds what an anonymous mapping has for file and offset.
        let fixed = if at == 0 { 0 } else { libc::MAP_FIXED };
        let flags = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | fixed) as u64;
        let address = self.call(libc::SYS_mmap, &[at, pages * 4096, 3, flags]);
        assert!(address > 0, "{address}");
        address as u64
    }

    fn write(&self, page: u64) {
        self.tell(Order::Write, &[page * 4096 + 8]);
    }

    fn beats(&self) -> u64 {
        self.strings.beats.load(Ordering::Relaxed)
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        // SAFETY: our own child.
        unsafe {
            libc::kill(self.pid, libc::SIGKILL);
            libc::waitpid(self.pid, std::ptr::null_mut(), 0);
        }
    }
}

/// The child's life.
fn dance(strings: &Strings) -> ! {
    let argument = |index: usize| strings.arguments[index].load(Ordering::Relaxed);
    // SAFETY: addresses are those of memory that the test had this process map; nothing else is touched.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        let zeros = libc::open(c"/dev/zero".as_ptr(), libc::O_RDONLY);
        loop {
            let order = strings.order.load(Ordering::Acquire);
            let place = argument(0) as *mut u64;
            let answer = match order {
                o if o == Order::Write as u64 => {
                    place.write_volatile(place.read_volatile() + 1);
                    0
                }
                o if o == Order::Read as u64 => place.read_volatile() as i64,
                o if o == Order::KernelWrite as u64 => libc::read(zeros, place.cast(), 8) as i64,
                o if o == Order::Call as u64 => libc::syscall(
                    argument(0) as i64,
                    argument(1),
                    argument(2),
                    argument(3),
                    argument(4),
                    u64::MAX,
                    0,
                ),
                o if o == Order::Fork as u64 => match libc::fork() {
                    0 => {
                        place.write_volatile(99);
                        libc::_exit(0)
                    }
                    child => libc::waitpid(child, std::ptr::null_mut(), 0) as i64,
                },
                o if o == Order::Exec as u64 => {
                    strings.order.store(0, Ordering::Release);
                    libc::execl(
                        c"/bin/sleep".as_ptr(),
                        c"sleep".as_ptr(),
                        c"100".as_ptr(),
                        std::ptr::null::<i8>(),
                    ) as i64
                }
                _ => {
                    strings.beats.fetch_add(1, Ordering::Relaxed);
                    libc::sched_yield();
                    continue;
                }
            };
            strings.answer.store(answer as u64, Ordering::Relaxed);
            strings.order.store(0, Ordering::Release);
        }
    }
}

fn works() -> bool {
    static TRIED: OnceLock<bool> = OnceLock::new();
    *TRIED.get_or_init(|| probe().inspect_err(|error| println!("skipped: {error}")).is_ok())
}

fn harvest(process: &mut Process) -> BTreeSet<u64> {
    let mut pages = BTreeSet::new();
    assert_eq!(process.harvest(&mut |found| pages.extend(found.pages)).unwrap(), Life::Runs);
    pages
}

fn within(pages: &BTreeSet<u64>, range: Range<u64>) -> Vec<u64> {
    pages.range(range).copied().collect()
}

fn state(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap_or("").to_owned();
    format!("{} {} {}", line("State"), line("TracerPid"), line("SigBlk"))
}

#[test]
fn pages_written_are_found_once_and_no_others() {
    if !works() {
        return;
    }
    let puppet = Puppet::new();
    let first = puppet.mmap(0, 256) / 4096;
    (first..first + 256).for_each(|page| puppet.write(page));
    let mut process = Process::attach(puppet.pid).unwrap();
    assert_eq!(within(&harvest(&mut process), first..first + 256).len(), 256);
    [3, 4, 200].iter().for_each(|page| puppet.write(first + page));
    puppet.tell(Order::Read, &[(first + 9) * 4096]);
    puppet.tell(Order::KernelWrite, &[(first + 77) * 4096]);
    let found = harvest(&mut process);
    assert_eq!(within(&found, first..first + 256), [3, 4, 77, 200].map(|page| first + page));
    assert!(within(&harvest(&mut process), first..first + 256).is_empty());
}

#[test]
fn a_forked_child_writes_for_itself_and_the_parent_is_watched_on() {
    if !works() {
        return;
    }
    let puppet = Puppet::new();
    let first = puppet.mmap(0, 8) / 4096;
    (first..first + 8).for_each(|page| puppet.write(page));
    let mut process = Process::attach(puppet.pid).unwrap();
    harvest(&mut process);
    assert!(puppet.tell(Order::Fork, &[first * 4096]) > 0);
    puppet.write(first + 5);
    assert_eq!(within(&harvest(&mut process), first..first + 8), [first + 5]);
    puppet.write(first + 6);
    assert!(puppet.tell(Order::Fork, &[first * 4096]) > 0);
    assert_eq!(within(&harvest(&mut process), first..first + 8), [first + 6]);
}

#[test]
fn exec_and_exit_are_told_apart() {
    if !works() {
        return;
    }
    let puppet = Puppet::new();
    let mut process = Process::attach(puppet.pid).unwrap();
    harvest(&mut process);
    puppet.tell(Order::Exec, &[]);
    let mut life = Life::Runs;
    while life == Life::Runs {
        life = process.harvest(&mut |_| ()).unwrap();
    }
    assert_eq!(life, Life::Replaced);
    // The program in its place can be watched as well.
    let mut other = Process::attach(puppet.pid).unwrap();
    assert!(!harvest(&mut other).is_empty());
    drop(puppet);
    assert_eq!(other.harvest(&mut |_| ()).unwrap(), Life::Ended);
    assert!(other.wait(Duration::from_secs(5)));
}

/// Any order of mapping, unmapping, moving, growing, protecting, dropping, forking and writing: what was
/// written and is still there at the harvest is found.
#[test]
fn nothing_written_is_missed_while_mappings_change() {
    if !works() {
        return;
    }
    for seed in 0..12u64 {
        println!("seed {seed}");
        let mut random = Pcg64Mcg::seed_from_u64(seed);
        let puppet = Puppet::new();
        let mut model = Model { regions: Vec::new(), written: BTreeSet::new() };
        let first = puppet.mmap(0, 64) / 4096;
        model.regions.push(first..first + 64);
        let mut process = Process::attach(puppet.pid).unwrap();
        harvest(&mut process);
        for _ in 0..300 {
            match random.random_range(0..12) {
                0 => {
                    let found = harvest(&mut process);
                    let missed: Vec<_> = model.written.difference(&found).collect();
                    assert!(missed.is_empty(), "missed {missed:x?}");
                    model.written.clear();
                }
                step => model.step(&puppet, step, &mut random),
            }
        }
        let found = harvest(&mut process);
        assert!(model.written.is_subset(&found));
    }
}

/// What the process knows: its regions, and the pages that it wrote since the last harvest.
struct Model {
    regions: Vec<Range<u64>>,
    written: BTreeSet<u64>,
}

impl Model {
    fn step(&mut self, puppet: &Puppet, step: u32, random: &mut Pcg64Mcg) {
        let index = random.random_range(0..self.regions.len());
        let region = self.regions[index].clone();
        let (start, pages) = (region.start, region.end - region.start);
        let (page, bytes) = (random.random_range(region.clone()), pages * 4096);
        match step {
            1 if self.regions.len() < 6 => {
                let pages = random.random_range(1..600);
                let start = puppet.mmap(0, pages) / 4096;
                self.regions.push(start..start + pages);
            }
            // Mapped again at the same place: another mapping, which looks the same.
            2 => {
                puppet.mmap(start * 4096, pages);
                self.forget(&region);
            }
            3 if self.regions.len() > 1 => {
                assert_eq!(puppet.call(libc::SYS_munmap, &[start * 4096, bytes]), 0);
                self.forget(&region);
                self.regions.remove(index);
            }
            // Grown, to another place as a rule; what it held moves along.
            4 => {
                let grown = pages + random.random_range(0..64);
                let flags = libc::MREMAP_MAYMOVE as u64;
                let moved = puppet.call(libc::SYS_mremap, &[start * 4096, bytes, grown * 4096, flags]);
                assert!(moved > 0);
                let to = moved as u64 / 4096;
                let written: Vec<u64> = self.written.range(region.clone()).copied().collect();
                self.forget(&region);
                self.written.extend(written.iter().map(|page| page - start + to));
                self.regions[index] = to..to + grown;
            }
            5 => {
                for protection in [libc::PROT_READ, libc::PROT_READ | libc::PROT_WRITE] {
                    let arguments = [page * 4096, 4096, protection as u64];
                    assert_eq!(puppet.call(libc::SYS_mprotect, &arguments), 0);
                }
            }
            6 => {
                let arguments = [page * 4096, 4096, libc::MADV_DONTNEED as u64];
                assert_eq!(puppet.call(libc::SYS_madvise, &arguments), 0);
                self.written.remove(&page);
            }
            7 => {
                puppet.tell(Order::Fork, &[page * 4096]);
            }
            _ => {
                puppet.write(page);
                self.written.insert(page);
            }
        }
    }

    fn forget(&mut self, region: &Range<u64>) {
        self.written.retain(|page| !region.contains(page));
    }
}

#[test]
fn memory_made_read_only_after_a_write_is_still_found() {
    if !works() {
        return;
    }
    let puppet = Puppet::new();
    let first = puppet.mmap(0, 8) / 4096;
    puppet.write(first);
    let mut process = Process::attach(puppet.pid).unwrap();
    harvest(&mut process);
    puppet.write(first + 1);
    assert_eq!(puppet.call(libc::SYS_mprotect, &[first * 4096, 8 * 4096, libc::PROT_READ as u64]), 0);
    assert_eq!(within(&harvest(&mut process), first..first + 8), [first + 1]);
}

#[test]
fn huge_pages_are_tracked_by_the_page_and_survive_being_dropped() {
    if !works() {
        return;
    }
    let puppet = Puppet::new();
    let first = (puppet.mmap(0, 2048) / 4096).next_multiple_of(512);
    let bytes = 1024 * 4096;
    puppet.call(libc::SYS_madvise, &[first * 4096, bytes, libc::MADV_HUGEPAGE as u64]);
    (first..first + 1024).for_each(|page| puppet.write(page));
    let mut process = Process::attach(puppet.pid).unwrap();
    harvest(&mut process);
    puppet.write(first + 5);
    assert_eq!(within(&harvest(&mut process), first..first + 1024), [first + 5]);
    for _ in 0..3 {
        puppet.call(libc::SYS_madvise, &[first * 4096, bytes, libc::MADV_DONTNEED as u64]);
        puppet.write(first + 700);
        assert!(harvest(&mut process).contains(&(first + 700)));
        puppet.write(first + 700);
        assert!(harvest(&mut process).contains(&(first + 700)));
        puppet.write(first + 701);
        assert!(harvest(&mut process).contains(&(first + 701)));
    }
}

#[test]
fn the_process_is_left_as_it_was_found() {
    if !works() {
        return;
    }
    let puppet = Puppet::new();
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", puppet.pid)).unwrap().count();
    let maps = || std::fs::read_to_string(format!("/proc/{}/maps", puppet.pid)).unwrap();
    // The letters of a userfaultfd that watches writes.
    let watched = || {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps", puppet.pid)).unwrap();
        text.lines().filter(|line| line.starts_with("VmFlags") && line.contains(" uw")).count()
    };
    let first = puppet.mmap(0, 8) / 4096;
    let (before, there) = (descriptors(), maps());
    let mut process = Process::attach(puppet.pid).unwrap();
    harvest(&mut process);
    assert!(watched() > 0);
    assert_eq!((descriptors(), maps()), (before, there.clone()));
    assert!(state(puppet.pid).contains("TracerPid:\t0"), "{}", state(puppet.pid));
    drop(process);
    assert_eq!((descriptors(), maps(), watched()), (before, there, 0));
    puppet.write(first);
    let beats = puppet.beats();
    while puppet.beats() == beats {
        std::thread::yield_now();
    }
}

/// A Python program that says what its waits and its signals were.
fn python(program: &str) -> Option<(Child, BufReader<std::process::ChildStdout>)> {
    let started = Command::new("python3")
        .args(["-u", "-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = started.ok()?;
    let mut out = BufReader::new(child.stdout.take()?);
    let mut line = String::new();
    out.read_line(&mut line).ok()?;
    assert_eq!(line, "ready\n");
    Some((child, out))
}

/// Sleeps, reads, epoll waits, signal handlers and locks of many threads, while it is attached to again and
/// again: none may fail or end early.
#[test]
fn waits_signals_and_threads_go_on_undisturbed() {
    const PROGRAM: &str = r#"
import ctypes, os, select, signal, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
faults, alarms, stop = [], [0], threading.Event()
def alarm(*_):
    alarms[0] += 1
signal.signal(signal.SIGALRM, alarm)
def epoll():
    events = (ctypes.c_char * 64)()
    fd = libc.epoll_create1(0)
    while not stop.is_set():
        if libc.epoll_wait(fd, events, 1, 20) != 0:
            faults.append(("epoll_wait", ctypes.get_errno()))
def sleep():
    spec = (ctypes.c_long * 2)(0, 15_000_000)
    while not stop.is_set():
        began = time.monotonic()
        if libc.nanosleep(spec, None) != 0 or time.monotonic() - began < 0.0149:
            faults.append(("nanosleep", ctypes.get_errno(), time.monotonic() - began))
def compute():
    while not stop.is_set():
        if sum(i * 0.5 for i in range(1000)) != 249750.0:
            faults.append("sum")
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
threads = [threading.Thread(target=f) for f in (epoll, sleep, compute, compute)]
for t in threads: t.start()
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
print("ready")
sys.stdin.readline()
signal.setitimer(signal.ITIMER_REAL, 0)
stop.set()
for t in threads: t.join()
print(alarms[0] > 10, signal.pthread_sigmask(signal.SIG_BLOCK, []), faults)
"#;
    if !works() {
        return;
    }
    let Some((mut child, mut out)) = python(PROGRAM) else { return println!("skipped: no python3") };
    for _ in 0..150 {
        let mut process = Process::attach(child.id() as i32).unwrap();
        assert_eq!(process.harvest(&mut |_| ()).unwrap(), Life::Runs);
        std::thread::sleep(Duration::from_micros(500));
    }
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let mut said = String::new();
    out.read_line(&mut said).unwrap();
    assert_eq!(said, "True set() []\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_stopped_process_stays_stopped_and_goes_on_when_it_is_told() {
    if !works() {
        return;
    }
    let puppet = Puppet::new();
    let is_stopped = || state(puppet.pid).contains("T (stopped)");
    // SAFETY: our own child.
    unsafe { libc::kill(puppet.pid, libc::SIGSTOP) };
    while !is_stopped() {
        std::thread::yield_now();
    }
    let mut process = Process::attach(puppet.pid).unwrap();
    harvest(&mut process);
    let (beats, mut tries) = (puppet.beats(), 0);
    while !is_stopped() && tries < 1000 {
        std::thread::sleep(Duration::from_millis(1));
        tries += 1;
    }
    assert!(is_stopped(), "{}", state(puppet.pid));
    assert_eq!(puppet.beats(), beats);
    // SAFETY: our own child.
    unsafe { libc::kill(puppet.pid, libc::SIGCONT) };
    while puppet.beats() == beats {
        std::thread::yield_now();
    }
}

#[test]
fn threads_that_come_and_go_meanwhile_are_survived() {
    const PROGRAM: &str = r#"
import sys, threading
stop = threading.Event()
def spawn():
    while not stop.is_set():
        threads = [threading.Thread(target=lambda: None) for _ in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
t = threading.Thread(target=spawn); t.start()
print("ready")
sys.stdin.readline(); stop.set(); t.join()
print("whole")
"#;
    if !works() {
        return;
    }
    let Some((mut child, mut out)) = python(PROGRAM) else { return println!("skipped: no python3") };
    for _ in 0..100 {
        drop(Process::attach(child.id() as i32).unwrap());
    }
    child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    let mut said = String::new();
    out.read_line(&mut said).unwrap();
    assert_eq!(said, "whole\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn who_cannot_be_watched_is_named_with_the_reason() {
    if !works() {
        return;
    }
    let refused = |pid: i32| Process::attach(pid).map(|_| ()).unwrap_err().to_string();
    assert!(refused(0).contains("no process 0"), "{}", refused(0));
    assert!(refused(-7).contains("no process -7"));
    assert!(refused(i32::MAX).contains("no process"));
    assert!(refused(std::process::id() as i32).contains("cannot record itself"));
    // The first of the kernel's own threads, where this is not a container.
    if std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name.trim() == "kthreadd") {
        assert!(refused(2).contains("kernel's thread"), "{}", refused(2));
    }
    let mut zombie = Command::new("true").spawn().unwrap();
    while !state(zombie.id() as i32).contains("Z (") {
        std::thread::yield_now();
    }
    assert!(refused(zombie.id() as i32).contains("has ended"), "{}", refused(zombie.id() as i32));
    zombie.wait().unwrap();
    let puppet = Puppet::new();
    stop::ask(libc::PTRACE_SEIZE, puppet.pid, 0, 0).unwrap();
    assert!(refused(puppet.pid).contains("traced by process"), "{}", refused(puppet.pid));
}

#[test]
fn two_recorders_of_a_process_do_not_harm_each_other() {
    if !works() {
        return;
    }
    let puppet = Puppet::new();
    let first = puppet.mmap(0, 8) / 4096;
    (first..first + 8).for_each(|page| puppet.write(page));
    let mut one = Process::attach(puppet.pid).unwrap();
    harvest(&mut one);
    let mut two = Process::attach(puppet.pid).unwrap();
    harvest(&mut two);
    assert!(two.refused_bytes() > 0);
    puppet.write(first);
    assert_eq!(within(&harvest(&mut one), first..first + 8), [first]);
}

#[test]
fn attaching_from_many_threads_at_once_is_safe() {
    if !works() {
        return;
    }
    let puppets: Vec<_> = (0..4).map(|_| Puppet::new()).collect();
    std::thread::scope(|scope| {
        for puppet in &puppets {
            scope.spawn(|| (0..40).for_each(|_| drop(Process::attach(puppet.pid).unwrap())));
        }
    });
    for puppet in &puppets {
        let beats = puppet.beats();
        while puppet.beats() == beats {
            std::thread::yield_now();
        }
    }
}
