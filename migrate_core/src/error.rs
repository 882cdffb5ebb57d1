//! The one error type of the core: what went wrong, where, and what to do about it.

/// Shorthand for results of the core.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong in the core.
///
/// The variants are the classes that a caller may want to tell apart; the bindings map each to one
/// Python exception. Texts name the place (file, offset, knob, command) and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A wrong argument: a size, a name, a knob, a combination.
    #[error("{0}")]
    Usage(String),

    /// A dirty tracker that this kernel, or this guest, cannot have.
    #[error("tracker `{tracker}` is not available: {reason}")]
    TrackerUnavailable {
        /// Name in the registry.
        tracker: &'static str,
        /// What is missing and what would provide it.
        reason: String,
    },

    /// Bytes that are not what the format says.
    #[error("at byte {offset}: {reason}")]
    Stream {
        /// Position in the stream or file, counted from its first byte.
        offset: u64,
        /// What was found and what was expected.
        reason: String,
    },

    /// The link or the peer failed.
    #[error("link: {reason}")]
    Link {
        /// What was being done.
        reason: String,
        /// The system's own error, if there is one.
        #[source]
        source: Option<std::io::Error>,
    },

    /// A policy broke its contract or raised.
    #[error("policy: {reason}")]
    Policy {
        /// What it did.
        reason: String,
        /// The error that a foreign policy (a Python callable) raised, kept whole.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },

    /// Source and destination differ, or a guest found its own data damaged.
    #[error("verification: {0}")]
    Verification(String),

    /// The operating system refused.
    #[error("{what}: {source}")]
    System {
        /// The call and its object.
        what: String,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// A [`Error::Usage`].
    pub fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// A [`Error::Stream`] at `offset`.
    pub fn stream(offset: u64, reason: impl Into<String>) -> Self {
        Self::Stream { offset, reason: reason.into() }
    }

    /// A [`Error::Link`] without a system error behind it.
    pub fn link(reason: impl Into<String>) -> Self {
        Self::Link { reason: reason.into(), source: None }
    }

    /// A [`Error::Link`] out of an I/O error met while doing `what`.
    pub fn io(what: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{TimedOut, WouldBlock};
        let what = what.into();
        let reason = match source.kind() {
            // What a socket with a time limit answers: the system's words would not say so.
            TimedOut | WouldBlock => format!("{what}: the peer stalled"),
            _ => format!("{what}: {source}"),
        };
        Self::Link { reason, source: Some(source) }
    }

    /// The calling thread's last system error, met while doing `what`.
    pub fn last_os(what: impl Into<String>) -> Self {
        Self::System { what: what.into(), source: std::io::Error::last_os_error() }
    }
}
