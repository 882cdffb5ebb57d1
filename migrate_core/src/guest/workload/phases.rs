//! Phases: a schedule of other patterns, gone through again and again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Boot, Tick, Work, Workload, WORKLOADS};
use crate::error::{Error, Result};
use crate::guest::{restore_known, Region};
use crate::knobs::{KnobValue, Spec};

crate::knobs! {
    /// Runs patterns in turn, each for some seconds of guest time, then the first again.
    pub struct Phases {
        /// The schedule: {"seconds": 10, "workload": {"name": "sweep"}} for each phase. Programs that check
        /// their data are refused, since another phase would write over them.
        phases: Vec<Phase> [Parts] = [Phase::new(10.0, Spec::new("hot-cold")), Phase::new(10.0, Spec::new("idle"))],
    }
}

/// A line of the schedule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// How long it lasts, in seconds of guest time; more than 0.
    pub seconds: f64,
    /// What runs meanwhile.
    pub workload: Spec,
}

impl Phase {
    fn new(seconds: f64, workload: Spec) -> Self {
        Self { seconds, workload }
    }
}

impl KnobValue for Phase {
    fn from_value(value: &Value) -> std::result::Result<Self, String> {
        let phase: Self = serde_json::from_value(value.clone())
            .map_err(|e| format!("phases such as {{\"seconds\": 10, \"workload\": {{\"name\": …}}}}: {e}"))?;
        match (1e-3..=1e9).contains(&phase.seconds) {
            true => Ok(phase),
            false => Err(format!("phases of 0.001 to 1000000000 seconds, not {}", phase.seconds)),
        }
    }
}

/// A phase with its running pattern.
struct Running {
    seconds: f64,
    pattern: Box<dyn Workload>,
}

/// A schedule that runs.
#[derive(Deserialize)]
#[serde(try_from = "Vec<Saved>")]
pub struct Schedule {
    phases: Vec<Running>,
}

/// A phase's execution state.
#[derive(Serialize, Deserialize)]
struct Saved {
    seconds: f64,
    name: String,
    state: Value,
}

impl TryFrom<Vec<Saved>> for Schedule {
    type Error = Error;
    fn try_from(saved: Vec<Saved>) -> Result<Self> {
        let restore = |phase: Saved| {
            Ok(Running { seconds: phase.seconds, pattern: restore_known(&phase.name, phase.state)? })
        };
        Self::of(saved.into_iter().map(restore).collect::<Result<_>>()?)
    }
}

impl Schedule {
    fn of(phases: Vec<Running>) -> Result<Self> {
        let total: f64 = phases.iter().map(|phase| phase.seconds).sum();
        match total > 0.0 && total.is_finite() {
            true => Ok(Self { phases }),
            false => Err(Error::usage("Phases: phases must be a list of one phase or more")),
        }
    }

    /// The phase at guest time `now`.
    fn index(&self, now: Duration) -> usize {
        let total: f64 = self.phases.iter().map(|phase| phase.seconds).sum();
        let mut left = now.as_secs_f64() % total;
        let over = self.phases.iter().position(|phase| {
            left -= phase.seconds;
            left < 0.0
        });
        // Rounding may leave nothing over at the very end of a cycle.
        over.unwrap_or(0)
    }
}

impl Boot for Phases {
    type Program = Schedule;
    fn boot(self, seed: u64, ram: &Region) -> Result<Schedule> {
        let start = |phase: Phase| {
            let name = &phase.workload.name;
            if WORKLOADS.find(name)?.make.keeps_data {
                return Err(Error::usage(format!(
                    "Phases: `{name}` keeps data in memory, over which other phases would write; give it a vCPU of its own"
                )));
            }
            let pattern = super::start(&phase.workload, seed, ram)?;
            Ok(Running { seconds: phase.seconds, pattern })
        };
        Schedule::of(self.phases.into_iter().map(start).collect::<Result<_>>()?)
    }
}

impl Workload for Schedule {
    fn name(&self) -> &'static str {
        "phases"
    }

    fn rate(&self, now: Duration) -> f64 {
        self.phases[self.index(now)].pattern.rate(now)
    }

    fn run(&mut self, ram: &Region, tick: Tick) -> Result<Work> {
        let index = self.index(tick.now);
        self.phases[index].pattern.run(ram, tick)
    }

    fn foresee(&mut self, pages: u64, tick: Tick, write: &mut dyn FnMut(u64)) -> Option<Result<Work>> {
        let index = self.index(tick.now);
        self.phases[index].pattern.foresee(pages, tick, write)
    }

    fn check(&self, ram: &Region) -> Result<()> {
        self.phases.iter().try_for_each(|phase| phase.pattern.check(ram))
    }

    fn save(&self) -> Result<Value> {
        let saved = |phase: &Running| {
            let name = phase.pattern.name().to_owned();
            Ok(Saved { seconds: phase.seconds, name, state: phase.pattern.save()? })
        };
        super::save(&self.phases.iter().map(saved).collect::<Result<Vec<_>>>()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{GuestMemory, Layout};
    use std::sync::Arc;

    fn boot(phases: Value) -> Result<Box<dyn Workload>> {
        let memory = Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap());
        super::super::start(&Spec::new("phases").with("phases", phases), 1, &Region::whole(&memory))
    }

    #[test]
    fn phases_follow_guest_time_and_start_over() {
        let phase = |seconds, rate| serde_json::json!({"seconds": seconds, "workload": {"name": "sweep", "rate": rate}});
        let program = boot(serde_json::json!([phase(2.0, 10.0), phase(0.5, 20.0), phase(1.0, 0.0)])).unwrap();
        let rates = [0.0, 1.99, 2.0, 2.49, 2.5, 3.49, 3.5, 5.6].map(Duration::from_secs_f64);
        let rates = rates.map(|now| program.rate(now));
        assert_eq!(rates, [10.0, 10.0, 20.0, 20.0, f64::INFINITY, f64::INFINITY, 10.0, 20.0]);
        let again = restore_known("phases", program.save().unwrap()).unwrap();
        assert_eq!(again.rate(Duration::from_secs(6)), program.rate(Duration::from_secs(6)));
    }

    #[test]
    fn bad_schedules_are_refused_with_the_reason() {
        let refuse = |phases| boot(phases).err().unwrap().to_string();
        let one = |seconds, name| serde_json::json!([{"seconds": seconds, "workload": {"name": name}}]);
        assert!(refuse(serde_json::json!([])).contains("one phase or more"));
        assert!(refuse(one(0.0, "sweep")).contains("seconds"));
        assert!(refuse(one(1.0, "swep")).contains("`sweep`"));
        assert!(refuse(one(1.0, "kv")).contains("vCPU of its own"));
        assert!(refuse(serde_json::json!(3)).contains("a list"));
        assert!(restore_known("phases", serde_json::json!([])).is_err());
    }
}
