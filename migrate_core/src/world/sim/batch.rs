//! Many simulations at once, on all cores: what tuning asks for.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{hurried, scaled, Scenario, Sim};
use crate::error::{Error, Result};
use crate::knobs::Spec;
use crate::policy;
use crate::report::{Outcome, Report};
use crate::strategy::Strategy;
use crate::trace::{Replay, Windows};
use crate::world::Migration;

/// One simulation out of many: what is simulated, by names and knobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trial {
    /// How memory moves.
    pub strategy: Spec,
    /// When to switch over.
    pub policy: Spec,
    /// Link, costs, start.
    pub scenario: Scenario,
}

/// What a trial came to; times in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// How it ended.
    pub outcome: Outcome,
    /// From the start until the source may be freed.
    pub total_time: f64,
    /// The time that the guest ran nowhere; not a number where it did not move.
    pub blackout: f64,
    /// Bytes put on the link.
    pub sent_bytes: u64,
    /// Rounds, the last one included.
    pub rounds: u32,
    /// Share of its time that the guest lost while it ran, from 0 to 1.
    pub slowdown: f64,
}

/// Where the guests of trials come from.
pub struct Guests<'a> {
    /// Counts, for trials that can do with them; without, all follow pages.
    pub windows: Option<Arc<Windows>>,
    /// Writes to be followed, for the others.
    pub replay: &'a (dyn Fn() -> Result<Arc<Replay>> + Sync),
}

impl Trial {
    /// Runs it.
    pub fn run(&self, guests: &Guests<'_>, cancelled: &AtomicBool) -> Result<Report> {
        if let Some(windows) = &guests.windows {
            let sim = Sim::counted(Arc::clone(windows), self.scenario.clone(), &self.strategy)?;
            let (report, needs_pages) =
                self.migrate(sim, hurried(&self.strategy, windows, &self.scenario.link)?, cancelled)?;
            if !needs_pages {
                return Ok(report);
            }
        }
        let replay = (guests.replay)()?;
        let strategy = scaled(&self.strategy, &replay)?;
        Ok(self.migrate(Sim::new(replay, self.scenario.clone())?, strategy, cancelled)?.0)
    }

    fn migrate(
        &self,
        sim: Sim,
        strategy: Box<dyn Strategy>,
        cancelled: &AtomicBool,
    ) -> Result<(Report, bool)> {
        let mut migration = Migration::new(sim, strategy);
        let canceller = migration.canceller();
        migration.run(policy::find(&self.policy)?.as_mut(), &mut [], |_, _| {
            canceller.store(cancelled.load(Relaxed), Relaxed);
        });
        let needs_pages = migration.world().needs_pages();
        Ok((migration.finish(Report::default()).0, needs_pages))
    }
}

impl From<Report> for Verdict {
    fn from(report: Report) -> Self {
        Self {
            outcome: report.outcome,
            total_time: report.total_time,
            blackout: report.blackout.unwrap_or(f64::NAN),
            sent_bytes: report.sent_bytes,
            rounds: report.rounds.len() as u32,
            slowdown: report.guest_cost.slowdown.unwrap_or(0.0),
        }
    }
}

/// Runs `trials` on `threads` threads; the verdicts are in the trials' order. The first trial that cannot
/// be is the error, by its number. Set `cancelled` to end early with an error.
pub fn batch(
    guests: &Guests<'_>,
    trials: &[Trial],
    threads: usize,
    cancelled: &AtomicBool,
) -> Result<Vec<Verdict>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((number, trial)) =
            Some(next.fetch_add(1, Relaxed)).and_then(|n| Some((n, trials.get(n)?)))
        {
            if cancelled.load(Relaxed) {
                break;
            }
            let verdict = trial.run(guests, cancelled).map(Verdict::from);
            done.push((number, verdict.map_err(|error| Error::usage(format!("trial {number}: {error}")))));
        }
        done
    };
    let mut verdicts: Vec<(usize, Result<Verdict>)> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.clamp(1, 256)).map(|_| scope.spawn(work)).collect();
        // A worker that panicked leaves its trials out, which the count below finds.
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect()
    });
    verdicts.sort_unstable_by_key(|(number, _)| *number);
    let verdicts = verdicts.into_iter().map(|(_, verdict)| verdict).collect::<Result<Vec<_>>>()?;
    match verdicts.len() == trials.len() {
        true => Ok(verdicts),
        false => Err(Error::usage(format!("{} of {} trials were run", verdicts.len(), trials.len()))),
    }
}
