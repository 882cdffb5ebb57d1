//! A migration under way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use migrate_core::knobs::Spec;
use migrate_core::link::{self, Endpoint, LinkSpec, Shaper, Stream};
use migrate_core::policy::{Decision, Policy, Round};
use migrate_core::report::Report;
use migrate_core::world::memory::{receive_in_thread, Arrived, Channels, Gauge, Reception, Sending, Source};
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
    stall: f64,
    /// An endpoint, or another mapping in this process.
    to: Option<String>,
    /// What the report says about who took part.
    policy: Value,
    guest: Value,
    codec: Spec,
}

type Watchers = Vec<(String, Box<dyn Policy>)>;

/// What a migration needs until its end.
struct Running {
    migration: Migration<Source>,
    policy: Option<Box<dyn Policy>>,
    watchers: Watchers,
    round: Option<Round>,
    destination: Option<JoinHandle<Result<Arrived>>>,
    /// Dropped last: its drop cuts the link.
    shaper: Shaper,
}

/// A migration under way, stepped round by round.
#[pyclass(frozen, module = "switchover._native")]
pub struct Session {
    running: Owned<Mutex<Option<Running>>>,
    cancelled: Arc<AtomicBool>,
    gauge: Gauge,
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

/// The channels' near ends, with their far ends where those are in this process.
fn streams(plan: &Plan, to: Option<&Endpoint>, shaper: &Shaper) -> Result<(Vec<Stream>, Vec<Stream>)> {
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for _ in 0..plan.link.channels {
        let end = match to {
            Some(endpoint) => link::connect(endpoint, Duration::from_secs_f64(plan.stall))?,
            None => {
                let (one, other) = link::pair(plan.link.transport)?;
                far.push(other);
                one
            }
        };
        near.push(shaper.insert(end)?);
    }
    Ok((near, far))
}

impl Plan {
    fn sending(&self) -> PyResult<Sending> {
        let sending = Sending {
            verify: self.verify,
            stall: seconds("stall_timeout", self.stall)?,
            warm_up: seconds("warm_up", self.warm_up)?,
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
        let sending = plan.sending()?;
        let to = plan.to.as_deref().map(|to| endpoint(py, to)).transpose()?;
        let strategy = strategy::find(&plan.strategy).map_err(core)?;
        let tracker = track::find_for(&plan.tracker, guest.get().writers()).map_err(core)?;
        let policy = policy.map(policy::out_of).transpose()?;
        let watchers =
            watchers.into_iter().map(|(name, p)| Ok((name, policy::out_of(&p)?))).collect::<PyResult<_>>()?;
        let restore = guest.get().restorer();
        let memory = guest.get().core_memory(py)?;
        let (channels, destination, shaper) = interrupt::run_to_end(py, || {
            let shaper = Shaper::new(&plan.link)?;
            let (near, far) = streams(&plan, to.as_ref(), &shaper)?;
            let reception = Reception { stall: sending.stall, ..Reception::default() };
            let destination = match far.is_empty() {
                true => None,
                false => Some(receive_in_thread(far, reception, restore)?),
            };
            Ok((Channels::open(&memory, near, &sending)?, destination, shaper))
        })?;
        drop(memory);
        let source = Source::over(channels, guest.get().take(py)?, tracker, sending);
        let gauge = source.gauge();
        let migration = Migration::new(source, strategy);
        let cancelled = migration.canceller();
        let running = Running { migration, policy, watchers, round: None, destination, shaper };
        Ok(Self { running: Owned::new(Mutex::new(Some(running))), cancelled, gauge, guest, plan })
    }

    /// The next live round as JSON, or `None` when the run is over.
    fn next_round(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let running = self.running.get()?;
        let cancel = || self.cancel();
        let step = interrupt::run(py, &cancel, || {
            with(running, |running| {
                running.round = match running.migration.next_round() {
                    Step::Decide(round) => Some(round),
                    Step::Over => None,
                };
                Ok(running.round.clone())
            })
        })?;
        step.map(|round| text(&round)).transpose()
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

    /// Ends the run as aborted at its next action. From any thread.
    fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
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
        let arrived = destination.map(JoinHandle::join);
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
