//! The core of Switchover: live migration of memory that is being written, as algorithms without I/O
//! and as worlds that run them.
//!
//! The modules, in the order in which data flows:
//!
//! * [`bitmap`]: which pages are dirty: a shared atomic bitmap for writers, a plain one for owners.
//! * [`guest`]: RAM blocks, and the vCPUs whose workloads write to them.
//! * [`track`]: dirty trackers, which find out what was written.
//! * [`trace`]: dirty traces: which pages were written when, recorded or generated.
//! * [`codec`]: page codecs, which make a page's bytes fewer.
//! * [`strategy`]: how memory moves, as state machines.
//! * [`policy`]: when to switch over, throttle, give up.
//! * [`link`]: byte links over TCP and UNIX sockets, shaped on demand: bandwidth, delay, jitter, outages.
//! * [`qemu`]: QEMU's migration streams, read and taken apart.
//! * [`wire`]: the stream between a source and a destination of ours.
//! * [`world`]: where a strategy is carried out: real memory, or a simulated guest.
//! * [`report`]: what a run leaves behind.
//! * [`bakeoff`]: codecs measured on real pages.
//!
//! Beside them: [`mod@knobs`], the one mechanism for parts that are named and have parameters, and [`error`].

pub mod bakeoff;
pub mod bitmap;
pub mod codec;
pub mod error;
pub mod guest;
pub mod knobs;
pub mod link;
pub mod policy;
pub mod qemu;
pub mod report;
pub mod strategy;
pub mod trace;
pub mod track;
pub mod wire;
pub mod world;

pub use error::{Error, Result};
