//! The guard against use after a fork: the child has our objects, but none of the threads behind them.

use pyo3::prelude::*;

use crate::errors::usage;

/// A value that only the process that made it may use, and that is dropped without holding the
/// interpreter, since a drop may wait for threads that want it.
pub struct Owned<T: Send> {
    value: Option<T>,
    process: u32,
}

impl<T: Send> Owned<T> {
    /// Owned by this process.
    pub fn new(value: T) -> Self {
        Self { value: Some(value), process: std::process::id() }
    }

    /// The value; a usage error in a forked child.
    pub fn get(&self) -> PyResult<&T> {
        let ours = self.process == std::process::id();
        self.value.as_ref().filter(|_| ours).ok_or_else(|| {
            usage(format!(
                "this object belongs to process {}: its threads do not exist in a forked child; \
                 start processes by spawn or forkserver, and make guests and migrations there",
                self.process
            ))
        })
    }
}

impl<T: Send> Drop for Owned<T> {
    fn drop(&mut self) {
        let value = self.value.take();
        if self.process != std::process::id() {
            // Its drop would wait for threads that are not there; the process's end frees it all.
            return std::mem::forget(value);
        }
        let mut value = Some(value);
        let detached = Python::try_attach(|py| {
            let value = value.take();
            py.detach(|| drop(value));
        });
        // Without an interpreter there is nobody to give way to.
        drop((detached, value));
    }
}
