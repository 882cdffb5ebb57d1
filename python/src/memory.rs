//! Guest memory as Python sees it: in place, without a copy.

use std::sync::Arc;

use migrate_core::guest::{GuestMemory, PAGE};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::to_python;

/// A writable stretch of guest memory. NumPy makes an array of it that keeps the mapping alive:
/// `numpy.asarray(memory)`.
#[pyclass(frozen, module = "switchover._native")]
pub struct Memory {
    /// Keeps the mapping that `address` points into.
    _memory: Arc<GuestMemory>,
    address: usize,
    bytes: u64,
}

impl Memory {
    /// `pages` of `memory`, if they lie in one RAM block: blocks are not neighbours.
    pub fn of(memory: &Arc<GuestMemory>, pages: std::ops::Range<u64>) -> Option<Self> {
        let count = pages.end - pages.start;
        let (block, within) = memory.split(pages).next()?;
        let whole = within.end - within.start == count;
        let address = block.as_ptr() as usize + within.start as usize * PAGE;
        whole.then(|| Self { _memory: Arc::clone(memory), address, bytes: count * PAGE as u64 })
    }

    /// Each RAM block by its name.
    pub fn blocks(memory: &Arc<GuestMemory>) -> Vec<(String, Self)> {
        let view = |first, pages| Self::of(memory, first..first + pages);
        let block = |b: &migrate_core::guest::RamBlock| {
            view(b.first_page(), b.pages()).map(|view| (b.name().to_owned(), view))
        };
        memory.blocks().iter().filter_map(block).collect()
    }
}

#[pymethods]
impl Memory {
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("typestr", "|u1")?;
        interface.set_item("shape", (self.bytes,))?;
        interface.set_item("data", (self.address, false))?;
        Ok(interface)
    }
}

/// Physical memory of this machine in bytes.
#[pyfunction]
pub fn machine_bytes(py: Python<'_>) -> PyResult<u64> {
    migrate_core::guest::machine_bytes().map_err(|error| to_python(py, error))
}
