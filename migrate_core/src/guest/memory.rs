//! Guest memory: RAM blocks under one page numbering, read and written while it changes.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::block::{BlockSpec, RamBlock, PAGE};
use super::first_writes::FirstWrites;
use crate::bitmap::{DirtyBitmap, Run};
use crate::error::{Error, Result};

/// Least and greatest size of a guest: 1 MiB, and what the machine has.
const LEAST_BYTES: u64 = 1 << 20;

/// A guest's RAM blocks, in order. Pages are numbered through all blocks: page 0 is the first of the
/// first block, and each block's pages follow those of the one before.
#[derive(Debug)]
pub struct GuestMemory {
    blocks: Vec<RamBlock>,
    pages: u64,
    write_log: OnceLock<DirtyBitmap>,
    first_writes: FirstWrites,
    /// VMs whose vCPUs write here: a VM keeps its memory, and not the other way round.
    #[cfg(all(feature = "kvm", target_arch = "x86_64"))]
    vms: std::sync::Mutex<Vec<std::sync::Weak<super::kvm::Vm>>>,
}

/// The blocks' names and sizes, as two sides of a migration must agree on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The blocks in order.
    pub blocks: Vec<BlockSpec>,
}

impl Layout {
    /// One block called `ram` of anonymous 4 KiB pages.
    pub fn single(bytes: u64) -> Self {
        Self { blocks: vec![BlockSpec::new("ram", bytes)] }
    }

    /// Bytes of all blocks, or a usage error where the sum overflows.
    pub fn bytes(&self) -> Result<u64> {
        let sum = self.blocks.iter().try_fold(0u64, |sum, block| sum.checked_add(block.bytes));
        sum.ok_or_else(|| Error::usage("the RAM blocks' sizes add up to more than 2^64 bytes"))
    }

    fn validate(&self) -> Result<()> {
        let bytes = self.bytes()?;
        let machine = machine_bytes()?;
        if bytes < LEAST_BYTES {
            return Err(Error::usage(format!(
                "guest memory of {bytes} bytes is too small; it needs 1 MiB or more"
            )));
        }
        if bytes > machine {
            return Err(Error::usage(format!(
                "guest memory of {bytes} bytes is more than this machine has ({machine} bytes)"
            )));
        }
        for (i, block) in self.blocks.iter().enumerate() {
            if self.blocks[..i].iter().any(|other| other.name == block.name) {
                return Err(Error::usage(format!("two RAM blocks are called `{}`", block.name)));
            }
        }
        Ok(())
    }
}

/// Physical memory of this machine in bytes.
pub fn machine_bytes() -> Result<u64> {
    // SAFETY: sysconf reads no memory of ours.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    match (u64::try_from(pages), u64::try_from(size)) {
        (Ok(pages), Ok(size)) => Ok(pages * size),
        _ => Err(Error::last_os("asking how much memory the machine has")),
    }
}

impl GuestMemory {
    /// Maps the blocks of `layout`. Sizes under 1 MiB, above what the machine has, or equal names are
    /// usage errors.
    pub fn new(layout: &Layout) -> Result<Self> {
        layout.validate()?;
        let mut pages = 0;
        let mut blocks = Vec::with_capacity(layout.blocks.len());
        for spec in &layout.blocks {
            let block = RamBlock::map(spec.clone(), pages)?;
            pages += block.pages();
            blocks.push(block);
        }
        Ok(Self {
            blocks,
            pages,
            write_log: OnceLock::new(),
            first_writes: FirstWrites::default(),
            #[cfg(all(feature = "kvm", target_arch = "x86_64"))]
            vms: std::sync::Mutex::default(),
        })
    }

    /// The RAM blocks in order.
    pub fn blocks(&self) -> &[RamBlock] {
        &self.blocks
    }

    /// Names and sizes.
    pub fn layout(&self) -> Layout {
        Layout { blocks: self.blocks.iter().map(|block| block.spec().clone()).collect() }
    }

    /// Pages of all blocks.
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// Bytes of all blocks.
    pub fn bytes(&self) -> u64 {
        self.pages * PAGE as u64
    }

    /// Makes all pages present; see [`RamBlock::populate`].
    pub fn populate(&self) -> Result<()> {
        self.blocks.iter().try_for_each(RamBlock::populate)
    }

    /// Cuts a range of guest pages where blocks meet: `(block, pages within the block)`.
    pub fn split(&self, pages: Range<u64>) -> impl Iterator<Item = (&RamBlock, Range<u64>)> {
        self.blocks.iter().filter_map(move |block| {
            let (first, end) = (block.first_page(), block.first_page() + block.pages());
            let (from, to) = (pages.start.max(first), pages.end.min(end));
            (from < to).then(|| (block, from - first..to - first))
        })
    }

