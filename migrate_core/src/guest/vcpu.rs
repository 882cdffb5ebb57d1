//! A virtual CPU: a thread that runs one workload at its rate, and can be paused, saved and moved.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::block::PAGE;
use super::brake::{Brake, Due};
use super::clock::monotonic_ns;
use super::first_writes;
use super::pacing::Pacing;
use super::region::Region;
use super::workload::{Tick, Work, Workload};
use crate::error::{Error, Result};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Run,
    Pause,
    Stop,
}

#[derive(Debug)]
struct Orders {
    wanted: Order,
    /// What the thread has come to: it is `Pause` only between two ticks, with no write under way.
    state: Order,
    brake: Brake,
}

/// What one vCPU has done since its guest began, on whatever host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Bytes written by the workload's own count.
    pub written: u64,
    /// Operations finished.
    pub operations: u64,
    /// Nanoseconds that it was allowed to run, throttled and stalled time included, pauses not.
    pub running_ns: u64,
    /// Machine's monotonic clock at the end of the last tick.
    pub last_ran_ns: u64,
    /// Nanoseconds that it slept under a [`Brake`].
    #[serde(default)]
    pub held_ns: u64,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    operations: AtomicU64,
    running_ns: AtomicU64,
    last_ran_ns: AtomicU64,
    /// Beginning of the first tick after the last start.
    first_ran_ns: AtomicU64,
    held_ns: AtomicU64,
    /// Bytes of pages written for the first time since their harvest, while that is counted.
    dirtied: AtomicU64,
}

#[derive(Debug)]
pub(super) struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
    counters: Counters,
    crash: Mutex<Option<String>>,
    /// Held while waiting for the workload, so that whoever asks for it comes next: a busy vCPU takes the
    /// workload back so soon that others could wait for long.
    turn: Mutex<()>,
}

/// A vCPU's execution state: what moves at switchover beside memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VcpuState {
    /// The workload's name.
    pub workload: String,
    /// The workload's own state.
    pub registers: Value,
    /// Counts and clock.
    pub progress: Progress,
}

/// Reads a guest's counts from any thread, whoever has the guest.
#[derive(Debug, Clone)]
pub struct Tally(pub(super) Vec<Arc<Shared>>);

impl Tally {
    /// Operations that all vCPUs have finished since the guest began; `None` before the first tick after a resume.
    pub fn operations(&self) -> Option<u64> {
        let counters = || self.0.iter().map(|shared| &shared.counters);
        let runs = counters().any(|counters| counters.first_ran_ns.load(Relaxed) > 0);
        runs.then(|| counters().map(|counters| counters.operations.load(Relaxed)).sum())
    }
}

/// One vCPU, paused or running.
pub struct Vcpu {
    pub(super) shared: Arc<Shared>,
    region: Region,
    /// Here while no thread has it.
    workload: Arc<Mutex<Box<dyn Workload>>>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A poisoned lock means that a workload panicked; its crash is reported by the thread's end.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Vcpu {
    /// A paused vCPU that will run `workload` in `region`, going on from `progress`.
    pub fn new(workload: Box<dyn Workload>, region: Region, progress: Progress) -> Self {
        let shared = Shared {
            orders: Mutex::new(Orders { wanted: Order::Pause, state: Order::Pause, brake: Brake::default() }),
            changed: Condvar::new(),
            counters: Counters::default(),
            crash: Mutex::new(None),
            turn: Mutex::new(()),
        };
        shared.counters.written.store(progress.written, Relaxed);
        shared.counters.operations.store(progress.operations, Relaxed);
        shared.counters.running_ns.store(progress.running_ns, Relaxed);
        shared.counters.last_ran_ns.store(progress.last_ran_ns, Relaxed);
        shared.counters.held_ns.store(progress.held_ns, Relaxed);
        Self { shared: Arc::new(shared), region, workload: Arc::new(Mutex::new(workload)), thread: None }
    }

    /// Lets it run; returns at once.
    pub fn resume(&mut self) -> Result<()> {
        self.shared.counters.first_ran_ns.store(0, Relaxed);
        self.order(Order::Run);
        if self.thread.is_none() {
            let (shared, region, workload) =
                (Arc::clone(&self.shared), self.region.clone(), Arc::clone(&self.workload));
            let name = format!("vcpu-{}", lock(&self.workload).name());
            let body = move || run(&shared, &region, &workload);
            let thread = std::thread::Builder::new().name(name.chars().take(15).collect()).spawn(body);
            self.thread = Some(
                thread.map_err(|source| Error::System { what: "starting a vCPU thread".into(), source })?,
            );
        }
        Ok(())
    }

    fn order(&self, wanted: Order) {
        lock(&self.shared.orders).wanted = wanted;
        self.shared.changed.notify_all();
    }

