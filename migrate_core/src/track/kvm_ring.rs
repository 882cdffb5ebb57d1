//! KVM's dirty ring: the kernel pushes the pages of a vCPU's first writes into a ring in shared memory.
//! A harvest costs by what was written, and not by what there is. See `virt/kvm/api.rst` of the kernel,
//! section 8.29, and [`Vm`] for how the ring is emptied before it overflows.
//!
//! Pages that were collected and not asked for are kept, so that ranges can be harvested by themselves.

use std::ops::Range;
use std::sync::Arc;

use super::kvm_log::{runs_guests, vms_of};
use super::{Track, Tracker};
use crate::bitmap::Bitmap;
use crate::error::{Error, Result};
use crate::guest::kvm::{self, Vm};
use crate::guest::GuestMemory;

const NAME: &str = "kvm-ring";

crate::knobs! {
    /// KVM's dirty ring of a guest run by the workload kvm: harvests cost by the pages written.
    /// Sees the writes of vCPUs and no others, so it is for guests of that workload alone. Needs Linux 5.11.
    pub struct KvmRing {
        /// Entries of a vCPU's ring, a power of two. A vCPU whose ring is full waits until it is emptied.
        entries: u64 [Count, 256.0..=65536.0] = 4096,
    }
}

/// An armed or unarmed tracker by KVM's dirty ring.
#[derive(Debug)]
pub struct KvmRingTracker {
    knobs: KvmRing,
    armed: Option<Armed>,
}

#[derive(Debug)]
struct Armed {
    vms: Vec<Arc<Vm>>,
    pages: u64,
}

impl Track for KvmRing {
    type Tracker = KvmRingTracker;

    const SEES_ALL_WRITERS: bool = false;
    const ONLY_VCPUS: bool = true;

    fn probe() -> Result<()> {
        runs_guests(NAME)?;
        match kvm::probe().most_ring_entries {
            0 => Err(Error::TrackerUnavailable {
                tracker: NAME,
                reason: "this kernel's KVM has no dirty ring: Linux 5.11 or later has".into(),
            }),
            _ => Ok(()),
        }
    }

    fn build(self) -> Result<KvmRingTracker> {
        if !self.entries.is_power_of_two() {
            let near = self.entries.next_power_of_two();
            return Err(Error::usage(format!("kvm-ring: entries must be a power of two such as {near}")));
        }
        Ok(KvmRingTracker { knobs: self, armed: None })
    }
}

impl KvmRingTracker {
    fn armed(&self) -> Result<&Armed> {
        self.armed.as_ref().ok_or_else(|| Error::usage(format!("the tracker `{NAME}` is not armed")))
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        // A VM whose log cannot be switched off goes on being logged: slower, and nothing else.
        self.vms.iter().for_each(|vm| drop(vm.stop_log()));
    }
}

impl Tracker for KvmRingTracker {
    fn name(&self) -> &'static str {
        NAME
    }

    fn arm(&mut self, memory: &Arc<GuestMemory>) -> Result<()> {
        self.disarm();
        let mut armed = Armed { vms: Vec::new(), pages: memory.pages() };
        for vm in vms_of(memory, NAME)? {
            vm.start_ring(self.knobs.entries as u32)?;
            armed.vms.push(vm);
        }
        self.armed = Some(armed);
        Ok(())
    }

    fn harvest(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let armed = self.armed()?;
        let pages = pages.start..pages.end.min(armed.pages);
        armed.vms.iter().try_for_each(|vm| vm.harvest_ring(pages.clone(), into))
    }

    fn peek(&mut self, pages: Range<u64>, into: &mut Bitmap) -> Result<()> {
        let armed = self.armed()?;
        let pages = pages.start..pages.end.min(armed.pages);
        armed.vms.iter().try_for_each(|vm| vm.peek_ring(pages.clone(), into))
    }

    fn disarm(&mut self) {
        self.armed = None;
    }
}
