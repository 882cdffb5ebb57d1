//! A migration under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use migrate_core::knobs::Spec;
use migrate_core::link::{self, Endpoint, LinkSpec, Shaper, Stream};
use migrate_core::policy::{Decision, Policy, Round};
use migrate_core::report::Report;
use migrate_core::strategy::Departure;
use migrate_core::world::memory::{
    receive_from_thread, Arrived, Channels, Cutter, Gauge, Reception, Sending, Source,
};
use migrate_core::world::{Migration, Step};
use migrate_core::{strategy, track, Error, Result};
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use crate::errors::to_python;
use crate::fork::Owned;
use crate::guest::Guest;
use crate::receiver::{endpoint, seconds};
use crate::registry::{parse, text};
use crate::{interrupt, policy};

/// A session as Python asks for it; times in seconds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    strategy: Spec,
    link: LinkSpec,
    tracker: Spec,
    verify: bool,
    warm_up: f64,
    cool_down: f64,
    stall: f64,
    /// An endpoint, or another mapping in this process.
    to: Option<String>,
    /// What the report says about who took part.
    policy: Value,
    guest: Value,
    codec: Spec,
}

/// A destination in this process, and how further streams get there.
type Destination = (JoinHandle<Result<Arrived>>, Sender<Stream>);

type Watchers = Vec<(String, Box<dyn Policy>)>;

/// What a migration needs until its end.
struct Running {
    migration: Migration<Source>,
    policy: Option<Box<dyn Policy>>,
    watchers: Watchers,
    round: Option<Round>,
    destination: Option<Destination>,
    /// Why it stands still, if it does.
    paused: Option<String>,
    /// Dropped last: its drop cuts the link.
    shaper: Shaper,
}

/// A migration under way, stepped round by round.
#[pyclass(frozen, module = "switchover._native")]
pub struct Session {
    running: Owned<Mutex<Option<Running>>>,
    cancelled: Arc<AtomicBool>,
    let_go: AtomicBool,
    gauge: Gauge,
    cutter: Cutter,
    guest: Py<Guest>,
    plan: Plan,
}

fn lock(running: &Mutex<Option<Running>>) -> MutexGuard<'_, Option<Running>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `work` on what is running. It is taken out meanwhile, so that no lock is held while a policy in
/// Python runs: one that calls back into its session is refused, not stuck.
fn with<T>(cell: &Mutex<Option<Running>>, work: impl FnOnce(&mut Running) -> Result<T>) -> Result<T> {
    let mut running = lock(cell).take().ok_or_else(busy)?;
    let result = work(&mut running);
    *lock(cell) = Some(running);
    result
}

fn busy() -> Error {
    Error::usage("the migration is over, or busy with another call")
}

/// The channels' near ends, with their far ends where those are in this process. Where execution may move
/// ahead of memory, there is one more for remote faults.
fn streams(
    link: &LinkSpec,
    stall: Duration,
    departure: Departure,
    to: Option<&Endpoint>,
    shaper: &Shaper,
) -> Result<(Vec<Stream>, Vec<Stream>)> {
    let (mut near, mut far) = (Vec::new(), Vec::new());
    let mut end = || match to {
        Some(endpoint) => link::connect(endpoint, stall),
        None => {
            let (one, other) = link::pair(link.transport)?;
            far.push(other);
            Ok(one)
        }
    };
    for _ in 0..link.channels {
        near.push(shaper.insert(end()?)?);
    }
    if departure != Departure::Never {
        near.push(shaper.insert_ahead(end()?)?);
    }
    Ok((near, far))
}

impl Plan {
    fn sending(&self) -> PyResult<Sending> {
        let sending = Sending {
            verify: self.verify,
            stall: seconds("stall_timeout", self.stall)?,
            warm_up: seconds("warm_up", self.warm_up)?,
            cool_down: seconds("cool_down", self.cool_down)?,
            ..Sending::default()
        };
        Ok(sending.with_codec(&self.codec))
    }

    fn report(&self) -> Report {
        let mut strategy = serde_json::json!(self.strategy);
        strategy["codec"] = serde_json::json!(self.codec);
        Report {
            strategy,
            policy: self.policy.clone(),
            link: serde_json::json!(self.link),
            guest: self.guest.clone(),
            ..Report::default()
        }
    }
}

