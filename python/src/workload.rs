//! A Python callable as a workload: called again and again with a view of its region.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use migrate_core::guest::workload::{Tick, Work};
use migrate_core::guest::{Region, Workload};
use migrate_core::{Error, Result};
use pyo3::prelude::*;
use serde_json::Value;

use crate::memory::Memory;

/// The name under which a callable's execution state travels.
pub const NAME: &str = "python";

/// A callable `f(memory, seconds)` and the exception that it raised, if it did. It outlives the move of its
/// guest within the process: the destination calls the same object.
pub struct Program {
    call: Py<PyAny>,
    raised: Mutex<Option<PyErr>>,
}

/// A program bound to a region.
pub struct Callable {
    program: Arc<Program>,
    index: u64,
    memory: Option<Py<Memory>>,
}

impl Program {
    pub fn new(call: Py<PyAny>) -> Arc<Self> {
        Arc::new(Self { call, raised: Mutex::new(None) })
    }

    /// What it raised.
    pub fn raised(&self, py: Python<'_>) -> Option<PyErr> {
        let raised = self.raised.lock().unwrap_or_else(PoisonError::into_inner);
        raised.as_ref().map(|error| error.clone_ref(py))
    }

    fn crashed(&self, py: Python<'_>, error: PyErr) -> Error {
        let text = format!(
            "the Python workload raised {}",
            error.value(py).repr().map_or_else(|_| error.to_string(), |text| text.to_string(),)
        );
        *self.raised.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        Error::Verification(text)
    }
}

/// The program that the state of a [`Callable`] names.
pub fn restore(programs: &[Arc<Program>], state: &Value) -> Result<Box<dyn Workload>> {
    let index = state.as_u64().and_then(|index| usize::try_from(index).ok());
    match index.and_then(|index| programs.get(index).map(|program| (index as u64, program))) {
        Some((index, program)) => {
            Ok(Box::new(Callable { program: Arc::clone(program), index, memory: None }))
        }
        None => Err(Error::usage("a Python callable runs in the process that has it only")),
    }
}

impl Callable {
    fn call(&mut self, py: Python<'_>, ram: &Region, now: Duration) -> Result<Work> {
        let memory = match &self.memory {
            Some(memory) => memory.clone_ref(py),
            None => self.memory.insert(view(py, ram)?).clone_ref(py),
        };
        let written = self.program.call.call1(py, (memory, now.as_secs_f64()));
        match written.and_then(|written| written.extract::<Option<u64>>(py)) {
            Ok(Some(0)) => Ok(Work::default()),
            Ok(written) => Ok(Work { written: written.unwrap_or(0), operations: 1 }),
            Err(error) => Err(self.program.crashed(py, error)),
        }
    }
}

fn view(py: Python<'_>, ram: &Region) -> Result<Py<Memory>> {
    let pages = ram.first_page()..ram.first_page() + ram.pages();
    let memory = Memory::of(ram.memory(), pages)
        .ok_or_else(|| Error::usage("a Python workload's memory must lie within one RAM block"))?;
    Py::new(py, memory).map_err(|error| Error::usage(error.to_string()))
}

impl Workload for Callable {
    fn name(&self) -> &'static str {
        NAME
    }

    fn rate(&self, _now: Duration) -> f64 {
        f64::INFINITY
    }

    fn run(&mut self, ram: &Region, tick: Tick) -> Result<Work> {
        Python::try_attach(|py| self.call(py, ram, tick.now)).unwrap_or_else(|| {
            // The interpreter is ending; the guest will be stopped with it.
            std::thread::sleep(Duration::from_millis(1));
            Ok(Work::default())
        })
    }

    fn writes_unseen(&self) -> bool {
        true
    }

    fn check(&self, _ram: &Region) -> Result<()> {
        Ok(())
    }

    fn save(&self) -> Result<Value> {
        Ok(self.index.into())
    }
}
