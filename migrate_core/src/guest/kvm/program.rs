//! What the vCPU executes: a loop that stamps pages, in flat 32-bit protected mode without paging, so
//! that its 4 GiB are reachable and no page tables of its own lie among the pages that it writes.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::guest::PAGE;

/// Guest-physical address of the code, which lies outside the RAM blocks and is not migrated.
pub(super) const CODE: u64 = 0x1000;
/// Guest-physical address at which RAM begins.
pub(super) const RAM: u64 = 0x10_0000;
/// RAM that the loop can reach: adding a stride to the last page's address must not overflow 32 bits.
pub(super) const MOST_PAGES: u64 = (2047 << 20) / PAGE as u64;

/// The loop. `edi`: address of the next stamp; `eax`: the stamp; `ecx`: writes to go; `edx`: bytes from
/// one write to the next; `esi`: end of RAM; `ebx`: bytes of RAM. Seven instructions a write.
#[rustfmt::skip]
pub(super) const PROGRAM: [u8; 14] = [
    0x89, 0x07, // again: mov  [edi], eax
    0x01, 0xd7, //        add  edi, edx
    0x40,       //        inc  eax
    0x39, 0xf7, //        cmp  edi, esi
    0x72, 0x02, //        jb   inside
    0x29, 0xdf, //        sub  edi, ebx
    0xe2, 0xf3, // inside: loop again
    0xf4,       //        hlt
];

/// The vCPU's registers between two batches, in terms that hold on any host: what moves at switchover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registers {
    /// Page of the VM that is written next.
    pub page: u64,
    /// Pages from one write to the next, at least 1 and less than the VM has (1 if it has one page).
    pub stride: u64,
    /// Writes done. The n-th write of a guest's life stamps its page with the lower 32 bits of n.
    pub writes: u64,
    /// Batches done.
    pub batches: u64,
}

impl Registers {
    /// A guest that has not run. `stride` is taken modulo `pages`, and 0 counts as 1.
    pub fn start(stride: u64, pages: u64) -> Self {
        Self { page: 0, stride: (stride % pages.max(1)).max(1), writes: 0, batches: 0 }
    }

    /// Refuses what did not come from a VM of `pages` pages.
    pub(super) fn validate(&self, pages: u64) -> Result<()> {
        if self.page < pages && self.stride >= 1 && self.stride < pages.max(2) {
            return Ok(());
        }
        Err(Error::usage(format!(
            "vCPU registers at page {} with a stride of {} do not fit a VM of {pages} pages",
            self.page, self.stride
        )))
    }

    /// As the processor has them when a batch of `writes` begins.
    pub(super) fn load(&self, pages: u64, writes: u64) -> kvm_regs {
        let (page, bytes) = (PAGE as u64, pages * PAGE as u64);
        kvm_regs {
            rip: CODE,
            // Bit 1 of the flags is always set.
            rflags: 2,
            rax: self.writes.wrapping_add(1) & u64::from(u32::MAX),
            rbx: bytes,
            rcx: writes,
            rdx: self.stride * page,
            rsi: RAM + bytes,
            rdi: RAM + self.page * page,
            ..kvm_regs::default()
        }
    }

    /// Takes them back after a batch of `writes`. An error means that the guest is not where its program
    /// leads.
    pub(super) fn store(&mut self, cpu: &kvm_regs, pages: u64, writes: u64) -> Result<()> {
        let page = self.page + self.stride * writes;
        let done = Self {
            page: page % pages,
            writes: self.writes.wrapping_add(writes),
            batches: self.batches.wrapping_add(1),
            ..*self
        };
        let (expected, halted) = (done.load(pages, 0), CODE + PROGRAM.len() as u64);
        let as_expected =
            (cpu.rip, cpu.rax, cpu.rcx, cpu.rdi) == (halted, expected.rax, expected.rcx, expected.rdi);
        if !as_expected {
            return Err(Error::Verification(format!(
                "the vCPU stopped at {:#x} with {} writes to go, at address {:#x} instead of {:#x}",
                cpu.rip, cpu.rcx, cpu.rdi, expected.rdi
            )));
        }
        *self = done;
        Ok(())
    }
}

/// Turns a vCPU that was reset (16-bit real mode) to flat 32-bit protected mode.
pub(super) fn flat(sregs: &mut kvm_sregs) {
    let data = kvm_segment {
        limit: u32::MAX,
        selector: 0x10,
        // Read and write, accessed.
        type_: 3,
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..kvm_segment::default()
    };
    // Execute and read, accessed.
    sregs.cs = kvm_segment { selector: 0x08, type_: 11, ..data };
    (sregs.ds, sregs.es, sregs.ss) = (data, data, data);
    // Protection enable.
    sregs.cr0 |= 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_come_back_only_from_where_the_program_leads() {
        let mut registers = Registers::start(3, 256);
        let mut cpu = registers.load(256, 100);
        assert_eq!((cpu.rdi, cpu.rdx, cpu.rsi), (RAM, 3 * 4096, RAM + (1 << 20)));
        cpu.rip = CODE + PROGRAM.len() as u64;
        (cpu.rax, cpu.rcx, cpu.rdi) = (101, 0, RAM + 300 % 256 * 4096);
        registers.store(&cpu, 256, 100).unwrap();
        assert_eq!(registers, Registers { page: 44, stride: 3, writes: 100, batches: 1 });
        cpu.rcx = 1;
        let error = registers.store(&cpu, 256, 100).unwrap_err().to_string();
        assert!(error.contains("1 writes to go"), "{error}");
    }

    #[test]
    fn registers_that_do_not_fit_are_refused() {
        assert!(Registers::start(0, 1).validate(1).is_ok());
        assert!(Registers::start(300, 256).validate(256).is_ok());
        for bad in [
            Registers { page: 256, stride: 1, writes: 0, batches: 0 },
            Registers { page: 0, stride: 256, writes: 0, batches: 0 },
            Registers { page: 0, stride: 0, writes: 0, batches: 0 },
        ] {
            assert!(bad.validate(256).unwrap_err().to_string().contains("256 pages"));
        }
    }

    #[test]
    fn a_stamp_wraps_as_the_register_does() {
        let registers = Registers { writes: u64::from(u32::MAX), ..Registers::start(1, 256) };
        assert_eq!(registers.load(256, 1).rax, 0);
    }
}
