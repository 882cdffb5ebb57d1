//! QEMU's migration streams.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use migrate_core::qemu::capture::Capture;
use migrate_core::qemu::event::Sink;
use migrate_core::qemu::listing::Listing;
use migrate_core::qemu::pages::Rows;
use migrate_core::qemu::{devices, diff, elf, image, squash, summary, Control};
use migrate_core::{Error, Result};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use serde::Serialize;

use crate::fork::Owned;
use crate::interrupt;

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| Error::usage(format!("cannot be written as JSON: {error}")))
}

/// Does `work`, which Ctrl-C calls off.
fn under<T: Send>(py: Python<'_>, work: impl FnOnce(&Arc<Control>) -> Result<T> + Send) -> PyResult<T> {
    let control = Arc::new(Control::default());
    interrupt::run(py, &|| control.cancel(), || work(&control))
}

/// A summary of the migration in these files, as JSON.
#[pyfunction]
pub fn stream_summary(py: Python<'_>, paths: Vec<PathBuf>) -> PyResult<String> {
    under(py, |control| json(&summary::summarise(&mut Capture::open_under(&paths, control)?)?))
}

/// The state of its devices, as JSON.
#[pyfunction]
pub fn stream_devices(py: Python<'_>, paths: Vec<PathBuf>) -> PyResult<String> {
    under(py, |control| json(&devices::read(&mut Capture::open_under(&paths, control)?)?))
}

/// Writes each RAM block into a file of `folder`; names, files and lengths.
#[pyfunction]
pub fn stream_extract(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    folder: PathBuf,
) -> PyResult<Vec<(String, PathBuf, u64)>> {
    under(py, |control| image::extract(&mut Capture::open_under(&paths, control)?, &folder))
}

/// Writes an ELF core file of the guest's physical memory; what is in it, as JSON.
#[pyfunction]
pub fn stream_core(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    file: PathBuf,
    addresses: Vec<(String, u64)>,
) -> PyResult<String> {
    under(py, |control| json(&elf::write(&mut Capture::open_under(&paths, control)?, &file, &addresses)?))
}

/// Writes a stream, or a mapped-ram file, with the final content only, with a folder for memory meanwhile; its bytes.
#[pyfunction]
pub fn stream_squash(
    py: Python<'_>,
    paths: Vec<PathBuf>,
    file: PathBuf,
    scratch: PathBuf,
    mapped_ram: bool,
) -> PyResult<u64> {
    let form = if mapped_ram { squash::Form::MappedRam } else { squash::Form::Stream };
    under(py, |control| squash::squash(&paths, &file, &scratch, form, control))
}

/// What differs between two migrations, with a folder for memory meanwhile, as JSON.
#[pyfunction]
pub fn stream_diff(
    py: Python<'_>,
    first: Vec<PathBuf>,
    second: Vec<PathBuf>,
    scratch: PathBuf,
) -> PyResult<String> {
    under(py, |control| json(&diff::diff(&first, &second, &scratch, control)?))
}

struct Reading<S> {
    capture: Capture,
    sink: S,
    done: bool,
}

impl<S: Sink> Reading<S> {
    /// Reads on until `take` finds something, or to the end.
    fn next<T>(
        &mut self,
        enough: impl Fn(&T) -> bool,
        take: impl Fn(&mut S, bool) -> T,
    ) -> Result<Option<T>> {
        while !self.done {
            self.done = !self.capture.step(&mut self.sink)?;
            let taken = take(&mut self.sink, self.done);
            if enough(&taken) {
                return Ok(Some(taken));
            }
        }
        Ok(None)
    }
}

/// Lines of a listing, many at a time.
#[pyclass(frozen, module = "switchover._native")]
pub struct StreamLines {
    reading: Owned<Mutex<Reading<Listing>>>,
}

#[pymethods]
impl StreamLines {
    #[new]
    fn new(py: Python<'_>, paths: Vec<PathBuf>, json: bool, each_page: bool) -> PyResult<Self> {
        let capture = interrupt::run_to_end(py, || Capture::open(&paths))?;
        let reading = Reading { capture, sink: Listing::new(json, each_page), done: false };
        Ok(Self { reading: Owned::new(Mutex::new(reading)) })
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<String>> {
        let reading = self.reading.get()?;
        interrupt::run_to_end(py, || {
            let mut reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
            reading.next(
                |lines: &String| !lines.is_empty(),
                |sink, done| if done { sink.finish() } else { sink.take() },
            )
        })
    }
}

/// Rows of pages, many at a time; `migrate_core::qemu::pages::ROW` says what is in one.
#[pyclass(frozen, module = "switchover._native")]
pub struct StreamPages {
    reading: Owned<Mutex<Reading<Rows>>>,
}

#[pymethods]
impl StreamPages {
    #[new]
    fn new(py: Python<'_>, paths: Vec<PathBuf>) -> PyResult<Self> {
        let capture = interrupt::run_to_end(py, || Capture::open(&paths))?;
        let sink = Rows::new(capture.times().clone());
        let reading = Reading { capture, sink, done: false };
        Ok(Self { reading: Owned::new(Mutex::new(reading)) })
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let reading = self.reading.get()?;
        let rows = interrupt::run_to_end(py, || {
            let mut reading = reading.lock().unwrap_or_else(PoisonError::into_inner);
            reading.next(|rows: &Vec<u8>| !rows.is_empty(), |sink, _| sink.take())
        })?;
        Ok(rows.map(|rows| PyBytes::new(py, &rows)))
    }
}
