//! Cutting a migration that hangs: a peer that is silent must not keep the user waiting.

use std::net::Shutdown;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::Builder;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::link::Stream;

/// How long a cancelled run may take to end by itself, telling its peer why.
const GRACE: Duration = Duration::from_millis(150);

/// The connections of a source, for as long as they may be cut.
#[derive(Debug)]
pub(super) struct Cut {
    /// None once the guest has been let go: then the word that it runs must be waited for.
    streams: Mutex<Option<Vec<Stream>>>,
}

impl Cut {
    pub(super) fn new(streams: &[Stream]) -> Result<Arc<Self>> {
        let streams = streams.iter().map(Stream::try_clone).collect::<Result<_>>()?;
        Ok(Arc::new(Self { streams: Mutex::new(Some(streams)) }))
    }

    /// From here on nothing is cut.
    pub(super) fn spare(&self) {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn cut(&self) {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        // Connections that are gone already need no cut.
        streams.iter().flatten().for_each(|stream| drop(stream.shutdown(Shutdown::Both)));
    }
}

/// Cuts the connections of a source from any thread.
#[derive(Debug, Clone)]
pub struct Cutter(pub(super) Weak<Cut>);

impl Cutter {
    /// To be called when a run has been cancelled: a moment later, whatever still waits for the peer fails.
    /// A guest that has been let go is not affected.
    ///
    /// # Errors
    /// [`Error::System`] where there is no thread to be had; the run then ends when the peer answers, or
    /// counts as lost.
    pub fn cut_soon(&self) -> Result<()> {
        let cut = self.0.clone();
        let body = move || {
            std::thread::sleep(GRACE);
            if let Some(cut) = cut.upgrade() {
                cut.cut();
            }
        };
        let thread = Builder::new().name("cutter".into()).spawn(body);
        thread.map(drop).map_err(|source| Error::System { what: "starting a thread".into(), source })
    }
}
