//! QEMU's migration formats.
//!
//! The formats were described from QEMU's own behaviour, and every part is tested against real ones.
//!
//! * [`stream`]: the main channel as it flows, [`event::Event`]s out of bytes; [`multifd`]: the channels beside it.
//! * [`description`]: the VM description, and device state by it.
//! * [`capture`]: the files of one migration, replayed in the order that counts.
//! * [`event::Sink`]s on top: [`summary`] (what is in it), [`image`] (the memory that comes out), [`elf`] (the same as a core file), [`devices`] (their
//!   state), [`listing`] (a line a record), [`pages`] (a row a page).
//! * [`ReplyReader`]: what a destination says.

pub mod blocks;
pub mod capture;
mod cursor;
pub mod description;
pub mod devices;
mod distinct;
pub mod elf;
pub mod event;
pub mod image;
pub mod listing;
mod marks;
pub mod multifd;
pub mod pages;
mod passes;
mod return_path;
pub mod stream;
pub mod summary;

pub use return_path::{Reply, ReplyReader};
