//! Bake-offs: sets of pages, and codecs measured on them.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use migrate_core::bakeoff::{self as core, Baking, Bytes, GuestLook, Images, Memory, ProcessLook, Taking};
use migrate_core::knobs::Spec;
use migrate_core::qemu::capture::Capture;
use migrate_core::Result;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use serde_json::json;

use crate::fork::Owned;
use crate::guest::Guest;
use crate::interrupt;
use crate::receiver::seconds;
use crate::registry::{parse, text};

/// Pages taken to try codecs on.
#[pyclass(frozen, module = "switchover._native")]
pub struct PageSet {
    set: Owned<core::PageSet>,
}

/// Does `work`, which ends early when it is cancelled.
fn cancellable<T: Send>(py: Python<'_>, work: impl FnOnce(&AtomicBool) -> Result<T> + Send) -> PyResult<T> {
    let cancelled = AtomicBool::new(false);
    interrupt::run(py, &|| cancelled.store(true, Ordering::Relaxed), || work(&cancelled))
}

impl PageSet {
    fn take(
        py: Python<'_>,
        bytes: u64,
        rounds: u32,
        memory: impl FnOnce(&mut dyn FnMut(&mut dyn Memory) -> Result<core::PageSet>) -> Result<core::PageSet>
            + Send,
    ) -> PyResult<Self> {
        let taking = Taking { bytes, rounds };
        let set = cancellable(py, |cancel| memory(&mut |memory| taking.from(memory, cancel)))?;
        Ok(Self { set: Owned::new(set) })
    }
}

#[pymethods]
impl PageSet {
    /// Of memory images, one after the other.
    #[staticmethod]
    fn of_files(py: Python<'_>, paths: Vec<PathBuf>, bytes: u64) -> PyResult<Self> {
        let rounds = paths.len() as u32;
        Self::take(py, bytes, rounds, |take| take(&mut Images::open(&paths)?))
    }

    /// Of versions of a memory as bytes.
    #[staticmethod]
    fn of_bytes(py: Python<'_>, versions: Vec<PyBuffer<u8>>, bytes: u64) -> PyResult<Self> {
        let copies: Vec<Vec<u8>> =
            versions.iter().map(|version| version.to_vec(py)).collect::<PyResult<_>>()?;
        let views: Vec<&[u8]> = copies.iter().map(Vec::as_slice).collect();
        Self::take(py, bytes, views.len() as u32, |take| take(&mut Bytes::new(&views)?))
    }

    /// Of a running process, looked at so many times.
    #[staticmethod]
    fn of_process(py: Python<'_>, pid: i32, rounds: u32, interval: f64, bytes: u64) -> PyResult<Self> {
        let interval = seconds("interval", interval)?;
        Self::take(py, bytes, rounds, |take| take(&mut ProcessLook::of(pid, interval)?))
    }

    /// Of a guest in this process, looked at so many times.
    #[staticmethod]
    fn of_guest(py: Python<'_>, guest: Py<Guest>, rounds: u32, interval: f64, bytes: u64) -> PyResult<Self> {
        let (memory, interval) = (guest.get().core_memory(py)?, seconds("interval", interval)?);
        let pause = |work: &mut dyn FnMut() -> Result<()>| guest.get().paused(work);
        Self::take(py, bytes, rounds, |take| take(&mut GuestLook::new(memory, &pause, interval)))
    }

    /// Of the files of a captured migration of QEMU's.
    #[staticmethod]
    fn of_stream(py: Python<'_>, paths: Vec<PathBuf>, bytes: u64) -> PyResult<Self> {
        let set = cancellable(py, |cancel| core::of_stream(&mut Capture::open(&paths)?, bytes, cancel))?;
        Ok(Self { set: Owned::new(set) })
    }

    /// How many pages of what, as JSON.
    fn facts(&self) -> PyResult<String> {
        let set = self.set.get()?;
        let facts = json!({
            "memory_pages": set.memory_pages(),
            "pages": set.pages(),
            "versions": set.versions().len(),
            "zero_pages": set.zero_pages(),
            "rounds": set.versions().last().map_or(0, |last| last.round + 1),
        });
        Ok(facts.to_string())
    }

    /// A codec's figures, as JSON.
    fn bake(
        &self,
        py: Python<'_>,
        codec: &str,
        passes: usize,
        time: f64,
        together: bool,
        link: Option<f64>,
    ) -> PyResult<String> {
        let (set, spec): (_, Spec) = (self.set.get()?, parse(py, "codec", codec)?);
        let how = Baking { passes, seconds: time, together, link };
        text(&cancellable(py, |cancel| core::bake(set, &spec, &how, cancel))?)
    }
}
