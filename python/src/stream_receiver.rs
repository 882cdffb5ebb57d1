//! The destination of real QEMU sources.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use migrate_core::link::{Endpoint, Listener};
use migrate_core::qemu::{receive, Control, Ending, ReceiverOptions};
use migrate_core::Error;
use pyo3::prelude::*;

use crate::errors::usage;
use crate::fork::Owned;
use crate::interrupt;
use crate::receiver::seconds;

/// Listens for QEMU sources.
#[pyclass(frozen, module = "switchover._native")]
pub struct StreamReceiver {
    listener: Owned<Mutex<Option<Arc<Listener>>>>,
    /// Of the reception that runs, or ran last.
    control: Mutex<Arc<Control>>,
}

impl StreamReceiver {
    fn control(&self) -> Arc<Control> {
        Arc::clone(&self.control.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn listener(&self) -> PyResult<Arc<Listener>> {
        let listener = self.listener.get()?.lock().unwrap_or_else(PoisonError::into_inner).clone();
        listener.ok_or_else(|| usage("the receiver is closed"))
    }
}

#[pymethods]
impl StreamReceiver {
    #[new]
    fn new(py: Python<'_>, endpoint: &str) -> PyResult<Self> {
        let listener = interrupt::run_to_end(py, || Listener::bind(&endpoint.parse::<Endpoint>()?))?;
        Ok(Self { listener: Owned::new(Mutex::new(Some(Arc::new(listener)))), control: Mutex::default() })
    }

    /// Where it listens, with the real port.
    #[getter]
    fn endpoint(&self) -> PyResult<String> {
        Ok(self.listener()?.endpoint().to_string())
    }

    /// Receives one migration; the reception as JSON. Times are in seconds.
    #[pyo3(signature = (keep=None, log=None, ending="accept", limit=None, timeout=None, stall=None, switchover_ack=false))]
    #[allow(clippy::too_many_arguments)]
    fn receive(
        &self,
        py: Python<'_>,
        keep: Option<PathBuf>,
        log: Option<PathBuf>,
        ending: &str,
        limit: Option<f64>,
        timeout: Option<f64>,
        stall: Option<f64>,
        switchover_ack: bool,
    ) -> PyResult<String> {
        let listener = self.listener()?;
        let time = |what, value: Option<f64>| value.map(|value| seconds(what, value)).transpose();
        let options = ReceiverOptions {
            keep,
            log,
            ending: match ending {
                "accept" => Ending::Accept,
                "hold" => Ending::Hold,
                _ => Ending::Drop,
            },
            limit: time("limit", limit)?,
            wait: time("timeout", timeout)?,
            stall: time("stall", stall)?,
            switchover_ack,
        };
        let control = Arc::new(Control::default());
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&control);
        interrupt::run(py, &|| control.cancel(), || {
            let reception = receive(&listener, &options, &control)?;
            serde_json::to_string(&reception).map_err(|error| Error::usage(error.to_string()))
        })
    }

    /// Drops the migration that is coming in, or makes the wait for one give up, from any thread.
    fn cancel(&self) {
        self.control().cancel();
    }

    /// Bytes that have come in so far, of the migration that is coming in or came last.
    #[getter]
    fn bytes(&self) -> u64 {
        self.control().bytes()
    }

    /// Stops listening.
    fn close(&self) -> PyResult<()> {
        self.listener.get()?.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }
}