    /// Asks it to pause without waiting; [`Vcpu::wait_paused`] waits.
    pub fn ask_pause(&self) {
        self.order(Order::Pause);
    }

    /// Waits until no write is under way and none will follow.
    pub fn wait_paused(&self) {
        let mut orders = lock(&self.shared.orders);
        while orders.state == Order::Run && self.thread.as_ref().is_some_and(|t| !t.is_finished()) {
            let waited = self.shared.changed.wait_timeout(orders, Duration::from_millis(20));
            orders = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Whether it is to run.
    pub fn is_running(&self) -> bool {
        lock(&self.shared.orders).wanted == Order::Run
    }

    /// Counts so far.
    pub fn progress(&self) -> Progress {
        let counters = &self.shared.counters;
        Progress {
            written: counters.written.load(Relaxed),
            operations: counters.operations.load(Relaxed),
            running_ns: counters.running_ns.load(Relaxed),
            last_ran_ns: counters.last_ran_ns.load(Relaxed),
            held_ns: counters.held_ns.load(Relaxed),
        }
    }

    /// Holds it back, until the next call. A sleep under the brake before ends at once.
    pub fn brake(&self, brake: Brake) {
        lock(&self.shared.orders).brake = brake;
        self.shared.changed.notify_all();
    }

    /// Bytes of the pages that it wrote for the first time since their harvest, for as long as its memory
    /// counts them ([`GuestMemory::count_first_writes`](super::GuestMemory::count_first_writes)).
    pub fn dirtied(&self) -> u64 {
        self.shared.counters.dirtied.load(Relaxed)
    }

    /// Monotonic clock at the beginning of the first tick since the last resume; `None` before it.
    pub fn first_ran_ns(&self) -> Option<u64> {
        Some(self.shared.counters.first_ran_ns.load(Relaxed)).filter(|ns| *ns > 0)
    }

    /// Why the workload crashed, if it did.
    pub fn crash(&self) -> Option<String> {
        lock(&self.shared.crash).clone()
    }

    /// The execution state of a paused vCPU. A crashed one has none that could go on.
    pub fn save(&self) -> Result<VcpuState> {
        self.ask(|workload| {
            Ok(VcpuState {
                workload: workload.name().to_owned(),
                registers: workload.save()?,
                progress: self.progress(),
            })
        })
    }

    /// The workload's own check of its data. Runs between ticks if the vCPU runs.
    pub fn check(&self) -> Result<()> {
        self.ask(|workload| workload.check(&self.region))
    }

    /// Asks the workload something, between two ticks.
    fn ask<T>(&self, question: impl FnOnce(&dyn Workload) -> Result<T>) -> Result<T> {
        let workload = wait_turn(&self.shared, &self.workload);
        match self.crash() {
            Some(why) => Err(Error::Verification(why)),
            None => caught(|| question(workload.as_ref())),
        }
    }
}

/// The workload, in the order in which it was asked for.
fn wait_turn<'a>(
    shared: &Shared,
    workload: &'a Mutex<Box<dyn Workload>>,
) -> MutexGuard<'a, Box<dyn Workload>> {
    let _turn = lock(&shared.turn);
    lock(workload)
}

/// Runs a workload's code; a panic in it is damage to the guest, not to us.
fn caught<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(Error::Verification(format!("the workload panicked: {text}")))
    })
}

impl Drop for Vcpu {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            // Its panic, if any, is already kept as a crash.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared, region: &Region, workload: &Mutex<Box<dyn Workload>>) {
    if let Err(error) = caught(|| run_until_stopped(shared, region, workload)) {
        *lock(&shared.crash) = Some(match error {
            Error::Verification(why) => why,
            other => other.to_string(),
        });
    }
    lock(&shared.orders).state = Order::Stop;
    shared.changed.notify_all();
}

fn run_until_stopped(shared: &Shared, region: &Region, workload: &Mutex<Box<dyn Workload>>) -> Result<()> {
    // What is owed to a brake survives pauses: a tracker may pause the guest at every harvest.
    let mut due = Due::default();
    while wait_for_run(shared) == Order::Run {
        run_until_ordered(shared, region, workload, &mut due)?;
    }
    Ok(())
}

/// Reports the pause, then sleeps until there is another order.
fn wait_for_run(shared: &Shared) -> Order {
    let mut orders = lock(&shared.orders);
    orders.state = orders.wanted;
    shared.changed.notify_all();
    while orders.wanted == Order::Pause {
        orders = shared.changed.wait(orders).unwrap_or_else(PoisonError::into_inner);
        orders.state = orders.wanted;
    }
    orders.state
}

/// The time of a vCPU since it was resumed.
struct Run {
    started: Instant,
    /// Run before the resume, in all.
    before: Duration,
    /// Of that, held back.
    held_before: Duration,
    /// Held back since.
    held: Duration,
}

