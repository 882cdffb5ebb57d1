//! Shaped links between other programs.

use std::sync::{Arc, Mutex, PoisonError};

use migrate_core::link::{Endpoint, Forwarder as Core, LinkSpec};
use migrate_core::qemu::Passage;
use pyo3::prelude::*;

use crate::errors::{to_python, usage};
use crate::fork::Owned;
use crate::registry::{parse, text};

/// Listens, calls somebody else, and carries what they say over a shaped link.
#[pyclass(frozen, module = "switchover._native")]
pub struct Forwarder {
    inner: Owned<Mutex<Option<Core>>>,
    passage: Arc<Passage>,
}

impl Forwarder {
    fn with<T>(&self, ask: impl FnOnce(&Core) -> T) -> PyResult<T> {
        let inner = self.inner.get()?.lock().unwrap_or_else(PoisonError::into_inner);
        inner.as_ref().map(ask).ok_or_else(|| usage("the link is closed"))
    }
}

#[pymethods]
impl Forwarder {
    #[new]
    fn new(py: Python<'_>, listen: &str, to: &str, link: &str) -> PyResult<Self> {
        let spec: LinkSpec = parse(py, "link", link)?;
        let endpoint = |text: &str| text.parse::<Endpoint>().map_err(|error| to_python(py, error));
        let (listen, to, passage) = (endpoint(listen)?, endpoint(to)?, Arc::new(Passage::default()));
        let core = Core::watched(&listen, to, &spec, Some(passage.clone()));
        let core = core.map_err(|error| to_python(py, error))?;
        Ok(Self { inner: Owned::new(Mutex::new(Some(core))), passage })
    }

    /// When the parts of a migration went by, as JSON: seconds since 1970.
    #[getter]
    fn moments(&self) -> PyResult<String> {
        text(&self.passage.moments())
    }

    #[getter]
    fn endpoint(&self) -> PyResult<String> {
        self.with(|core| core.endpoint().to_string())
    }

    #[getter]
    fn carried(&self) -> PyResult<u64> {
        self.with(Core::carried)
    }

    fn cut(&self) -> PyResult<()> {
        self.with(Core::cut)
    }

    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let core = self.inner.get()?.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(core));
        Ok(())
    }
}
