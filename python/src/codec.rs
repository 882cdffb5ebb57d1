//! Codecs.

use std::sync::{Mutex, PoisonError};

use migrate_core::codec::{self as core, Encoded, Page};
use migrate_core::guest::PAGE;
use migrate_core::knobs::Spec;
use pyo3::buffer::PyBuffer;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::errors::{to_python, usage};
use crate::registry::parse;

/// A page codec.
#[pyclass(frozen, module = "switchover._native")]
pub struct Codec {
    codec: Mutex<Box<dyn core::Codec>>,
}

fn page(what: &str, bytes: &Bound<'_, PyAny>) -> PyResult<Box<Page>> {
    let bytes = PyBuffer::<u8>::get(bytes)?.to_vec(bytes.py())?;
    let count = bytes.len();
    bytes.try_into().map_err(|_| usage(format!("{what} must have {PAGE} bytes, not {count}")))
}

fn base_page(base: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Box<Page>>> {
    base.map(|base| page("the base page", base)).transpose()
}

#[pymethods]
impl Codec {
    #[new]
    fn new(py: Python<'_>, spec: &str) -> PyResult<Self> {
        let spec: Spec = parse(py, "codec", spec)?;
        let codec = core::find(&spec).map_err(|error| to_python(py, error))?;
        Ok(Self { codec: Mutex::new(codec) })
    }

    #[pyo3(signature = (data, base=None))]
    fn encode<'py>(
        &self,
        data: &Bound<'py, PyAny>,
        base: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        let (bytes, base) = (page("a page", data)?, base_page(base)?);
        let mut out = Vec::new();
        let mut codec = self.codec.lock().unwrap_or_else(PoisonError::into_inner);
        let encoded = codec.encode(&bytes, base.as_deref(), &mut out);
        Ok((encoded == Encoded::Shorter).then(|| PyBytes::new(data.py(), &out)))
    }

    #[pyo3(signature = (data, base=None))]
    fn decode<'py>(
        &self,
        data: &Bound<'py, PyAny>,
        base: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let py = data.py();
        let (bytes, base) = (PyBuffer::<u8>::get(data)?.to_vec(py)?, base_page(base)?);
        let mut page = Box::new([0; PAGE]);
        let mut codec = self.codec.lock().unwrap_or_else(PoisonError::into_inner);
        codec.decode(&bytes, base.as_deref(), &mut page).map_err(|error| to_python(py, error))?;
        Ok(PyBytes::new(py, page.as_slice()))
    }

    fn passed(&self, data: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = page("a page", data)?;
        self.codec.lock().unwrap_or_else(PoisonError::into_inner).pass(&bytes);
        Ok(())
    }
}
