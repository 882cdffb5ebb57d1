//! A small virtual machine of our own: a real vCPU, run by `/dev/kvm`, whose code writes guest memory.
//!
//! Its writes go round this process's page tables, as those of a hypervisor's guest do, so that KVM's
//! dirty log and dirty ring have something to see (asynchronous userfaultfd sees them as well: KVM resolves its
//! guest's writes through this process's mapping). Each [`Vm`] has one vCPU and one [`Region`](super::Region)
//! for its RAM; the code lies outside.
//!
//! The vCPU runs in batches of at most [`MOST_BATCH`] writes, each ended by HLT. Between batches its
//! registers are with the host, in terms that hold on any host: that is what moves at switchover, and
//! what lets the kernel's VM be made anew where a dirty ring asks for it.
//!
//! Some hosts have a `/dev/kvm` that emulates every instruction: [`probe`] measures what a write costs.

mod machine;
mod probe;
mod program;
mod ring;
mod vm;
mod workload;

pub use probe::{probe, KvmProbe};
pub use program::Registers;
pub use vm::{Slot, Vm, MOST_BATCH};
pub use workload::{KvmSweep, KvmSweeping};
