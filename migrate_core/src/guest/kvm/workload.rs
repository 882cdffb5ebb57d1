//! The workload `kvm`: the pages of its region are stamped by a vCPU.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::probe::probe;
use super::program::Registers;
use super::vm::Vm;
use crate::error::{Error, Result};
use crate::guest::workload::{self, Boot, Tick, Work, Workload};
use crate::guest::{Region, PAGE};

crate::knobs! {
    /// A real vCPU, run by /dev/kvm, writes a stamp into page after page of its memory.
    /// Needs access to /dev/kvm; the trackers kvm-log and kvm-ring see its writes.
    pub struct KvmSweep {
        /// Bytes written per second, a whole page a write; 0 means as fast as the vCPU can.
        rate: f64 [BytesPerSecond, 0.0..=1e12] = 1e7,
        /// Pages from one write to the next, modulo the pages there are. Where the two have a common
        /// divisor, only pages that it divides are written.
        stride: u64 [Count, 1.0..=1e6] = 1,
    }
}

/// A vCPU that runs, on whatever host.
#[derive(Debug, Serialize, Deserialize)]
pub struct KvmSweeping {
    knobs: KvmSweep,
    registers: Registers,
    /// Made at the first run on a host.
    #[serde(skip)]
    vm: Option<Arc<Vm>>,
}

impl Boot for KvmSweep {
    type Program = KvmSweeping;

    fn boot(self, _seed: u64, ram: &Region) -> Result<KvmSweeping> {
        let registers = Registers::start(self.stride, ram.pages());
        let mut program = KvmSweeping { knobs: self, registers, vm: None };
        // Here and not at the first run, for a tracker may be armed before that.
        program.vm(ram)?;
        Ok(program)
    }
}

impl KvmSweeping {
    fn vm(&mut self, ram: &Region) -> Result<&Vm> {
        match &mut self.vm {
            Some(vm) => Ok(vm),
            none => Ok(none.insert(make(ram)?)),
        }
    }
}

fn make(ram: &Region) -> Result<Arc<Vm>> {
    let probe = probe();
    match probe.works {
        true => Vm::new(ram),
        false => Err(Error::usage(format!("the workload `kvm` cannot run: {}", probe.reason))),
    }
}

impl Registers {
    /// Checks the stamps of all pages that the guest has written so far.
    pub(super) fn check(&self, ram: &Region) -> Result<()> {
        let pages = ram.pages();
        self.validate(pages)?;
        let (mut page, back) = (self.page, pages - self.stride % pages);
        // Backwards from the last write, once round: pages come again after a period of at most `pages`.
        for n in (0..self.writes.min(pages)).map(|i| self.writes - i) {
            page = (page + back) % pages;
            if n < self.writes && page == (self.page + back) % pages {
                break;
            }
            let mut stamp = [0; 4];
            ram.read(page * PAGE as u64, &mut stamp);
            if u32::from_le_bytes(stamp) != n as u32 {
                return Err(Error::Verification(format!(
                    "page {page} of the KVM guest holds stamp {}, not {}",
                    u32::from_le_bytes(stamp),
                    n as u32
                )));
            }
        }
        Ok(())
    }
}

impl Workload for KvmSweeping {
    fn name(&self) -> &'static str {
        "kvm"
    }

    fn rate(&self, _now: Duration) -> f64 {
        match self.knobs.rate {
            0.0 => f64::INFINITY,
            rate => rate,
        }
    }

    fn run(&mut self, ram: &Region, tick: Tick) -> Result<Work> {
        let writes = tick.budget / PAGE as u64;
        let mut registers = self.registers;
        let ran = self.vm(ram)?.run(&mut registers, writes);
        self.registers = registers;
        ran.map(|()| Work { written: writes * PAGE as u64, operations: writes })
    }

    fn check(&self, ram: &Region) -> Result<()> {
        self.registers.check(ram)
    }

    fn save(&self) -> Result<Value> {
        workload::save(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::{GuestMemory, Layout};

    fn stamped(stride: u64, writes: u64) -> (Registers, Region) {
        let ram = Region::whole(&Arc::new(GuestMemory::new(&Layout::single(1 << 20)).unwrap()));
        let mut registers = Registers::start(stride, ram.pages());
        for n in 1..=writes {
            ram.write(registers.page * PAGE as u64, &(n as u32).to_le_bytes());
            registers.page = (registers.page + registers.stride) % ram.pages();
            registers.writes = n;
        }
        (registers, ram)
    }

    #[test]
    fn the_check_finds_each_page_that_is_not_as_written() {
        for (stride, writes, pages) in
            [(1, 0, 0), (1, 100, 100), (7, 1000, 256), (48, 999, 16), (255, 256, 256)]
        {
            let (registers, ram) = stamped(stride, writes);
            registers.check(&ram).unwrap();
            let damaged = (0..ram.pages()).filter(|page| {
                let at = page * PAGE as u64;
                let mut before = [0; 4];
                ram.read(at, &mut before);
                ram.write(at, &[0xff; 4]);
                let found = registers.check(&ram).is_err();
                ram.write(at, &before);
                found
            });
            assert_eq!(damaged.count(), pages, "stride {stride}, {writes} writes");
        }
    }

    #[test]
    fn a_state_from_elsewhere_that_does_not_fit_is_refused() {
        let (registers, ram) = stamped(1, 1);
        assert!(Registers { page: 256, ..registers }.check(&ram).is_err());
    }
}
