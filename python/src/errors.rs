//! The one place where errors of the core become Python exceptions.

use migrate_core::Error;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

mod raised {
    use pyo3::import_exception;
    import_exception!(switchover.errors, SwitchoverError);
    import_exception!(switchover.errors, UsageError);
    import_exception!(switchover.errors, TrackerUnavailable);
    import_exception!(switchover.errors, StreamError);
    import_exception!(switchover.errors, LinkError);
    import_exception!(switchover.errors, PolicyError);
    import_exception!(switchover.errors, VerificationError);
}

/// The exception for `error`, with what is behind it as its cause.
pub fn to_python(py: Python<'_>, error: Error) -> PyErr {
    let text = error.to_string();
    let (exception, cause) = match error {
        Error::Usage(_) => (raised::UsageError::new_err(text), None),
        Error::TrackerUnavailable { tracker, reason } => {
            (raised::TrackerUnavailable::new_err((text, tracker, reason)), None)
        }
        Error::Stream { offset, .. } => (raised::StreamError::new_err((text, offset)), None),
        Error::Link { source, .. } => (raised::LinkError::new_err(text), source.map(system)),
        Error::Policy { source, .. } => {
            (raised::PolicyError::new_err(text), source.and_then(|source| kept(py, source)))
        }
        Error::Verification(_) => (raised::VerificationError::new_err(text), None),
        Error::System { source, .. } => (raised::SwitchoverError::new_err(text), Some(system(source))),
    };
    if cause.is_some() {
        exception.set_cause(py, cause);
    }
    exception
}

/// A usage error found out here.
pub fn usage(text: impl Into<String>) -> PyErr {
    raised::UsageError::new_err(text.into())
}

fn system(source: std::io::Error) -> PyErr {
    match source.raw_os_error() {
        Some(number) => PyOSError::new_err((number, source.to_string())),
        None => PyOSError::new_err(source.to_string()),
    }
}

/// The exception that a Python callable raised, as it was raised.
fn kept(py: Python<'_>, source: Box<dyn std::error::Error + Send + Sync>) -> Option<PyErr> {
    source.downcast::<PyErr>().ok().map(|error| error.clone_ref(py))
}
