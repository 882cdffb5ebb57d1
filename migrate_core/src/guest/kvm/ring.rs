//! The dirty ring: page numbers that the kernel pushes for a vCPU and that are collected here, while the
//! vCPU runs. See `virt/kvm/api.rst` of the kernel, section 8.29.
#![allow(unsafe_code)]

use std::os::fd::AsRawFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use kvm_bindings::{kvm_dirty_gfn, KVM_DIRTY_LOG_PAGE_OFFSET};
use kvm_ioctls::VcpuFd;

use crate::error::{Error, Result};
use crate::guest::PAGE;

/// The kernel pushed the entry.
const DIRTY: u32 = 1 << 0;
/// We have taken it, and the kernel may protect its page again.
const RESET: u32 = 1 << 1;

/// `struct kvm_dirty_gfn`.
#[repr(C)]
#[derive(Debug, Default)]
struct Gfn {
    flags: AtomicU32,
    slot: AtomicU32,
    offset: AtomicU64,
}

const _: () = assert!(size_of::<Gfn>() == size_of::<kvm_dirty_gfn>());

/// Takes the entries that are there, in the order in which they were pushed, from index `next` on.
fn collect(ring: &[Gfn], next: &mut usize, mut each: impl FnMut(u32, u64)) -> u64 {
    let mut taken = 0;
    while let Some(entry) = ring.get(*next) {
        // Pairs with the kernel's release of the flag: slot and offset are there once it is set.
        if entry.flags.load(Ordering::Acquire) != DIRTY {
            break;
        }
        each(entry.slot.load(Ordering::Relaxed), entry.offset.load(Ordering::Relaxed));
        // Pairs with the kernel's acquire: it may overwrite the entry from here on.
        entry.flags.store(RESET, Ordering::Release);
        *next = (*next + 1) % ring.len();
        taken += 1;
    }
    taken
}

/// A vCPU's ring, mapped.
#[derive(Debug)]
pub(super) struct Ring {
    base: NonNull<Gfn>,
    entries: usize,
    next: usize,
}

// SAFETY: the mapping is owned and stays until drop; its entries are atomics.
unsafe impl Send for Ring {}

impl Ring {
    /// Maps the ring of `vcpu`, whose VM was given rings of `entries` entries.
    pub(super) fn map(vcpu: &VcpuFd, entries: u32) -> Result<Self> {
        let entries = entries as usize;
        let (len, at) = (entries * size_of::<Gfn>(), i64::from(KVM_DIRTY_LOG_PAGE_OFFSET) * PAGE as i64);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, vcpu.as_raw_fd(), at)
        };
        if base == libc::MAP_FAILED {
            return Err(Error::last_os(format!("mapping a KVM dirty ring of {entries} entries")));
        }
        let null = || Error::usage("the kernel mapped a dirty ring at address 0");
        Ok(Self { base: NonNull::new(base.cast()).ok_or_else(null)?, entries, next: 0 })
    }

    /// Takes what is there: `each` gets slot and page within the slot. Returns how many. Their pages are
    /// not protected again before the VM's rings are reset.
    pub(super) fn collect(&mut self, each: impl FnMut(u32, u64)) -> u64 {
        // SAFETY: the mapping holds that many entries, of atomics, and lives as long as self.
        let ring = unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.entries) };
        collect(ring, &mut self.next, each)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: base and length are those of our mmap.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.entries * size_of::<Gfn>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The kernel's side: pushes while there is room, and takes back what was marked.
    struct Kernel<'a> {
        ring: &'a [Gfn],
        pushed: usize,
        reset: usize,
    }

    impl Kernel<'_> {
        fn push(&mut self, slot: u32, offset: u64) -> bool {
            if self.pushed - self.reset == self.ring.len() {
                return false;
            }
            let entry = &self.ring[self.pushed % self.ring.len()];
            entry.slot.store(slot, Ordering::Relaxed);
            entry.offset.store(offset, Ordering::Relaxed);
            entry.flags.store(DIRTY, Ordering::Release);
            self.pushed += 1;
            true
        }

        fn reset(&mut self) {
            while self.reset < self.pushed {
                let entry = &self.ring[self.reset % self.ring.len()];
                if entry.flags.load(Ordering::Acquire) & RESET == 0 {
                    return;
                }
                entry.flags.store(0, Ordering::Release);
                self.reset += 1;
            }
        }
    }

    fn ring(entries: usize) -> Vec<Gfn> {
        (0..entries).map(|_| Gfn::default()).collect()
    }

    #[test]
    fn entries_are_taken_once_and_in_order_round_the_end() {
        let ring = ring(8);
        let (mut kernel, mut next, mut taken) = (Kernel { ring: &ring, pushed: 0, reset: 0 }, 0, Vec::new());
        for round in 0..5u64 {
            (0..6).for_each(|i| assert!(kernel.push(1, round * 6 + i)));
            assert_eq!(collect(&ring, &mut next, |slot, page| taken.push((slot, page))), 6);
            assert_eq!(collect(&ring, &mut next, |_, _| panic!("taken twice")), 0);
            kernel.reset();
        }
        assert_eq!(taken, (0..30).map(|page| (1, page)).collect::<Vec<_>>());
    }

    #[test]
    fn entries_that_were_not_reset_are_not_taken_again_when_the_ring_is_full() {
        let ring = ring(4);
        let (mut kernel, mut next) = (Kernel { ring: &ring, pushed: 0, reset: 0 }, 0);
        (0..4).for_each(|i| assert!(kernel.push(0, i)));
        assert!(!kernel.push(0, 9));
        assert_eq!(collect(&ring, &mut next, |_, _| {}), 4);
        assert_eq!(collect(&ring, &mut next, |_, _| {}), 0);
        assert!(!kernel.push(0, 9));
        kernel.reset();
        assert!(kernel.push(0, 9));
        assert_eq!(collect(&ring, &mut next, |_, _| {}), 1);
    }

    #[test]
    fn nothing_is_lost_while_the_kernel_pushes() {
        const PUSHES: u64 = 20_000;
        let ring = ring(64);
        let (mut next, mut taken) = (0, Vec::new());
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let mut kernel = Kernel { ring: &ring, pushed: 0, reset: 0 };
                for page in 0..PUSHES {
                    while !kernel.push(7, page) {
                        kernel.reset();
                        std::thread::yield_now();
                    }
                }
            });
            while (taken.len() as u64) < PUSHES {
                if collect(&ring, &mut next, |slot, page| taken.push((slot, page))) == 0 {
                    std::thread::yield_now();
                }
            }
        });
        assert!(taken.iter().enumerate().all(|(i, entry)| *entry == (7, i as u64)));
    }
}
