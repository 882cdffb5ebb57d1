//! QEMU's formats.

mod return_path;

pub use return_path::{Reply, ReplyReader};
