//! Simulated migrations.

use std::sync::atomic::{AtomicBool, Ordering};

use migrate_core::knobs::Spec;
use migrate_core::policy::Policy;
use migrate_core::report::Report;
use migrate_core::strategy::Strategy;
use migrate_core::world::sim::{self, hurried, scaled, Guests, Scenario, Sim, Trial};
use migrate_core::world::{Migration, Step};
use pyo3::prelude::*;
use serde::Deserialize;
use serde_json::Value;

use crate::errors::to_python;
use crate::registry::parse;
use crate::trace::Trace;
use crate::{interrupt, policy};

/// A simulation as Python asks for it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plan {
    strategy: Spec,
    scenario: Scenario,
    /// Follow one page in so many.
    sample: u64,
    /// Count pages instead of following them.
    fast: bool,
    /// What the report says about who took part.
    policy: Value,
    guest: Value,
    codec: Value,
}

impl Plan {
    fn make(&self, trace: &Trace) -> migrate_core::Result<(Sim, Box<dyn Strategy>)> {
        let scenario = self.scenario.clone();
        if self.fast {
            let windows = trace.windows()?;
            let strategy = hurried(&self.strategy, &windows, &scenario.link)?;
            return Ok((Sim::counted(windows, scenario, &self.strategy)?, strategy));
        }
        let replay = trace.replay(self.sample)?;
        let strategy = scaled(&self.strategy, &replay)?;
        Ok((Sim::new(replay, scenario)?, strategy))
    }

    fn report(&self) -> Report {
        let mut strategy = serde_json::json!(self.strategy);
        strategy["codec"] = self.codec.clone();
        Report {
            strategy,
            policy: self.policy.clone(),
            link: serde_json::json!(self.scenario.link),
            guest: self.guest.clone(),
            ..Report::default()
        }
    }
}

/// Runs a migration of `trace`: the report as JSON, and the error behind a failure. `policy` and `watchers`
/// are specs as JSON, or callables from a round's JSON to a decision's.
#[pyfunction]
pub fn simulate(
    py: Python<'_>,
    trace: &Trace,
    plan: &str,
    policy: &Bound<'_, PyAny>,
    watchers: Vec<(String, Bound<'_, PyAny>)>,
) -> PyResult<(String, Option<PyErr>)> {
    let plan: Plan = parse(py, "simulation", plan)?;
    let mut policy = policy::out_of(policy)?;
    let mut watchers = watchers
        .into_iter()
        .map(|(name, given)| Ok((name, policy::out_of(&given)?)))
        .collect::<PyResult<Vec<(String, Box<dyn Policy>)>>>()?;
    let (sim, strategy) = py.detach(|| plan.make(trace)).map_err(|error| to_python(py, error))?;
    let mut migration = Migration::new(sim, strategy).mapped();
    let cancelled = migration.canceller();
    let cancel = || cancelled.store(true, Ordering::Relaxed);
    let next = |migration: &mut Migration<Sim>| interrupt::run(py, &cancel, || Ok(migration.next_round()));
    while let Step::Decide(round) = next(&mut migration)? {
        py.detach(|| migration.judge(&round, policy.as_mut(), &mut watchers));
    }
    let error = migration.take_error().map(|error| to_python(py, error));
    let (report, _) = migration.finish(plan.report());
    Ok((report.to_json(), error))
}

/// Outcome, total time, blackout, bytes, rounds and slowdown of a trial.
type Verdict = (String, f64, f64, u64, u32, f64);

/// Runs many simulations on so many cores, or all; `trials` is a list of trials as JSON. With `fast`, pages are counted where
/// that does; else one page in `sample` is followed.
#[pyfunction]
#[pyo3(signature = (trace, trials, sample, fast, cores=None))]
pub fn simulate_many(
    py: Python<'_>,
    trace: &Trace,
    trials: &str,
    sample: u64,
    fast: bool,
    cores: Option<usize>,
) -> PyResult<Vec<Verdict>> {
    let trials: Vec<Trial> = parse(py, "trials", trials)?;
    let cancelled = AtomicBool::new(false);
    let verdicts = interrupt::run(py, &|| cancelled.store(true, Ordering::Relaxed), || {
        let threads =
            cores.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
        let windows = if fast { Some(trace.windows()?) } else { None };
        let guests = Guests { windows, replay: &|| trace.replay(sample) };
        sim::batch(&guests, &trials, threads, &cancelled)
    })?;
    let row = |v: sim::Verdict| {
        let outcome = crate::registry::text(&v.outcome)?.trim_matches('"').to_owned();
        Ok((outcome, v.total_time, v.blackout, v.sent_bytes, v.rounds, v.slowdown))
    };
    verdicts.into_iter().map(row).collect()
}
