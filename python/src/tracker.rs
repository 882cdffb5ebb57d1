//! Dirty trackers.

use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use migrate_core::bitmap::Bitmap;
use migrate_core::knobs::Spec;
use migrate_core::track::{self as core, Writers};
use migrate_core::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::to_python;
use crate::fork::Owned;
use crate::guest::Guest;
use crate::interrupt;
use crate::registry::parse;

struct Armed {
    tracker: Box<dyn core::Tracker>,
    /// Pages of the memory that it tracks; 0 while unarmed.
    pages: u64,
}

/// A dirty tracker. Dirty pages come as a mask: a byte a page, 1 for dirty.
#[pyclass(frozen, module = "switchover._native")]
pub struct Tracker {
    spec: Spec,
    armed: Owned<Mutex<Armed>>,
}

fn mask(bits: &Bitmap, pages: Range<u64>) -> Vec<u8> {
    let mut mask = vec![0; (pages.end - pages.start) as usize];
    for run in bits.runs_in(pages.clone()) {
        let (first, end) = (run.first - pages.start, run.end() - pages.start);
        mask[first as usize..end as usize].fill(1);
    }
    mask
}

impl Tracker {
    fn with<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&mut Armed) -> Result<T> + Send,
    ) -> PyResult<T> {
        let armed = self.armed.get()?;
        interrupt::run_to_end(py, || work(&mut armed.lock().unwrap_or_else(PoisonError::into_inner)))
    }

    fn read<'py>(
        &self,
        py: Python<'py>,
        first: u64,
        end: Option<u64>,
        clear: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mask = self.with(py, |armed| {
            let pages = first..end.unwrap_or(armed.pages);
            if armed.pages == 0 || pages.start > pages.end || pages.end > armed.pages {
                return Err(Error::usage(format!(
                    "pages {}..{} of a tracker armed for {} pages",
                    pages.start, pages.end, armed.pages
                )));
            }
            let mut bits = Bitmap::new(armed.pages);
            match clear {
                true => armed.tracker.harvest(pages.clone(), &mut bits)?,
                false => armed.tracker.peek(pages.clone(), &mut bits)?,
            }
            Ok(mask(&bits, pages))
        })?;
        Ok(PyBytes::new(py, &mask))
    }
}

#[pymethods]
impl Tracker {
    #[new]
    fn new(py: Python<'_>, spec: &str) -> PyResult<Self> {
        let spec: Spec = parse(py, "tracker", spec)?;
        let tracker = core::find_for(&spec, Writers::Workloads).map_err(|error| to_python(py, error))?;
        Ok(Self { spec, armed: Owned::new(Mutex::new(Armed { tracker, pages: 0 })) })
    }

    fn arm(&self, py: Python<'_>, guest: &Guest) -> PyResult<()> {
        let memory = guest.core_memory(py)?;
        // Refused where it would not see what the guest's Python workloads write.
        core::find_for(&self.spec, guest.writers()).map_err(|error| to_python(py, error))?;
        self.with(py, |armed| {
            armed.tracker.arm(&memory)?;
            armed.pages = memory.pages();
            Ok(())
        })
    }

    #[pyo3(signature = (first=0, end=None))]
    fn harvest<'py>(&self, py: Python<'py>, first: u64, end: Option<u64>) -> PyResult<Bound<'py, PyBytes>> {
        self.read(py, first, end, true)
    }

    #[pyo3(signature = (first=0, end=None))]
    fn peek<'py>(&self, py: Python<'py>, first: u64, end: Option<u64>) -> PyResult<Bound<'py, PyBytes>> {
        self.read(py, first, end, false)
    }

    fn disarm(&self, py: Python<'_>) -> PyResult<()> {
        self.with(py, |armed| {
            armed.tracker.disarm();
            armed.pages = 0;
            Ok(())
        })
    }

    /// Whether the guest must be paused during a harvest.
    #[getter]
    fn needs_pause(&self, py: Python<'_>) -> PyResult<bool> {
        self.with(py, |armed| Ok(armed.tracker.needs_pause()))
    }

    #[getter]
    fn name(&self, py: Python<'_>) -> PyResult<&'static str> {
        self.with(py, |armed| Ok(armed.tracker.name()))
    }
}
