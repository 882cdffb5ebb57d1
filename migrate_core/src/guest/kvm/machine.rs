//! The calls to the kernel: a VM with its slots of memory, one vCPU, and the dirty log of each slot.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsRawFd;

use kvm_bindings::{
    kvm_clear_dirty_log, kvm_clear_dirty_log__bindgen_ty_1, kvm_dirty_log, kvm_dirty_log__bindgen_ty_1,
    kvm_enable_cap, kvm_regs, kvm_userspace_memory_region, KVM_CAP_DIRTY_LOG_RING,
    KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE,
    KVM_EXIT_DIRTY_RING_FULL, KVM_MEM_LOG_DIRTY_PAGES,
};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

use super::program;
use super::ring::Ring;
use super::vm::Slot;
use crate::error::{Error, Result};
use crate::guest::{BlockSpec, RamBlock, PAGE};

/// The API version that every kernel since 2.6.22 has, and that userspace must insist on.
const API_VERSION: i32 = 12;
/// Below 4 GiB, clear of RAM: what Intel CPUs need to run code without paging.
const TSS: usize = 0xfffb_d000;
const IDENTITY_MAP: u64 = 0xfffb_c000;

// Requests with number and layout of `linux/kvm.h`; kvm-ioctls lacks them or copies too much.
const GET_DIRTY_LOG: u64 = 0x4010_ae42;
const CLEAR_DIRTY_LOG: u64 = 0xc018_aec0;
const RESET_DIRTY_RINGS: u64 = 0xaec7;
const _: () = assert!(size_of::<kvm_dirty_log>() == 0x10 && size_of::<kvm_clear_dirty_log>() == 0x18);

/// Why the vCPU came back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// It executed HLT.
    Halted,
    /// Its dirty ring must be emptied before it can go on.
    RingFull,
}

/// The system's `/dev/kvm`, of the right version; the error says what is missing.
pub(super) fn open() -> std::result::Result<Kvm, String> {
    let kvm = Kvm::new().map_err(|e| {
        let what = match e.errno() {
            libc::ENOENT => {
                "load the module kvm_intel or kvm_amd, on a machine whose CPU and firmware \
                             allow virtualisation"
            }
            libc::EACCES => "join the group that owns it",
            _ => "see the kernel's log",
        };
        format!("/dev/kvm cannot be opened ({e}): {what}")
    })?;
    match kvm.get_api_version() {
        API_VERSION => Ok(kvm),
        other => Err(format!("/dev/kvm speaks version {other} of KVM's API, not {API_VERSION}")),
    }
}

/// Entries that a dirty ring can have at most; 0 where there is none.
pub(super) fn most_ring_entries(kvm: &Kvm) -> u32 {
    let bytes = ring_capability(kvm).map_or(0, |capability| kvm.check_extension_raw(capability.into()));
    u32::try_from(bytes).unwrap_or(0) / size_of::<kvm_bindings::kvm_dirty_gfn>() as u32
}

/// Whether ranges of the dirty log can be cleared by themselves.
pub(super) fn clears_ranges(kvm: &Kvm) -> bool {
    let flags = kvm.check_extension_raw(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2.into());
    flags > 0 && flags as u32 & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE != 0
}

/// Kernels name the ring by two capabilities: the one with stated memory order (6.1) is preferred.
fn ring_capability(kvm: &Kvm) -> Option<u32> {
    let there = |capability: &u32| kvm.check_extension_raw((*capability).into()) > 0;
    [KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING].into_iter().find(there)
}

fn refused(what: &str, e: kvm_ioctls::Error) -> Error {
    Error::System { what: what.to_owned(), source: io::Error::from_raw_os_error(e.errno()) }
}

/// A VM's side of the kernel: slots and dirty logs, which any thread may use while the vCPU runs.
#[derive(Debug)]
pub(super) struct Machine {
    fd: VmFd,
    clears_ranges: bool,
}

/// The vCPU.
#[derive(Debug)]
pub(super) struct Cpu {
    fd: VcpuFd,
}