#[pymethods]
impl Session {
    /// Connects both sides; the guest is the session's until [`Session::finish`]. `policy` and `watchers`
    /// are specs as JSON, or callables from a round's JSON to a decision's.
    #[new]
    #[pyo3(signature = (guest, plan, policy=None, watchers=vec![]))]
    fn new(
        py: Python<'_>,
        guest: Py<Guest>,
        plan: &str,
        policy: Option<&Bound<'_, PyAny>>,
        watchers: Vec<(String, Bound<'_, PyAny>)>,
    ) -> PyResult<Self> {
        let plan: Plan = parse(py, "migration", plan)?;
        let core = |error| to_python(py, error);
        let mut sending = plan.sending()?;
        let to = plan.to.as_deref().map(|to| endpoint(py, to)).transpose()?;
        let strategy = strategy::find(&plan.strategy).map_err(core)?;
        sending.departure = strategy.departure();
        let tracker = track::find_for(&plan.tracker, guest.get().writers()).map_err(core)?;
        let policy = policy.map(policy::out_of).transpose()?;
        let watchers =
            watchers.into_iter().map(|(name, p)| Ok((name, policy::out_of(&p)?))).collect::<PyResult<_>>()?;
        let restore = guest.get().restorer();
        let memory = guest.get().core_memory(py)?;
        track::refuse_blind(tracker.as_ref(), &memory).map_err(core)?;
        let (channels, destination, shaper) = interrupt::run_to_end(py, || {
            let shaper = Shaper::new(&plan.link)?;
            let (near, far) = streams(&plan.link, sending.stall, sending.departure, to.as_ref(), &shaper)?;
            let reception = Reception { stall: sending.stall, ..Reception::default() };
            let destination = match far.is_empty() {
                true => None,
                false => Some(receive_from_thread(far, reception, restore)?),
            };
            Ok((Channels::open(&memory, near, &sending)?, destination, shaper))
        })?;
        drop(memory);
        let source = Source::over(channels, guest.get().take(py)?, tracker, sending);
        let (gauge, cutter) = (source.gauge(), source.cutter());
        let migration = Migration::new(source, strategy).mapped();
        let cancelled = migration.canceller();
        let running = Running { migration, policy, watchers, round: None, destination, paused: None, shaper };
        let running = Owned::new(Mutex::new(Some(running)));
        Ok(Self { running, cancelled, let_go: AtomicBool::new(false), gauge, cutter, guest, plan })
    }

    /// The next live round as JSON, or `None` when the run is over or paused.
    fn next_round(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let running = self.running.get()?;
        let cancel = || self.cancel();
        let step = interrupt::run(py, &cancel, || {
            with(running, |running| {
                let Running { migration, policy, watchers, round, paused, .. } = running;
                // A policy that takes samples is shown them by the engine's thread.
                let policy = policy.as_mut().map(|policy| policy.as_mut() as &mut dyn Policy);
                (*round, *paused) = match migration.next_sampled(policy, watchers) {
                    Step::Decide(round) => (Some(round), None),
                    Step::Paused(why) => (None, Some(why)),
                    Step::Over => (None, None),
                };
                Ok(round.clone())
            })
        })?;
        step.map(|round| text(&round)).transpose()
    }

    /// Why the run is paused, if it is: the link was lost after execution had moved ahead of memory.
    fn paused(&self) -> PyResult<Option<String>> {
        Ok(lock(self.running.get()?).as_ref().and_then(|running| running.paused.clone()))
    }

    /// Goes on over another link, to another endpoint of the same destination if one is given. An error
    /// leaves the run paused.
    #[pyo3(signature = (link=None, to=None))]
    fn resume(&self, py: Python<'_>, link: Option<&str>, to: Option<&str>) -> PyResult<()> {
        let link: LinkSpec = match link {
            Some(link) => parse(py, "link", link)?,
            None => self.plan.link.clone(),
        };
        let to = to.or(self.plan.to.as_deref()).map(|to| endpoint(py, to)).transpose()?;
        let (running, stall) = (self.running.get()?, Duration::from_secs_f64(self.plan.stall));
        interrupt::run_to_end(py, || {
            with(running, |running| {
                let shaper = Shaper::new(&link)?;
                let (near, far) = streams(&link, stall, Departure::Later, to.as_ref(), &shaper)?;
                for (stream, (_, connect)) in far.into_iter().zip(running.destination.iter().cycle()) {
                    connect.send(stream).map_err(|_| Error::link("the destination has given up"))?;
                }
                running.migration.resume(|source, missing| source.reconnect(near, missing))?;
                (running.paused, running.shaper) = (None, shaper);
                Ok(())
            })
        })
    }

    /// `(pages placed, remote faults, their median and 99th percentile in seconds)`, as the destination said
    /// last. From any thread.
    fn faults(&self) -> (u64, u64, f64, f64) {
        let beat = self.gauge.faults();
        (beat.placed, beat.faults, beat.median, beat.p99)
    }

    /// Asks the session's policy about the last round, and acts. `None` if the policy failed.
    fn judge(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let running = self.running.get()?;
        let judge = |running: &mut Running| {
            let Running { migration, policy, watchers, round, .. } = running;
            let (Some(policy), Some(round)) = (policy, round) else {
                return Err(Error::usage("there is no policy, or no round to decide about"));
            };
            // A policy is called by the thread that called us, as a callable of Python expects.
            Ok(migration.judge(round, policy.as_mut(), watchers))
        };
        let decision = py.detach(|| with(running, judge));
        decision.map_err(|error| to_python(py, error))?.map(|decision| text(&decision)).transpose()
    }

    /// Acts on the last round.
    fn act(&self, py: Python<'_>, decision: &str) -> PyResult<()> {
        let decision: Decision = parse(py, "decision", decision)?;
        let running = self.running.get()?;
        let act = |running: &mut Running| {
            running.migration.act(decision);
            Ok(())
        };
        py.detach(|| with(running, act)).map_err(|error| to_python(py, error))
    }

    /// Ends the run as aborted at its next action; a moment later also where that waits for the peer. From
    /// any thread.
    fn cancel(&self) {
        if !self.cancelled.swap(true, Ordering::Relaxed) {
            // Without a thread for it the run still ends, when the peer answers or counts as lost.
            let _ = self.cutter.cut_soon();
        }
    }

    /// Whether the guest was let go, so that it must not run here any more; known once the run is finished.
    fn let_go(&self) -> bool {
        self.let_go.load(Ordering::Relaxed)
    }

    /// `(bytes, pages)` put on the link so far. From any thread.
    fn sent(&self) -> (u64, u64) {
        let sent = self.gauge.sent();
        (sent.bytes, sent.pages)
    }

    /// What a Python workload of the guest raised.
    fn raised(&self, py: Python<'_>) -> Option<PyErr> {
        self.guest.get().raised(py)
    }

    /// The report as JSON, and the error behind a failure. A run that is not over is cancelled. The guest is
    /// where it runs: here again, or at the destination in this process, or gone.
    fn finish(&self, py: Python<'_>) -> PyResult<(String, Option<PyErr>)> {
        let running = self.running.get()?;
        let (report, error) = interrupt::run(py, &|| self.cancel(), || {
            let running = lock(running).take().ok_or_else(busy)?;
            Ok(self.end(running))
        })?;
        Ok((report.to_json(), error.map(|error| to_python(py, error))))
    }
}

impl Session {
    fn end(&self, running: Running) -> (Report, Option<Error>) {
        let Running { mut migration, destination, shaper, .. } = running;
        let error = migration.take_error();
        let (report, source) = migration.finish(self.plan.report());
        let (guest, let_go) = source.into_guest();
        self.let_go.store(let_go, Ordering::Relaxed);
        let arrived = destination.map(|(thread, connect)| {
            // From here on it waits for no other link.
            drop(connect);
            thread.join()
        });
        drop(shaper);
        let (place, lost) = match (let_go, arrived) {
            (true, Some(Ok(Ok(arrived)))) => (Ok(arrived.guest), None),
            (true, None) if error.is_none() => (Err(self.plan.to.clone().unwrap_or_default()), None),
            (true, Some(Ok(Err(lost)))) => (Ok(guest), Some(lost)),
            (true, Some(Err(_))) => (Ok(guest), Some(Error::link("the destination panicked"))),
            _ => (Ok(guest), None),
        };
        // The guest is of this process, as was found out when the session was asked.
        let _ = self.guest.get().put(place);
        (report, error.or(lost))
    }
}

impl Drop for Session {
    /// A session that was not finished gives the guest back.
    fn drop(&mut self) {
        let Ok(cell) = self.running.get() else { return };
        if let Some(running) = lock(cell).take() {
            let _ = Python::try_attach(|py| py.detach(|| self.end(running)));
        }
    }
}