    /// Where the bytes of `pages` are, in order; blocks need not be neighbours in memory.
    pub(super) fn spans(&self, run: Run) -> impl Iterator<Item = (*mut u8, usize)> + '_ {
        self.split(run.range()).map(|(block, pages)| {
            let (offset, len) = (pages.start as usize * PAGE, (pages.end - pages.start) as usize * PAGE);
            // SAFETY: split() yields ranges inside the block, so the address stays inside its mapping.
            (unsafe { block.as_ptr().add(offset) }, len)
        })
    }

    /// Address of `page`. Panics past the end: page numbers come from bitmaps of this guest's size.
    fn page_ptr(&self, page: u64) -> *mut u8 {
        assert!(page < self.pages, "page {page} of {}", self.pages);
        let index = self.blocks.partition_point(|block| block.first_page() <= page) - 1;
        let block = &self.blocks[index];
        // SAFETY: the block holds the page, by the search above.
        unsafe { block.as_ptr().add((page - block.first_page()) as usize * PAGE) }
    }

    /// Copies `page` out. A guest that writes meanwhile may leave a mix of old and new bytes.
    pub fn read_page(&self, page: u64, into: &mut [u8; PAGE]) {
        // SAFETY: source and target are PAGE bytes and do not overlap; bytes have no invalid values.
        unsafe { std::ptr::copy_nonoverlapping(self.page_ptr(page), into.as_mut_ptr(), PAGE) };
    }

    /// Writes the whole of `page`, without the software log (the destination's side of a transfer).
    pub fn place_page(&self, page: u64, bytes: &[u8; PAGE]) {
        // SAFETY: as in read_page.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.page_ptr(page), PAGE) };
    }

    /// Makes `page` zero, leaving it untouched (and unpopulated) where it is zero as it stands.
    pub fn place_zero(&self, page: u64) {
        if !self.is_zero(page) {
            // SAFETY: the page is PAGE bytes long.
            unsafe { std::ptr::write_bytes(self.page_ptr(page), 0, PAGE) };
        }
    }

    /// Whether all bytes of `page` are zero.
    pub fn is_zero(&self, page: u64) -> bool {
        self.with_page(page, crate::codec::is_zero)
    }

    /// XXH3-64 of `page`. If the guest writes meanwhile it is the hash of some mix of old and new.
    pub fn hash_page(&self, page: u64) -> u64 {
        self.with_page(page, |bytes| xxh3_64(bytes))
    }

    /// XXH3-128 of `page`.
    pub fn hash_page_128(&self, page: u64) -> u128 {
        self.with_page(page, |bytes| xxhash_rust::xxh3::xxh3_128(bytes))
    }

    fn with_page<T>(&self, page: u64, read: impl FnOnce(&[u8; PAGE]) -> T) -> T {
        // SAFETY: PAGE readable bytes that live as long as self. Guest threads may write them during the
        // call, as another CPU would under a hypervisor: readers here fold over bytes, branch on nothing
        // they read twice, and every page written meanwhile is dirty and will be read again.
        read(unsafe { &*self.page_ptr(page).cast::<[u8; PAGE]>() })
    }

    /// Copies bytes out, from `offset` counted through all blocks.
    pub fn read(&self, offset: u64, into: &mut [u8]) {
        self.copy(offset, into.len(), |at, done, len| {
            // SAFETY: copy() yields spans inside a block and inside `into`; they do not overlap.
            unsafe { std::ptr::copy_nonoverlapping(at, into.as_mut_ptr().add(done), len) };
        });
    }

    /// A guest's write: copies bytes in at `offset` counted through all blocks, then marks the pages in
    /// the software log if there is one. The mark comes after the write: marked first, a harvest in
    /// between would send the old bytes and forget the page.
    pub fn write(&self, offset: u64, bytes: &[u8]) {
        self.copy(offset, bytes.len(), |at, done, len| {
            // SAFETY: as in read().
            unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr().add(done), at, len) };
        });
        if !bytes.is_empty() {
            let page = PAGE as u64;
            self.mark(offset / page..(offset + bytes.len() as u64 - 1) / page + 1);
        }
    }

    /// Marks pages in the software log, if there is one, and counts first writes if asked, for a writer that
    /// goes round [`GuestMemory::write`]. Call it after the write.
    pub fn mark(&self, pages: Range<u64>) {
        self.first_writes.written(pages.clone());
        if let Some(log) = self.write_log.get() {
            log.set_range(pages);
        }
    }

    /// Begins to count each vCPU's first writes to pages, all of which count as unwritten, or ends it; see
    /// [`Vcpu::dirtied`](super::Vcpu::dirtied).
    pub fn count_first_writes(&self, wanted: bool) {
        self.first_writes.want(wanted, self.pages);
    }

    /// Takes note of a harvest: the next write to one of `pages` is a first one.
    pub fn harvested(&self, pages: Range<u64>) {
        self.first_writes.harvested(pages);
    }

    fn copy(&self, offset: u64, len: usize, mut each: impl FnMut(*mut u8, usize, usize)) {
        let end = offset.checked_add(len as u64).filter(|end| *end <= self.bytes());
        assert!(end.is_some(), "{len} bytes at {offset} of {}", self.bytes());
        let (mut at, mut done) = (offset, 0);
        while done < len {
            let within = (at % PAGE as u64) as usize;
            // Up to the block's end in one piece would be faster; pages keep it simple and blocks apart.
            let piece = (PAGE - within).min(len - done);
            // SAFETY: within + piece <= PAGE, inside the page.
            each(unsafe { self.page_ptr(at / PAGE as u64).add(within) }, done, piece);
            at += piece as u64;
            done += piece;
        }
    }

    /// The log that [`GuestMemory::write`] marks, made at the first call: the software tracker's.
    pub fn write_log(&self) -> &DirtyBitmap {
        self.write_log.get_or_init(|| DirtyBitmap::new(self.pages))
    }
}

