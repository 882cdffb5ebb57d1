//! A virtual CPU: a thread that runs one workload at its rate, and can be paused, saved and moved.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::block::PAGE;
use super::clock::monotonic_ns;
use super::region::Region;
use super::workload::{Tick, Workload};
use crate::error::{Error, Result};

/// Pages that an unpaced workload writes between two looks at its orders.
const UNPACED_PAGES: u64 = 64;
/// How often a paced workload is given what is due.
const TICK: Duration = Duration::from_millis(1);
/// Writing that fell due in a stall (an overloaded machine) and is made up afterwards, at most.
const MOST_DEBT: Duration = Duration::from_millis(50);

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
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    operations: AtomicU64,
    running_ns: AtomicU64,
    last_ran_ns: AtomicU64,
    /// First tick after the last start.
    first_ran_ns: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    orders: Mutex<Orders>,
    changed: Condvar,
    counters: Counters,
    crash: Mutex<Option<String>>,
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

/// One vCPU, paused or running.
pub struct Vcpu {
    shared: Arc<Shared>,
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
            orders: Mutex::new(Orders { wanted: Order::Pause, state: Order::Pause }),
            changed: Condvar::new(),
            counters: Counters::default(),
            crash: Mutex::new(None),
        };
        shared.counters.written.store(progress.written, Relaxed);
        shared.counters.operations.store(progress.operations, Relaxed);
        shared.counters.running_ns.store(progress.running_ns, Relaxed);
        shared.counters.last_ran_ns.store(progress.last_ran_ns, Relaxed);
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

    /// Counts so far.
    pub fn progress(&self) -> Progress {
        let counters = &self.shared.counters;
        Progress {
            written: counters.written.load(Relaxed),
            operations: counters.operations.load(Relaxed),
            running_ns: counters.running_ns.load(Relaxed),
            last_ran_ns: counters.last_ran_ns.load(Relaxed),
        }
    }

    /// Monotonic clock at the end of the first tick since the last resume; `None` before it.
    pub fn first_ran_ns(&self) -> Option<u64> {
        Some(self.shared.counters.first_ran_ns.load(Relaxed)).filter(|ns| *ns > 0)
    }

    /// Why the workload crashed, if it did.
    pub fn crash(&self) -> Option<String> {
        lock(&self.shared.crash).clone()
    }

    /// The execution state of a paused vCPU.
    pub fn save(&self) -> Result<VcpuState> {
        let workload = lock(&self.workload);
        Ok(VcpuState {
            workload: workload.name().to_owned(),
            registers: workload.save()?,
            progress: self.progress(),
        })
    }

    /// The workload's own check of its data. Runs between ticks if the vCPU runs.
    pub fn check(&self) -> Result<()> {
        match self.crash() {
            Some(why) => Err(Error::Verification(why)),
            None => lock(&self.workload).check(&self.region),
        }
    }
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
    let body = std::panic::AssertUnwindSafe(|| run_until_stopped(shared, region, workload));
    let why = match std::panic::catch_unwind(body) {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error.to_string()),
        Err(_) => Some("the workload panicked".to_owned()),
    };
    if why.is_some() {
        *lock(&shared.crash) = why;
    }
    lock(&shared.orders).state = Order::Stop;
    shared.changed.notify_all();
}

fn run_until_stopped(shared: &Shared, region: &Region, workload: &Mutex<Box<dyn Workload>>) -> Result<()> {
    while wait_for_run(shared) == Order::Run {
        run_until_ordered(shared, region, workload)?;
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

fn run_until_ordered(shared: &Shared, region: &Region, workload: &Mutex<Box<dyn Workload>>) -> Result<()> {
    let counters = &shared.counters;
    let before = Duration::from_nanos(counters.running_ns.load(Relaxed));
    let started = Instant::now();
    // A page is due at once, so that a guest shows its first write as soon as it is resumed.
    let (mut due, mut paid_until) = (PAGE as f64, Duration::ZERO);
    loop {
        let ran = started.elapsed();
        let paced = {
            let mut workload = lock(workload);
            let rate = workload.rate(before + ran);
            due = match rate.is_finite() {
                true => (due + rate * (ran - paid_until).as_secs_f64())
                    .min((rate * MOST_DEBT.as_secs_f64()).max(PAGE as f64)),
                false => (UNPACED_PAGES * PAGE as u64) as f64,
            };
            paid_until = ran;
            let budget = due as u64 / PAGE as u64 * PAGE as u64;
            if budget > 0 {
                let work = workload.run(region, Tick { now: before + ran, budget })?;
                counters.written.fetch_add(work.written, Relaxed);
                counters.operations.fetch_add(work.operations, Relaxed);
                due -= budget as f64;
            }
            rate.is_finite()
        };
        let now = monotonic_ns();
        counters.last_ran_ns.store(now, Relaxed);
        let _ = counters.first_ran_ns.compare_exchange(0, now, Relaxed, Relaxed);
        counters.running_ns.store((before + started.elapsed()).as_nanos() as u64, Relaxed);
        if ordered_otherwise(shared, paced.then(|| TICK.saturating_sub(started.elapsed() - ran))) {
            return Ok(());
        }
    }
}

/// Whether there is another order than to run, waiting for one as long as `idle` says.
fn ordered_otherwise(shared: &Shared, idle: Option<Duration>) -> bool {
    let mut orders = lock(&shared.orders);
    if let (Some(idle), Order::Run) = (idle, orders.wanted) {
        orders = shared.changed.wait_timeout(orders, idle).unwrap_or_else(PoisonError::into_inner).0;
    }
    orders.wanted != Order::Run
}
