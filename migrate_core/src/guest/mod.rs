//! The guest: RAM blocks, and vCPUs whose workloads write to them in real time.

mod block;
mod brake;
#[cfg(test)]
mod brake_tests;
mod clock;
pub mod content;
mod first_writes;
mod io;
#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
pub mod kvm;
mod memory;
mod pacing;
mod random;
mod region;
#[cfg(test)]
mod tests;
mod vcpu;
pub mod workload;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use block::{Backing, BlockSpec, HugePages, RamBlock, PAGE};
pub use brake::{Brake, MOST_DUTY, SLICE};
pub use clock::{monotonic_ns, thread_seconds, thread_waits};
pub use io::{read_pages, write_pages};
pub use memory::{machine_bytes, GuestMemory, Layout};
pub use pacing::Pacing;
pub(crate) use random::scramble;
pub use region::Region;
pub use vcpu::{Progress, Tally, Vcpu, VcpuState};
pub use workload::Workload;

use crate::error::{Error, Result};
use crate::knobs::Spec;

/// What a guest is made of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestSpec {
    /// Its RAM blocks.
    pub layout: Layout,
    /// A workload for each vCPU; they share memory out in equal parts.
    pub workloads: Vec<Spec>,
    /// Seed of all that is random in it.
    pub seed: u64,
    /// What memory holds before the workloads lay out their data: one of [`content::CONTENTS`].
    #[serde(default = "content::default_fill")]
    pub fill: Spec,
}

impl GuestSpec {
    /// A guest whose memory is filled with the default content.
    pub fn new(layout: Layout, workloads: Vec<Spec>, seed: u64) -> Self {
        Self { layout, workloads, seed, fill: content::default_fill() }
    }

    /// The seed of vCPU `index`: distinct streams from one seed, since vCPUs must not write in step.
    pub fn vcpu_seed(&self, index: u64) -> u64 {
        self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(index)
    }
}

/// The execution state of all vCPUs: what moves at switchover beside memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ExecutionState {
    /// In the order of the vCPUs.
    pub vcpus: Vec<VcpuState>,
}

/// Makes a workload out of its name and saved state, on the destination.
pub type Restore<'a> = &'a dyn Fn(&str, Value) -> Result<Box<dyn Workload>>;

/// Starts a workload out of its spec, a seed and its region: [`workload::start`], or one that knows more.
pub type Start<'a> = &'a dyn Fn(&Spec, u64, &Region) -> Result<Box<dyn Workload>>;

/// Restores the workloads of [`workload::WORKLOADS`].
pub fn restore_known(name: &str, state: Value) -> Result<Box<dyn Workload>> {
    (workload::WORKLOADS.find(name)?.make.restore)(state)
}

/// The number of parts of memory that so many workloads take, at least a page each.
fn checked_parts(workloads: usize, memory: &GuestMemory) -> Result<u64> {
    match workloads as u64 {
        parts if (1..=memory.pages()).contains(&parts) => Ok(parts),
        parts => {
            let most = memory.pages();
            Err(Error::usage(format!("a guest needs from 1 to {most} workloads, not {parts}")))
        }
    }
}

/// Memory and the vCPUs that write it.
pub struct Guest {
    memory: Arc<GuestMemory>,
    vcpus: Vec<Vcpu>,
}

impl Guest {
    /// Maps memory, fills it, lays the workloads' data out, and leaves the guest paused.
    pub fn new(spec: &GuestSpec) -> Result<Self> {
        Self::with_starter(spec, &workload::start)
    }

    /// The same, with a starter that may know workloads of its own (a Python callable, say).
    pub fn with_starter(spec: &GuestSpec, start: Start<'_>) -> Result<Self> {
        let memory = Arc::new(GuestMemory::new(&spec.layout)?);
        let parts = checked_parts(spec.workloads.len(), &memory)?;
        content::fill(&memory, &spec.fill, spec.seed)?;
        let mut workloads = Vec::new();
        for (i, workload) in (0..).zip(&spec.workloads) {
            workloads.push(start(workload, spec.vcpu_seed(i), &Region::part(&memory, i, parts))?);
        }
        Self::with_workloads(memory, workloads)
    }

