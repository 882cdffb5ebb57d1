//! What runs in a guest: programs that write guest memory and can be stopped, moved and gone on with.
//!
//! A workload is one file here and one line of [`WORKLOADS`]. Its struct holds its execution state (what
//! a CPU's registers would): positions, generators, counters. Everything else lives in guest memory, or
//! it would not be found on the destination.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::region::Region;
use crate::error::{Error, Result};
use crate::knobs::{Entry, Given, Knobs, Registry, Spec};

mod btree;
#[cfg(any(test, feature = "testing"))]
pub mod conformance;
mod gc;
mod heap;
mod hot_cold;
mod idle;
mod kv;
mod node;
pub mod pattern;
mod permutation;
mod phases;
mod sliding;
mod stencil;
mod sweep;
mod uniform;
mod zipf;

pub use btree::Btree;
pub use gc::Gc;
pub use hot_cold::HotCold;
pub use idle::Idle;
pub use kv::Kv;
pub use permutation::Permutation;
pub use phases::{Phase, Phases};
pub use sliding::Sliding;
pub use stencil::Stencil;
pub use sweep::Sweep;
pub use uniform::Uniform;
pub use zipf::{Ranks, Zipf};

/// The workloads there are.
pub static WORKLOADS: Registry<Make> = Registry {
    kind: "workload",
    entries: &[
        entry::<Idle>("idle"),
        entry::<Sweep>("sweep"),
        entry::<Uniform>("uniform"),
        entry::<Zipf>("zipf"),
        entry::<HotCold>("hot-cold"),
        entry::<Sliding>("sliding"),
        entry::<Phases>("phases"),
        entry::<Kv>("kv"),
        entry::<Btree>("btree"),
        entry::<Stencil>("stencil"),
        entry::<Gc>("gc"),
        #[cfg(all(feature = "kvm", target_arch = "x86_64"))]
        entry::<super::kvm::KvmSweep>("kvm"),
    ],
};

/// A slice of time that a workload is given.
#[derive(Debug, Clone, Copy)]
pub struct Tick {
    /// Time that the guest has run; the blackout, and sleeps under a brake, do not count.
    pub now: Duration,
    /// Bytes of writing that are due, a whole number of pages. What is not written stays due, for a while.
    pub budget: u64,
}

/// What was done in a tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes written, in the workload's own terms: whole pages for page writers, values for a store.
    pub written: u64,
    /// Operations finished: page writes, requests, cells; the measure of the guest's progress.
    pub operations: u64,
}

/// A program in a guest. Its struct is its execution state; see the module.
pub trait Workload: Send {
    /// Name in [`WORKLOADS`], or another that the destination knows how to restore.
    fn name(&self) -> &'static str;

    /// Bytes per second that it wants to write at guest time `now`; infinite means as fast as it can, and
    /// what is negative or no number means nothing.
    fn rate(&self, now: Duration) -> f64;

    /// Whether it writes memory behind the back of [`Region`], so that nobody can tell first writes to a page
    /// from others. Then all bytes that it says it wrote count as first writes.
    fn writes_unseen(&self) -> bool {
        false
    }

    /// Writes about `tick.budget` bytes and returns. An error is a crash of the guest: its own data are
    /// damaged.
    fn run(&mut self, ram: &Region, tick: Tick) -> Result<Work>;

    /// Names the pages that [`Workload::run`] would write in a tick, out of a region of `pages`, and goes on
    /// as if it had: for traces of guests that are in no memory. `None`: what it writes depends on what
    /// memory holds.
    fn foresee(&mut self, _pages: u64, _tick: Tick, _write: &mut dyn FnMut(u64)) -> Option<Result<Work>> {
        None
    }

    /// Checks its data in guest memory, wherever it is; [`Error::Verification`] says what is damaged.
    fn check(&self, ram: &Region) -> Result<()>;

    /// Its execution state, for [`Make::restore`].
    fn save(&self) -> Result<Value>;
}

/// The knobs of a workload, able to start it.
pub trait Boot: Knobs {
    /// The running program.
    type Program: Workload + DeserializeOwned + 'static;

    /// Whether it keeps data in memory that [`Workload::check`] vouches for, to the byte.
    const KEEPS_DATA: bool = false;

    /// Lays its data out in `ram` (filled with ordinary content before) and readies it to run.
    fn boot(self, seed: u64, ram: &Region) -> Result<Self::Program>;
}

/// How a workload comes to be.
pub struct Make {
    /// Out of knobs, a seed and the region that it owns.
    pub boot: fn(&Given, u64, &Region) -> Result<Box<dyn Workload>>,
    /// Out of a state that [`Workload::save`] gave.
    pub restore: fn(Value) -> Result<Box<dyn Workload>>,
    /// See [`Boot::KEEPS_DATA`].
    pub keeps_data: bool,
}

/// The registry's line for a workload.
pub const fn entry<B: Boot>(name: &'static str) -> Entry<Make> {
    let make = Make { boot: boot::<B>, restore: restore::<B::Program>, keeps_data: B::KEEPS_DATA };
    Entry::of::<B>(name, make)
}

fn boot<B: Boot>(knobs: &Given, seed: u64, ram: &Region) -> Result<Box<dyn Workload>> {
    Ok(Box::new(B::from_knobs(knobs)?.boot(seed, ram)?))
}

fn restore<W: Workload + DeserializeOwned + 'static>(state: Value) -> Result<Box<dyn Workload>> {
    let workload: W = serde_json::from_value(state)
        .map_err(|e| Error::usage(format!("a workload's execution state does not fit: {e}")))?;
    Ok(Box::new(workload))
}

/// Starts the workload that `spec` names, in `ram`.
pub fn start(spec: &Spec, seed: u64, ram: &Region) -> Result<Box<dyn Workload>> {
    (WORKLOADS.find(&spec.name)?.make.boot)(&spec.knobs, seed, ram)
}

/// The state of `program` as JSON: what [`Workload::save`] returns for a serialisable struct.
pub fn save<W: serde::Serialize>(program: &W) -> Result<Value> {
    serde_json::to_value(program)
        .map_err(|e| Error::usage(format!("saving a workload's execution state: {e}")))
}

/// The error of a program that does not fit the region it was given.
fn too_small(name: &str, least: u64, ram: &Region) -> Error {
    let has = ram.bytes();
    Error::usage(format!("{name} needs {least} bytes of memory or more for each vCPU, and was given {has}"))
}
