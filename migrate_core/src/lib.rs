//! The core of Switchover: live migration of memory that is being written, as algorithms without I/O
//! and as worlds that run them.
//!
//! The modules, in the order in which data flows:
//!
//! * [`bitmap`]: which pages are dirty: a shared atomic bitmap for writers, a plain one for owners.

pub mod bitmap;
pub mod error;
pub mod knobs;

pub use error::{Error, Result};