/// A page of its own that holds the program.
pub(super) fn code() -> Result<RamBlock> {
    let block = RamBlock::map(BlockSpec::new("code", PAGE as u64), 0)?;
    let program = program::PROGRAM;
    // SAFETY: the block is ours alone, and longer than the program.
    unsafe { std::ptr::copy_nonoverlapping(program.as_ptr(), block.as_ptr(), program.len()) };
    Ok(block)
}

/// Makes a VM of `code` and `slots` with one vCPU, and a dirty ring of `entries` if that is not 0: the
/// kernel takes no ring once there is a vCPU.
pub(super) fn make(code: &RamBlock, slots: &[Slot], entries: u32) -> Result<(Machine, Cpu, Option<Ring>)> {
    let kvm = open().map_err(Error::usage)?;
    let fd = kvm.create_vm().map_err(|e| refused("making a KVM VM", e))?;
    // Only Intel CPUs need these, and the oldest of them; others may refuse.
    let _ = fd.set_tss_address(TSS);
    let _ = fd.set_identity_map_address(IDENTITY_MAP);
    let machine = Machine { fd, clears_ranges: clears_ranges(&kvm) };
    if entries > 0 {
        machine.enable_ring(&kvm, entries)?;
    }
    let code =
        Slot { id: 0, first: 0, pages: code.pages(), guest: program::CODE, host: code.as_ptr() as u64 };
    machine.set(&code, false)?;
    slots.iter().try_for_each(|slot| machine.set(slot, false))?;
    let cpu = Cpu { fd: machine.fd.create_vcpu(0).map_err(|e| refused("making a KVM vCPU", e))? };
    cpu.enter_flat_mode()?;
    let ring = (entries > 0).then(|| Ring::map(&cpu.fd, entries)).transpose()?;
    Ok((machine, cpu, ring))
}

impl Machine {
    fn enable_ring(&self, kvm: &Kvm, entries: u32) -> Result<()> {
        let none = || Error::usage("this kernel's KVM has no dirty ring");
        let cap = ring_capability(kvm).ok_or_else(none)?;
        let bytes = u64::from(entries) * size_of::<kvm_bindings::kvm_dirty_gfn>() as u64;
        let request = kvm_enable_cap { cap, args: [bytes, 0, 0, 0], ..kvm_enable_cap::default() };
        self.fd.enable_cap(&request).map_err(|e| {
            Error::usage(format!(
                "KVM refuses a dirty ring of {entries} entries ({e}); it takes powers of two up to {}, and \
                 needs some hundred for itself",
                most_ring_entries(kvm)
            ))
        })
    }

    /// Gives the slot its memory, or changes whether writes to it are logged: turned on, all is clean.
    fn set(&self, slot: &Slot, log: bool) -> Result<()> {
        let region = kvm_userspace_memory_region {
            slot: slot.id,
            flags: if log { KVM_MEM_LOG_DIRTY_PAGES } else { 0 },
            guest_phys_addr: slot.guest,
            memory_size: slot.pages * PAGE as u64,
            userspace_addr: slot.host,
        };
        // SAFETY: slots do not overlap, and the memory is a RAM block's mapping, which the owner of this
        // machine keeps for longer than it; whatever a guest writes there is plain bytes.
        unsafe { self.fd.set_user_memory_region(region) }.map_err(|e| refused("setting KVM's memory", e))
    }

    /// Begins or ends the log of `slots`. `by_range` asks that reading the log clears nothing.
    pub(super) fn log(&self, slots: &[Slot], on: bool, by_range: bool) -> Result<()> {
        if self.clears_ranges {
            let enable = u64::from(by_range) * u64::from(KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE);
            let cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2;
            let request = kvm_enable_cap { cap, args: [enable, 0, 0, 0], ..kvm_enable_cap::default() };
            self.fd.enable_cap(&request).map_err(|e| refused("setting how KVM's dirty log is cleared", e))?;
        }
        slots.iter().try_for_each(|slot| self.set(slot, on))
    }

    /// Whether [`Machine::clear`] is there.
    pub(super) fn clears_ranges(&self) -> bool {
        self.clears_ranges
    }

