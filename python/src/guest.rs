//! Guests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use migrate_core::guest::{self as core, workload, GuestMemory, GuestSpec, Region, Workload};
use migrate_core::knobs::Spec;
use migrate_core::track::Writers;
use migrate_core::{Error, Result};
use pyo3::prelude::*;

use crate::errors::to_python;
use crate::fork::Owned;
use crate::interrupt;
use crate::memory::Memory;
use crate::registry::parse;
use crate::workload::{restore, Program, NAME};

/// Where a guest is.
enum Slot {
    /// Here.
    Here(core::Guest),
    /// In a session's hands.
    Migrating,
    /// Elsewhere, and where.
    Gone(String),
}

/// A guest in this process; after a migration within the process, the guest at the destination.
#[pyclass(frozen, weakref, module = "switchover._native")]
pub struct Guest {
    slot: Owned<Mutex<Slot>>,
    programs: Vec<Arc<Program>>,
}

fn lock(slot: &Mutex<Slot>) -> MutexGuard<'_, Slot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Slot {
    fn guest(&mut self) -> Result<&mut core::Guest> {
        match self {
            Self::Here(guest) => Ok(guest),
            Self::Migrating => Err(Error::usage("the guest is being migrated")),
            Self::Gone(place) => Err(Error::usage(format!("the guest has moved to {place}"))),
        }
    }
}

fn start(programs: &[Arc<Program>], spec: &Spec, seed: u64, ram: &Region) -> Result<Box<dyn Workload>> {
    match spec.name.as_str() {
        NAME => restore(programs, spec.knobs.get("program").unwrap_or(&serde_json::Value::Null)),
        _ => workload::start(spec, seed, ram),
    }
}

impl Guest {
    /// A guest that came from elsewhere.
    pub fn arrived(guest: core::Guest) -> Self {
        Self { slot: Owned::new(Mutex::new(Slot::Here(guest))), programs: Vec::new() }
    }

    /// Does `work` on the guest, with the interpreter released. All locking happens there: a thread that
    /// waited for the lock with the interpreter in its hands would stop the guest's Python workloads.
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut core::Guest) -> Result<T> + Send,
    ) -> PyResult<T> {
        let slot = self.slot.get()?;
        interrupt::run_to_end(py, || work(lock(slot).guest()?))
    }

    /// Its memory, where it is here.
    pub fn core_memory(&self, py: Python<'_>) -> PyResult<Arc<GuestMemory>> {
        self.with(py, |guest| Ok(Arc::clone(guest.memory())))
    }

    /// Does `work` while the guest is paused, if it runs here.
    pub fn paused(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let slot = self.slot.get().map_err(|error| Error::usage(error.to_string()))?;
        let mut slot = lock(slot);
        let guest = slot.guest()?;
        let ran = guest.vcpus().iter().any(core::Vcpu::is_running);
        guest.pause();
        let done = work();
        if ran {
            guest.resume()?;
        }
        done
    }

    /// Who writes to it.
    pub fn writers(&self) -> Writers {
        match self.programs.is_empty() {
            true => Writers::Workloads,
            false => Writers::Foreign,
        }
    }

    /// What restores its workloads on a destination in this process.
    pub fn restorer(&self) -> migrate_core::world::memory::SendRestore {
        let programs = self.programs.clone();
        Box::new(move |name, state| match name {
            NAME => restore(&programs, &state),
            _ => core::restore_known(name, state),
        })
    }

    /// Takes the guest away for a migration.
    pub fn take(&self, py: Python<'_>) -> PyResult<core::Guest> {
        let slot = self.slot.get()?;
        let taken = py.detach(|| {
            let mut slot = lock(slot);
            slot.guest()?;
            match std::mem::replace(&mut *slot, Slot::Migrating) {
                Slot::Here(guest) => Ok(guest),
                _ => Err(Error::usage("the guest is being migrated")),
            }
        });
        taken.map_err(|error| to_python(py, error))
    }

    /// Puts the guest back, or notes where it went.
    pub fn put(&self, guest: std::result::Result<core::Guest, String>) -> PyResult<()> {
        *lock(self.slot.get()?) = match guest {
            Ok(guest) => Slot::Here(guest),
            Err(place) => Slot::Gone(place),
        };
        Ok(())
    }
}

#[pymethods]
impl Guest {
    #[new]
    fn new(py: Python<'_>, spec: &str, programs: Vec<Py<PyAny>>) -> PyResult<Self> {
        let spec: GuestSpec = parse(py, "guest", spec)?;
        let programs: Vec<_> = programs.into_iter().map(Program::new).collect();
        let guest = interrupt::run_to_end(py, || {
            core::Guest::with_starter(&spec, &|spec, seed, ram| start(&programs, spec, seed, ram))
        })?;
        Ok(Self { slot: Owned::new(Mutex::new(Slot::Here(guest))), programs })
    }

    fn resume(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, core::Guest::resume)
    }

    fn pause(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |guest| {
            guest.pause();
            Ok(())
        })
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        let checked = self.with(py, |guest| guest.check_alive().and_then(|()| guest.check()));
        checked.inspect_err(|error| {
            if let Some(raised) = self.programs.iter().find_map(|program| program.raised(py)) {
                error.set_cause(py, Some(raised));
            }
        })
    }

    /// `(bytes written, operations, seconds run)`.
    fn progress(&self, py: Python<'_>) -> PyResult<(u64, u64, f64)> {
        let progress = self.with(py, |guest| Ok(guest.progress()))?;
        Ok((progress.written, progress.operations, progress.running_ns as f64 / 1e9))
    }

    fn blocks(&self, py: Python<'_>) -> PyResult<Vec<(String, Memory)>> {
        Ok(Memory::blocks(&self.core_memory(py)?))
    }

    /// What went wrong in its Python workloads.
    pub fn raised(&self, py: Python<'_>) -> Option<PyErr> {
        self.programs.iter().find_map(|program| program.raised(py))
    }

    /// Notes that it runs at `place`, out of this process's reach.
    fn moved_to(&self, place: String) -> PyResult<()> {
        self.put(Err(place))
    }

    /// Frees it.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let slot = self.slot.get()?;
        py.detach(|| drop(std::mem::replace(&mut *lock(slot), Slot::Gone("nowhere: it was closed".into()))));
        Ok(())
    }
}