    /// A paused guest of programs that were made elsewhere (a Python callable, say).
    pub fn with_workloads(memory: Arc<GuestMemory>, workloads: Vec<Box<dyn Workload>>) -> Result<Self> {
        let parts = checked_parts(workloads.len(), &memory)?;
        let vcpu = |(i, workload)| Vcpu::new(workload, Region::part(&memory, i, parts), Progress::default());
        let vcpus = (0..).zip(workloads).map(vcpu).collect();
        Ok(Self { memory, vcpus })
    }

    /// A paused guest on `memory`, going on from `state`.
    pub fn restore(memory: Arc<GuestMemory>, state: ExecutionState, restore: Restore<'_>) -> Result<Self> {
        let parts = checked_parts(state.vcpus.len(), &memory)?;
        let mut vcpus = Vec::new();
        for (i, vcpu) in (0..).zip(state.vcpus) {
            let workload = restore(&vcpu.workload, vcpu.registers)?;
            vcpus.push(Vcpu::new(workload, Region::part(&memory, i, parts), vcpu.progress));
        }
        Ok(Self { memory, vcpus })
    }

    /// Its memory.
    pub fn memory(&self) -> &Arc<GuestMemory> {
        &self.memory
    }

    /// Its vCPUs.
    pub fn vcpus(&self) -> &[Vcpu] {
        &self.vcpus
    }

    /// Lets all vCPUs run.
    pub fn resume(&mut self) -> Result<()> {
        self.vcpus.iter_mut().try_for_each(Vcpu::resume)
    }

    /// Stops all vCPUs; when it returns, nothing writes to memory.
    pub fn pause(&self) {
        self.vcpus.iter().for_each(Vcpu::ask_pause);
        self.vcpus.iter().for_each(Vcpu::wait_paused);
    }

    /// Holds all vCPUs back alike, until the next call; see [`Vcpu::brake`].
    pub fn brake(&self, brake: Brake) {
        self.vcpus.iter().for_each(|vcpu| vcpu.brake(brake));
    }

    /// The execution state of a paused guest.
    pub fn save(&self) -> Result<ExecutionState> {
        Ok(ExecutionState { vcpus: self.vcpus.iter().map(Vcpu::save).collect::<Result<_>>()? })
    }

    /// Sum of the vCPUs' counts; the clocks are the latest.
    pub fn progress(&self) -> Progress {
        self.vcpus.iter().map(Vcpu::progress).fold(Progress::default(), |sum, vcpu| Progress {
            written: sum.written + vcpu.written,
            operations: sum.operations + vcpu.operations,
            running_ns: sum.running_ns.max(vcpu.running_ns),
            last_ran_ns: sum.last_ran_ns.max(vcpu.last_ran_ns),
            held_ns: sum.held_ns + vcpu.held_ns,
        })
    }

    /// What reads its counts while somebody else has it.
    pub fn tally(&self) -> Tally {
        Tally(self.vcpus.iter().map(|vcpu| Arc::clone(&vcpu.shared)).collect())
    }

    /// Monotonic clock when the first vCPU began its first tick after resuming; `None` before that.
    pub fn first_ran_ns(&self) -> Option<u64> {
        self.vcpus.iter().filter_map(Vcpu::first_ran_ns).min()
    }

    /// An error if a workload has crashed.
    pub fn check_alive(&self) -> Result<()> {
        match self.vcpus.iter().find_map(Vcpu::crash) {
            Some(why) => Err(Error::Verification(format!("the guest crashed: {why}"))),
            None => Ok(()),
        }
    }

    /// Each workload's check of its own data.
    pub fn check(&self) -> Result<()> {
        self.vcpus.iter().try_for_each(Vcpu::check)
    }
}