impl Run {
    fn begin(counters: &Counters) -> Self {
        Self {
            started: Instant::now(),
            before: Duration::from_nanos(counters.running_ns.load(Relaxed)),
            held_before: Duration::from_nanos(counters.held_ns.load(Relaxed)),
            held: Duration::ZERO,
        }
    }

    fn stamp(&self, counters: &Counters) {
        counters.held_ns.store((self.held_before + self.held).as_nanos() as u64, Relaxed);
        counters.stamp(self.before + self.started.elapsed());
    }

    /// Time since the resume in which it was not held back: that in which writing falls due.
    fn free(&self) -> Duration {
        self.started.elapsed().saturating_sub(self.held)
    }

    /// The guest's time.
    fn now(&self) -> Duration {
        self.before.saturating_sub(self.held_before) + self.free()
    }
}

fn run_until_ordered(
    shared: &Shared,
    region: &Region,
    workload: &Mutex<Box<dyn Workload>>,
    due: &mut Due,
) -> Result<()> {
    let (mut run, mut pacing) = (Run::begin(&shared.counters), Pacing::default());
    shared.counters.begin();
    loop {
        let brake = lock(&shared.orders).brake;
        if hold(shared, brake, due, &mut run) {
            // It ran, if only held back, until this order.
            run.stamp(&shared.counters);
            return Ok(());
        }
        let began = run.free();
        let done = tick(shared, region, &mut **wait_turn(shared, workload), &mut pacing, (&run, brake))?;
        run.stamp(&shared.counters);
        let wait = pacing.wait(done.work).saturating_sub(run.free().saturating_sub(began));
        let ordered = ordered_otherwise(shared, wait);
        due.ran(brake, run.free().saturating_sub(began), done.first_writes);
        if ordered {
            // It ran, if only idly, until this order.
            run.stamp(&shared.counters);
            return Ok(());
        }
    }
}

/// Sleeps as long as is due under `brake`, or until there is another brake or order; whether there is
/// another order.
fn hold(shared: &Shared, brake: Brake, due: &mut Due, run: &mut Run) -> bool {
    let (sleep, began) = (due.sleep(), Instant::now());
    if sleep.is_zero() || brake.is_lifted() {
        return false;
    }
    let mut orders = lock(&shared.orders);
    while orders.wanted == Order::Run && orders.brake == brake {
        let left = sleep.saturating_sub(began.elapsed());
        if left.is_zero() {
            break;
        }
        orders = shared.changed.wait_timeout(orders, left).unwrap_or_else(PoisonError::into_inner).0;
    }
    let slept = began.elapsed();
    due.slept(slept);
    run.held += slept;
    orders.wanted != Order::Run
}

/// What a tick came to.
#[derive(Default)]
struct Done {
    work: Work,
    /// Pages.
    first_writes: u64,
}

/// Gives the workload what is due.
fn tick(
    shared: &Shared,
    region: &Region,
    workload: &mut dyn Workload,
    pacing: &mut Pacing,
    (run, brake): (&Run, Brake),
) -> Result<Done> {
    let now = run.now();
    let budget = pacing.budget(workload.rate(now), run.free());
    if budget == 0 {
        return Ok(Done::default());
    }
    let budget = budget.min(brake.pages_at_once().saturating_mul(PAGE as u64));
    let before = first_writes::by_this_thread();
    let work = workload.run(region, Tick { now, budget })?;
    let first_writes = match workload.writes_unseen() {
        true => work.written.div_ceil(PAGE as u64),
        false => first_writes::by_this_thread() - before,
    };
    pacing.wrote(work.written);
    let counters = &shared.counters;
    counters.written.fetch_add(work.written, Relaxed);
    counters.operations.fetch_add(work.operations, Relaxed);
    counters.dirtied.fetch_add(first_writes * PAGE as u64, Relaxed);
    Ok(Done { work, first_writes })
}

impl Counters {
    /// Takes note that the vCPU begins to run. Its first tick may wait for memory, which is no part of the
    /// time that it ran nowhere.
    fn begin(&self) {
        // Only the first tick after a resume finds 0 here.
        let _ = self.first_ran_ns.compare_exchange(0, monotonic_ns(), Relaxed, Relaxed);
    }

    /// Takes note that the vCPU has run until this moment, `running` in all.
    fn stamp(&self, running: Duration) {
        self.last_ran_ns.store(monotonic_ns(), Relaxed);
        self.running_ns.store(running.as_nanos() as u64, Relaxed);
    }
}

/// Whether there is another order than to run, waiting for one as long as `wait` says.
fn ordered_otherwise(shared: &Shared, wait: Duration) -> bool {
    let mut orders = lock(&shared.orders);
    if !wait.is_zero() && orders.wanted == Order::Run {
        orders = shared.changed.wait_timeout(orders, wait).unwrap_or_else(PoisonError::into_inner).0;
    }
    orders.wanted != Order::Run
}
