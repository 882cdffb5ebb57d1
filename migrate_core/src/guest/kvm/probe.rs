//! Whether KVM really runs a guest here, and how fast.

use std::sync::{mpsc, Arc, OnceLock};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::machine;
use super::program::Registers;
use super::vm::{Vm, MOST_BATCH};
use crate::error::{Error, Result};
use crate::guest::{GuestMemory, Layout, Region, PAGE};

/// How long the trial may take: a hundred times what an emulating host needs.
const LIMIT: Duration = Duration::from_secs(3);

/// What `/dev/kvm` is good for on this machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KvmProbe {
    /// A VM ran our code, and memory shows it.
    pub works: bool,
    /// Why not, and what would help; empty if it works.
    pub reason: String,
    /// Nanoseconds for one turn of the guest's loop of seven instructions, which writes one page: some ns
    /// on hardware, microseconds where KVM emulates.
    pub ns_per_write: Option<f64>,
    /// The dirty log's ranges can be cleared by themselves (Linux 5.2).
    pub clears_ranges: bool,
    /// Entries that a dirty ring can have at most (Linux 5.11); 0 if there is none.
    pub most_ring_entries: u32,
}

/// Tries it, once a process.
pub fn probe() -> &'static KvmProbe {
    static PROBE: OnceLock<KvmProbe> = OnceLock::new();
    PROBE.get_or_init(|| {
        let none = KvmProbe {
            works: false,
            reason: String::new(),
            ns_per_write: None,
            clears_ranges: false,
            most_ring_entries: 0,
        };
        let kvm = match machine::open() {
            Ok(kvm) => kvm,
            Err(reason) => return KvmProbe { reason, ..none },
        };
        let caps = KvmProbe {
            clears_ranges: machine::clears_ranges(&kvm),
            most_ring_entries: machine::most_ring_entries(&kvm),
            ..none
        };
        match within(LIMIT, trial) {
            Ok(ns) => KvmProbe { works: true, ns_per_write: Some(ns), ..caps },
            Err(error) => KvmProbe { reason: format!("/dev/kvm runs no guest: {error}"), ..caps },
        }
    })
}

/// The result of `trial`, run in a thread of its own: a kernel that never returns costs that thread, and
/// not the caller.
fn within(limit: Duration, trial: fn() -> Result<f64>) -> Result<f64> {
    let (tell, told) = mpsc::channel();
    let body = move || drop(tell.send(trial()));
    let thread = std::thread::Builder::new().name("kvm-probe".into()).spawn(body);
    thread.map_err(|source| Error::System { what: "starting KVM's trial".into(), source })?;
    let late = || Error::usage(format!("its vCPU did not come back within {} s", limit.as_secs_f64()));
    told.recv_timeout(limit).unwrap_or_else(|_| Err(late()))
}

/// Writes the pages of a small guest twice: the first time finds its memory, the second is measured.
fn trial() -> Result<f64> {
    let memory = Arc::new(GuestMemory::new(&Layout::single(MOST_BATCH * PAGE as u64))?);
    let region = Region::whole(&memory);
    let vm = Vm::new(&region)?;
    let mut registers = Registers::start(1, region.pages());
    vm.run(&mut registers, MOST_BATCH)?;
    let began = Instant::now();
    vm.run(&mut registers, MOST_BATCH)?;
    let ns = began.elapsed().as_nanos() as f64 / MOST_BATCH as f64;
    registers.check(&region).map(|()| ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_says_how_fast_or_why_not() {
        let probe = probe();
        println!("{probe:?}");
        assert_eq!(probe.works, probe.reason.is_empty());
        assert_eq!(probe.works, probe.ns_per_write.is_some_and(|ns| ns > 0.0));
    }

    #[test]
    fn a_trial_that_does_not_end_is_given_up() {
        let endless = || loop {
            std::thread::sleep(Duration::from_millis(20));
            if false {
                return Ok(0.0);
            }
        };
        let error = within(Duration::from_millis(10), endless).unwrap_err().to_string();
        assert!(error.contains("did not come back"), "{error}");
    }
}
