//! Dirty traces: rows cross as packed little-endian records, 20 bytes each.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use migrate_core::guest::GuestSpec;
use migrate_core::trace::{self as core, Replay, Row, TraceBlock, UniquePages, Windows};
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{to_python, usage};
use crate::interrupt;
use crate::receiver::seconds;
use crate::registry::parse;

/// Bytes of a row: interval (u32), block (u32), first page (u64), pages (u32).
const ROW: usize = 20;

/// A dirty trace.
#[pyclass(frozen, module = "switchover._native")]
pub struct Trace {
    trace: core::Trace,
    /// Made ready for replay when first asked for, by how many pages each stands for.
    replays: Mutex<HashMap<u64, Arc<Replay>>>,
    windows: Mutex<Option<Arc<Windows>>>,
}

impl Trace {
    /// Of the core's.
    pub fn over(trace: core::Trace) -> Self {
        Self { trace, replays: Mutex::default(), windows: Mutex::default() }
    }

    /// Its counts, made once.
    pub fn windows(&self) -> migrate_core::Result<Arc<Windows>> {
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(windows) = windows.as_ref() {
            return Ok(Arc::clone(windows));
        }
        Ok(Arc::clone(windows.insert(Arc::new(Windows::of(&self.trace)?))))
    }

    /// Its replay of one page in `weight`, made once.
    pub fn replay(&self, weight: u64) -> migrate_core::Result<Arc<Replay>> {
        let mut replays = self.replays.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(replay) = replays.get(&weight) {
            return Ok(Arc::clone(replay));
        }
        let replay = Arc::new(Replay::sampled(&self.trace, weight)?);
        replays.insert(weight, Arc::clone(&replay));
        Ok(replay)
    }
}

fn row(bytes: &[u8; ROW]) -> Row {
    let [i0, i1, i2, i3, b0, b1, b2, b3, f0, f1, f2, f3, f4, f5, f6, f7, p0, p1, p2, p3] = *bytes;
    Row {
        interval: u32::from_le_bytes([i0, i1, i2, i3]),
        block: u32::from_le_bytes([b0, b1, b2, b3]),
        first_page: u64::from_le_bytes([f0, f1, f2, f3, f4, f5, f6, f7]),
        pages: u32::from_le_bytes([p0, p1, p2, p3]),
    }
}

#[pymethods]
impl Trace {
    /// A trace of `blocks` (name, pages) out of packed rows in order.
    #[new]
    fn new(
        py: Python<'_>,
        blocks: Vec<(String, u64)>,
        interval: f64,
        intervals: u32,
        rows: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let bytes = PyBuffer::<u8>::get(rows)?.to_vec(py)?;
        let (records, []) = bytes.as_chunks::<ROW>() else {
            return Err(usage(format!("rows of {ROW} bytes do not make {} bytes", bytes.len())));
        };
        let blocks = blocks.into_iter().map(|(name, pages)| TraceBlock { name, pages }).collect();
        let interval = seconds("interval", interval)?;
        let made = core::Trace::from_rows(blocks, interval, intervals, records.iter().map(row));
        Ok(Self::over(made.map_err(|error| to_python(py, error))?))
    }

    /// What a guest (its spec as JSON) would write, without waiting for it.
    #[staticmethod]
    fn generate(py: Python<'_>, guest: &str, duration: f64, interval: f64) -> PyResult<Self> {
        let guest: GuestSpec = parse(py, "guest", guest)?;
        let (duration, interval) = (seconds("duration", duration)?, seconds("interval", interval)?);
        let trace = interrupt::run_to_end(py, || core::generate(&guest, duration, interval))?;
        Ok(Self::over(trace))
    }

    fn rows<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let mut bytes = Vec::with_capacity(self.trace.runs() * ROW);
        for row in self.trace.rows() {
            bytes.extend(row.interval.to_le_bytes());
            bytes.extend(row.block.to_le_bytes());
            bytes.extend(row.first_page.to_le_bytes());
            bytes.extend(row.pages.to_le_bytes());
        }
        PyBytes::new(py, &bytes)
    }

    fn blocks(&self) -> Vec<(String, u64)> {
        self.trace.blocks().iter().map(|block| (block.name.clone(), block.pages)).collect()
    }

    fn interval(&self) -> f64 {
        self.trace.interval().as_secs_f64()
    }

    fn intervals(&self) -> u32 {
        self.trace.intervals()
    }

    fn written_pages(&self) -> Vec<u64> {
        self.trace.written_pages().collect()
    }

    /// The mean of distinct pages over all windows of each length, in intervals; and all distinct pages.
    fn unique_pages(&self, py: Python<'_>, lengths: Vec<u32>) -> (Vec<f64>, u64) {
        py.detach(|| {
            let curve = UniquePages::of(&self.trace);
            (lengths.into_iter().map(|length| curve.mean(length)).collect(), curve.distinct())
        })
    }
}