#[cfg(all(feature = "kvm", target_arch = "x86_64"))]
impl GuestMemory {
    /// The VMs whose vCPUs write here, which only KVM's own log sees.
    pub fn vms(&self) -> Vec<std::sync::Arc<super::kvm::Vm>> {
        self.lock_vms().iter().filter_map(std::sync::Weak::upgrade).collect()
    }

    /// Makes `vm`, which runs on this memory, known to trackers. Refused if it shares pages with another:
    /// one that was armed before would not see its writes.
    pub(super) fn attach_vm(&self, vm: &std::sync::Arc<super::kvm::Vm>) -> Result<()> {
        let mut vms = self.lock_vms();
        vms.retain(|other| other.strong_count() > 0);
        let (first, end) = (vm.pages().start, vm.pages().end);
        let shared = |other: &super::kvm::Vm| other.pages().start < end && first < other.pages().end;
        if vms.iter().filter_map(std::sync::Weak::upgrade).any(|other| shared(&other)) {
            return Err(Error::usage(format!("pages {first} to {end} belong to another VM already")));
        }
        vms.push(std::sync::Arc::downgrade(vm));
        Ok(())
    }

    fn lock_vms(&self) -> std::sync::MutexGuard<'_, Vec<std::sync::Weak<super::kvm::Vm>>> {
        // Nothing panics while it is held.
        self.vms.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_blocks() -> GuestMemory {
        let blocks = vec![BlockSpec::new("low", 3 << 19), BlockSpec::new("high", 1 << 20)];
        GuestMemory::new(&Layout { blocks }).unwrap()
    }

    #[test]
    fn pages_are_numbered_through_the_blocks() {
        let memory = two_blocks();
        assert_eq!(memory.pages(), 384 + 256);
        let cut: Vec<_> = memory.split(380..390).map(|(b, r)| (b.name().to_owned(), r)).collect();
        assert_eq!(cut, [("low".to_owned(), 380..384), ("high".to_owned(), 0..6)]);
    }

    #[test]
    fn writes_cross_blocks_and_are_read_back() {
        let memory = two_blocks();
        let offset = 384 * PAGE as u64 - 10;
        memory.write(offset, &[7; 5000]);
        let mut back = [0; 5000];
        memory.read(offset, &mut back);
        assert_eq!(back, [7; 5000]);
        assert!(!memory.is_zero(383) && !memory.is_zero(384) && !memory.is_zero(385) && memory.is_zero(386));
    }

    #[test]
    fn the_software_log_is_marked_by_writes_once_asked_for() {
        let memory = two_blocks();
        memory.write(0, &[1]);
        assert_eq!(memory.write_log().count(), 0);
        memory.write(PAGE as u64 - 1, &[1, 1]);
        memory.write(9, &[]);
        assert_eq!(
            (memory.write_log().is_set(0), memory.write_log().is_set(1), memory.write_log().count()),
            (true, true, 2)
        );
    }

    #[test]
    fn zero_detection_sees_every_byte() {
        let memory = two_blocks();
        for at in [0, 63, 64, 2047, 4095] {
            memory.write(5 * PAGE as u64 + at, &[1]);
            assert!(!memory.is_zero(5), "byte {at}");
            memory.place_zero(5);
            assert!(memory.is_zero(5));
        }
    }

    #[test]
    fn absurd_sizes_are_refused_with_the_reason() {
        let refuse = |bytes| GuestMemory::new(&Layout::single(bytes)).unwrap_err().to_string();
        assert!(refuse(0).contains("too small"));
        assert!(refuse((1 << 20) + 1).contains("multiple of 4096"));
        assert!(refuse(1 << 60).contains("more than this machine has"));
        let twice = Layout { blocks: vec![BlockSpec::new("a", 1 << 20), BlockSpec::new("a", 1 << 20)] };
        assert!(GuestMemory::new(&twice).unwrap_err().to_string().contains("two RAM blocks"));
    }

    #[test]
    fn memfd_blocks_are_ordinary_memory() {
        let spec =
            BlockSpec { backing: super::super::block::Backing::Memfd, ..BlockSpec::new("ram", 1 << 20) };
        let memory = GuestMemory::new(&Layout { blocks: vec![spec] }).unwrap();
        memory.populate().unwrap();
        memory.write(77, b"hello");
        let mut back = [0; 5];
        memory.read(77, &mut back);
        assert_eq!(&back, b"hello");
        assert!(memory.blocks()[0].fd().is_some());
    }
}
