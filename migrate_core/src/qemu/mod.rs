//! QEMU's migration formats.
//!
//! A [`receive`]r is a destination for a real source; it follows what flows by the heads alone. The formats were
//! described from QEMU's own behaviour, and every part is tested against real ones.

mod intake;
mod packets;
mod receiver;
mod reception;
mod return_path;
mod watch;

pub use receiver::{receive, Control, Ending, ReceiverOptions};
pub use reception::{Channel, Outcome, Pass, Reception, Role, Section, Step};
pub use return_path::{Reply, ReplyReader};
pub use watch::{BlockSize, PageKinds, SectionKind};

#[cfg(test)]
mod tests;
