//! The destination of guests from other processes and hosts.

use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use migrate_core::guest::restore_known;
use migrate_core::link::{Endpoint, Listener, Stream};
use migrate_core::world::memory::{receive, Reception};
use migrate_core::{Error, Result};
use pyo3::prelude::*;

use crate::errors::{to_python, usage};
use crate::fork::Owned;
use crate::guest::Guest;
use crate::interrupt;

/// How often a wait for a peer looks whether it was called off.
const SLICE: Duration = Duration::from_millis(50);

/// Listens for guests.
#[pyclass(frozen, module = "switchover._native")]
pub struct Receiver {
    listener: Owned<Mutex<Option<Arc<Listener>>>>,
    cancelled: Arc<AtomicBool>,
    /// Another handle on the first stream of the guest that is coming in.
    incoming: Mutex<Option<Stream>>,
}

impl Receiver {
    /// The next peer that connects before `deadline`.
    fn next(&self, listener: &Listener, wait: Option<Duration>) -> Result<Stream> {
        let started = Instant::now();
        loop {
            let left = wait.map_or(SLICE, |wait| wait.saturating_sub(started.elapsed()).min(SLICE));
            match listener.accept(left) {
                _ if self.cancelled.load(Ordering::Relaxed) => return Err(Error::link("called off")),
                Ok(stream) => return Ok(stream),
                Err(error) if wait.is_some_and(|wait| started.elapsed() >= wait) => return Err(error),
                // Nobody came in this slice; anything worse shows again at the end of the wait.
                Err(_) if wait.is_some() || left == SLICE => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn listener(&self) -> PyResult<Arc<Listener>> {
        let listener = self.listener.get()?.lock().unwrap_or_else(PoisonError::into_inner).clone();
        listener.ok_or_else(|| usage("the receiver is closed"))
    }

    fn cancel_now(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        let incoming = self.incoming.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = &*incoming {
            // A connection that is closed already needs no closing.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

#[pymethods]
impl Receiver {
    #[new]
    fn new(py: Python<'_>, endpoint: &str) -> PyResult<Self> {
        let listener = interrupt::run_to_end(py, || Listener::bind(&endpoint.parse::<Endpoint>()?))?;
        Ok(Self {
            listener: Owned::new(Mutex::new(Some(Arc::new(listener)))),
            cancelled: Arc::default(),
            incoming: Mutex::new(None),
        })
    }

    /// Where it listens, with the real port.
    #[getter]
    fn endpoint(&self) -> PyResult<String> {
        Ok(self.listener()?.endpoint().to_string())
    }

    /// Takes one guest in and runs it. Waits for `timeout` seconds for it to come, or for ever; a peer that is
    /// silent for `stall` seconds counts as lost, and one that lost its link in post-copy has `recovery`
    /// seconds to come back.
    #[pyo3(signature = (timeout=None, stall=10.0, recovery=60.0))]
    fn accept(&self, py: Python<'_>, timeout: Option<f64>, stall: f64, recovery: f64) -> PyResult<Guest> {
        let listener = self.listener()?;
        let wait = timeout.map(|limit| seconds("timeout", limit)).transpose()?;
        let (stall, recovery) = (seconds("stall", stall)?, seconds("recovery", recovery)?);
        let reception = Reception { stall, recovery, ..Reception::default() };
        self.cancelled.store(false, Ordering::Relaxed);
        let arrived = interrupt::run(py, &|| self.cancel_now(), || {
            let first = self.next(&listener, wait)?;
            let keep = |stream| *self.incoming.lock().unwrap_or_else(PoisonError::into_inner) = stream;
            keep(Some(first.try_clone()?));
            let mut more = |wait| {
                let next = self.next(&listener, Some(wait))?;
                keep(Some(next.try_clone()?));
                Ok(next)
            };
            let arrived = receive(first, &mut more, &reception, &restore_known);
            keep(None);
            arrived
        });
        Ok(Guest::arrived(arrived?.guest))
    }

    /// Stops listening.
    fn close(&self) -> PyResult<()> {
        self.listener.get()?.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }

    /// Makes a waiting [`Receiver::accept`] give up, from any thread.
    fn cancel(&self) {
        self.cancel_now();
    }
}

/// A time limit out of Python.
pub fn seconds(what: &str, seconds: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(seconds)
        .map_err(|_| usage(format!("{what} must be a time of at least 0 s, not {seconds}")))
}

/// Where `text` points, as a usage error where it points nowhere.
pub fn endpoint(py: Python<'_>, text: &str) -> PyResult<Endpoint> {
    text.parse().map_err(|error| to_python(py, error))
}
