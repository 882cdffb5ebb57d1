//! Recordings of dirty traces.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use migrate_core::knobs::Spec;
use migrate_core::trace::{GuestSource, ProcessSource, Recorder, Source};
use migrate_core::track;
use migrate_core::{Error, Result};
use pyo3::prelude::*;

use crate::errors::to_python;
use crate::fork::Owned;
use crate::guest::Guest;
use crate::interrupt;
use crate::receiver::seconds;
use crate::registry::parse;
use crate::trace::Trace;

/// A recording under way. Its source is let go when it is finished, or dropped.
#[pyclass(frozen, module = "switchover._native")]
pub struct Recording {
    recorder: Owned<Mutex<Option<Recorder>>>,
}

/// `(intervals, written pages, seconds, pages in use, why it ended)`.
type Standing = (u32, u64, f64, u64, Option<String>);

impl Recording {
    fn begin(
        py: Python<'_>,
        interval: f64,
        samples: usize,
        source: impl FnOnce() -> Result<Box<dyn Source>> + Send,
    ) -> PyResult<Self> {
        let interval = seconds("interval", interval)?;
        let recorder = interrupt::run_to_end(py, || Recorder::begin(source()?, interval, samples))?;
        Ok(Self { recorder: Owned::new(Mutex::new(Some(recorder))) })
    }
}

fn over() -> Error {
    Error::usage("the recording is over")
}

#[pymethods]
impl Recording {
    /// Of any running process.
    #[staticmethod]
    fn of_process(py: Python<'_>, pid: i32, interval: f64, samples: usize) -> PyResult<Self> {
        Self::begin(py, interval, samples, || Ok(Box::new(ProcessSource::attach(pid)?)))
    }

    /// Of a guest in this process, by the tracker that a spec names.
    #[staticmethod]
    fn of_guest(
        py: Python<'_>,
        guest: Py<Guest>,
        tracker: &str,
        interval: f64,
        samples: usize,
    ) -> PyResult<Self> {
        let spec: Spec = parse(py, "tracker", tracker)?;
        let (memory, writers) = (guest.get().core_memory(py)?, guest.get().writers());
        Self::begin(py, interval, samples, || {
            let tracker = track::find_for(&spec, writers)?;
            let pause = Box::new(move |work: &mut dyn FnMut() -> Result<()>| guest.get().paused(work));
            Ok(Box::new(GuestSource::arm(memory, tracker, pause)?))
        })
    }

    /// Records until so many intervals have ended in all, for about so many seconds at most.
    fn advance(&self, py: Python<'_>, intervals: u32, time: f64) -> PyResult<Standing> {
        let recorder = self.recorder.get()?;
        let lock = || recorder.lock().unwrap_or_else(PoisonError::into_inner);
        let cancelled = lock().as_ref().map(Recorder::canceller).ok_or_else(|| to_python(py, over()))?;
        let time = Duration::try_from_secs_f64(time).unwrap_or(Duration::MAX);
        let cancel = || cancelled.store(true, Ordering::Relaxed);
        let now = interrupt::run(py, &cancel, || {
            lock().as_mut().ok_or_else(over)?.advance(intervals, time.min(Duration::from_secs(3600)))
        })?;
        Ok((now.intervals, now.written, now.seconds, now.pages, now.ended))
    }

    /// Ends it: the trace, and as JSON its samples, the blocks' addresses, and what it cost.
    fn finish(&self, py: Python<'_>) -> PyResult<(Trace, String)> {
        let recorder = self.recorder.get()?;
        let recorded = interrupt::run_to_end(py, || {
            let taken = recorder.lock().unwrap_or_else(PoisonError::into_inner).take();
            taken.ok_or_else(over)?.finish()
        })?;
        let facts = serde_json::json!({
            "samples": recorded.samples,
            "addresses": recorded.addresses,
            "cost": recorded.cost,
            "tracker": recorded.tracker,
            "ended": recorded.ended,
        });
        Ok((Trace::over(recorded.trace), facts.to_string()))
    }
}

/// Raises unless any running process can be recorded here.
#[pyfunction]
pub fn probe_process(py: Python<'_>) -> PyResult<()> {
    interrupt::run_to_end(py, track::remote::probe)
}
