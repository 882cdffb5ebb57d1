//! QEMU's migration formats.
//!
//! The formats were described from QEMU's own behaviour, and every part is tested against real ones.
//!
//! * [`stream`]: the main channel as it flows, [`event::Event`]s out of bytes; [`multifd`]: the channels beside it.
//! * [`description`]: the VM description, and device state by it.
//! * [`capture`]: the files of one migration, replayed in the order that counts.
//! * [`event::Sink`]s on top: [`summary`] (what is in it), [`image`] (the memory that comes out), [`elf`] (the same as
//!   a core file), [`devices`] (their state), [`listing`] (a line a record), [`pages`] (a row a page).
//! * [`squash`] writes a smaller stream, [`diff`] compares two.
//! * A [`receive`]r is a destination for a real source; it notes which pages come when and passes over their contents.
//! * A [`Passage`] watches a [`Forwarder`](crate::link::Forwarder) and notes when the parts of a blackout go by.

pub mod blocks;
pub mod capture;
mod cursor;
pub mod description;
pub mod devices;
pub mod diff;
mod distinct;
pub mod elf;
pub mod event;
pub mod image;
mod intake;
pub mod listing;
mod marks;
pub mod multifd;
pub mod pages;
mod passage;
mod passes;
mod receiver;
mod reception;
mod return_path;
pub mod squash;
pub mod stream;
pub mod summary;
pub mod times;

pub use passage::{Moments, Passage};
pub use receiver::{receive, Control, Ending, ReceiverOptions, LOG_MAGIC, LOG_ROW};
pub use reception::{BlockSize, Channel, Outcome, PageKinds, Pass, Reception, Role, Section, Step};
pub use return_path::{Reply, ReplyReader};

#[cfg(test)]
mod tests;
