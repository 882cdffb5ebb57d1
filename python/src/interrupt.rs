//! The door through which every call goes that may take more than a millisecond.

use std::sync::mpsc::{sync_channel, RecvTimeoutError};
use std::thread::Builder;
use std::time::Duration;

use migrate_core::{Error, Result};
use pyo3::prelude::*;

use crate::errors::to_python;

/// How often signals are looked at: short enough for a person who pressed Ctrl-C.
const POLL: Duration = Duration::from_millis(20);

/// Does `work` on a thread of its own with the interpreter released. A signal whose handler raises (as
/// Ctrl-C does) calls `cancel`; when the work has ended, the handler's exception is raised.
pub fn run<T: Send>(
    py: Python<'_>,
    cancel: &(dyn Fn() + Sync),
    work: impl FnOnce() -> Result<T> + Send,
) -> PyResult<T> {
    let (result, interrupt) = py.detach(|| wait_for(cancel, work));
    match interrupt {
        Some(interrupt) => Err(interrupt),
        None => result.map_err(|error| to_python(py, error)),
    }
}

/// The same for work that cannot be cut short, but ends by itself.
pub fn run_to_end<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T> + Send) -> PyResult<T> {
    run(py, &|| (), work)
}

fn wait_for<T: Send>(
    cancel: &(dyn Fn() + Sync),
    work: impl FnOnce() -> Result<T> + Send,
) -> (Result<T>, Option<PyErr>) {
    std::thread::scope(|scope| {
        let (done, results) = sync_channel(1);
        let body = move || drop(done.send(work()));
        if let Err(source) = Builder::new().name("engine".into()).spawn_scoped(scope, body) {
            return (Err(Error::System { what: "starting a thread".into(), source }), None);
        }
        let mut interrupt = None;
        loop {
            match results.recv_timeout(POLL) {
                Ok(result) => return (result, interrupt),
                Err(RecvTimeoutError::Timeout) if interrupt.is_none() => {
                    interrupt = signalled();
                    interrupt.iter().for_each(|_| cancel());
                }
                Err(RecvTimeoutError::Timeout) => {}
                // The thread panicked; the scope passes the panic on.
                Err(RecvTimeoutError::Disconnected) => {
                    return (Err(Error::usage("the engine's thread panicked")), interrupt)
                }
            }
        }
    })
}

fn signalled() -> Option<PyErr> {
    Python::try_attach(|py| py.check_signals().err()).flatten()
}