    /// Reads the dirty bits of a slot, a word for 64 pages; clears them all unless ranges are cleared.
    pub(super) fn read(&self, slot: &Slot, words: &mut [u64]) -> Result<()> {
        assert!(words.len() as u64 * 64 >= slot.pages, "{} words for {} pages", words.len(), slot.pages);
        let bitmap = kvm_dirty_log__bindgen_ty_1 { dirty_bitmap: words.as_mut_ptr().cast() };
        let mut log = kvm_dirty_log { slot: slot.id, padding1: 0, __bindgen_anon_1: bitmap };
        // SAFETY: the kernel writes a bit for each of the slot's pages, for which there is room.
        unsafe { self.call(GET_DIRTY_LOG, &raw mut log as u64, "reading KVM's dirty log") }.map(drop)
    }

    /// Clears the bits that are set in `words`, counted from page `first` of the slot, a multiple of 64,
    /// and protects their pages again. When it returns no CPU holds an older translation.
    pub(super) fn clear(&self, slot: &Slot, first: u64, words: &[u64]) -> Result<()> {
        let pages = (words.len() as u64 * 64).min(slot.pages.saturating_sub(first));
        let bitmap = kvm_clear_dirty_log__bindgen_ty_1 { dirty_bitmap: words.as_ptr().cast_mut().cast() };
        let mut request = kvm_clear_dirty_log {
            slot: slot.id,
            num_pages: pages as u32,
            first_page: first,
            __bindgen_anon_1: bitmap,
        };
        // SAFETY: the kernel only reads the bitmap, a bit for each of `num_pages`, which `words` has.
        unsafe { self.call(CLEAR_DIRTY_LOG, &raw mut request as u64, "clearing KVM's dirty log") }.map(drop)
    }

    /// Protects the pages again whose ring entries were collected, and frees the entries.
    pub(super) fn reset_rings(&self) -> Result<()> {
        // SAFETY: the request has no argument and touches only the VM's own rings.
        unsafe { self.call(RESET_DIRTY_RINGS, 0, "resetting KVM's dirty ring") }.map(drop)
    }

    /// # Safety
    /// `argument` must be what `request` takes, and live through the call.
    unsafe fn call(&self, request: u64, argument: u64, what: &str) -> Result<i32> {
        loop {
            // SAFETY: the caller's promise.
            let answer = unsafe { libc::ioctl(self.fd.as_raw_fd(), request as _, argument) };
            if answer >= 0 {
                return Ok(answer);
            }
            match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                source => return Err(Error::System { what: what.to_owned(), source }),
            }
        }
    }
}

impl Cpu {
    fn enter_flat_mode(&self) -> Result<()> {
        let refused = |e| refused("setting a KVM vCPU's mode", e);
        let mut sregs = self.fd.get_sregs().map_err(refused)?;
        program::flat(&mut sregs);
        self.fd.set_sregs(&sregs).map_err(refused)
    }

    /// Sets the registers.
    pub(super) fn load(&self, registers: &kvm_regs) -> Result<()> {
        self.fd.set_regs(registers).map_err(|e| refused("setting a KVM vCPU's registers", e))
    }

    /// Reads the registers.
    pub(super) fn registers(&self) -> Result<kvm_regs> {
        self.fd.get_regs().map_err(|e| refused("reading a KVM vCPU's registers", e))
    }

    /// Runs until it halts or its ring is full.
    pub(super) fn run(&mut self) -> Result<Exit> {
        loop {
            match self.fd.run() {
                Ok(VcpuExit::Hlt) => return Ok(Exit::Halted),
                Ok(VcpuExit::Unsupported(KVM_EXIT_DIRTY_RING_FULL)) => return Ok(Exit::RingFull),
                Ok(other) => return Err(Error::Verification(astray(&other))),
                Err(e) if e.errno() == libc::EINTR || e.errno() == libc::EAGAIN => {}
                Err(e) => return Err(refused("running a KVM vCPU", e)),
            }
        }
    }
}

fn astray(exit: &VcpuExit<'_>) -> String {
    match exit {
        VcpuExit::InternalError => "KVM could not run or emulate the guest's code".to_owned(),
        VcpuExit::MmioWrite(address, _) | VcpuExit::MmioRead(address, _) => {
            format!("the KVM guest reached for address {address:#x}, where it has no memory")
        }
        other => format!("the KVM guest stopped with {other:?}"),
    }
}
